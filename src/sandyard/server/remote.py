"""The caller's end: sessions of another process, with the methods that the contract has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import Literal, cast
from uuid import UUID

from sandyard.contract import BaseSandboxSession
from sandyard.errors import (
    ExecTimeoutError,
    SessionNotFoundError,
    UnsupportedOperationError,
)
from sandyard.finishing import each_in_turn, in_thread
from sandyard.lifecycle import Processes
from sandyard.limits import TERMINAL_COLUMNS, TERMINAL_ROWS, TERMINAL_SCROLLBACK_BYTES
from sandyard.manifest import Manifest
from sandyard.narrowing import Narrowing
from sandyard.policy import Policy
from sandyard.process import StdinSource
from sandyard.process.argv import (
    checked_environment,
    checked_leftovers,
    checked_limit,
    checked_stdin,
    checked_timeout,
    command_argv,
    command_directory,
    encoded_words,
)
from sandyard.process.capture import Capture
from sandyard.process.failures import stdin_failed
from sandyard.server import messages
from sandyard.server.calling import Connect, asked, opened_call, pumping
from sandyard.server.carrying import FetchedFile, carried, contents_of
from sandyard.server.connection import own_hello
from sandyard.server.limits import SUPERVISOR_START_S
from sandyard.server.outcomes import (
    Done,
    ProcessesInfo,
    ProcessInfo,
    ServerInfo,
    SessionInfo,
    SessionsInfo,
)
from sandyard.server.remote_commands import RemoteProcess, RemoteStream
from sandyard.server.remote_files import RemoteFiles, present_directory
from sandyard.server.remote_terminal import RemoteTerminal
from sandyard.state import SandboxSessionState, UnixLocalSandboxSessionState, skipped_path
from sandyard.types import ExecResult, User

__all__ = ["RemoteClient", "RemoteProcess", "RemoteSession", "RemoteStream"]

_Word = str | PurePath


class RemoteClient:
    """Makes and finds sessions that a server holds.

    Args:
        connect: opens a connection to the server.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def create(  # noqa: PLR0913  # one for each part of a session
        self,
        *,
        name: str | None = None,
        policy: Policy | None = None,
        manifest: Manifest | None = None,
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        snapshot: str | None = None,
        exposed_ports: Iterable[int] = (),
        overlay: str | None = None,
        layered: bool = False,
        start: bool = True,
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
            overlay: the directory that its workspace is an overlay over, absolute; not with a snapshot
                (default: no overlay).
            layered: True lets it lie upon layers, so that its forks copy only what it has changed; not
                with an overlay (default: False).
            start: False leaves the start to ``session.start`` (default: True).

        Raises:
            ServerError: the server can't be asked.
            ArgumentError: there is no directory, and somebody removed the working directory.
            SandboxError: what ``client.create`` and ``session.start`` raise.
        """
        whole = Manifest() if manifest is None else manifest
        place = await in_thread(present_directory) if directory is None else directory
        request = messages.Create(
            name=name,
            policy=policy or Policy(),
            manifest=whole.model_dump(mode="json", context={"secrets": True}),
            environ=dict(os.environ if environ is None else environ),
            directory=place,
            snapshot=snapshot,
            exposed_ports=tuple(exposed_ports),
            overlay=overlay,
            layered=layered,
            start=start,
        )
        info = await asked(self._connect, request, SessionInfo)
        return RemoteSession(self._connect, info, _state_of(info, whole, request))

    async def fork(
        self, session: RemoteSession, *, name: str | None = None, processes: Processes = "keep"
    ) -> RemoteSession:
        """Make another session from the same point, and start it.

        Args:
            session: what it is made from.
            name: what it is called (default: the beginning of its id).
            processes: what becomes of what runs in the session meanwhile, as ``client.fork`` takes it.

        Raises:
            SessionNotFoundError: there is no such session.
            SandboxError: what ``client.fork`` and ``session.start`` raise.
        """
        request = messages.Fork(session=session.which, name=name, processes=processes)
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


class RemoteSession(RemoteFiles, BaseSandboxSession):
    """A session that another process holds; it does what ``BaseSandboxSession`` says.

    Not to be had from another process are ``watch()``, ``mount()`` (mounts of the manifest are), a
    ``progress=``, a ``patch_format=`` of one's own and a source as ``stdin=`` of ``start_process()``:
    they raise ``UnsupportedOperationError``. Hooks and dependencies are this program's, and used by its
    own ``aclose``.

    Attributes:
        which: its name, its id, or the beginning of that.
        info: what the server told when it was made; None where it was only named.
    """

    def __init__(
        self,
        connect: Connect,
        session: SessionInfo | str,
        state: SandboxSessionState | None = None,
    ) -> None:
        """Name a session; use ``RemoteClient.session`` instead."""
        super().__init__(connect, session.id if isinstance(session, SessionInfo) else session)
        self.info = session if isinstance(session, SessionInfo) else None
        self._state = state
        self._skipped: tuple[str, ...] = ()  # what the server is yet to be told

    def __repr__(self) -> str:
        """Show which it is."""
        return f"<{type(self).__name__} {self.which!r}>"

    @property
    def state(self) -> SandboxSessionState:
        """What it was made with.

        Raises:
            UnsupportedOperationError: it was made by somebody else, and only named here.
        """
        if self._state is None:
            raise UnsupportedOperationError(
                op="connect", method="state", session=type(self).__name__
            )
        return self._state

    @state.setter
    def state(self, state: SandboxSessionState) -> None:
        self._state = state

    # --- its life ---------------------------------------------------------------------------------

    start = carried(BaseSandboxSession.start)
    shutdown = carried(BaseSandboxSession.shutdown)
    resolve_exposed_port = carried(BaseSandboxSession.resolve_exposed_port)
    wait_for_port = carried(BaseSandboxSession.wait_for_port)
    why = carried(BaseSandboxSession.why)
    pty_exec_start = carried(BaseSandboxSession.pty_exec_start)
    pty_write_stdin = carried(BaseSandboxSession.pty_write_stdin)
    pty_terminate_all = carried(BaseSandboxSession.pty_terminate_all)

    def supports_pty(self) -> bool:
        """Tell whether it has terminals: on every rung but the lowest, which is told with the start."""
        held = None if self.info is None else self.info.confinement
        return held is None or held["rung"] != "landlock_seccomp"

    async def running(self) -> bool:
        """Tell whether commands can run now; one that is gone can't run any."""
        try:
            return bool(await self.call("running"))
        except SessionNotFoundError:
            return False

    async def stop(self) -> None:
        """Save the workspace to the session's snapshot, as ``session.stop`` does."""
        await self._tell_skipped()
        await self.call("stop")

    async def persist_workspace(self) -> FetchedFile:
        """Save the workspace as a tar archive, as ``session.persist_workspace`` does."""
        await self._tell_skipped()
        return cast(FetchedFile, await self.call("persist_workspace"))

    def register_persist_workspace_skip_path(self, path: str | PurePath) -> PurePath:
        """Leave a path out of what is saved; the server hears of it with the next save."""
        key = skipped_path(path)
        self._skipped = (*self._skipped, key)
        return PurePath(key)

    async def _tell_skipped(self) -> None:
        while self._skipped:
            await self.call("register_persist_workspace_skip_path", path=self._skipped[0])
            self._skipped = self._skipped[1:]

    async def _close_all(self) -> None:
        if self._closed:
            return
        self._closed = True
        await each_in_turn(
            (
                self.run_pre_stop_hooks,
                self._tell_skipped,
                self._close_there,
                self._close_dependencies,
            )
        )

    async def _close_there(self) -> None:
        await self.call("aclose")

    # --- commands ---------------------------------------------------------------------------------

    async def exec(  # noqa: PLR0913  # what session.exec takes
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: _Word | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        output_limit: int | None = None,
        leftovers: Literal["keep", "end"] = "keep",
        narrow: Narrowing | None = None,
    ) -> ExecResult:
        """Run a command and wait for its exit, as ``session.exec`` does."""
        given = None if output_limit is None else checked_limit(output_limit)
        kept: dict[str, Capture] = {}
        stream = self.stream(
            *command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=stdin,
            leftovers=leftovers,
            narrow=narrow,
        )
        try:
            async with stream as running:
                limit = running.output_limit if given is None else given
                kept |= {"stdout": Capture(limit), "stderr": Capture(limit)}
                async for chunk in running:
                    kept[chunk.stream].feed(chunk.data)
        except ExecTimeoutError as error:
            if kept:
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
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: _Word | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        leftovers: Literal["keep", "end"] = "keep",
        narrow: Narrowing | None = None,
    ) -> AsyncIterator[RemoteStream]:
        """Run a command and read its output as it comes, as ``session.stream`` does.

        Leaving the block, and the end of this program, end the command's whole tree.
        """
        words = command_argv(command, shell)
        checked_leftovers(leftovers)
        source = checked_stdin(stdin)
        request = messages.made(
            messages.Exec,
            session=self.which,
            **_described(command, timeout, shell, user, cwd, env),
            input=source is not None,
            leftovers=leftovers,
            narrow=narrow,
        )
        contents = None if source is None else contents_of(source, "stdin")
        async with opened_call(self._connect, request) as call:
            started = await call.result(messages.Started)
            try:
                async with pumping(call, contents):
                    yield RemoteStream(call, started)
            except Exception as error:
                if contents is not None and contents.failure is error:
                    raise stdin_failed(words, error) from error
                raise

    # --- processes --------------------------------------------------------------------------------

    async def start_process(  # noqa: PLR0913  # what session.start_process takes
        self,
        *command: str | Path,
        name: str | None = None,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: _Word | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | bool | None = None,
        log_limit: int | None = None,
        narrow: Narrowing | None = None,
    ) -> RemoteProcess:
        """Start a command in the background, as ``session.start_process`` does.

        Raises:
            UnsupportedOperationError: ``stdin`` is a source, which would end with this program; give
                True, and write to the process.
        """
        if not isinstance(stdin, bool | None):
            checked_stdin(stdin)
            raise UnsupportedOperationError(
                op="start_process",
                method="start_process",
                session=type(self).__name__,
                argument="stdin",
            )
        request = messages.made(
            messages.StartProcess,
            session=self.which,
            **_described(command, timeout, shell, user, cwd, env),
            name=name,
            input=stdin is True,
            log_limit=log_limit,
            narrow=narrow,
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

    async def terminal(  # noqa: PLR0913  # what session.terminal takes
        self,
        *command: str | Path,
        rows: int = TERMINAL_ROWS,
        columns: int = TERMINAL_COLUMNS,
        shell: bool | Sequence[str] = True,
        timeout: float | None = None,
        user: str | User | None = None,
        cwd: _Word | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        scrollback: int = TERMINAL_SCROLLBACK_BYTES,
        leftovers: Literal["keep", "end"] = "keep",
        narrow: Narrowing | None = None,
    ) -> RemoteTerminal:
        """Start a command on a terminal of its own, as ``session.terminal`` does."""
        checked_leftovers(leftovers)
        request = messages.made(
            messages.OpenTerminal,
            session=self.which,
            **_described(command, timeout, shell, user, cwd, env),
            name=name,
            rows=rows,
            columns=columns,
            scrollback=scrollback,
            leftovers=leftovers,
            narrow=narrow,
        )
        info = await asked(self._connect, request, ProcessInfo)
        return RemoteTerminal(self._connect, self.which, info.id, info)

    def terminal_named(self, which: str = "") -> RemoteTerminal:
        """A terminal by its id or name, the newest that runs if none is given; nobody is asked yet."""
        return RemoteTerminal(self._connect, self.which, which)


def _described(  # what every command takes
    command: tuple[_Word, ...],
    timeout: float | None,
    shell: bool | Sequence[str],
    user: str | User | None,
    cwd: _Word | None,
    env: Mapping[str, str] | None,
) -> dict[str, object]:
    """The arguments of a command as they travel, checked as a session on this machine checks them.

    Raises:
        ArgumentError, ArgumentTypeError: one is impossible.
    """
    encoded_words(command_argv(command, shell))
    checked_timeout(timeout)
    checked_environment(env)
    command_directory(cwd, "/")
    return {
        "command": tuple(str(word) for word in command),
        "shell": shell if isinstance(shell, bool) else tuple(str(word) for word in shell),
        "timeout": None if timeout is None else float(timeout),
        "user": user.name if isinstance(user, User) else user,
        "cwd": None if cwd is None else str(cwd),
        "env": None if env is None else dict(env),
    }


def _state_of(
    info: SessionInfo, manifest: Manifest, request: messages.Create
) -> SandboxSessionState:
    """What identifies a session that was made here."""
    return UnixLocalSandboxSessionState(
        session_id=UUID(info.id),
        manifest=manifest.model_copy(update={"root": info.workspace}),
        exposed_ports=request.exposed_ports,
        workspace_root_owned=info.private,
        workspace_overlay=request.overlay is not None,
        workspace_layered=request.layered,
    )
