"""Owns the host's end of the channel to a sandbox's first process: sending, waiting for room, its end."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable

from sandyard.limits import SEND_TIMEOUT_S, TRAVEL_RETRIES, TRAVEL_RETRY_S
from sandyard.process.latch import wake
from sandyard.process.wire import INLINE_LIMIT, Request, encode_message

__all__ = ["Channel", "SandboxEndedError", "send_message"]

_PASSING = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
"""What a send fails with when the machine is short of something for a moment."""


class SandboxEndedError(Exception):
    """The sandbox has ended; a caller of the library is told in the words of its own operation."""


class Channel:
    """The channel to one sandbox's first process; it belongs to the loop that it was made on.

    Args:
        end: our end of it.
        receive: called whenever there is something to read.
        lose: called when the other side reads nothing any more: it is to close this.

    Attributes:
        socket: our end, to be read from.
        ended: whether it is closed, by the other side or by us.
    """

    __slots__ = ("_loop", "_lose", "_writable", "ended", "socket")

    def __init__(
        self, end: socket.socket, receive: Callable[[], None], lose: Callable[[], None]
    ) -> None:
        self.socket = end
        self.ended = False
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        self._writable: asyncio.Future[None] | None = None
        self._loop.add_reader(end.fileno(), receive)

    async def send(self, kind: Request, job: int, body: bytes, fds: list[int]) -> None:
        """Sends a message, waiting for room.

        Raises:
            SandboxEndedError: if it is closed.
            OSError: if it can't be sent.
        """
        retries = TRAVEL_RETRIES
        while (error := self.send_now(kind, job, body, fds)) is not None:
            if isinstance(error, BlockingIOError):
                if not await self._wait_writable():
                    self._lose()
            elif retries == 0:
                raise error
            else:
                retries -= 1
                await asyncio.sleep(TRAVEL_RETRY_S)

    def send_now(self, kind: Request, job: int, body: bytes, fds: list[int]) -> OSError | None:
        """Sends a message if that needs no waiting; returns what it would have to wait for.

        Raises:
            SandboxEndedError: if it is closed.
            OSError: if it can't be sent, however long one waits.
        """
        if self.ended:
            raise SandboxEndedError
        try:
            send_message(self.socket, kind, job, body, fds)
        except (BrokenPipeError, ConnectionResetError):
            raise SandboxEndedError from None
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in _PASSING:
                return error
            raise
        return None

    def close(self) -> bool:
        """Closes it; False if that was done."""
        if self.ended:
            return False
        self.ended = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self.socket.fileno())
        self._wake_writers()
        # Also where a forked worker of the host holds a copy of the socket.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        return True

    async def _wait_writable(self) -> bool:
        """Waits until init has read something; False if it reads nothing for too long."""
        if self._writable is None:
            self._writable = self._loop.create_future()
            self._loop.add_writer(self.socket.fileno(), self._wake_writers)
        done, _ = await asyncio.wait([self._writable], timeout=SEND_TIMEOUT_S)
        return bool(done)

    def _wake_writers(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_writer(self.socket.fileno())
        if self._writable is not None:
            wake(self._writable)
        self._writable = None


def send_message(
    channel: socket.socket, kind: Request, job: int, body: bytes, fds: list[int]
) -> None:
    """Sends one message with its descriptors, a large body in a sealed memfd.

    Raises:
        BlockingIOError: if the channel is full.
        OSError: ENOBUFS, ETOOMANYREFS, EPIPE and the like, as sendmsg(2) tells them.
    """
    if len(body) <= INLINE_LIMIT:
        head = encode_message(kind, job, len(body))
        if fds:
            _send_datagram(channel, [head, body], fds)
        else:
            channel.send(head + body, socket.MSG_NOSIGNAL)  # whole, or not at all
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
