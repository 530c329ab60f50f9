"""Owns the life of one background process: its command, its log's end, and all that it holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Literal

from sandyard.errors import SandboxError
from sandyard.finishing import finished, finishing
from sandyard.process.background_input import ProcessInput
from sandyard.process.capture import Captured
from sandyard.process.commands import CommandCall, Commands, RunningCommand
from sandyard.process.latch import Latch
from sandyard.process.logs import LogSink, ProcessLog
from sandyard.process.results import exit_code, gone_error, unborn_result
from sandyard.process.wire import Exited, Failure
from sandyard.types import ExecResult

__all__ = ["ProcessRun", "ProcessState"]

ProcessState = Literal["running", "exited", "ended"]
"""``running``: its command runs; ``exited``: the command has exited, and something that it started
lives on; ``ended``: nothing of it is left."""


class ProcessRun:
    """A background process, from its command's birth until nothing of it is left.

    Args:
        commands: those of its sandbox.
        call: its command.
        log: where what it writes goes.

    Attributes:
        call: its command.
        log: where what it writes goes.
        pid: its number inside; None if the program could not be run.
        input: what it reads, where that is written by hand.
        over: set when nothing of it is left.
    """

    def __init__(self, commands: Commands, call: CommandCall, log: ProcessLog) -> None:
        self.call = call
        self.log = log
        self.pid: int | None = None
        self.input: ProcessInput | None = None
        self.over: Latch[None] = Latch()
        self._loop = asyncio.get_running_loop()
        self._command = RunningCommand(
            commands, call, LogSink(log, 0, self._pause), LogSink(log, 1, self._pause)
        )
        self._unborn: ExecResult | None = None
        self._result: ExecResult | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: Latch[None] | None = None
        self._on_end: Callable[[], None] | None = None

    async def start(self, on_end: Callable[[], None]) -> None:
        """Starts it, and waits until it runs.

        Args:
            on_end: called once, when it holds nothing any more.

        Raises:
            SandboxError: it can't be started; then nothing of it is left.
        """
        self._on_end = on_end
        self.log.on_room = self._command.resume
        try:
            await self._command.start()
            self.log.sources = self._command.outputs
            self._command.on_gone(self._gone)
            self.pid = await self._command.born()
            failure = self._command.outcome
            if isinstance(failure, Failure):
                self._unborn = self._failed(failure)
            elif self.pid is None and self.exited is None:
                raise gone_error(self.call.words, born=False)
        except BaseException:
            await self.close()
            raise
        self._command.on_exit(self._exited)
        if self._command.input is not None and self.call.typed:
            self.input = ProcessInput(self._command.input, self.call.words)
        if self.call.timeout_s is not None and not self._command.exited:
            # A timer, since nobody need wait for it.
            self._expiry = self._loop.call_later(self.call.timeout_s, self._expire)

    @property
    def state(self) -> ProcessState:
        """Whether it runs, only what it started does, or nothing of it is left."""
        if not self._command.exited:
            return "running"
        return "ended" if self._command.gone else "exited"

    @property
    def exited(self) -> Exited | None:
        """Init's account of its exit; None while it runs, and where there is none."""
        outcome = self._command.outcome
        return outcome if isinstance(outcome, Exited) else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs, and where the sandbox ended first."""
        if self._unborn is not None:
            return self._unborn.exit_code
        return None if self.exited is None else exit_code(self.exited.status)

    @property
    def orphaned(self) -> bool:
        """Whether the loop that it belongs to is closed."""
        return self._loop.is_closed()

    async def wait(self, timeout_s: float | None) -> bool:
        """Waits until its command has exited; False if that takes longer than ``timeout_s``."""
        if not await self._command.wait(timeout_s):
            return False
        await self.log.calm()  # its last words are counted then
        if self._command.gone:
            await self._finish()
        return True

    def result(self) -> ExecResult:
        """What ``exec`` would tell of its command, which has exited, but for the output.

        Raises:
            SandboxError: what ``exec`` would raise.
        """
        if self._result is None:
            outputs = (Captured(b"", 0, total) for total in self.log.taken)
            self._result = self._command.result(*outputs, timed_out=self._timed_out)
        return self._result

    async def signal(self, number: int, *, tree: bool) -> None:
        """Sends a signal to the command, or to each process of its tree."""
        await self._command.signal(number, tree=tree)

    async def close(self) -> None:
        """Ends it and all that it started."""
        await finished(self._close())

    def release(self) -> None:
        """Gives all back where it is orphaned and its sandbox gone."""
        if self._finished is None:
            self._finished = Latch()
            self._command.release()
            self._end_log()

    def _pause(self) -> None:
        self._command.pause()

    def _exited(self) -> None:
        self._command.stop_clock()
        self.log.sources = ()
        if not self._loop.is_closed():
            self._command.drain()  # its last words, also where what it left running goes on
        if self._expiry is not None:
            self._expiry.cancel()

    def _gone(self) -> None:
        if not self._loop.is_closed():
            self._set_off(self._finish)

    def _expire(self) -> None:
        if not self._command.exited:
            self._timed_out = True
            self._set_off(self._close)

    def _set_off(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = finishing(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        await self._command.end_rest()
        await self._finish()

    async def _finish(self) -> None:
        """Gives all back, once."""
        if self._finished is not None:
            await self._finished.wait()
            return
        self._finished = Latch()
        try:
            await self.log.calm()
            await self._command.end()
            failure = self._command.outcome
            if isinstance(failure, Failure):
                with suppress(SandboxError):  # which start raises
                    self._unborn = self._failed(failure)
                    self.log.take(1, self._unborn.stderr)
        finally:
            self._end_log()
            self._finished.set(None)

    def _end_log(self) -> None:
        self.log.on_room = None
        self.log.finish()
        self.over.set(None)
        if self._on_end is not None:
            self._on_end()

    def _failed(self, failure: Failure) -> ExecResult:
        """What a shell would tell of a program that can't be run; other failures are raised."""
        directory = os.fsdecode(self.call.spawn.cwd)
        return unborn_result(failure, self.call.words, directory)
