"""Owns the look at a sandbox from inside: all walls that a command can see, as comparable lines."""

from __future__ import annotations

import os
import re
import select
from pathlib import Path
from typing import Final

from sandyard.process.wire import Exited, SpawnFailed, decode_event
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
