"""Owns one message on its way to init: its head, its body, and the descriptors that travel with it."""

from __future__ import annotations

import array
import fcntl
import os
import socket

from sandyard.process.wire import INLINE_LIMIT, Request, encode_message

__all__ = ["send_message"]


def send_message(
    channel: socket.socket, kind: Request, job: int, body: bytes, fds: list[int]
) -> None:
    """Sends one message with its descriptors, a large body in a sealed memfd.

    Raises:
        BlockingIOError: if the channel is full.
        OSError: ENOBUFS, ETOOMANYREFS, EPIPE and the like, as sendmsg(2) tells them.
    """
    if len(body) <= INLINE_LIMIT:
        _send_datagram(channel, [encode_message(kind, job, len(body)), body], fds)
        return
    memfd = os.memfd_create("sandyard-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(memfd, rest) :]
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, seals)
        head = encode_message(kind, job, len(body), in_memfd=True)
        _send_datagram(channel, [head], [memfd, *fds])
    finally:
        os.close(memfd)


def _send_datagram(channel: socket.socket, parts: list[bytes], fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg(parts, rights, socket.MSG_NOSIGNAL)
