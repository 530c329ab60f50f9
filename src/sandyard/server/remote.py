"""The caller's end: sessions of another process, with the methods that a session has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Literal, Self

from sandyard.errors import ExecTimeoutError, ExecTransportError
from sandyard.finishing import in_thread
from sandyard.limits import OUTPUT_LIMIT_BYTES, TERMINAL_COLUMNS, TERMINAL_ROWS
from sandyard.manifest import Manifest
from sandyard.narrowing import Narrowing
from sandyard.policy import Policy
from sandyard.process.capture import Capture
from sandyard.process.logs_reading import LogChunk
from sandyard.process.stream import OutputChunk
from sandyard.server import messages
from sandyard.server.calling import Connect, OutgoingCall, asked, opened_call, pumping, senseless
from sandyard.server.connection import own_hello
from sandyard.server.framing import Channel, Frame, FrameError
from sandyard.server.limits import SUPERVISOR_START_S
from sandyard.server.outcomes import (
    Done,
    ProcessesInfo,
    ProcessInfo,
    Result,
    ServerInfo,
    SessionInfo,
    SessionsInfo,
)
from sandyard.server.remote_files import RemoteFiles
from sandyard.server.remote_terminal import RemoteTerminal
from sandyard.types import ExecResult

__all__ = ["RemoteClient", "RemoteProcess", "RemoteSession", "RemoteStream"]

Command = str | PurePath
Stdin = bytes | AsyncIterable[bytes]


class RemoteClient:
    """Makes and finds sessions that a server holds.

    Args:
        connect: opens a connection to the server.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def create(
        self,
        *,
        name: str | None = None,
        policy: Policy | None = None,
        manifest: Manifest | None = None,
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        snapshot: str | None = None,
        exposed_ports: Iterable[int] = (),
    ) -> RemoteSession:
        """Make a session and start it; it lives until it is deleted, or the server ends.

        Args:
            name: what it is called (default: the beginning of its id).
            policy: what its commands may touch (default: ``Policy()``).
            manifest: what its workspace is made of (default: nothing).
            environ: variables that the policy inherits from (default: this program's).
            directory: where relative sources of the manifest begin (default: the working directory).
            snapshot: what it begins with: a snapshot of the user's store, by its id, its label or the
                name of its history (default: nothing).
            exposed_ports: ports on which its servers are reached on the server's machine; not with a
                snapshot (default: none).

        Raises:
            ServerError: the server can't be asked.
            SandboxError: what ``client.create`` and ``session.start`` raise.
        """
        whole = Manifest() if manifest is None else manifest
        place = await in_thread(os.getcwd) if directory is None else directory
        request = messages.Create(
            name=name,
            policy=policy or Policy(),
            manifest=whole.model_dump(mode="json", context={"secrets": True}),
            environ=dict(os.environ if environ is None else environ),
            directory=place,
            snapshot=snapshot,
            exposed_ports=tuple(exposed_ports),
        )
        return RemoteSession(self._connect, await asked(self._connect, request, SessionInfo))

    async def fork(self, session: RemoteSession, *, name: str | None = None) -> RemoteSession:
        """Make another session from the same point, and start it.

        Args:
            session: what it is made from.
            name: what it is called (default: the beginning of its id).

        Raises:
            SessionNotFoundError: there is no such session.
            SandboxError: what ``client.fork`` and ``session.start`` raise.
        """
        request = messages.Fork(session=session.which, name=name)
        return RemoteSession(self._connect, await asked(self._connect, request, SessionInfo))

    async def sessions(self, *, gone: bool = False) -> tuple[SessionInfo, ...]:
        """The sessions that are held, oldest first; with ``gone`` those that are no more before."""
        request = messages.ListSessions(gone=gone)
        return (await asked(self._connect, request, SessionsInfo)).sessions

    async def status(self) -> ServerInfo:
        """How the server is."""
        return await asked(self._connect, messages.Status(), ServerInfo)

    async def shut(self) -> None:
        """End all sessions and the server, which may be of another version."""
        async with await self._connect() as connection:
            await connection.say(await own_hello())
            await connection.say(messages.Shut())
            await connection.finish(SUPERVISOR_START_S)

    def session(self, which: str) -> RemoteSession:
        """A session by its name, its id or the beginning of that; the server is not asked yet."""
        return RemoteSession(self._connect, which)

    async def delete(self, session: RemoteSession) -> None:
        """End a session and all that runs in it, and delete its workspace if that is private.

        Raises:
            SessionNotFoundError: there is none.
            WorkspaceStopError: something in the workspace can't be removed; all else is gone.
        """
        await asked(self._connect, messages.Delete(session=session.which), Done)


class RemoteStream:
    """A command in a session of a server, to be iterated for its output.

    It is what ``session.stream`` gives, and raises what that raises. A call that is lost ends it.

    Attributes:
        confinement: what holds for it: ``ConfinementReport.document()``.
    """

    def __init__(self, call: OutgoingCall, confinement: dict[str, str] | None) -> None:
        """Begin with a call whose command has started."""
        self.confinement = confinement
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


class RemoteSession(RemoteFiles):
    """A session that a server holds; its methods are those of a session.

    Attributes:
        which: its name, its id, or the beginning of that.
        info: what the server told when it was made; None where it was only named.
    """

    def __init__(self, connect: Connect, session: SessionInfo | str) -> None:
        """Name a session; use ``RemoteClient.session`` instead."""
        super().__init__(connect, session.id if isinstance(session, SessionInfo) else session)
        self.info = session if isinstance(session, SessionInfo) else None

    # --- commands ---------------------------------------------------------------------------------

    async def exec(
        self,
        *command: Command,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | None = None,
        cwd: Command | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stdin | None = None,
        output_limit: int = OUTPUT_LIMIT_BYTES,
    ) -> ExecResult:
        """Run a command and wait for its exit, as ``session.exec`` does."""
        kept = {"stdout": Capture(output_limit), "stderr": Capture(output_limit)}
        stream = self.stream(
            *command, timeout=timeout, shell=shell, user=user, cwd=cwd, env=env, stdin=stdin
        )
        try:
            async with stream as running:
                async for chunk in running:
                    kept[chunk.stream].feed(chunk.data)
        except ExecTimeoutError as error:
            out, err = (kept[name].result() for name in ("stdout", "stderr"))
            error.stdout, error.stderr = out.data, err.data
            raise
        out, err = (kept[name].result() for name in ("stdout", "stderr"))
        result = running.result
        result.stdout, result.stderr = out.data, err.data + result.stderr
        result.stdout_dropped, result.stderr_dropped = out.dropped, err.dropped
        return result

    @asynccontextmanager
    async def stream(
        self,
        *command: Command,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | None = None,
        cwd: Command | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stdin | None = None,
        leftovers: Literal["keep", "end"] = "keep",
        narrow: Narrowing | None = None,
    ) -> AsyncIterator[RemoteStream]:
        """Run a command and read its output as it comes, as ``session.stream`` does.

        Leaving the block, and the end of this program, end the command's whole tree.
        """
        request = messages.Exec(
            session=self.which,
            command=tuple(str(word) for word in command),
            shell=_shell(shell),
            timeout=timeout,
            user=user,
            cwd=None if cwd is None else str(cwd),
            env=None if env is None else dict(env),
            input=stdin is not None,
            leftovers=leftovers,
            narrow=narrow,
        )
        async with opened_call(self._connect, request) as call:
            started = await call.result(messages.Started)
            async with pumping(call, stdin):
                yield RemoteStream(call, started.confinement)

    # --- processes --------------------------------------------------------------------------------

    async def start_process(
        self,
        *command: Command,
        name: str | None = None,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | None = None,
        cwd: Command | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        log_limit: int | None = None,
    ) -> RemoteProcess:
        """Start a command in the background, as ``session.start_process`` does."""
        request = messages.StartProcess(
            session=self.which,
            command=tuple(str(word) for word in command),
            shell=_shell(shell),
            name=name,
            timeout=timeout,
            user=user,
            cwd=None if cwd is None else str(cwd),
            env=None if env is None else dict(env),
            input=stdin,
            log_limit=log_limit,
        )
        info = await asked(self._connect, request, ProcessInfo)
        return RemoteProcess(self._connect, self.which, info.id, info)

    async def processes(self) -> tuple[ProcessInfo, ...]:
        """What runs in the background, and what did; and the terminals."""
        request = messages.ListProcesses(session=self.which)
        return (await asked(self._connect, request, ProcessesInfo)).processes

    def process(self, which: str) -> RemoteProcess:
        """A background process by its id or name; the server is not asked yet."""
        return RemoteProcess(self._connect, self.which, which)

    # --- terminals --------------------------------------------------------------------------------

    async def terminal(
        self,
        *command: Command,
        rows: int = TERMINAL_ROWS,
        columns: int = TERMINAL_COLUMNS,
        shell: bool | Sequence[str] = True,
        timeout: float | None = None,
        user: str | None = None,
        cwd: Command | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> RemoteTerminal:
        """Start a command on a terminal of its own, as ``session.terminal`` does."""
        request = messages.OpenTerminal(
            session=self.which,
            command=tuple(str(word) for word in command),
            shell=_shell(shell),
            timeout=timeout,
            user=user,
            cwd=None if cwd is None else str(cwd),
            env=None if env is None else dict(env),
            name=name,
            rows=rows,
            columns=columns,
        )
        info = await asked(self._connect, request, ProcessInfo)
        return RemoteTerminal(self._connect, self.which, info.id, info)

    def terminal_named(self, which: str = "") -> RemoteTerminal:
        """A terminal by its id or name, the newest that runs if none is given; nobody is asked yet."""
        return RemoteTerminal(self._connect, self.which, which)


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


def _shell(given: bool | Sequence[str]) -> bool | tuple[str, ...]:
    return given if isinstance(given, bool) else tuple(given)
