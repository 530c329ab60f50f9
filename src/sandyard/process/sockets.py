"""Owns one socket of a sandbox's network on its way out: asked for, come, and taken or closed."""

from __future__ import annotations

import errno
import os
import socket
import struct

from sandyard.process.events import Event, SocketMade
from sandyard.process.latch import Latch
from sandyard.process.passing import taken_socket
from sandyard.process.wire import ProtocolError

__all__ = ["SocketOrder", "encode_socket"]

_BODY = struct.Struct("=II")


def encode_socket(family: int) -> bytes:
    """The body of a SOCKET; ``family`` is AF_INET or AF_INET6."""
    return _BODY.pack(family, 0)


class SocketOrder:
    """One socket that was asked for; it is closed if it comes after nobody wants it any more.

    Args:
        family: AF_INET or AF_INET6.
        number: what the order is called on the channel.
    """

    __slots__ = ("_come", "_error", "_family", "_forsaken", "_socket", "number")

    def __init__(self, family: int, number: int) -> None:
        self.number = number
        self._family = family
        self._come: Latch[None] = Latch()
        self._socket: socket.socket | None = None
        self._error = errno.ECONNABORTED  # where the sandbox ends first
        self._forsaken = False

    @property
    def body(self) -> bytes:
        """The body of the request."""
        return encode_socket(self._family)

    async def taken(self) -> socket.socket:
        """Wait until it has come; it is the caller's to close.

        Raises:
            OSError: it can't be made, or did not come.
        """
        try:
            await self._come.wait()
        except BaseException:
            self._forsaken = True
            if self._socket is not None:
                self._socket.close()
            raise
        if self._socket is None:
            raise OSError(self._error, os.strerror(self._error))
        return self._socket

    def arrive(self, event: Event, passed: list[int] | None) -> None:
        """Takes what has come; None for ``passed`` is a socket that this program had no room for.

        Raises:
            ProtocolError: something else has come; then ``passed`` is as it was.
        """
        if not isinstance(event, SocketMade):
            raise ProtocolError("a socket comes otherwise")
        if event.error != 0 or passed is None:
            if passed or event.error < 0:
                raise ProtocolError("a socket that could not be made has come")
            self._error = event.error or errno.EMFILE
        else:
            self._socket = taken_socket(passed, self._family)
            if self._forsaken:
                self._socket.close()
        self._come.set(None)

    def end(self, _outcome: None) -> None:
        """Takes note that nothing comes any more."""
        self._come.set(None)
