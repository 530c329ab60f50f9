"""Owns connections to servers inside: where they are looked for, and the wait until one listens."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from sandyard.limits import PORT_RETRY_MAX_S, PORT_RETRY_S

__all__ = ["LOOPBACKS", "SocketMaker", "await_listener", "connect_inside", "make_own_socket"]

LOOPBACKS: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Where servers listen that mean "localhost", the usual place first: some choose ::1 alone."""

SocketMaker = Callable[[socket.AddressFamily], Awaitable[socket.socket]]
"""Makes a TCP socket in the network of the servers, which never blocks; it is the caller's to close."""


async def make_own_socket(family: socket.AddressFamily) -> socket.socket:
    """A ``SocketMaker`` for servers in this program's own network.

    Raises:
        OSError: there is no descriptor left, or no such family.
    """
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    made.setblocking(False)
    return made


async def connect_inside(make: SocketMaker, port: int) -> socket.socket:
    """Connect to a server; the socket is the caller's to close.

    Raises:
        OSError: nobody listens, or a connection can't be made; what IPv4 said, unless only that
            is missing.
    """
    first: OSError | None = None
    for family, address in LOOPBACKS:
        try:
            return await _connect(make, family, (address, port))
        except OSError as error:
            first = first or error
    raise first or OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def _connect(
    make: SocketMaker, family: socket.AddressFamily, address: tuple[str, int]
) -> socket.socket:
    connected = await make(family)
    try:
        await asyncio.get_running_loop().sock_connect(connected, address)
    except BaseException:
        connected.close()
        raise
    return connected


async def await_listener(make: SocketMaker, port: int) -> None:
    """Return when a server takes connections; it sees one that ends at once.

    It tries as long as it takes: the caller sets a limit.
    """
    pause = PORT_RETRY_S
    while True:
        try:
            found = await connect_inside(make, port)
        except OSError:
            await asyncio.sleep(pause)
            pause = min(2 * pause, PORT_RETRY_MAX_S)
        else:
            found.close()
            return
