"""A session: one workspace, one sandbox, one policy; it introduces the rooms to each other."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

from sandyard.calls import CommandRequest, Leftovers, check_user, prepare_call
from sandyard.confinement import WorkspaceRoot as PlannedRoot
from sandyard.confinement import command_environment, plan_session
from sandyard.errors import (
    OpName,
    SessionClosedError,
    WorkspaceStartError,
)
from sandyard.finishing import in_thread
from sandyard.lifecycle import Phase, check_phase
from sandyard.limits import OUTPUT_LIMIT_BYTES
from sandyard.plan import LaunchPlan
from sandyard.platform import host_facts, resolve_grants
from sandyard.policy import Policy
from sandyard.process import CommandCall, Commands, CommandStream, InitProcess, StdinSource
from sandyard.state import UnixLocalSandboxSessionState
from sandyard.types import ExecResult, FileEntry, User
from sandyard.workspace import Materialized, Workspace, WorkspaceRoot

__all__ = ["UnixLocalSandboxSession"]


class UnixLocalSandboxSession:
    """A place on this machine where commands run confined.

    Made by ``UnixLocalSandboxClient.create``; use it as an async context manager, which starts it
    and, on leaving, ends everything that runs in it. It belongs to the event loop that started it.

    Attributes:
        state: what identifies the session and describes its workspace.
        policy: what its commands may touch; it never changes.
        materialized: what the manifest's entries wrote, and what of their sources they left out and
            why; None until they were applied.

    Example:
        >>> async with await client.create() as session:
        ...     result = await session.exec("python3 --version")
        ...     print(result.stdout.decode())
    """

    def __init__(
        self, state: UnixLocalSandboxSessionState, policy: Policy, root: WorkspaceRoot | None
    ) -> None:
        """Take over a workspace's root; use ``UnixLocalSandboxClient.create`` instead."""
        self.state = state
        self.policy = policy
        self.materialized: Materialized | None = None
        self._root = root
        self._inode = None if root is None else root.inode
        self._phase = Phase.NEW
        self._turn = asyncio.Lock()  # one start or end at a time
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host_environment: dict[str, str] = {}
        self._environment: tuple[dict[str, str], tuple[tuple[bytes, bytes], ...]] | None = None
        self._workspace: Workspace | None = None
        self._init: InitProcess | None = None
        self._commands: Commands | None = None

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Makes the workspace ready and builds the sandbox around it.

        The manifest is applied at the first start only. Starting a running session does nothing; a
        session that was shut down may be started again.

        Raises:
            ManifestError, LocalFileReadError, LocalDirReadError: an entry can't be made.
            PolicyError: the policy asks for what can't be granted on this machine.
            ConfinementUnavailableError: this machine can't enforce the policy; nothing is left.
            ResourceLimitError: this program or the machine has no descriptor left.
            WorkspaceStartError: the workspace's directory can't be made or opened.
        """
        async with self._turn:
            check_phase("start", self._phase)
            self._check_loop("start")
            if self._phase is Phase.RUNNING:
                return
            self._host_environment, self._environment = dict(os.environ), None
            root = await self._open_root()
            if self._workspace is None:
                self._workspace = Workspace(root)
            if not self.state.workspace_root_ready:
                if self.state.manifest.entries:
                    self.materialized = await self._workspace.apply(self.state.manifest)
                self.state.workspace_root_ready = True
            self._init = await InitProcess.start(partial(self._plan, root))
            self._commands = Commands(self._init)
            self._loop = asyncio.get_running_loop()
            self._phase = Phase.RUNNING

    async def stop(self) -> None:
        """Makes a checkpoint: what is in the workspace stays, and the session goes on.

        Sessions of this version have no snapshot to write, so there is nothing else to do.
        """
        check_phase("stop", self._phase)

    async def shutdown(self) -> None:
        """Ends everything that runs in the sandbox and takes the sandbox down.

        The workspace stays and its files can still be read and written. Doing it again does nothing.
        """
        self._check_loop("shutdown")
        async with self._turn:
            await self._end_sandbox()

    async def aclose(self) -> None:
        """Stops, shuts down and lets go of the workspace. Doing it again does nothing.

        The workspace's directory is not deleted; ``UnixLocalSandboxClient.delete`` does that for
        one that the library made.
        """
        self._check_loop("shutdown")
        async with self._turn:
            try:
                await self._end_sandbox()
            finally:
                self._phase = Phase.CLOSED
                workspace, self._workspace = self._workspace, None
                root, self._root = self._root, None
                if workspace is not None:
                    await workspace.close()  # and its root with it
                elif root is not None:
                    root.close()

    async def running(self) -> bool:
        """Tell whether commands can run: the session is started and its sandbox stands."""
        return self._phase is Phase.RUNNING and self._init is not None and self._init.alive

    async def __aenter__(self) -> Self:
        """Start the session."""
        try:
            await self.start()
        except BaseException:
            # Leaving the block will not be asked of us.
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session."""
        await self.aclose()

    # --- commands ---------------------------------------------------------------------------------

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        output_limit: int = OUTPUT_LIMIT_BYTES,
        leftovers: Leftovers = "keep",
    ) -> ExecResult:
        """Run a command and wait for its exit.

        Args:
            command: with a shell, one word is the shell's text and several are quoted and joined;
                without, they are the argv.
            timeout: seconds after which the command and all that it started are ended; None
                (default) for no limit.
            shell: True (default) for ``sh -c``; a list such as ``["bash", "-c"]`` for another
                shell; False for none.
            user: ``"agent"``, the one user inside (default).
            cwd: directory, relative to the workspace or absolute (default: the workspace).
            env: variables for this command, over those of the session.
            stdin: bytes, a binary file or an async iterable of bytes; None (default) is empty.
            output_limit: bytes kept of each of stdout and stderr (default 16 MiB): a quarter from
                the beginning, the rest from the end; the result counts what is missing between.
            leftovers: what becomes of processes that the command leaves running: ``"keep"``
                (default) lets them live in the session and lists them in the result, ``"end"``
                ends them when the command exits.

        Returns:
            Output and exit code. A signal N that ended the command shows as -N, a program that does
            not exist as 127, one that can't be executed as 126.

        Raises:
            ExecTimeoutError: it took too long; with the output so far.
            ExecTransportError: the sandbox ended meanwhile, or ``stdin`` failed.
            ResourceLimitError: there is no room for a process, or the host has no descriptor left.
            ArgumentError: an argument is impossible, ``cwd`` not being a directory included.
            SessionClosedError: the session is not running.
        """
        commands = self._running_commands()
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=stdin,
            output_limit=output_limit,
            leftovers=leftovers,
        )
        return await commands.run(await self._prepared(request))

    @asynccontextmanager
    async def stream(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        leftovers: Leftovers = "keep",
    ) -> AsyncIterator[CommandStream]:
        """Run a command and read its output as it comes.

        Takes what ``exec`` takes, and raises what it raises. The command starts when the stream is
        entered, and its tree is ended when the block is left. A slow reader makes the command
        wait.

        Example:
            >>> async with session.stream("make test", timeout=600) as running:
            ...     async for chunk in running:
            ...         print(chunk.stream, chunk.data)
            >>> running.result.exit_code
            0
        """
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=stdin,
            leftovers=leftovers,
        )
        commands = self._running_commands()
        async with CommandStream(commands, await self._prepared(request)) as stream:
            yield stream

    # --- files ------------------------------------------------------------------------------------

    async def read(
        self, path: str | PurePath, *, user: str | User | None = None
    ) -> io.BufferedReader:
        """Open a file of the workspace for reading; the caller closes it.

        Args:
            path: relative to the workspace, or absolute within it.
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceReadNotFoundError: there is no such file.
            WorkspaceArchiveReadError: it is no regular file, or can't be read.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("read", user)
        return await workspace.read(path)

    async def write(
        self,
        path: str | PurePath,
        data: io.IOBase | bytes | bytearray | memoryview,
        *,
        user: str | User | None = None,
    ) -> None:
        """Write a file of the workspace whole, or not at all.

        Parents are made, an existing file keeps its mode, and whoever reads meanwhile sees the old
        content or the new.

        Args:
            path: relative to the workspace, or absolute within it.
            data: bytes, or a binary stream, which is read to its end.
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceWriteTypeError: ``data`` is text or gives text; nothing was touched.
            WorkspaceArchiveWriteError: it can't be written.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("write", user)
        await workspace.write(path, data)

    async def ls(self, path: str | PurePath, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory of the workspace, sorted by name, hidden entries included.

        Raises:
            ExecNonZeroError: it is no directory, or does not exist.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("ls", user)
        return await workspace.ls(path)

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Make a directory of the workspace; one that exists is left as it is.

        Args:
            path: relative to the workspace, or absolute within it.
            parents: True makes missing parents too (default: False).
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceArchiveWriteError: it can't be made.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("mkdir", user)
        await workspace.mkdir(path, parents=parents)

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link (never its target), or with ``recursive`` a tree.

        Args:
            path: relative to the workspace, or absolute within it; never the workspace itself.
            recursive: True removes a directory with all in it, and a missing path silently.
            user: ``"agent"``, the one user inside (default).

        Raises:
            ExecNonZeroError: there is no such entry.
            WorkspaceArchiveWriteError: it can't be removed, such as a directory that is not empty.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("rm", user)
        await workspace.rm(path, recursive=recursive)

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """Resolve a path of the workspace to the absolute one that commands see.

        Args:
            path: relative to the workspace, or absolute within it.
            for_write: kept for callers of the old API; every path of the workspace is writable.

        Raises:
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("normalize_path", None)
        return await workspace.normalize_path(path)

    # --- inside -----------------------------------------------------------------------------------

    async def delete_workspace(self) -> bool:
        """Close the session, and delete its directory if the library made it.

        ``UnixLocalSandboxClient.delete`` calls this.

        Returns:
            True if nothing of an owned directory is left; False if the directory is the caller's,
            or if something in it could not be removed.
        """
        await self.aclose()
        if not self.state.workspace_root_owned:
            return False
        return await in_thread(self._delete_root)

    def _delete_root(self) -> bool:
        path = self.state.manifest.root
        if not os.path.lexists(path):
            return True
        try:
            with WorkspaceRoot.open(path, owned=True) as root:
                # Another directory of the same name is not ours to delete.
                return root.inode == self._inode and root.delete()
        except WorkspaceStartError:  # nor is a link or a file
            return False

    async def _open_root(self) -> WorkspaceRoot:
        if self._root is None:
            path, owned = self.state.manifest.root, self.state.workspace_root_owned
            self._root = await in_thread(WorkspaceRoot.open, path, owned=owned)
            self._inode = self._root.inode
        return self._root

    def _plan(self, root: WorkspaceRoot) -> LaunchPlan:
        facts = host_facts(self._host_environment)
        planned = PlannedRoot(path=root.inside, source=root.real_path, inode=root.inode)
        return plan_session(self.policy, facts, planned, resolve_grants(self.policy))

    async def _end_sandbox(self) -> None:
        init, self._init = self._init, None
        commands, self._commands = self._commands, None
        if self._phase is Phase.RUNNING:
            self._phase = Phase.SHUT_DOWN
        if commands is not None:
            commands.close()
        try:
            if init is not None:
                await init.close()
        finally:
            self._loop = None

    def _check_loop(self, op: OpName) -> None:
        """Refuses a call from another loop than the one that the running sandbox belongs to."""
        own = self._loop
        if own is not None and own is not asyncio.get_running_loop() and not own.is_closed():
            raise SessionClosedError(
                op=op,
                state=self._phase.value,
                message="this session belongs to another event loop; use it only on the one that "
                "started it (asyncio.run_coroutine_threadsafe gets there from other threads)",
            )

    def _running_commands(self) -> Commands:
        check_phase("exec", self._phase)
        self._check_loop("exec")
        if self._commands is None:
            raise SessionClosedError(op="exec", state=self._phase.value)
        return self._commands

    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        check_phase(op, self._phase)
        check_user(op, user)
        if self._workspace is None:
            raise SessionClosedError(op=op, state=self._phase.value)
        return self._workspace

    async def _prepared(self, request: CommandRequest) -> CommandCall:
        return prepare_call(request, await self._command_environment(), self.state.manifest.root)

    async def _command_environment(self) -> tuple[tuple[bytes, bytes], ...]:
        """The session's environment as the kernel takes it, made anew only when it changed."""
        environment = self.state.manifest.environment
        values = await environment.resolve() if environment.value else {}
        if self._environment is None or self._environment[0] != values:
            facts = host_facts(self._host_environment)  # as kept since the start
            pairs = command_environment(self.policy, facts, self._host_environment, values)
            encoded = tuple((os.fsencode(name), os.fsencode(value)) for name, value in pairs)
            self._environment = (values, encoded)
        return self._environment[1]
