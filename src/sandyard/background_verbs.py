"""The background verbs of a session: processes that are started, listed, found, and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from sandyard.calls import CommandRequest
from sandyard.errors import ResourceLimitError, WorkspaceStopError, shown
from sandyard.finishing import finished, in_thread
from sandyard.lifecycle import Processes, StopStep, check_processes, plan_stop
from sandyard.observing import observed
from sandyard.types import User
from sandyard.verb_bases import CommandVerbBase

if TYPE_CHECKING:
    from sandyard.errors import OpName
    from sandyard.narrowing import Narrowing
    from sandyard.process import Commands, InitProcess, StdinSource
    from sandyard.process.background import BackgroundProcess
    from sandyard.process.background_list import BackgroundProcesses
    from sandyard.workspace.lease import Lease
    from sandyard.workspace.log_place import LogPlace

__all__ = ["BackgroundVerbs"]


class BackgroundVerbs(CommandVerbBase):
    """What a session does with processes that run beside its commands.

    What it needs is loaded with the first of them: most sessions never have one.
    """

    _lease: Lease
    _commands: Commands | None
    _init: InitProcess | None
    _background: tuple[BackgroundProcesses, LogPlace] | None = None

    @observed("start_process")
    async def start_process(  # noqa: PLR0913  # what exec takes, and a name and a log
        self,
        *command: str | Path,
        name: str | None = None,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | bool | None = None,
        log_limit: int | None = None,
        narrow: Narrowing | None = None,
    ) -> BackgroundProcess:
        """Start a command in the background, and return when it runs.

        It lives until it ends by itself, its handle is closed, or the session is shut down. What it
        writes is kept in a file that no command can reach, and that goes with the session.

        Args:
            command: as for ``exec``.
            name: what it is called: letters, digits, ``.``, ``_`` and ``-``, at most 64, unlike
                that of any process that lives (default: its id).
            timeout: seconds after which it and all that it started are ended; None (default) for
                the policy's ``wall_time``, which is no limit unless it is set.
            shell: as for ``exec``.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.
            cwd: directory, relative to the workspace or absolute (default: the workspace).
            env: variables for this command, over those of the session.
            stdin: what ``exec`` takes; or True for an input that is written to by the handle's
                ``stdin``; None or False (default) is empty.
            log_limit: bytes of the file that keeps its output: a quarter of them keeps the
                beginning, the rest the end (default: 16 MiB, at least 64 KiB).
            narrow: what it may do less than the session, with all that it starts; None (default) for
                nothing less.

        Returns:
            Its handle. A program that does not exist has the exit code 127, one that can't be
            executed 126, and the log says why.

        Raises:
            ResourceLimitError: there is no room for a process, or for its descriptors.
            ExecTransportError: the sandbox is gone.
            ArgumentError: an argument is impossible, a name that is taken and a ``cwd`` that is no
                directory included.
            PolicyError: ``narrow`` names what the session does not have.
            ConfinementUnavailableError: this machine can't hold a command to less.
            SessionClosedError: the session is not running.

        Example:
            >>> server = await session.start_process("npm run dev", name="web")
            >>> async for chunk in server.logs():
            ...     if b"ready" in chunk.data:
            ...         break
        """
        from sandyard.explaining.background import ExplainedProcess  # noqa: PLC0415  # see the class
        from sandyard.process.background_list import checked_log_limit  # noqa: PLC0415  # likewise

        commands = self._running_commands("start_process")
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=None if isinstance(stdin, bool) else stdin,
            leftovers="keep",
            narrow=narrow,
        )
        limit = checked_log_limit(log_limit)
        call = await self._prepared(request)
        call.lasting, call.typed = True, stdin is True
        process = await self._processes().start(
            commands,
            call,
            lambda run, label: ExplainedProcess(
                run,
                label=label,
                wait_for_port=self.wait_for_port,
                explainer=self._explainer,
                narrow=narrow,
            ),
            name=name,
            limit=limit,
        )
        await self._follow("process_run", (process.id, process.name, process.command), process.wait)
        return process

    def processes(self) -> tuple[BackgroundProcess, ...]:
        """The background processes of this session, oldest first.

        Those that have ended are among them, the last 256, until the session is closed.

        Raises:
            SessionClosedError: the session was not started, or is closed.
        """
        self._check_open("process")
        return () if self._background is None else self._background[0].listed()

    def process(self, which: str) -> BackgroundProcess:
        """A background process by its id, or the last one of a name.

        Raises:
            ArgumentError, ArgumentTypeError: there is none.
            SessionClosedError: the session was not started, or is closed.
        """
        self._check_open("process")
        return self._processes().find(which)

    @observed("process")
    async def remove_process(self, which: str | BackgroundProcess) -> bool:
        """End a background process, remove its log, and list it no more.

        Returns:
            True; False if it was removed before, or is another session's.

        Raises:
            ArgumentError, ArgumentTypeError: there is none of this id or name.
            SessionClosedError: the session was not started, or is closed.
        """
        process = self.process(which) if isinstance(which, str) else which
        self._check_open("process")
        return await self._processes().remove(process)

    # --- inside -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _quieted(self, processes: Processes, op: OpName) -> AsyncIterator[None]:
        """What is done before the workspace is saved or copied, which is done in the block.

        Raises:
            ArgumentError: ``processes`` is none of these.
            WorkspaceStopError: something could not be held still.
        """
        check_processes(processes, op)
        commands, init = self._commands, self._init  # which a shutdown meanwhile lets go
        running = commands is not None and init is not None
        async with AsyncExitStack() as still:
            for step in plan_stop(running=running, processes=processes):
                if step is StopStep.SAVE or commands is None or init is None:
                    break
                self._check_open(op)
                if step is StopStep.TERMINALS:
                    await commands.interactive.end_all()
                elif step is StopStep.PROCESSES:
                    await self._end_processes(commands)
                else:
                    await still.enter_async_context(_held(init, self.state.manifest.root, op))
            yield

    async def _end_processes(self, commands: Commands) -> None:
        """Ends the background processes, and what commands left running."""
        if self._background is not None:
            await self._background[0].end()
        await commands.end_leftovers()

    async def _settle_processes(self) -> None:
        """Gives back what processes hold whose sandbox is gone; their logs stay."""
        if self._background is not None:
            await self._background[0].settle()

    async def _forget_processes(self) -> None:
        """Removes their logs, before the lease is let go."""
        background, self._background = self._background, None
        if background is not None:
            await finished(_let_go(*background))

    def _processes(self) -> BackgroundProcesses:
        from sandyard.process.background_list import BackgroundProcesses  # noqa: PLC0415  # see the class
        from sandyard.workspace.log_place import LogPlace  # noqa: PLC0415  # likewise

        if self._background is None:
            place = LogPlace(self._lease)
            self._background = (BackgroundProcesses(place), place)
        return self._background[0]


@asynccontextmanager
async def _held(init: InitProcess, path: str, op: OpName) -> AsyncIterator[None]:
    """Holds still what runs, or says why that can't be."""
    from sandyard.process.freezing import held_still  # noqa: PLC0415  # few saves ask for it

    async with AsyncExitStack() as still:
        try:
            await still.enter_async_context(held_still(init.stillness))
        except OSError as error:  # a TimeoutError as well
            raise WorkspaceStopError(
                path=path,
                message=f"the workspace {shown(path)} was not {'forked' if op == 'fork' else 'saved'}: "
                "what runs in the sandbox could not be held still "
                f"({error.strerror or 'something did not stop in time'}); give processes='keep' to let "
                "it run meanwhile, or processes='end' to end it",
                context={"reason": "not_frozen"},
                retryable=True,
                cause=error,
            ) from error
        yield


async def _let_go(processes: BackgroundProcesses, place: LogPlace) -> None:
    await processes.close()
    try:
        await in_thread(place.close)
    except ResourceLimitError:  # there is no thread: then it is done here
        place.close()
