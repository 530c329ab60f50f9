"""What a started sandbox makes of requests that are malformed: it refuses, or it ends, at once."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandyard.process.wire import (
    Exited,
    Failure,
    Gone,
    Spawned,
    SpawnFailed,
    Started,
    Step,
)
from tests.house.leaks import list_children, read_proc
from tests.process.protocol import (
    INLINE_LIMIT,
    KILL,
    LANDLOCK,
    LANDLOCK_RULE,
    LIMIT,
    MAGIC,
    OUTPUT,
    SECCOMP,
    SIGNAL,
    SPAWN,
    START,
    Record,
    encode_datagram,
    join_records,
    packed,
)
from tests.process.raw_init import (
    SEALS,
    RawInit,
    make_memfd,
    memfd_head,
    spawn_body,
    wait_until,
)
from tests.session.host import find_survivors, make_token

JOB, OTHER = 7, 2**32 - 1


def assert_serves(init: RawInit) -> None:
    """An ordinary command still runs."""
    init.spawn(OTHER, b"sh", b"-c", b"exit 3")
    told = init.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.left) == (OTHER, 3 << 8, 0)


def assert_killed(init: RawInit, job: int) -> None:
    """A command that runs is ended, by SIGKILL, on request."""
    init.send_body(KILL, job, packed("kill_body", 0, 0))
    told = init.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.killed) == (job, signal.SIGKILL, True)


def sleep_on(init: RawInit, job: int = JOB) -> str:
    """Starts a command that stays; returns the token in its command line."""
    token = make_token()
    init.spawn(job, b"sleep", token.encode(), flags=1)
    told = init.event()
    assert isinstance(told, Spawned), told
    assert told.job == job
    return token


# --- commands -------------------------------------------------------------------------------------


def spawned(
    argc: int = 1,
    envc: int = 0,
    mask: int = 0,
    flags: int = 0,
    strings: bytes = b"/\0true\0",
    window: tuple[int, int] = (0, 0),
) -> bytes:
    """The body of a SPAWN; unless something is said, a right one."""
    return packed("spawn_head", argc, envc, mask, flags, *window) + strings


MOST = 2**32 - 1
BAD_SPAWNS: dict[str, bytes] = {
    "nothing": b"",
    "head cut off": spawned()[:19],
    "no strings": spawned(strings=b""),
    "no words": spawned(argc=0, strings=b"/\0"),
    "words that are not counted": spawned(argc=0),
    "a word too few": spawned(argc=2),
    "a word too many": spawned(strings=b"/\0true\0more\0"),
    "most words": spawned(argc=MOST),
    "as many words as bytes": spawned(argc=23),
    "a variable too few": spawned(envc=1),
    "a variable too many": spawned(strings=b"/\0true\0A=1\0"),
    "most variables": spawned(envc=MOST),
    "counts whose sum wraps to 1": spawned(argc=2**31 + 1, envc=2**31),
    "counts whose sum wraps to 0": spawned(argc=MOST, envc=1),
    "as many variables as bytes": spawned(argc=1, envc=22),
    "more words than the ordinary room": spawned(argc=5000, strings=b"/\0" + b"x\0" * 4999),
    "NUL missing": spawned(strings=b"/\0true"),
    "NUL of the directory missing": spawned(argc=1, strings=b"/true"),
    "trailing NUL": spawned(strings=b"/\0true\0\0"),
    "trailing bytes": spawned(strings=b"/\0true\0more"),
    "relative directory": spawned(strings=b"tmp\0true\0"),
    "empty directory": spawned(strings=b"\0true\0"),
    "fourth descriptor": spawned(mask=8),
    "all descriptors": spawned(mask=MOST),
    "unknown flag": spawned(flags=8),
    "terminal without a size": spawned(flags=4),
    "terminal without rows": spawned(flags=4, window=(0, 80)),
    "terminal without columns": spawned(flags=4, window=(24, 0)),
    "terminal and a descriptor": spawned(mask=1, flags=4, window=(24, 80)),
    "captured, and a pipe": spawned(mask=2, flags=16),
    "captured, and a terminal": spawned(flags=20, window=(24, 80)),
    "size without a terminal": spawned(window=(24, 80)),
    "rows without a terminal": spawned(window=(24, 0)),
    "large and cut off": spawned(argc=2, strings=b"/\0" + b"x" * INLINE_LIMIT + b"\0"),
    "large and too long": spawned(strings=b"/\0" + b"x" * INLINE_LIMIT + b"\0\0"),
    "large with most words": spawned(argc=MOST, envc=MOST, strings=bytes(INLINE_LIMIT)),
}


LIMIT_RECORD = Record(LIMIT, packed("limit", 64, 7, 0))
RULESET, RULE = (
    Record(LANDLOCK, packed("landlock", 2, 0, 0, 0)),
    Record(LANDLOCK_RULE, bytes(24) + b"/\0"),
)
FILTER = Record(
    SECCOMP, struct.pack("=HBBI", 0x20, 0, 0, 4) + struct.pack("=HBBI", 6, 0, 0, 2**31 - 2**16)
)


def narrowed(*records: Record, padding: bytes = bytes(5), flags: int = 8) -> bytes:
    """The body of a SPAWN that narrows; unless something is said, it is padded as it must be."""
    return spawned(flags=flags) + padding + join_records(records)


BAD_SPAWNS |= {
    "nothing to narrow": narrowed(),
    "nothing, unpadded": narrowed(padding=b""),
    "padding that is not zero": narrowed(LIMIT_RECORD, padding=bytes(4) + b"1"),
    "padding missing": narrowed(LIMIT_RECORD, padding=b""),
    "padding too long": narrowed(LIMIT_RECORD, padding=bytes(13)),
    "narrowing without its flag": narrowed(LIMIT_RECORD, flags=0),
    "narrowing cut off": narrowed(LIMIT_RECORD)[:-1],
    "narrowing with more": narrowed(LIMIT_RECORD) + b"\0",
    "a rule first": narrowed(RULE, RULESET),
    "two rulesets": narrowed(RULESET, RULESET),
    "two filters": narrowed(FILTER, FILTER),
    "a filter for any processor": narrowed(Record(SECCOMP, FILTER.payload[8:])),
    "a relative rule": narrowed(RULESET, Record(LANDLOCK_RULE, bytes(24) + b"tmp\0")),
    "a rule of one inode": narrowed(
        RULESET, Record(LANDLOCK_RULE, packed("rule", 1, 0, 7) + b"/\0")
    ),
    "a rule of one device": narrowed(
        RULESET, Record(LANDLOCK_RULE, packed("rule", 1, 7, 0) + b"/\0")
    ),
    "a rule with dots": narrowed(RULESET, Record(LANDLOCK_RULE, bytes(24) + b"/tmp/../etc\0")),
    "a limit with more": narrowed(Record(LIMIT, packed("limit", 64, 7, 1))),
    **{
        f"record {op} of a plan": narrowed(LIMIT_RECORD, Record(op, payload))
        for op, payload in {
            1: bytes(24),
            4: b"",
            10: packed("node", 0o755, 0) + b"/x\0",
            13: packed("bind", 0, 0, 0, 0) + b"/x\0/x\0",
            24: packed("device", 1, 1) + b"/dev/mem\0",
            99: b"",
        }.items()
    },
}


def assert_refused(init: RawInit, job: int = JOB) -> None:
    told = init.event()
    assert isinstance(told, SpawnFailed), told
    assert told == SpawnFailed(job, Failure(Step.PROTOCOL, None, errno.EPROTO, ""))


@pytest.mark.parametrize("name", BAD_SPAWNS)
def test_malformed_command_is_refused(started: RawInit, name: str) -> None:
    started.send_body(SPAWN, JOB, BAD_SPAWNS[name])
    assert_refused(started)
    assert_serves(started)


def test_malformed_command_in_memfd_is_refused(started: RawInit) -> None:
    for body in BAD_SPAWNS.values():
        if body:
            started.send_memfd(SPAWN, JOB, body)
            assert_refused(started)
    assert_serves(started)


@pytest.mark.parametrize(
    ("mask", "passed"),
    [(0, 1), (1, 0), (1, 2), (7, 2), (7, 4), (6, 0), (0, 4), (2, 3), (8, 1), (15, 4), (2**31, 1)],
)
@pytest.mark.parametrize("in_memfd", [False, True])
def test_wrong_number_of_descriptors(
    started: RawInit, mask: int, passed: int, in_memfd: bool
) -> None:
    body = spawned(mask=mask)
    with open(os.devnull, "rb") as null:
        fds = [null.fileno()] * passed
        if in_memfd:
            started.send_memfd(SPAWN, JOB, body, fds)
        else:
            started.send_body(SPAWN, JOB, body, fds)
    assert_refused(started)
    assert_serves(started)


def test_many_refusals_use_nothing_up(started: RawInit) -> None:
    # More than the keepers that there may be, and than the descriptors of a keeper.
    with open(os.devnull, "rb") as null:
        for job in range(1, 3000):
            started.send_memfd(SPAWN, job, spawned(mask=8), [null.fileno()] * 3)
            assert_refused(started, job)
    assert_serves(started)


def test_large_refusals_use_no_memory(started: RawInit) -> None:
    body = spawned(argc=400_001, strings=b"/\0" + b"x\0" * 400_000)
    sizes = []
    for job in range(1, 60):
        started.send_memfd(SPAWN, job, body)
        assert_refused(started, job)
        sizes.append(mapped_kib(started.pid))
    assert max(sizes) < sizes[0] + 30_000  # a few keepers may work at once; 58 bodies are 45 MiB


def mapped_kib(outer: int) -> int:
    """What a sandbox's own processes have mapped, all together."""
    pids, total = [outer], 0
    while pids:
        pid = pids.pop()
        pids += list_children(pid)
        found = re.search(r"^VmSize:\s*(\d+)", read_proc(f"/proc/{pid}/status"), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


@pytest.mark.parametrize(
    "body",
    [
        spawn_body([b"true"], cwd=b"/tmp"),
        spawn_body([b"true", *[b""] * 3000], environment=[b"A=1"] * 3000),
        spawn_body([b"true", b"x" * 100_000]),
        spawn_body([b"true"], environment=[b"no equals sign", b"", b"PATH=/usr/bin:/bin"]),
    ],
    ids=["plain", "many words", "long word", "odd variables"],
)
def test_well_formed_command_runs(started: RawInit, body: bytes) -> None:
    for send in (started.send_body, started.send_memfd):
        send(SPAWN, JOB, body)
        told = started.event()
        assert isinstance(told, Exited), told
        assert (told.job, told.status) == (JOB, 0)


def test_narrowed_command_runs(started: RawInit) -> None:
    body = narrowed(
        RULESET,
        Record(LANDLOCK_RULE, packed("rule", 2, 0, 0) + b"/dev\0"),
        LIMIT_RECORD,
        FILTER,
    )
    started.send_body(SPAWN, JOB, body)
    told = started.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status) == (JOB, 0)
    assert_serves(started)


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (Record(LIMIT, packed("limit", 1, 999, 0)), errno.EINVAL),
        (Record(LANDLOCK, packed("landlock", 2**63, 0, 0, 0)), errno.EINVAL),
        (Record(SECCOMP, FILTER.payload[:8]), errno.EINVAL),
    ],
    ids=["limit", "ruleset", "filter"],
)
def test_narrowing_that_fails(started: RawInit, record: Record, error: int) -> None:
    started.send_body(SPAWN, JOB, narrowed(record))
    told = Failure(Step.SPAWN_NARROW, None, error, "")
    assert started.event() == SpawnFailed(JOB, told)
    assert_serves(started)


@pytest.mark.parametrize(
    ("argv", "cwd", "step", "error"),
    [
        (b"true", b"/nowhere", Step.SPAWN_CWD, errno.ENOENT),
        (b"true", b"/etc/passwd", Step.SPAWN_CWD, errno.ENOTDIR),
        (b"/nowhere", b"/", Step.SPAWN_EXEC, errno.ENOENT),
        (b"", b"/", Step.SPAWN_EXEC, errno.ENOENT),
        (b"/etc/passwd", b"/", Step.SPAWN_EXEC, errno.EACCES),
        (b"x" * 8000, b"/", Step.SPAWN_EXEC, errno.ENOENT),
        (b"/" + b"x" * 8000, b"/", Step.SPAWN_EXEC, errno.ENAMETOOLONG),
    ],
)
def test_command_that_is_not_born(
    started: RawInit, argv: bytes, cwd: bytes, step: Step, error: int
) -> None:
    started.send_body(SPAWN, JOB, spawn_body([argv], cwd=cwd))
    assert started.event() == SpawnFailed(JOB, Failure(step, None, error, ""))
    assert_serves(started)


mutants = st.tuples(
    st.sampled_from(
        [
            (SPAWN, spawned()),
            (SPAWN, spawned(argc=2, envc=1, flags=3, strings=b"/tmp\0true\0x\0A=1\0")),
            (SIGNAL, packed("signal_body", 15, 1)),
            (KILL, packed("kill_body", 1, 0)),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3),
    st.binary(max_size=3),
    st.booleans(),
)
Mutant = tuple[tuple[int, bytes], list[tuple[int, int]], bytes, bool]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutants, min_size=1, max_size=12))
def test_any_bodies_leave_it_serving(started: RawInit, said: list[Mutant]) -> None:
    for job, ((kind, right), changes, more, in_memfd) in enumerate(said, 1):
        body = bytearray(right)
        for at, value in changes:
            body[at % len(body)] = value
        (started.send_memfd if in_memfd else started.send_body)(kind, job, bytes(body) + more)
    started.spawn(OTHER, b"true")
    awaited = {job for job, ((kind, _), *_) in enumerate(said, 1) if kind == SPAWN} | {OTHER}
    while awaited:
        told = started.event()
        if isinstance(told, Exited | SpawnFailed):
            awaited.remove(told.job)


# --- signals and kills ----------------------------------------------------------------------------

IGNORED: dict[str, tuple[int, int, bytes]] = {
    "signal of nothing": (SIGNAL, JOB, b""),
    "signal cut off": (SIGNAL, JOB, packed("signal_body", 9, 0)[:7]),
    "signal with more": (SIGNAL, JOB, packed("signal_body", 9, 0) + b"\0"),
    "signal 0": (SIGNAL, JOB, packed("signal_body", 0, 0)),
    "signal 65": (SIGNAL, JOB, packed("signal_body", 65, 0)),
    "highest signal": (SIGNAL, JOB, packed("signal_body", MOST, 1)),
    "signal -9": (SIGNAL, JOB, packed("signal_body", 2**32 - 9, 0)),
    "signal to nobody": (SIGNAL, JOB + 1, packed("signal_body", 9, 1)),
    "signal to job 0": (SIGNAL, 0, packed("signal_body", 9, 1)),
    "kill of nothing": (KILL, JOB, b""),
    "kill cut off": (KILL, JOB, packed("kill_body", 1, 0)[:4]),
    "kill with more": (KILL, JOB, packed("kill_body", 1, 0) + b"\0"),
    "kill of nobody": (KILL, JOB + 1, packed("kill_body", 0, 0)),
    "force against nobody": (KILL, JOB + 1, packed("kill_body", 1, 0)),
    "force against job 0": (KILL, 0, packed("kill_body", 1, 0)),
    "output of nobody": (OUTPUT, JOB + 1, b""),
    "output that is not captured": (OUTPUT, JOB, b""),
    "output with more": (OUTPUT, JOB, b"\0"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_malformed_signal_hits_nobody(started: RawInit, name: str) -> None:
    kind, job, body = IGNORED[name]
    started.send_body(kind, job, body)  # there is nobody yet
    sleep_on(started)
    started.send_body(kind, job, body)
    if body:
        started.send_memfd(kind, job, body)
    assert_serves(started)
    assert_killed(started, JOB)
    started.send_body(kind, job, body)  # there was somebody
    assert_serves(started)


@pytest.mark.parametrize("target", [0, 1])
def test_well_formed_signal_hits(started: RawInit, target: int) -> None:
    # A number of its own for each: of one that has just exited, the keeper may not be free yet.
    for job, send in ((JOB, started.send_body), (JOB + 1, started.send_memfd)):
        sleep_on(started, job)
        send(SIGNAL, job, packed("signal_body", signal.SIGUSR1, target))
        told = started.event()
        assert isinstance(told, Exited), told
        assert (told.job, told.status, told.killed) == (job, signal.SIGUSR1, False)


def test_forced_kill_tells_of_lost_keeper(started: RawInit) -> None:
    sleep_on(started)
    started.send_body(KILL, JOB, packed("kill_body", 1, 0))
    told = started.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.keeper_lost) == (JOB, signal.SIGKILL, True)
    assert_serves(started)


# --- what ends all --------------------------------------------------------------------------------

FATAL: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"S",
    "head cut off": lambda: packed("message", MAGIC, SPAWN, 0, 1, 0)[:15],
    "other magic": lambda: packed("message", MAGIC ^ 1, SPAWN, 0, 1, 0),
    "a byte less than it says": lambda: encode_datagram(SPAWN, 1, spawned())[:-1],
    "a byte more than it says": lambda: encode_datagram(SPAWN, 1, spawned()) + b"\0",
    "oversized": lambda: encode_datagram(SPAWN, 1, bytes(INLINE_LIMIT + 1)),
    "very oversized": lambda: encode_datagram(SPAWN, 1, bytes(3 * INLINE_LIMIT)),
    "kind 0": lambda: encode_datagram(0, 1),
    "kind 5": lambda: encode_datagram(5, 1),
    "an event": lambda: encode_datagram(68, 1),
    "highest kind": lambda: encode_datagram(2**16 - 1, 1),
    "second start": lambda: encode_datagram(START, 0, bytes(8)),
    "memfd that is missing": lambda: memfd_head(SPAWN, 1, 100),
}


def assert_ended(init: RawInit, token: str, *, killed: bool = False) -> None:
    """The channel closes, nothing lives, and nothing crashed; `killed`: or the outer one ended it."""
    assert init.rest() == []
    assert init.wait() in ((0, 1, 128 + signal.SIGKILL) if killed else (0, 1))
    assert not find_survivors(token)


@pytest.mark.parametrize("name", FATAL)
def test_other_language_ends_all(started: RawInit, name: str) -> None:
    token = sleep_on(started)
    started.send(FATAL[name]())
    assert_ended(started, token)


@pytest.mark.parametrize("count", [6, 7, 200])
def test_too_many_descriptors_end_all(started: RawInit, count: int) -> None:
    token = sleep_on(started)
    with open(os.devnull, "rb") as null:
        started.send(encode_datagram(SPAWN, 1, spawned()), [null.fileno()] * count)
    assert_ended(started, token)


BODY = spawned()


@pytest.mark.parametrize(
    ("content", "seals", "size"),
    [
        (BODY, 0, len(BODY)),
        (BODY, SEALS & ~2, len(BODY)),
        (BODY, SEALS & ~4, len(BODY)),
        (BODY, SEALS & ~8, len(BODY)),
        (BODY[:-1], SEALS, len(BODY)),
        (BODY + b"\0", SEALS, len(BODY)),
        (b"", SEALS, 0),
        (BODY, SEALS, 0),
        (BODY, SEALS, MOST),
    ],
)
def test_bad_memfd_ends_all(started: RawInit, content: bytes, seals: int, size: int) -> None:
    token = sleep_on(started)
    memfd = make_memfd(content, seals)
    started.send(memfd_head(SPAWN, 1, size), [memfd])
    os.close(memfd)
    assert_ended(started, token)


def test_body_in_two_places_ends_all(started: RawInit) -> None:
    token = sleep_on(started)
    memfd = make_memfd(BODY)
    started.send(memfd_head(SPAWN, 1, len(BODY)) + BODY, [memfd])
    os.close(memfd)
    assert_ended(started, token)


def test_closed_channel_ends_all(started: RawInit) -> None:
    tokens = [sleep_on(started, job) for job in range(1, 4)]
    started.channel.close()
    assert started.wait() == 0
    assert not any(map(find_survivors, tokens))


def test_host_that_dies_ends_all(records: Sequence[Record]) -> None:
    # The channel stays open: a worker of the host may hold a copy of it.
    with ExitStack() as stack, RawInit() as init:
        host = stack.enter_context(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        pidfd = os.pidfd_open(host.pid)
        stack.callback(os.close, pidfd)
        init.send_body(START, 0, join_records(records), [pidfd])
        assert isinstance(init.event(), Started)
        token = sleep_on(init)
        assert_serves(init)
        host.kill()
        assert_ended(init, token, killed=True)


def test_unread_events_hold_nothing_up(records: Sequence[Record]) -> None:
    with RawInit(send_buffer=4096) as init:
        init.start(records)
        assert isinstance(init.event(), Started)
        token = sleep_on(init)
        count = 60
        for job in range(100, 100 + count):
            init.send_body(SPAWN, job, b"")
        init.send_body(KILL, JOB, packed("kill_body", 0, 0))
        wait_until(lambda: not find_survivors(token))
        told = [init.event() for _ in range(count + 1)]
        assert {event.job for event in told if isinstance(event, SpawnFailed)} == set(
            range(100, 100 + count)
        )
        (end,) = [event for event in told if isinstance(event, Exited)]
        assert (end.job, end.status, end.killed) == (JOB, signal.SIGKILL, True)
        assert_serves(init)


def test_host_that_reads_nothing_can_leave(records: Sequence[Record]) -> None:
    with RawInit(send_buffer=4096) as init:
        init.start(records)
        assert isinstance(init.event(), Started)
        token = sleep_on(init)
        for job in range(100, 200):
            init.send_body(SPAWN, job, b"")
        init.channel.close()
        assert init.wait() == 0
        assert not find_survivors(token)


def test_leftovers_are_told_and_gone(started: RawInit) -> None:
    token = make_token()
    script = f"sleep {token} & until grep -q sleep /proc/$!/comm; do :; done; exit 5"
    started.spawn(JOB, b"sh", b"-c", script.encode())
    told = started.event()
    assert isinstance(told, Exited), told
    assert (told.status, told.left, [p.name for p in told.listed]) == (5 << 8, 1, ["sleep"])
    started.send_body(KILL, JOB, packed("kill_body", 0, 0))
    assert started.event() == Gone(JOB, told.refused, told.kinds)
    assert not find_survivors(token)
