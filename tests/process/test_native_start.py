"""A plan that is not exactly right is refused before anything happens, and leaves no process."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sandyard.plan import Namespaces
from sandyard.platform.host import AUDITED_ABI, host_facts
from sandyard.process.wire import Failure, Started, StartFailed, Step, Unmapped
from tests.process.protocol import (
    BIND,
    BODY_LIMIT,
    DEVPTS,
    DIRECTORY,
    FILE,
    HOSTNAME,
    IDENTITY,
    INLINE_LIMIT,
    KILL,
    LANDLOCK,
    LANDLOCK_RULE,
    LIMIT,
    LOOPBACK,
    MAGIC,
    MAPPED,
    MASK,
    NAMESPACES,
    OUTSIDE,
    PRIVATE,
    PROC,
    READ_ONLY,
    SCRATCH,
    SECCOMP,
    SPAWN,
    START,
    SYMLINK,
    Record,
    encode_datagram,
    join_records,
    packed,
)
from tests.process.raw_init import SEALS, RawInit, make_memfd, memfd_head

Records = list[Record]


def refusal(plan: Records | bytes) -> Failure:
    """What a sandbox says that does not start; then it ends by itself."""
    with RawInit() as init:
        init.start(plan)
        told = init.event()
        assert isinstance(told, StartFailed), told
        assert init.rest() == []
        assert init.wait() == 1
    return told.failure


def assert_malformed(plan: Records | bytes, record: int | None = None) -> None:
    failure = refusal(plan)
    assert (failure.step, failure.error) == (Step.PROTOCOL, errno.EPROTO), failure
    assert failure.text
    assert record is None or failure.record == record


def assert_starts(plan: Records | bytes) -> None:
    with RawInit() as init:
        init.start(plan)
        told = init.event()
        assert isinstance(told, Started), told
        assert told.steps[-1].step is Step.SERVE
        init.channel.close()
        assert init.wait() == 0


# --- whole plans ----------------------------------------------------------------------------------


def without(plan: Records, op: int) -> Records:
    return [record for record in plan if record.op != op]


def twice(plan: Records, op: int) -> Records:
    return [*plan, *(record for record in plan if record.op == op)]


def with_payload(plan: Records, op: int, change: Callable[[bytes], bytes]) -> Records:
    """The plan with another payload in the first record of a kind."""
    at = next(i for i, record in enumerate(plan) if record.op == op)
    return [*plan[:at], replace(plan[at], payload=change(plan[at].payload)), *plan[at + 1 :]]


def patched(plan: Records, op: int, layout: str, at: int, value: int) -> Records:
    """The plan with another number in the first record of a kind."""
    return with_payload(
        plan,
        op,
        lambda old: old[:at] + struct.pack(layout, value) + old[at + struct.calcsize(layout) :],
    )


NO_CORE = packed("limit", 0, 4, 0)

PLANS: dict[str, Callable[[Records], Records | bytes]] = {
    "nothing": lambda plan: b"",
    "no identity": lambda plan: without(plan, IDENTITY),
    "no namespaces": lambda plan: without(plan, NAMESPACES),
    "no scratch": lambda plan: without(plan, SCRATCH),
    "no filter": lambda plan: without(plan, SECCOMP),
    "two identities": lambda plan: twice(plan, IDENTITY),
    "two namespaces": lambda plan: twice(plan, NAMESPACES),
    "two scratches": lambda plan: twice(plan, SCRATCH),
    "two filters": lambda plan: twice(plan, SECCOMP),
    "uid 0 inside": lambda plan: patched(plan, IDENTITY, "=I", 4, 0),
    "uid 0 outside": lambda plan: patched(plan, IDENTITY, "=I", 12, 0),
    "unknown identity": lambda plan: patched(plan, IDENTITY, "=I", 0, 3),
    "clone flag that is no namespace": lambda plan: patched(plan, NAMESPACES, "=I", 0, 0x7E820000),
    "head cut off": lambda plan: join_records(plan) + bytes(7),
    "payload cut off": lambda plan: join_records(plan) + packed("record_head", LIMIT, 0, 16) + bytes(8),
    "payload beyond all": lambda plan: join_records(plan) + packed("record_head", LIMIT, 0, 2**32 - 1),
    "last byte cut off": lambda plan: join_records(plan)[:-1],
    "zero that is not": lambda plan: join_records(plan) + packed("record_head", LOOPBACK, 1, 0),
    "padding forgotten": lambda plan: join_records(plan[:1]) + b"\0" + join_records(plan[1:]),
    "1025 records": lambda plan: plan + [Record(LIMIT, NO_CORE)] * (1025 - len(plan)),
    "100,000 records": lambda plan: plan + [Record(LIMIT, NO_CORE)] * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_malformed_plan_is_refused(records: Records, name: str) -> None:
    assert_malformed(PLANS[name](records))


def test_no_part_of_a_plan_starts(records: Records) -> None:
    whole = join_records(records)
    assert records[-1].op == SECCOMP  # without it nothing starts, wherever the rest is cut
    assert len(records[-1].payload) % 8 == 0
    for size in range(0, len(whole), 101):
        assert_malformed(whole[:size])


@pytest.mark.user  # accepted by mistake, it would rebuild the mounts of root's own machine
@pytest.mark.parametrize("missing", [Namespaces.MOUNT, Namespaces.USER, Namespaces.PID])
def test_indispensable_namespace_is_missed(records: Records, missing: Namespaces) -> None:
    assert_malformed(patched(records, NAMESPACES, "=I", 0, 0x7E020000 & ~missing))


def test_well_formed_plan_starts(records: Records) -> None:
    assert_starts(records)


def test_plan_in_memfd_starts(records: Records) -> None:
    with RawInit() as init:
        host = os.pidfd_open(os.getpid())
        init.send_memfd(START, 0, join_records(records), [host])
        os.close(host)
        assert isinstance(init.event(), Started)


LONGEST = ("/" + "x" * 255) * 15 + "/" + "x" * 254


@pytest.mark.parametrize(
    "record",
    [
        Record(DIRECTORY, packed("node", 0o1777, 0) + b"/" + b"x" * 255 + b"\0"),
        Record(DIRECTORY, packed("node", 0o700, 0) + LONGEST.encode() + b"\0"),
        Record(DIRECTORY, packed("node", 0o700, 0) + b"/.../..a/.a\0"),
        Record(HOSTNAME, b"h" * 64 + b"\0"),
        Record(SYMLINK, b"/link\0" + b"../" * 1365 + b"\0"),
    ],
    ids=["name of 255", "path of 4095", "names with dots", "hostname of 64", "target of 4095"],
)
def test_largest_that_fits_starts(records: Records, record: Record) -> None:
    assert len(LONGEST) == 4095
    assert_starts([record, *without(records, HOSTNAME)])


def test_1024_records_start(records: Records) -> None:
    more = [Record(LIMIT, NO_CORE)] * (1024 - len(records))
    assert_starts([*more, *records])


# --- single records -------------------------------------------------------------------------------

BAD_PATHS = {
    "empty": b"\0",
    "relative": b"a/b\0",
    "with ..": b"/a/../b\0",
    "that is ..": b"/..\0",
    "that ends in ..": b"/a/..\0",
    "with .": b"/a/./b\0",
    "that ends in .": b"/a/.\0",
    "with //": b"/a//b\0",
    "that is //": b"//\0",
    "that ends in /": b"/a/\0",
    "of 4096": b"/ab" + b"/xyz.xyz" * 511 + b"/wxyz\0",
    "with a name of 256": b"/" + b"x" * 256 + b"\0",
    "with a last name of 256": b"/a/" + b"x" * 256 + b"\0",
    "without NUL": b"/a",
    "with more behind it": b"/a\0b\0",
}
NODE = packed("node", 0o755, 0)
BIND_HEAD = packed(
    "bind", 0, 0, 8, 0
)  # optional: were it accepted, a missing source would not show
WITH_PATH: dict[str, Callable[[bytes], Record]] = {
    "directory": lambda path: Record(DIRECTORY, NODE + path),
    "file": lambda path: Record(FILE, NODE + path),
    "link": lambda path: Record(SYMLINK, path + b"target\0"),
    "source": lambda path: Record(BIND, BIND_HEAD + path + b"/t\0"),
    "target": lambda path: Record(BIND, BIND_HEAD + b"/usr\0" + path),
    "private": lambda path: Record(PRIVATE, NODE + path),
    "proc": lambda path: Record(PROC, path),
    "devpts": lambda path: Record(DEVPTS, path),
    "read only": lambda path: Record(READ_ONLY, path),
    "mask": lambda path: Record(MASK, path),
    "rule": lambda path: Record(LANDLOCK_RULE, bytes(24) + path),
}


@pytest.mark.parametrize("kind", WITH_PATH)
def test_bad_path_is_refused(records: Records, kind: str) -> None:
    assert len(BAD_PATHS["of 4096"]) == 4097
    for path in BAD_PATHS.values():
        # The message names the record that is at fault: the second one.
        assert_malformed([records[0], WITH_PATH[kind](path), *records[1:]], record=2)


ARCH_LOAD = struct.pack("=HBBI", 0x20, 0, 0, 4)
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
FILTERS = {
    "of nothing": b"",
    "of half an instruction": ARCH_LOAD[:4],
    "of one and a half": (ARCH_LOAD + ALLOW)[:12],
    "with a byte too many": ARCH_LOAD + ALLOW + b"\0",
    "that loads the number first": struct.pack("=HBBI", 0x20, 0, 0, 0) + ALLOW,
    "that allows all at once": ALLOW,
    "that loads half a word": struct.pack("=HBBI", 0x28, 0, 0, 4) + ALLOW,
    "of 4097 instructions": ARCH_LOAD + ALLOW * 4096,
}


@pytest.mark.parametrize("name", FILTERS)
def test_bad_filter_is_refused(records: Records, name: str) -> None:
    assert_malformed([*without(records, SECCOMP), Record(SECCOMP, FILTERS[name])])


BAD_RECORDS = {
    **{f"kind {op}": Record(op, b"") for op in (0, 7, 9, 19, 24, 2**16 - 1)},
    **{
        f"kind {op} of {size} bytes": Record(op, bytes(size))
        for op, right in ((LIMIT, 16), (LANDLOCK, 24), (LOOPBACK, 0), (OUTSIDE, 0))
        for size in (0, 1, right - 1, right + 1, right + 8)
        if size not in (right, -1)
    },
    **{f"{size} bytes of a rule": Record(LANDLOCK_RULE, bytes(size)) for size in (0, 8, 23, 24)},
    **{f"{size} bytes of a file": Record(FILE, bytes(size)) for size in (0, 7, 8)},
    **{f"{size} bytes of a directory": Record(DIRECTORY, bytes(size)) for size in (0, 7, 8)},
    **{f"{size} bytes of a bind": Record(BIND, bytes(size)) for size in (0, 23, 24)},
    "Landlock with more than a word of the audit": Record(LANDLOCK, packed("landlock", 4, 0, 2, 0)),
    "Landlock with more behind it": Record(LANDLOCK, packed("landlock", 4, 0, 0, 1)),
    "one path of a bind": Record(BIND, BIND_HEAD + b"/usr\0"),
    "hostname of nothing": Record(HOSTNAME, b""),
    "hostname that is empty": Record(HOSTNAME, b"\0"),
    "hostname of 65": Record(HOSTNAME, b"h" * 65 + b"\0"),
    "hostname without NUL": Record(HOSTNAME, b"host"),
    "hostname with NUL": Record(HOSTNAME, b"a\0b\0"),
    "setuid directory": Record(DIRECTORY, packed("node", 0o4755, 0) + b"/a\0"),
    "setgid directory": Record(DIRECTORY, packed("node", 0o2755, 0) + b"/a\0"),
    "setgid private": Record(PRIVATE, packed("node", 0o2755, 0) + b"/a\0"),
    "sticky file": Record(FILE, packed("node", 0o1644, 0) + b"/a\0"),
    "setuid file": Record(FILE, packed("node", 0o4755, 0) + b"/a\0"),
    "file shorter than it says": Record(FILE, packed("node", 0o644, 5) + b"/a\0abcd"),
    "file longer than it says": Record(FILE, packed("node", 0o644, 3) + b"/a\0abcd"),
    "file of 4 GB": Record(FILE, packed("node", 0o644, 2**32 - 1) + b"/a\0abcd"),
    "link to nothing": Record(SYMLINK, b"/a\0\0"),
    "link without a target": Record(SYMLINK, b"/a\0"),
    "link without NUL": Record(SYMLINK, b"/a\0b"),
    "link to 4096": Record(SYMLINK, b"/a\0" + b"x" * 4096 + b"\0"),
    "link with more behind it": Record(SYMLINK, b"/a\0b\0c\0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_record_is_refused(records: Records, name: str) -> None:
    assert_malformed([BAD_RECORDS[name], *records], record=1)


@pytest.mark.parametrize("op", [IDENTITY, NAMESPACES, SCRATCH])
def test_record_of_other_size_is_refused(records: Records, op: int) -> None:
    for change in (lambda old: old[:-1], lambda old: old + b"\0", lambda _: b""):
        assert_malformed(with_payload(records, op, change))


# --- datagrams ------------------------------------------------------------------------------------


def assert_no_start(datagram: bytes, fds: Sequence[int] = (), *, host: bool = True) -> None:
    """A datagram is answered with START_FAILED, or with the end of the channel; then all ends."""
    with ExitStack() as stack, RawInit() as init:
        passed = list(fds)
        if host:
            passed.append(os.pidfd_open(os.getpid()))
            stack.callback(os.close, passed[-1])
        init.send(datagram, passed)
        for told in init.rest():
            assert isinstance(told, StartFailed), told
            assert (told.failure.step, told.failure.error) == (Step.PROTOCOL, errno.EPROTO)
        assert init.wait() == 1


DATAGRAMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda body: b"",
    "one byte": lambda body: b"S",
    "head cut off": lambda body: packed("message", MAGIC, START, 0, 0, 0)[:15],
    "head alone": lambda body: packed("message", MAGIC, START, 0, 0, len(body)),
    "no plan": lambda body: encode_datagram(START, 0),
    "other magic": lambda body: packed("message", MAGIC + 2**24, START, 0, 0, len(body)) + body,
    "other byte order": lambda body: MAGIC.to_bytes(4, "big") + encode_datagram(START, 0, body)[4:],
    "a spawn": lambda body: encode_datagram(SPAWN, 0, body),
    "an event": lambda body: encode_datagram(64, 0, body),
    "unknown kind": lambda body: encode_datagram(0, 0, body),
    "a byte less than it says": lambda body: encode_datagram(START, 0, body)[:-1],
    "a byte more than it says": lambda body: encode_datagram(START, 0, body) + b"\0",
    "oversized": lambda body: encode_datagram(START, 0, body + bytes(INLINE_LIMIT)),
    "memfd that is a pidfd": lambda body: encode_datagram(START, 0, flags=1),
}  # fmt: skip


@pytest.mark.parametrize("name", DATAGRAMS)
def test_malformed_datagram_is_refused(records: Records, name: str) -> None:
    assert_no_start(DATAGRAMS[name](join_records(records)))


def test_plan_needs_a_host(records: Records) -> None:
    body = join_records(records)
    assert_no_start(encode_datagram(START, 0, body), host=False)
    memfd = make_memfd(body)
    assert_no_start(memfd_head(START, 0, len(body)), [memfd], host=False)
    os.close(memfd)
    assert_no_start(memfd_head(START, 0, len(body)), host=False)


@pytest.mark.parametrize("more", [5, 6, 200])
def test_too_many_descriptors_are_refused(records: Records, more: int) -> None:
    with open(os.devnull, "rb") as null:
        assert_no_start(encode_datagram(START, 0, join_records(records)), [null.fileno()] * more)


def make_file(content: bytes) -> int:
    """An ordinary file, which nothing can seal."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.dup(file.fileno())


def large_plan(body: bytes, size: int) -> bytes:
    """A plan of so many bytes, most of which are a file's."""
    content = size - len(body) - 32
    record = Record(FILE, packed("node", 0o644, content) + b"/large.file.123\0" + bytes(content))
    whole = join_records([record]) + body
    assert len(whole) == size
    return whole


def test_largest_plan_starts(records: Records) -> None:
    assert_starts(large_plan(join_records(records), BODY_LIMIT))


def test_body_in_two_places_is_refused(records: Records) -> None:
    body = join_records(records)
    memfd = make_memfd(body)
    assert_no_start(memfd_head(START, 0, len(body)) + body, [memfd])
    os.close(memfd)


BODIES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "without seals": lambda body: (make_memfd(body, 0), len(body)),
    "that can shrink": lambda body: (make_memfd(body, SEALS & ~2), len(body)),
    "that can grow": lambda body: (make_memfd(body, SEALS & ~4), len(body)),
    "that can be written": lambda body: (make_memfd(body, SEALS & ~8), len(body)),
    "shorter than it says": lambda body: (make_memfd(body[:-1]), len(body)),
    "longer than it says": lambda body: (make_memfd(body + b"\0"), len(body)),
    "of nothing": lambda body: (make_memfd(b""), 0),
    "that is empty": lambda body: (make_memfd(b""), len(body)),
    "above the limit": lambda body: (make_memfd(large_plan(body, BODY_LIMIT + 8)), BODY_LIMIT + 8),
    "in a file": lambda body: (make_file(body), len(body)),
    "in a device": lambda body: (os.open("/dev/zero", os.O_RDONLY), len(body)),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_bad_memfd_is_refused(records: Records, name: str) -> None:
    memfd, size = BODIES[name](join_records(records))
    try:
        assert_no_start(memfd_head(START, 0, size), [memfd])
    finally:
        os.close(memfd)


def test_host_that_says_nothing(records: Records) -> None:
    with RawInit() as init:
        init.channel.close()
        assert init.wait() == 1


# --- what the kernel refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Record(LIMIT, packed("limit", 1, 99, 0)), (Step.LIMITS, errno.EINVAL, "setrlimit")),
        (
            Record(BIND, packed("bind", 0, 0, 0, 0) + b"/nowhere/at all\0/t\0"),
            (Step.SOURCE, errno.ENOENT, "/nowhere/at all"),
        ),
        (
            Record(BIND, packed("bind", 1, 1, 16, 0) + b"/usr\0/t\0"),
            (Step.SOURCE, errno.ESTALE, "/usr"),
        ),
        (Record(LANDLOCK_RULE, bytes(24) + b"/\0"), (Step.LANDLOCK, errno.EINVAL, "a rule before its ruleset")),
        (Record(FILE, NODE + b"/proc/new\0"), (Step.MOUNT, errno.EROFS, "/proc/new")),
    ],
)  # fmt: skip
def test_refusal_of_the_kernel_is_told(
    records: Records, record: Record, expected: tuple[Step, int, str]
) -> None:
    plan = [record, *records] if record.op == LANDLOCK_RULE else [*records, record]
    failure = refusal(plan)
    assert (failure.step, failure.error, failure.text) == expected
    assert failure.record == plan.index(record)


def test_word_of_the_audit_reaches_the_kernel(records: Records) -> None:
    """Landlock that can't tell the audit ends the start: a plan that asks for it is held or refused."""
    plan = patched(records, LANDLOCK, "=I", 16, 1)
    if host_facts(os.environ).landlock_abi >= AUDITED_ABI:
        assert_starts(plan)
        return
    failure = refusal(plan)
    assert (failure.step, failure.error) == (Step.LANDLOCK, errno.EINVAL)


def test_filter_with_wild_jump_is_refused(records: Records) -> None:
    wild = ARCH_LOAD + struct.pack("=HBBI", 0x15, 200, 200, 0) + ALLOW
    failure = refusal([*without(records, SECCOMP), Record(SECCOMP, wild)])
    assert (failure.step, failure.error) == (Step.SECCOMP, errno.EINVAL)


@pytest.mark.user
@pytest.mark.parametrize("word", [KILL, MAPPED, None], ids=["another", "a lie", "none"])
def test_users_wait_for_their_maps(records: Records, word: int | None) -> None:
    several = records
    for offset, value in ((0, 2), (20, 1), (24, 9)):
        several = patched(several, IDENTITY, "=I", offset, value)
    with RawInit() as init:
        init.start(several)
        asked = init.event()
        assert isinstance(asked, Unmapped)
        assert Path(f"/proc/{asked.pid}/uid_map").read_text() == ""
        if word is not None:
            init.send(encode_datagram(word, 0))
            assert isinstance(init.event(), StartFailed)
            assert init.wait() != 0
