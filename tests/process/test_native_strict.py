"""What sandyard-init does not know it refuses: bits, zeros, paddings and pairs without a meaning."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sandyard.plan import Namespaces
from sandyard.process.wire import Exited, Failure, Spawned, SpawnFailed, Started, StartFailed, Step
from tests.process.protocol import (
    BIND,
    DIRECTORY,
    FILE,
    HOSTNAME,
    IDENTITY,
    KILL,
    LANDLOCK,
    LIMIT,
    LOOPBACK,
    NAMESPACES,
    PRIVATE,
    SCRATCH,
    SIGNAL,
    SPAWN,
    START,
    USER,
    Record,
    encode_datagram,
    join_records,
    packed,
)
from tests.process.raw_init import RawInit, spawn_body, wait_until
from tests.session.host import find_survivors, make_token

Records = list[Record]
JOB, OTHER = 7, 9
NOBODY = 2**32 - 1


def start_failure(plan: Records | bytes) -> Failure:
    """Why a plan does not start."""
    with RawInit() as init:
        init.start(plan)
        told = init.event()
        assert isinstance(told, StartFailed), told
        assert init.rest() == []
        assert init.wait() == 1
    return told.failure


def assert_malformed(plan: Records | bytes, text: str) -> None:
    failure = start_failure(plan)
    assert (failure.step, failure.error) == (Step.PROTOCOL, errno.EPROTO), failure
    assert text in failure.text


def assert_starts(plan: Records) -> None:
    with RawInit() as init:
        init.start(plan)
        assert isinstance(init.event(), Started)


def patched(plan: Records, op: int, layout: str, at: int, value: int) -> Records:
    """The plan with another number in the first record of a kind."""
    found = next(i for i, record in enumerate(plan) if record.op == op)
    payload = bytearray(plan[found].payload)
    struct.pack_into("=" + layout, payload, at, value)
    return [*plan[:found], replace(plan[found], payload=bytes(payload)), *plan[found + 1 :]]


# --- plans ----------------------------------------------------------------------------------------


def optional_bind(flags: int, zero: int = 0, device: int = 0, inode: int = 0) -> Record:
    """A bind that would be left out, since its source is missing."""
    head = packed("bind", device, inode, flags | 8, zero)
    return Record(BIND, head + b"/nowhere/at all\0/t\0")


UNKNOWN_BITS = {
    **{f"bind with bit {bit}": optional_bind(1 << bit) for bit in (5, 6, 16, 31)},
    "zero of a bind": optional_bind(0, zero=1),
    "device that nobody checks": optional_bind(0, device=1),
    "inode that nobody checks": optional_bind(0, inode=1),
    "zero of a limit": Record(LIMIT, packed("limit", 0, 4, 1)),
    "high zero of a limit": Record(LIMIT, packed("limit", 0, 4, 2**31)),
    "directory with a size": Record(DIRECTORY, packed("node", 0o755, 1) + b"/a\0"),
    "private of nobody": Record(PRIVATE, packed("owned", 0o755, 2**32 - 1) + b"/a\0"),
    "private with a bit": Record(PRIVATE, packed("owned", 0o2755, 0) + b"/a\0"),
    "user with fewer groups": Record(USER, packed("user", 1, 2) + struct.pack("=I", 1)),
    "user with more groups": Record(USER, packed("user", 1, 0) + struct.pack("=I", 1)),
    "user beyond all": Record(USER, packed("user", 256, 0)),
}


@pytest.mark.parametrize("name", UNKNOWN_BITS)
def test_unknown_bits_are_refused(records: Records, name: str) -> None:
    assert_malformed([UNKNOWN_BITS[name], *records], "a record is malformed")


@pytest.mark.parametrize("record", [optional_bind(0), optional_bind(23, device=1, inode=1)])
def test_known_bits_start(records: Records, record: Record) -> None:
    assert_starts([*records, record])


NUMBERS: dict[str, Callable[[Records], Records]] = {
    "users without ids on disk": lambda plan: patched(plan, IDENTITY, "I", 20, 1),
    "ids on disk without users": lambda plan: patched(plan, IDENTITY, "I", 24, 1),
    "too many users": lambda plan: patched(
        patched(plan, IDENTITY, "I", 20, 256), IDENTITY, "I", 24, 9
    ),
    "ids on disk beyond all": lambda plan: patched(
        patched(plan, IDENTITY, "I", 20, 2), IDENTITY, "I", 24, NOBODY - 1
    ),
    "ids inside beyond all": lambda plan: patched(
        patched(patched(plan, IDENTITY, "I", 20, 2), IDENTITY, "I", 24, 9),
        IDENTITY,
        "I",
        4,
        NOBODY - 2,
    ),
    "identity of a fourth mode": lambda plan: patched(plan, IDENTITY, "I", 0, 3),
    "uid that is nobody's": lambda plan: patched(plan, IDENTITY, "I", 4, NOBODY),
    "gid that is nobody's": lambda plan: patched(plan, IDENTITY, "I", 8, NOBODY),
    "uid of nobody outside": lambda plan: patched(plan, IDENTITY, "I", 12, NOBODY),
    "gid of nobody outside": lambda plan: patched(plan, IDENTITY, "I", 16, NOBODY),
    "tmpfs without a size": lambda plan: patched(plan, SCRATCH, "Q", 0, 0),
    "tmpfs without a count": lambda plan: patched(plan, SCRATCH, "Q", 8, 0),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_meaningless_number_is_refused(records: Records, name: str) -> None:
    assert_malformed(NUMBERS[name](records), "a record is malformed")


PEOPLE: dict[str, Record] = {
    "names no user": Record(USER, packed("user", 0, 0)),
    "a user that is not there": Record(PRIVATE, packed("owned", 0o700, 1) + b"/home/x\0"),
}


@pytest.mark.parametrize("text", PEOPLE)
def test_user_that_has_no_place(records: Records, text: str) -> None:
    assert_malformed([*records, PEOPLE[text]], text)


@pytest.mark.user
def test_callers_are_alone(records: Records) -> None:
    several = patched(patched(records, IDENTITY, "I", 20, 1), IDENTITY, "I", 24, 9)
    assert_malformed(several, "the caller alone can't be several")
    assert_malformed(patched(records, IDENTITY, "I", 0, 2), "subordinate ids are for several users")


@pytest.mark.parametrize("op", [HOSTNAME, LOOPBACK, LANDLOCK])
def test_second_of_its_kind(records: Records, op: int) -> None:
    whole = [*(r for r in records if r.op != op), Record(op, SINGLE[op])]
    if op != LANDLOCK:
        assert_starts(whole)
    assert_malformed([*whole, Record(op, SINGLE[op])], "the plan says something twice")


SINGLE = {HOSTNAME: b"name\0", LOOPBACK: b"", LANDLOCK: packed("landlock", 4, 0, 0, 0)}


@pytest.mark.parametrize("at", range(1, 8))
def test_padding_is_zero(records: Records, at: int) -> None:
    name = b"n" * (8 - at) + b"\0"  # so that the padding has `at - 1` bytes, or 7
    head = packed("record_head", HOSTNAME, 0, len(name))
    rest = join_records([record for record in records if record.op != HOSTNAME])
    room = -len(name) % 8
    assert start_failure(head + name + bytes(room) + rest[:-8]).text  # the rest is looked at
    for dirty in range(room):
        padding = bytearray(room)
        padding[dirty] = 1
        assert_malformed(head + name + bytes(padding) + rest, "padding")


def test_padding_of_last_is_whole(records: Records) -> None:
    whole = join_records([*records, Record(DIRECTORY, packed("node", 0o755, 0) + b"/a\0")])
    for missing in range(1, 6):
        assert_malformed(whole[:-missing], "padding")


def without_namespace(plan: Records, missing: Namespaces) -> Records:
    """The plan of a sandbox that shares one kind of namespace with the host."""
    (found,) = [record for record in plan if record.op == NAMESPACES]
    (held,) = struct.unpack("=I", found.payload)
    return patched(plan, NAMESPACES, "I", 0, held & ~missing)


def test_host_is_not_renamed(records: Records) -> None:
    # By its own name: accepted by mistake, the plan would rename this very machine.
    name = Record(HOSTNAME, socket.gethostname().encode() + b"\0")
    renaming = [name, *(record for record in records if record.op != HOSTNAME)]
    assert_malformed(without_namespace(renaming, Namespaces.UTS), "renamed")


def test_host_loopback_is_left_alone(records: Records) -> None:
    assert any(record.op == LOOPBACK for record in records)
    assert_malformed(without_namespace(records, Namespaces.NET), "loopback")


@pytest.mark.root
def test_leased_group_is_not_root(records: Records) -> None:
    assert_malformed(patched(records, IDENTITY, "I", 16, 0), "gid 0")


def test_limit_of_no_files(records: Records) -> None:
    """A limit of 0 is a limit: the first descriptor that a command opens is one too many."""
    others = [r for r in records if r.op != LIMIT or r.payload[8:12] != struct.pack("=I", 7)]
    with RawInit() as init:
        init.start([Record(LIMIT, packed("limit", 0, 7, 0)), *others])
        assert isinstance(init.event(), Started)
        init.spawn(JOB, b"sh", b"-c", b"exit 0")
        told = init.event()
        assert not (isinstance(told, Exited) and told.status == 0), told


def test_mount_keeps_its_mode(records: Records, tmp_path: Path) -> None:
    """A directory step at a mount point would change the mode of what is mounted there."""
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o750)
    bind = packed("bind", 0, 0, 5, 0) + f"{shown}\0/shown\0".encode()
    node = packed("node", 0o777, 0) + b"/shown\0"
    first = next(i for i, record in enumerate(records) if record.op == DIRECTORY)
    plan = [*records[:first], Record(BIND, bind), Record(DIRECTORY, node), *records[first:]]
    failure = start_failure(plan)
    assert (failure.step, failure.error, failure.text) == (Step.MOUNT, errno.EROFS, "/shown")
    assert shown.stat().st_mode & 0o777 == 0o750


def test_full_tmpfs_is_told(records: Records) -> None:
    content = bytes(300_000)
    file = packed("node", 0o644, len(content)) + b"/large\0" + content
    small = patched(records, SCRATCH, "Q", 0, 200_000)
    failure = start_failure([*small, Record(FILE, file)])
    assert (failure.step, failure.error, failure.text) == (Step.MOUNT, errno.ENOSPC, "/large")


# --- the host's pidfd -----------------------------------------------------------------------------


def open_directory() -> int:
    """What pidfd_send_signal(2) takes for a process, and is not to be polled."""
    return os.open(f"/proc/{os.getpid()}", os.O_RDONLY | os.O_DIRECTORY)


OTHERS: dict[str, Callable[[], int]] = {
    "the null device": lambda: os.open(os.devnull, os.O_RDWR),
    "a memfd": lambda: os.memfd_create("test"),
    "an eventfd": lambda: os.eventfd(0),
    "a directory of procfs": open_directory,
    "a socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_host_must_be_a_pidfd(records: Records, name: str) -> None:
    with ExitStack() as stack, RawInit() as init:
        other = OTHERS[name]()
        stack.callback(os.close, other)
        host = os.pidfd_open(os.getpid())
        stack.callback(os.close, host)
        init.send(encode_datagram(START, 0, join_records(records)), [other, host])
        (told,) = init.rest()
        assert isinstance(told, StartFailed), told
        assert (told.failure.error, told.failure.text) == (
            errno.EPROTO,
            "expected a pidfd of the host",
        )
        assert init.wait() == 1


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [2, 3, 4, 2**15])
def test_unknown_message_flags(records: Records, flags: int) -> None:
    with RawInit() as init:
        host = os.pidfd_open(os.getpid())
        init.send(encode_datagram(START, 0, join_records(records), flags=flags), [host])
        os.close(host)
        (told,) = init.rest()
        assert isinstance(told, StartFailed), told
        assert told.failure.error == errno.EPROTO
    with RawInit() as init:
        init.start(records)
        assert isinstance(init.event(), Started)
        init.send(encode_datagram(SPAWN, JOB, spawn_body([b"true"]), flags=flags))
        assert init.rest() == []
        assert init.wait() in (0, 1)


REFUSED_SPAWNS = {
    "flag 4": (JOB, spawn_body([b"true"], flags=4)),
    "flag 7": (JOB, spawn_body([b"true"], flags=7)),
    "highest flag": (JOB, spawn_body([b"true"], flags=2**31)),
    "job 0": (0, spawn_body([b"true"])),
}


@pytest.mark.parametrize("name", REFUSED_SPAWNS)
def test_unknown_spawn_is_refused(started: RawInit, name: str) -> None:
    job, body = REFUSED_SPAWNS[name]
    for send in (started.send_body, started.send_memfd):
        send(SPAWN, job, body)
        failure = Failure(Step.PROTOCOL, None, errno.EPROTO, "")
        assert started.event() == SpawnFailed(job, failure)
    assert_serves(started)


def assert_serves(init: RawInit) -> None:
    init.spawn(OTHER, b"sh", b"-c", b"exit 3")
    told = init.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.left) == (OTHER, 3 << 8, 0)


DEVNULL_PASSED = 1
UNHEARD: dict[str, tuple[int, bytes, int]] = {
    "signal to a third target": (SIGNAL, packed("signal_body", 9, 2), 0),
    "signal to the highest target": (SIGNAL, packed("signal_body", 9, 2**32 - 1), 0),
    "signal with a descriptor": (SIGNAL, packed("signal_body", 9, 0), DEVNULL_PASSED),
    "kill with force 2": (KILL, packed("kill_body", 2, 0), 0),
    "kill with most force": (KILL, packed("kill_body", 2**32 - 1, 0), 0),
    "kill with a zero that is not": (KILL, packed("kill_body", 0, 1), 0),
    "forced kill with such a zero": (KILL, packed("kill_body", 1, 2**31), 0),
    "kill with a descriptor": (KILL, packed("kill_body", 1, 0), DEVNULL_PASSED),
}


@pytest.mark.parametrize("name", UNHEARD)
def test_unknown_signal_hits_nobody(started: RawInit, name: str) -> None:
    kind, body, passed = UNHEARD[name]
    token = make_token()
    started.spawn(JOB, b"sleep", token.encode(), flags=1)
    assert isinstance(started.event(), Spawned)
    with open(os.devnull, "rb") as null:
        started.send_body(kind, JOB, body, [null.fileno()] * passed)
    assert_serves(started)  # so it has been read
    # A vfork ends in the middle of execve, a moment before the words of the new program are there.
    wait_until(lambda: bool(find_survivors(token)))
    started.send_body(SIGNAL, JOB, packed("signal_body", signal.SIGUSR1, 1))
    told = started.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.killed, told.keeper_lost) == (
        JOB,
        signal.SIGUSR1,
        False,
        False,
    )


# --- descriptors that run short -------------------------------------------------------------------


def fill(init: RawInit) -> list[int]:
    """Gives a sandbox commands until one is refused; returns those that run."""
    running: list[int] = []
    while len(running) < 200:
        job = 100 + len(running)
        init.spawn(job, b"sleep", b"1000", flags=1)
        told = init.event()
        if isinstance(told, SpawnFailed):
            assert (told.failure.step, told.failure.error) == (Step.SPAWN_FORK, errno.EAGAIN)
            return running
        assert isinstance(told, Spawned), told
        running.append(job)
    raise AssertionError("no command was refused")


def test_few_files_end_nothing(records: Records) -> None:
    """A message whose descriptors find no room looks like a malformed one, which ends all."""
    with RawInit(wrapper=["prlimit", "--nofile=120:120", "--"]) as init:
        init.start(records)
        assert isinstance(init.event(), Started)
        running = fill(init)
        assert len(running) > 10
        with open(os.devnull, "rb") as null:
            body = spawn_body([b"true"], fd_mask=7)
            init.send_memfd(SPAWN, OTHER, body, [null.fileno()] * 3)
        told = init.event()
        assert isinstance(told, SpawnFailed), told
        assert told.failure.error == errno.EAGAIN
        for job in running:
            init.send_body(KILL, job, packed("kill_body", 0, 0))
        ended = {
            event.job for event in (init.event() for _ in running) if isinstance(event, Exited)
        }
        assert ended == set(running)
        assert_serves(init)


@pytest.mark.parametrize("files", [6, 16, 17, 40])
def test_too_few_files_start_nothing(records: Records, files: int) -> None:
    with RawInit(wrapper=["prlimit", f"--nofile={files}:{files}", "--"]) as init:
        init.start(records)
        (told,) = init.rest()
        assert isinstance(told, StartFailed), told
        assert told.failure.error in (errno.EMFILE, errno.EINVAL, errno.EPROTO)
        assert init.wait() == 1
