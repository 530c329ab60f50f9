"""The caller's end of a terminal: to be at it, type, and leave."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from sandyard.server import messages
from sandyard.server.calling import Connect, OutgoingCall, asked, opened_call, pumping, senseless
from sandyard.server.framing import Frame, FrameError
from sandyard.server.outcomes import Done, ProcessInfo, Result

__all__ = ["RemoteAttachment", "RemoteTerminal"]


class RemoteAttachment:
    """Being at a terminal: iterate it for what the terminal shows, until its command exits.

    Attributes:
        dropped: bytes that were dropped before the first that comes here.
        info: how the command ended; None while it runs.
    """

    def __init__(self, call: OutgoingCall) -> None:
        """Begin with a call that has attached; use ``RemoteTerminal.attach`` instead."""
        self._call = call
        self.dropped = 0
        self.info: ProcessInfo | None = None

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        await self._call.say(messages.Resize(rows=rows, columns=columns))

    async def signal(self, number: int = 15, *, tree: bool = False) -> None:
        """Send a signal to the command, with ``tree`` to all that descends from it as well."""
        await self._call.say(messages.Signal(number=number, tree=tree))

    def __aiter__(self) -> Self:
        """Iterate over what it shows."""
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next bytes.

        Raises:
            SandboxError: the sandbox or the server has ended.
        """
        while self.info is None:
            said = await self._call.next()
            if isinstance(said, Frame):
                return said.payload
            if isinstance(said, messages.Missed):
                self.dropped += said.bytes
            elif isinstance(said, ProcessInfo):
                self.info = said
            else:
                raise senseless(FrameError("a terminal says that it is something else"))
        raise StopAsyncIteration


class RemoteTerminal:
    """A terminal in a session of a server.

    Attributes:
        which: its id or name; empty for the newest that runs.
        info: what the server told when it was started; None where it was only named.
    """

    def __init__(
        self, connect: Connect, session: str, which: str, info: ProcessInfo | None = None
    ) -> None:
        """Name a terminal; use ``RemoteSession.terminal`` instead."""
        self._connect = connect
        self._session = session
        self.which = which
        self.info = info

    async def write(self, data: bytes) -> None:
        """Type something, as ``terminal.write`` does.

        Raises:
            TerminalEndedError: the command has exited.
        """
        request = messages.WriteProcess(session=self._session, process=self.which)
        async with opened_call(self._connect, request) as call, pumping(call, data):
            await call.result(Done)

    async def wait(self) -> int:
        """Wait for the command's exit, and give its exit code."""
        request = messages.WaitProcess(session=self._session, process=self.which)
        return (await asked(self._connect, request, Result)).exit_code

    async def signal(self, number: int | str = 15, *, tree: bool = False) -> None:
        """Send a signal to the command, with ``tree`` to all that descends from it as well."""
        request = messages.SignalProcess(
            session=self._session, process=self.which, signal=number, tree=tree
        )
        await asked(self._connect, request, Done)

    async def close(self) -> None:
        """End the command, and all that it started; one that has exited is left alone."""
        request = messages.RemoveProcess(session=self._session, process=self.which, forget=False)
        await asked(self._connect, request, Done)

    @asynccontextmanager
    async def attach(
        self,
        typed: AsyncIterable[bytes] | None = None,
        *,
        rows: int | None = None,
        columns: int | None = None,
        replay: bool = True,
    ) -> AsyncIterator[RemoteAttachment]:
        """Be at the terminal for the length of a block; leaving it leaves the command running.

        Args:
            typed: what is typed, asked for as the terminal takes it; None types nothing.
            rows: with ``columns`` the size of the caller's window (default: left as it is).
            columns: likewise.
            replay: True (default) begins with what it has shown.

        Raises:
            ArgumentError: there is no such terminal, or no window of this size.
        """
        request = messages.ReadTerminal(
            session=self._session,
            process=self.which,
            rows=rows,
            columns=columns,
            replay=replay,
            input=typed is not None,
        )
        async with opened_call(self._connect, request) as call:
            await call.result(messages.Started)
            async with pumping(call, typed):
                yield RemoteAttachment(call)
