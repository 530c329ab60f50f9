"""The caller's end of commands: those of a session of another process, streamed and in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Self

from sandyard.endpoint import ExposedPortEndpoint
from sandyard.errors import ExecTransportError
from sandyard.limits import OUTPUT_LIMIT_BYTES, PORT_WAIT_TIMEOUT_S
from sandyard.process.logs_reading import LogChunk
from sandyard.process.stream import OutputChunk
from sandyard.server import messages
from sandyard.server.calling import Connect, OutgoingCall, asked, opened_call, pumping, senseless
from sandyard.server.framing import Channel, Frame, FrameError
from sandyard.server.outcomes import Done, Endpoint, ProcessInfo, Result
from sandyard.types import ExecResult

__all__ = ["RemoteProcess", "RemoteStream"]


class RemoteStream:
    """A command in a session of a server, to be iterated for its output.

    It is what ``session.stream`` gives, and raises what that raises. A call that is lost ends it.

    Attributes:
        confinement: what holds for it: ``ConfinementReport.document()``.
        output_limit: bytes of each stream that are kept where the caller says nothing.
    """

    def __init__(self, call: OutgoingCall, started: messages.Started) -> None:
        """Begin with a call whose command has started."""
        self.confinement = started.confinement
        told = started.output_limit
        self.output_limit = OUTPUT_LIMIT_BYTES if told is None else told
        self._call = call
        self._result: ExecResult | None = None

    @property
    def result(self) -> ExecResult:
        """How the command ended, once the iteration has.

        Raises:
            ExecTransportError: it has not ended yet.
        """
        if self._result is None:
            raise ExecTransportError(
                command=(),
                message="the command has not ended: iterate its output to the end first",
                context={"reason": "still_running"},
                retryable=True,
            )
        return self._result

    async def signal(self, number: int = 15, *, tree: bool = False) -> None:
        """Send a signal to the command, with ``tree`` to all that descends from it as well."""
        await self._call.say(messages.Signal(number=number, tree=tree))

    def __aiter__(self) -> Self:
        """Iterate over the output."""
        return self

    async def __anext__(self) -> OutputChunk:
        """Wait for the next chunk.

        Raises:
            ExecTimeoutError: the command took too long; its tree has ended.
            ExecTransportError: the sandbox ended, or could not run it.
            ServerError: the server has gone.
        """
        if self._result is not None:
            raise StopAsyncIteration
        said = await self._call.next()
        if isinstance(said, Frame):
            return _chunk(said)
        if not isinstance(said, Result):
            raise senseless(FrameError("a command without a result"))
        self._result = said.whole()
        raise StopAsyncIteration


class RemoteProcess:
    """A background process in a session of a server.

    Attributes:
        which: its id or name.
        info: what the server told when it was started; None where it was only named.
    """

    def __init__(
        self, connect: Connect, session: str, which: str, info: ProcessInfo | None = None
    ) -> None:
        """Name a process; use ``RemoteSession.process`` instead."""
        self._connect = connect
        self._session = session
        self.which = which
        self.info = info

    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait until the command has exited, as ``process.wait`` does."""
        request = messages.WaitProcess(session=self._session, process=self.which, timeout=timeout)
        return (await asked(self._connect, request, Result)).whole()

    async def wait_for_port(
        self, port: int, *, timeout: float = PORT_WAIT_TIMEOUT_S
    ) -> ExposedPortEndpoint:
        """Wait until a server takes connections, as ``process.wait_for_port`` does."""
        request = messages.WaitForPort(
            session=self._session, process=self.which, port=port, timeout=timeout
        )
        said = await asked(self._connect, request, Endpoint)
        return ExposedPortEndpoint(said.host, said.port)

    async def signal(self, signal: str | int = "TERM", *, tree: bool = False) -> None:
        """Send a signal, as ``process.signal`` does."""
        request = messages.SignalProcess(
            session=self._session, process=self.which, signal=signal, tree=tree
        )
        await asked(self._connect, request, Done)

    async def write(self, data: bytes, *, close: bool = False) -> None:
        """Write to its input; with ``close`` that is all that comes."""
        request = messages.WriteProcess(session=self._session, process=self.which, close=close)
        async with opened_call(self._connect, request) as call, pumping(call, data):
            await call.result(Done)

    async def close(self) -> None:
        """End it and all that it started; its logs stay."""
        request = messages.RemoveProcess(session=self._session, process=self.which, forget=False)
        await asked(self._connect, request, Done)

    async def remove(self) -> None:
        """End it, and remove its log."""
        await asked(
            self._connect, messages.RemoveProcess(session=self._session, process=self.which), Done
        )

    async def logs(
        self,
        *,
        start: Literal["beginning", "now"] = "beginning",
        last_bytes: int | None = None,
        last_lines: int | None = None,
        stream: Literal["both", "stdout", "stderr"] = "both",
        follow: bool = True,
    ) -> AsyncIterator[LogChunk]:
        """Read what it wrote, as ``process.logs`` does."""
        request = messages.Logs(
            session=self._session,
            process=self.which,
            start=start,
            last_bytes=last_bytes,
            last_lines=last_lines,
            stream=stream,
            follow=follow,
        )
        async with opened_call(self._connect, request) as call:
            await call.result(messages.Started)
            while not isinstance(said := await call.next(), ProcessInfo):
                if isinstance(said, messages.Missed):
                    yield LogChunk(said.stream, b"", said.bytes)
                elif isinstance(said, Frame):
                    chunk = _chunk(said)
                    yield LogChunk(chunk.stream, chunk.data)


def _chunk(frame: Frame) -> OutputChunk:
    return OutputChunk("stderr" if frame.channel is Channel.ERRORS else "stdout", frame.payload)
