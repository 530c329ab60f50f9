"""Owns one connection's bytes: both ways, each with its own end, held in bounds."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

from sandyard.limits import PORT_BUFFER_BYTES

__all__ = ["carry_both_ways", "reset"]

_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER for which close(2) sends a reset."""


async def carry_both_ways(one: socket.socket, other: socket.socket) -> bool:
    """Carry bytes between two connections until both have ended.

    The end of one direction is passed on, and the other goes on.

    Returns:
        True if everything arrived; False if one was broken off.
    """
    whole = True
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_carry(one, other))
            both.create_task(_carry(other, one))
    except* OSError:
        whole = False
    return whole


async def _carry(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    held = memoryview(bytearray(PORT_BUFFER_BYTES))
    while (size := await loop.sock_recv_into(source, held)) > 0:
        await loop.sock_sendall(target, held[:size])
        await asyncio.sleep(0)  # neither call waits while there is enough to do
    target.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Close a connection so that its other side sees that it was broken off, not ended."""
    with suppress(OSError):  # it may be gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    connection.close()
