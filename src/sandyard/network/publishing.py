"""Owns exposed ports: listening sockets on this machine's loopback, and what is connected to them."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from sandyard.errors import SandboxError
from sandyard.finishing import finished
from sandyard.limits import (
    PORT_ACCEPTS_PER_TURN,
    PORT_CONNECT_TIMEOUT_S,
    PORT_CONNECTIONS_MAX,
    PORT_DESCRIPTORS_SHARE,
    PORT_PAUSE_S,
)
from sandyard.network.carrying import carry_both_ways, reset
from sandyard.network.connecting import SocketMaker, connect_inside
from sandyard.network.listening import listen_on

__all__ = ["PublishedPorts"]


class PublishedPorts:
    """Ports of a sandbox that this machine's programs reach under the same numbers.

    It is an async context manager, and belongs to the loop that made it; leaving it closes the ports,
    and breaks off what is connected. A connection is accepted here, and joined to one that is made
    inside; where that can't be made, it is reset.
    """

    def __init__(self, make: SocketMaker, listeners: Iterable[tuple[int, socket.socket]]) -> None:
        """Take over listening sockets; use ``open`` instead."""
        self._loop = asyncio.get_running_loop()
        self._make = make
        self._listeners = dict[socket.socket, int]()
        self._tasks = dict[asyncio.Task[None], socket.socket]()
        self._pauses = dict[socket.socket, asyncio.TimerHandle]()
        self._most = _most_connections()
        for port, listener in listeners:
            self._listeners[listener] = port
            self._loop.add_reader(listener, self._accept, listener)

    @classmethod
    async def open(cls, ports: tuple[int, ...], make: SocketMaker) -> Self:
        """Listen on ports of 127.0.0.1 and, where this machine has it, of ::1.

        Args:
            ports: which.
            make: makes a socket inside.

        Raises:
            ExposedPortUnavailableError: another program listens there, or this user may not; then
                none is open.
            ResourceLimitError: this program has no descriptor left.
        """
        with ExitStack() as undo:
            listeners = []
            for port in ports:
                for listener in await listen_on(port, ports):
                    undo.callback(listener.close)
                    listeners.append((port, listener))
            published = cls(make, listeners)
            undo.pop_all()
        return published

    async def close(self) -> None:
        """Close the ports and what is connected; doing it again does nothing.

        It may be called on another loop once the one that made it is closed.
        """
        listeners, self._listeners = self._listeners, {}
        pauses, self._pauses = self._pauses, {}
        ours = not self._loop.is_closed()
        for pause in pauses.values():
            pause.cancel()
        for listener in listeners:
            if ours:
                self._loop.remove_reader(listener)
            listener.close()
        if ours and self._tasks:
            await finished(_cancelled(tuple(self._tasks)))
        for outer in self._tasks.values():  # those of a loop that went away without ending them
            outer.close()
        self._tasks.clear()

    async def __aenter__(self) -> Self:
        """Hold the ports for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the ports."""
        await self.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(PORT_ACCEPTS_PER_TURN):
            try:
                outer = listener.accept()[0]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor is left: it would wake us without end
                self._loop.remove_reader(listener)
                again = self._loop.call_later(PORT_PAUSE_S, self._go_on, listener)
                self._pauses[listener] = again
                return
            if len(self._tasks) >= self._most:
                reset(outer)
                continue
            outer.setblocking(False)
            task = self._loop.create_task(self._join(outer, self._listeners[listener]))
            self._tasks[task] = outer
            task.add_done_callback(self._forget)

    def _go_on(self, listener: socket.socket) -> None:
        del self._pauses[listener]
        self._loop.add_reader(listener, self._accept, listener)

    async def _join(self, outer: socket.socket, port: int) -> None:
        """Connect to the server inside, and carry what passes."""
        try:
            async with asyncio.timeout(PORT_CONNECT_TIMEOUT_S):
                inner = await connect_inside(self._make, port)
        except (OSError, SandboxError):  # nobody listens, or the session has ended meanwhile
            return
        whole = False
        try:
            whole = await carry_both_ways(outer, inner)
        finally:
            if whole:
                outer.close()
                inner.close()
            else:
                reset(inner)  # and the outer one, when this has ended

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Close what is not closed yet, also where the task was cancelled before it began."""
        outer = self._tasks.pop(task, None)
        if outer is not None and outer.fileno() >= 0:
            reset(outer)
        if not task.cancelled():
            task.result()


def _most_connections() -> int:
    """How many connections there may be at a time."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return PORT_CONNECTIONS_MAX
    return min(PORT_CONNECTIONS_MAX, max(1, files // PORT_DESCRIPTORS_SHARE // 2))


async def _cancelled(tasks: tuple[asyncio.Task[None], ...]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
