"""Owns the look at a sandbox from inside: all walls that a command can see, as comparable lines."""

from __future__ import annotations

import os
import re
import select
from contextlib import suppress
from pathlib import Path
from typing import Final

from sandyard.process.wire import Exited, Spawned, SpawnFailed, Written, decode_event
from tests.process.protocol import SPAWN
from tests.process.raw_init import ANSWER_S, RawInit, spawn_body

SCRIPT: Final = r"""
export LC_ALL=C
for pid in 1 self; do
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Seccomp_filters|Sig(Blk|Ign))' /proc/$pid/status
done
cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
cut -d' ' -f4- /proc/self/mountinfo
cat /proc/self/limits /proc/sys/kernel/hostname /proc/net/if_inet6
readlink /proc/self/ns/*
ls -lnd / /[!p]* /dev/* /etc/*
umask
"""
NAMESPACE = re.compile(r"^(\w+):\[\d+\]$")


def host_namespaces() -> frozenset[str]:
    """The namespaces of this process."""
    return frozenset(os.readlink(path) for path in Path("/proc/self/ns").iterdir())


def compare_line(line: str, outside: frozenset[str]) -> str:
    """A line without what differs between two sandboxes of one plan."""
    if (match := NAMESPACE.match(line)) is not None:
        return f"{match[1]} {'shared' if line in outside else 'its own'}"
    # Times of what was made for this sandbox.
    return re.sub(r" [A-Z][a-z]{2} +\d+ +[\d:]+ ", " ", line)


def look_through_terminal(init: RawInit, job: int) -> list[str] | SpawnFailed | Exited | None:
    """The same by a command with a terminal, which comes out of the sandbox."""
    body = spawn_body([b"sh", b"-c", b"tty; stty -a; cat /proc/$$/limits"], flags=4, window=(9, 70))
    init.send_body(SPAWN, job, body)
    datagram, passed = init.receive_passed()
    try:
        event = decode_event(datagram) if datagram else None
        if not isinstance(event, Spawned):
            assert not passed, passed
            assert event is None or isinstance(event, SpawnFailed | Exited), event
            assert not isinstance(event, Exited) or event.keeper_lost, event
            return event
        (master,) = passed
        ended = init.receive()
        if not ended:
            return None
        event = decode_event(ended)
        assert isinstance(event, Exited), event
        if event.keeper_lost:
            return event
        assert (event.job, event.status, event.left) == (job, 0, 0)
        os.set_blocking(master, False)
        return read_all(master).decode().split("\r\n")
    finally:
        for fd in passed:
            os.close(fd)


def look_captured(init: RawInit, job: int) -> list[str] | SpawnFailed | Exited | None:
    """The same by a command of which the output comes with its exit, or before where it is too much."""
    script = b"echo $$ >&2; cat - /proc/$$/limits; head -c 20000 /dev/zero; exit 3"
    with open(os.devnull, "rb") as nothing:
        body = spawn_body([b"sh", b"-c", script], flags=16, fd_mask=1)
        init.send_body(SPAWN, job, body, [nothing.fileno()])
    seen = [b"", b""]
    while datagram := init.receive():
        event = decode_event(datagram)
        assert event.job == job, event  # type: ignore[union-attr]  # all that it can be have one
        if isinstance(event, Written):
            seen[event.stream] += event.data
        elif isinstance(event, SpawnFailed) or (isinstance(event, Exited) and event.keeper_lost):
            return event
        else:
            assert isinstance(event, Exited), event
            assert (event.status, event.left) == (3 << 8, 0)
            assert seen[1] or event.stderr
            return (seen[0] + event.stdout).decode().splitlines()
    return None


def read_all(master: int) -> bytes:
    """What was written to a terminal whose programs have ended."""
    seen = b""
    with suppress(OSError):  # EIO: its end
        while chunk := os.read(master, 65536):
            seen += chunk
    return seen


def look_inside(init: RawInit, job: int) -> list[str] | SpawnFailed | Exited | None:
    """What a command sees, or why it was not run to its end; None when the channel is closed."""
    reader, writer = os.pipe()
    try:
        body = spawn_body([b"sh", b"-c", SCRIPT.encode()], fd_mask=2)
        try:
            init.send_body(SPAWN, job, body, [writer])
        finally:
            os.close(writer)
        seen = b""
        while True:
            if not select.select([reader], [], [], ANSWER_S)[0]:
                raise TimeoutError("the command's output does not end")
            if not (chunk := os.read(reader, 65536)):
                break
            seen += chunk
    finally:
        os.close(reader)
    datagram = init.receive()
    if not datagram:
        return None
    event = decode_event(datagram)
    assert isinstance(event, Exited | SpawnFailed), event
    assert event.job == job
    if isinstance(event, SpawnFailed) or event.keeper_lost:
        assert not seen or isinstance(event, Exited)
        return event
    assert (event.status, event.left) == (0, 0)
    outside = host_namespaces()
    return [compare_line(line, outside) for line in seen.decode().splitlines()]
