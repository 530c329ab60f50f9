"""Owns a command that runs on behind the caller's back, its output on pipes and nothing on its stdin."""

from __future__ import annotations

import asyncio
import signal

from sandyard.errors import SandboxError
from sandyard.finishing import finished, finishing
from sandyard.process.capture import Captured
from sandyard.process.commands import CommandCall, Commands, RunningCommand
from sandyard.process.gathering import Gathering
from sandyard.process.pipes import ChunkSink
from sandyard.types import ExecResult

__all__ = ["PipedProcess"]

_NOTHING = Captured(b"", 0, 0)


class PipedProcess:
    """One command, both streams gathered in the order in which they are read.

    Attributes:
        exit_code: its exit code, once all that it wrote was read; None before.
        failure: why it could not be run or be told of; None while all is well.
    """

    __slots__ = (
        "_call",
        "_command",
        "_ending",
        "_expiry",
        "_gathering",
        "_result",
        "exit_code",
        "failure",
    )

    def __init__(self, commands: Commands, call: CommandCall, gathering: Gathering) -> None:
        sink = ChunkSink(gathering.take)
        self._call = call
        self._gathering = gathering
        self._command = RunningCommand(commands, call, sink, sink)
        self._ending: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.exit_code: int | None = None
        self.failure: SandboxError | None = None
        self._result: ExecResult | None = None

    async def start(self) -> None:
        """Starts it.

        Raises:
            ExecTransportError, ResourceLimitError: as ``RunningCommand.start``.
        """
        try:
            await self._command.start()
        except BaseException:
            await self._command.end()
            raise
        if self._call.timeout_s is not None:
            notice = f"the command took longer than {self._call.timeout_s:g} s, and was ended"
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._call.timeout_s, self._begin_end, notice)
        self._command.on_exit(self._begin_end)

    async def result(self) -> ExecResult:
        """Waits until it has exited, and tells what ``exec`` would, but for the output.

        Raises:
            SandboxError: it could not be run or be told of.
        """
        await self._gathering.ended.wait()
        if self._result is None:
            raise self.failure or AssertionError("it is made when the command ends")
        return self._result

    async def close(self, notice: str = "") -> None:
        """Ends it with all that descends from it, unless it has exited."""
        self._begin_end(notice)
        if self._ending is not None:
            await finished(_waited(self._ending))

    def _begin_end(self, notice: str = "") -> None:
        if self._ending is None:
            self._ending = finishing(self._end(notice))

    async def _end(self, notice: str) -> None:
        asked = not self._command.exited
        if self._expiry is not None:
            self._expiry.cancel()
        try:
            await self._command.end()
            result = self._command.result(_NOTHING, _NOTHING, timed_out=False)
        except SandboxError as error:
            self.failure = error
            self.exit_code = -signal.SIGKILL
        else:
            self._gathering.take(result.stderr)  # why the program could not be run
            self.exit_code = -signal.SIGKILL if asked else result.exit_code
            result.exit_code = self.exit_code
            self._result = result
        if asked and notice:
            self._gathering.take(f"\nsandyard: {notice}\n".encode())
        self._gathering.wake()


async def _waited(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
