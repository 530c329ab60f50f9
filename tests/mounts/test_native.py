"""The program that makes late mounts refuses what it does not know, and says at which step."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from sandyard import BindMount, TmpfsMount
from sandyard.plan import KeptPart, LateMount
from sandyard.process.channel import send_message
from sandyard.process.events import Event, Failure, Mounted, StartFailed, Step
from sandyard.process.late_wire import encode_late, encode_removal
from sandyard.process.launching import program_path
from sandyard.process.wire import DATAGRAM_LIMIT, Request, decode_event
from tests.house.leaks import list_children
from tests.mounts.conftest import Opened, inner_mounts, output
from tests.process.protocol import decode_late
from tests.session.host import root_of

ROOT = os.geteuid() == 0
USER = (12345, 12345) if ROOT else (1000, 1000)
TMPFS = LateMount("tmpfs", "/w/t", (1, 2), writable=True, size=2**20, inodes=16)


def ask(body: bytes, fds: list[int], kind: Request = Request.MOUNT) -> Event:
    """What the program answers, and that it ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            words = ["sandyard-init", str(theirs.fileno())]
            pid = os.posix_spawn(program_path(), words, {})
        send_message(ours, kind, 0, body, fds)
        event = decode_event(ours.recv(DATAGRAM_LIMIT + 1))
        assert ours.recv(1) == b""
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if isinstance(event, Mounted) else 1)
    return event


def failure(body: bytes, fds: list[int], kind: Request = Request.MOUNT) -> Failure:
    event = ask(body, fds, kind)
    assert isinstance(event, StartFailed), event
    return event.failure


def test_encoding_keeps_every_word() -> None:
    parts = (KeptPart("/a", (3, 4), True), KeptPart("/b/\udcff", (5, 6), False))
    bind = LateMount("bind", "/w/x", (1, 2), writable=True, as_owner=True, parts=parts)
    read = decode_late(encode_late(bind, (7, 8), leased=True))
    assert (read.kind, read.flags, read.user, read.inode) == (1, 7, (7, 8), (1, 2))
    assert (read.target, read.parts, read.sizes, read.mount) == ("/w/x", parts, (0, 0), 0)
    read = decode_late(encode_late(TMPFS, (7, 8), leased=False))
    assert (read.kind, read.flags, read.sizes, read.parts) == (2, 1, (2**20, 16), ())
    read = decode_late(
        encode_late(replace(TMPFS, kind="overlay", writable=False), (7, 8), leased=True)
    )
    assert (read.kind, read.flags) == (3, 2)
    read = decode_late(encode_removal("/w/x", 9, (7, 8), leased=True))
    assert (read.kind, read.flags, read.mount, read.target, read.inode) == (4, 2, 9, "/w/x", (0, 0))


HEAD = struct.Struct("=IIIIQQQQQII")
HONEST = (2, 1, *USER, 4096, 16, 1, 2, 0, 0, 0)
PART = struct.pack("=QQII", 1, 2, 1, 0)


def altered(index: int, value: int, kind: int = 2) -> bytes:
    """A head with one number that is another."""
    numbers = [*HONEST]
    numbers[0], numbers[index] = kind, value
    return HEAD.pack(*numbers)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD.pack(*HONEST)[:-1],
        HEAD.pack(*HONEST),
        HEAD.pack(*HONEST) + b"/w",
        HEAD.pack(*HONEST) + b"w\0",
        HEAD.pack(*HONEST) + b"/\0",
        HEAD.pack(*HONEST) + b"/w/../x\0",
        HEAD.pack(*HONEST) + b"/w\0more",
        altered(0, 0) + b"/w\0",
        altered(0, 5, kind=5) + b"/w\0",
        altered(1, 8) + b"/w\0",
        altered(1, 5) + b"/w\0",  # as its owner, without a source
        altered(2, 0) + b"/w\0",
        altered(2, 2**32 - 1) + b"/w\0",
        altered(4, 0) + b"/w\0",
        altered(5, 0) + b"/w\0",
        altered(4, 4096, kind=1) + b"/w\0",
        altered(8, 7) + b"/w\0",
        altered(9, 1) + b"/w\0" + PART + b"/x\0",
        altered(10, 1) + b"/w\0",
        HEAD.pack(1, 1, *USER, 0, 0, 1, 2, 0, 2, 0) + b"/w\0" + PART + b"/x\0",
        HEAD.pack(1, 1, *USER, 0, 0, 1, 2, 0, 1, 0) + b"/w\0" + PART + b"x\0",
        HEAD.pack(1, 0, *USER, 0, 0, 1, 2, 0, 1, 0) + b"/w\0" + PART + b"/x\0",
        HEAD.pack(1, 1, *USER, 0, 0, 1, 2, 0, 2**32 - 1, 0) + b"/w\0",
        HEAD.pack(4, 0, *USER, 0, 0, 1, 0, 7, 0, 0) + b"/w\0",
        HEAD.pack(4, 1, *USER, 0, 0, 0, 0, 7, 0, 0) + b"/w\0",
    ],
)
def test_malformed_order_is_refused(body: bytes) -> None:
    with open("/proc/self/ns/mnt", "rb") as namespace:
        told = failure(body, [namespace.fileno()])
    assert (told.step, told.error) == (Step.PROTOCOL, errno.EPROTO)


def test_descriptors_are_counted(source: Path) -> None:
    tmpfs = encode_late(TMPFS, USER, leased=ROOT)
    bind = encode_late(LateMount("bind", "/w", (1, 2), writable=False), USER, leased=ROOT)
    with open("/proc/self/ns/mnt", "rb") as own, open("/dev/null", "rb") as null:
        place = os.open(source, os.O_PATH)
        for body, fds in ((tmpfs, []), (tmpfs, [own.fileno()] * 2), (bind, [own.fileno()])):
            assert failure(body, fds).step is Step.PROTOCOL
        # What is no mount namespace, and no directory, is no way in either.
        assert failure(tmpfs, [null.fileno()]).step is Step.LATE_ENTER
        assert failure(bind, [own.fileno(), null.fileno()]).step is Step.LATE_SOURCE
        os.close(place)


async def test_only_the_named_mount_goes(opened: Opened, source: Path) -> None:
    async with opened({"data": BindMount(source=source), "other": TmpfsMount()}) as session:
        (outer,) = [pid for pid in list_children(os.getpid()) if list(list_children(pid))]
        namespace = os.open(f"/proc/{outer}/fd/15", os.O_RDONLY)
        try:
            target = f"{root_of(session)}/data"
            told = await asyncio.to_thread(
                failure, encode_removal(target, 1, USER, leased=ROOT), [namespace]
            )
            assert (told.step, told.error) == (Step.LATE_TARGET, errno.ESTALE)
            for inode in ((1, 1), (0, 0)):
                late = replace(TMPFS, target=f"{root_of(session)}", inode=inode)
                told = await asyncio.to_thread(
                    failure, encode_late(late, USER, leased=ROOT), [namespace]
                )
                assert (told.step, told.error) == (Step.LATE_TARGET, errno.ESTALE)
            late = replace(TMPFS, target=f"{root_of(session)}/no")
            told = await asyncio.to_thread(
                failure, encode_late(late, USER, leased=ROOT), [namespace]
            )
            assert (told.step, told.error) == (Step.LATE_TARGET, errno.ENOENT)
        finally:
            os.close(namespace)
        assert await inner_mounts(session) == ["data", "other"]
        assert await output(session, "cat data/file") == "host"
