"""Owns the background processes of one session, from their start until the session is closed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from sandyard.errors import ArgumentError, ArgumentTypeError, ResourceLimitError, shown
from sandyard.finishing import finished, in_thread
from sandyard.limits import (
    DESCRIPTORS_PER_LEFTOVER,
    DESCRIPTORS_PER_PROCESS,
    LOG_LIMIT_BYTES,
    LOG_LIMIT_MAX_BYTES,
    LOG_LIMIT_MIN_BYTES,
    PROCESS_NAME_CHARS,
    PROCESSES_KEPT,
)
from sandyard.process.background import BackgroundProcess
from sandyard.process.background_run import ProcessRun
from sandyard.process.budget import descriptor_budget
from sandyard.process.commands import CommandCall, Commands
from sandyard.process.failures import full_of_processes
from sandyard.process.logs import LogFiles, ProcessLog
from sandyard.process.trees import end_in_turn

__all__ = ["BackgroundProcesses", "checked_log_limit"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ID: Final = re.compile(r"p[0-9]+")

Handle = Callable[[ProcessRun, tuple[str, str]], BackgroundProcess]
"""Makes the handle of a process, given its life, and its id and name."""


class BackgroundProcesses:
    """All that were started, running and ended; of the ended ones, the last 256.

    Args:
        files: where their logs are kept.
    """

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._known: dict[str, tuple[BackgroundProcess, ProcessRun]] = {}
        self._last = 0
        self._names: set[str] = set()  # of those that are being started

    async def start(
        self, commands: Commands, call: CommandCall, handle: Handle, *, name: object, limit: int
    ) -> BackgroundProcess:
        """Starts a process.

        Args:
            commands: those of the sandbox in which it runs.
            call: its command.
            handle: makes its handle.
            name: what it is to be called, or None.
            limit: bytes that its log may have.

        Raises:
            ArgumentError, ArgumentTypeError: there can be no process of this name now.
            ResourceLimitError: there is no room for it.
            ExecTransportError: the sandbox is gone.
        """
        await self._forget_oldest()
        chosen = self._checked_name(name)
        piped = call.typed or call.stdin is not None
        held = DESCRIPTORS_PER_PROCESS if piped else DESCRIPTORS_PER_LEFTOVER
        if not descriptor_budget.settle_in(held):
            raise full_of_processes(call.words, descriptor_budget.limit())
        self._last += 1
        number = f"p{self._last}"
        run = ProcessRun(commands, call, ProcessLog(self._files, f"{number}.log", limit))
        process = handle(run, (number, chosen or number))
        self._names.add(process.name)
        leave = partial(descriptor_budget.move_out, held)
        try:
            await run.start(leave)
        except BaseException:
            await finished(self._forget(process, run))
            raise
        finally:
            self._names.discard(process.name)
        self._known[process.id] = (process, run)
        return process

    def listed(self) -> tuple[BackgroundProcess, ...]:
        """All of them, oldest first."""
        return tuple(process for process, _ in self._known.values())

    def find(self, which: object) -> BackgroundProcess:
        """One by its id, or the last one of a name.

        Raises:
            ArgumentError, ArgumentTypeError: there is none.
        """
        if not isinstance(which, str):
            raise ArgumentTypeError(
                "a process is found by its id or name", op="process", argument="which", value=which
            )
        for process, _ in reversed(self._known.values()):
            if which in (process.id, process.name):
                return process
        names = ", ".join(process.name for process, _ in self._known.values())
        raise ArgumentError(
            f"there is no background process {shown(which)}; there are: {names or 'none'}",
            op="process",
            argument="which",
            value=which,
        )

    async def remove(self, process: BackgroundProcess) -> bool:
        """Ends a process, and removes its log; False if it was not listed any more.

        Raises:
            ArgumentTypeError: it is no process.
        """
        if not isinstance(process, BackgroundProcess):
            raise ArgumentTypeError(
                "a process is given by its id, its name or its handle",
                op="process",
                argument="which",
                value=process,
            )
        known, run = self._known.get(process.id, (None, None))
        if known is not process or run is None:
            return False
        await finished(self._end(process, run))
        return True

    async def end(self) -> None:
        """Ends all of them; their logs stay."""
        runs = [run for _, run in self._known.values() if not run.orphaned]
        await finished(end_in_turn(run.close for run in runs))

    async def settle(self) -> None:
        """Waits until all is given back, once the sandbox is gone; the logs stay."""
        for _, run in self._known.values():
            if run.orphaned:
                run.release()
        await self.end()

    async def close(self) -> None:
        """Lets go of the logs, of which nobody writes any more; whoever owns their place removes it."""
        known, self._known = self._known, {}
        for _, run in known.values():
            if not run.orphaned:
                await run.log.settled()
            run.log.forget()

    async def _end(self, process: BackgroundProcess, run: ProcessRun) -> None:
        await run.close()
        await self._forget(process, run)

    async def _forget(self, process: BackgroundProcess, run: ProcessRun) -> None:
        """Removes the log of a process that has ended."""
        self._known.pop(process.id, None)
        if not run.orphaned:
            await run.log.settled()
        run.log.forget()
        with suppress(OSError, ResourceLimitError):  # then it goes with its place
            await in_thread(run.log.remove)

    async def _forget_oldest(self) -> None:
        """Makes room in the list for one more that ends."""
        if len(self._known) < PROCESSES_KEPT:
            return
        ended = [pair for pair in self._known.values() if pair[0].state == "ended"]
        for process, run in ended[: max(0, len(ended) + 1 - PROCESSES_KEPT)]:
            await self._forget(process, run)

    def _checked_name(self, name: object) -> str | None:
        if name is None:
            return None
        if not isinstance(name, str):
            raise ArgumentTypeError(
                "name is a string, or None", op="start_process", argument="name", value=name
            )
        if len(name) > PROCESS_NAME_CHARS or not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise ArgumentError(
                f"a name has letters, digits, '.', '_' and '-', at most {PROCESS_NAME_CHARS} of "
                "them, begins with a letter or digit, and is not like an id ('p1')",
                op="start_process",
                argument="name",
                value=name,
            )
        living = {process.name for process in self.listed() if process.state != "ended"}
        if name in living | self._names:
            raise ArgumentError(
                f"there is a process called {name} already; close it first, or choose another name",
                op="start_process",
                argument="name",
                value=name,
            )
        return name


def checked_log_limit(limit: object) -> int:
    """Bytes that a log may have.

    Raises:
        ArgumentTypeError: it is no whole number.
        ArgumentError: it is too small, or too large.
    """
    if limit is None:
        return LOG_LIMIT_BYTES
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise ArgumentTypeError(
            "log_limit is a number of bytes", op="start_process", argument="log_limit", value=limit
        )
    if not LOG_LIMIT_MIN_BYTES <= limit <= LOG_LIMIT_MAX_BYTES:
        raise ArgumentError(
            f"log_limit is from {LOG_LIMIT_MIN_BYTES} to {LOG_LIMIT_MAX_BYTES} bytes",
            op="start_process",
            argument="log_limit",
            value=limit,
        )
    return limit
