"""A command with a terminal, as the native program makes it: what comes out, and what stays inside."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandyard.process.wire import Exited, Spawned, SpawnFailed, Started, Step, decode_event
from tests.house.leaks import find_descendants
from tests.process.protocol import KILL, OUTSIDE, PROC, SIGNAL, SPAWN, Record, packed
from tests.process.raw_init import ANSWER_S, RawInit, spawn_body
from tests.session.host import name_of

JOB = 5


@contextmanager
def born(init: RawInit, script: bytes, window: tuple[int, int] = (24, 80)) -> Iterator[int]:
    """The master of a command's terminal."""
    path = b"PATH=/usr/bin:/bin"
    body = spawn_body([b"sh", b"-c", script], flags=4, window=window, environment=[path])
    init.send_body(SPAWN, JOB, body)
    datagram, passed = init.receive_passed()
    try:
        event = decode_event(datagram)
        assert isinstance(event, Spawned), event
        assert event.job == JOB
        (master,) = passed
        yield master
    finally:
        for fd in passed:
            os.close(fd)


def read_until(master: int, text: bytes) -> bytes:
    """What is shown, until ``text`` is among it."""
    seen = b""
    while text not in seen:
        assert select.select([master], [], [], ANSWER_S)[0], seen
        seen += os.read(master, 4096)
    return seen


def exited(init: RawInit) -> Exited:
    event = init.event()
    assert isinstance(event, Exited), event
    assert event.job == JOB
    return event


def test_terminal_is_as_it_was_asked_for(started: RawInit) -> None:
    with born(started, b"echo ready; read line", (7, 65535)) as master:
        read_until(master, b"ready")
        size = fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8))
        assert struct.unpack("HHHH", size) == (7, 65535, 0, 0)
        modes = termios.tcgetattr(master)
        assert modes[0] & 0x4000, "IUTF8"
        assert modes[3] & termios.ICANON
        assert modes[3] & termios.ISIG
        os.write(master, b"\n")
        assert exited(started).status == 0


def test_only_the_command_has_its_terminal(started: RawInit) -> None:
    with born(started, b"echo ready; read line") as master:
        read_until(master, b"ready")
        holders = {name_of(pid): terminals_of(pid) for pid in find_descendants()}
        assert holders.pop("sh") == ["/dev/pts/0"] * 3
        # Its keeper has one side as well, without which the host would be told of an end too early.
        if os.geteuid() == 0:
            assert holders.pop("sandyard-keeper") == ["/dev/pts/0"]
        assert set(map(len, holders.values())) <= {0}
        os.write(master, b"\n")
        assert exited(started).status == 0
        read_to_end(master)
        assert all(terminals_of(pid) == [] for pid in find_descendants())


def read_to_end(master: int) -> None:
    """Reads what is left; the end is an error, EIO."""
    errors: list[int | None] = []
    while not errors:
        try:
            os.read(master, 4096)
        except OSError as error:
            errors.append(error.errno)
    assert errors == [errno.EIO]


def terminals_of(pid: int) -> list[str]:
    """The terminals that a process has open, where we may look."""
    directory = f"/proc/{pid}/fd"
    try:
        found = [os.readlink(f"{directory}/{name}") for name in sorted(os.listdir(directory))]
    except OSError:
        return []
    return [target for target in found if "/pts/" in target or "ptmx" in target]


@pytest.mark.parametrize("number", [1, 2, 10, 15])
def test_signal_for_the_foreground(started: RawInit, number: int) -> None:
    script = b"echo $$ ready; exec sleep 99"
    with born(started, script) as master:
        read_until(master, b"ready")
        started.send_body(SIGNAL, JOB, packed("signal_body", number, 2))
        assert exited(started).status == number


def test_signal_where_no_proc_is_inside(records: list[Record]) -> None:
    """The group is found in the procfs outside, which counts processes otherwise."""
    plan = [record for record in records if record.op != PROC]
    with RawInit() as init:
        init.start([*plan, Record(OUTSIDE, b"")])
        assert isinstance(init.event(), Started)
        script = b"trap 'exit 7' USR1; (exec sleep 99) & echo $$ ready; wait"
        with born(init, script) as master:
            read_until(master, b"ready")
            init.send_body(SIGNAL, JOB, packed("signal_body", 10, 2))
            assert os.waitstatus_to_exitcode(exited(init).status) == 7


def test_foreground_of_who_has_no_terminal(started: RawInit) -> None:
    started.send_body(SPAWN, JOB, spawn_body([b"sleep", b"0.3"]))
    for number in (9, 15):
        started.send_body(SIGNAL, JOB, packed("signal_body", number, 2))
    assert exited(started).status == 0


def test_unknown_target_has_no_effect(started: RawInit) -> None:
    with born(started, b"echo ready; read line") as master:
        read_until(master, b"ready")
        started.send_body(SIGNAL, JOB, packed("signal_body", 9, 3))
        os.write(master, b"\n")
        assert exited(started).status == 0


def test_birth_that_fails_brings_nothing(started: RawInit) -> None:
    body = spawn_body([b"/nowhere"], flags=4, window=(24, 80))
    started.send_body(SPAWN, JOB, body)
    datagram, passed = started.receive_passed()
    event = decode_event(datagram)
    assert passed == []
    assert isinstance(event, SpawnFailed)
    assert (event.failure.step, event.failure.error) == (Step.SPAWN_EXEC, errno.ENOENT)
    with born(started, b"echo on") as master:
        assert read_until(master, b"on\r\n") == b"on\r\n"
        assert exited(started).status == 0


def test_descriptors_besides_are_refused(started: RawInit) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        body = spawn_body([b"true"], flags=4, window=(24, 80))
        started.send_body(SPAWN, JOB, body, array.array("i", [null]))
        event = started.event()
        assert isinstance(event, SpawnFailed)
        assert (event.failure.step, event.failure.error) == (Step.PROTOCOL, errno.EPROTO)
    finally:
        os.close(null)


def test_host_that_lets_go_ends_nothing_else(started: RawInit) -> None:
    """The kernel hangs the terminal up; what ignores that is ended by name."""
    with born(started, b"trap '' HUP; echo ready; exec sleep 99") as master:
        read_until(master, b"ready")
    started.send_body(KILL, JOB, packed("kill_body", 0, 0))
    assert exited(started).status == 9
