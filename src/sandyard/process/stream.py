"""Owns a command whose output is read as it comes; a slow reader makes the command wait."""

from __future__ import annotations

import asyncio
import signal as signals
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self

from sandyard.errors import ExecTransportError
from sandyard.finishing import finishing
from sandyard.limits import STREAM_BUFFER_BYTES
from sandyard.process.capture import Captured
from sandyard.process.commands import CommandCall, Commands, RunningCommand
from sandyard.process.pipes import ChunkSink
from sandyard.process.signalling import checked_signal
from sandyard.types import ExecResult

__all__ = ["CommandStream", "OutputChunk"]

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Some bytes that a command wrote.

    Attributes:
        stream: which stream they were written to.
        data: the bytes, never empty; a chunk may end within a line or a character.
    """

    stream: StreamName
    data: bytes


class CommandStream:
    """A running command, to be iterated for its output.

    Enter it as an async context manager; leaving the block ends the command's whole tree if it
    still runs. Chunks of one stream come in order; between the two streams the order is the one
    in which they were read. At most 1 MiB waits for a slow reader, then the command waits.

    Example:
        >>> async with session.stream("make -j4", timeout=600) as build:
        ...     async for chunk in build:
        ...         sys.stdout.buffer.write(chunk.data)
        >>> build.result.exit_code
        0
    """

    def __init__(self, commands: Commands, call: CommandCall) -> None:
        """Prepare a command; use ``session.stream`` instead."""
        self._call = call
        self._chunks: deque[OutputChunk] = deque()
        self._waiting = 0  # bytes in _chunks
        self._totals: dict[StreamName, int] = {"stdout": 0, "stderr": 0}
        self._news = asyncio.Event()
        self._paused = False
        self._expiry: asyncio.TimerHandle | None = None
        self._expired: asyncio.Task[None] | None = None
        self._result: ExecResult | None = None
        self._command = RunningCommand(
            commands,
            call,
            ChunkSink(partial(self._take, "stdout")),
            ChunkSink(partial(self._take, "stderr")),
        )

    @property
    def result(self) -> ExecResult:
        """How the command ended, once the iteration has.

        Its ``stdout`` and ``stderr`` are empty, since the chunks were the output; the totals count
        them. Only where the program could not be run at all does ``stderr`` say why.

        Raises:
            ExecTransportError: if the command has not ended yet.
        """
        if self._result is None:
            raise ExecTransportError(
                command=self._call.words,
                message="the command has not ended: iterate its output to the end first",
                context={"reason": "still_running"},
                retryable=True,
            )
        return self._result

    async def signal(self, number: int | str = signals.SIGTERM, *, tree: bool = False) -> None:
        """Sends a signal to the command; a command that has ended is left alone.

        Args:
            number: the signal's number or name, such as ``"INT"`` or ``"RTMIN+1"`` (default: SIGTERM).
            tree: True sends it to each process that descends from the command as well.

        Raises:
            ArgumentError, ArgumentTypeError: if there is no such signal.
        """
        await self._command.signal(checked_signal(number, "exec", "number"), tree=tree)

    async def __aenter__(self) -> Self:
        """Starts the command."""
        try:
            await self._command.start()
        except BaseException:
            await self._command.end()
            raise
        self._command.on_exit(self._news.set)
        if self._call.timeout_s is not None:
            # A timer, since a reader that does not read must not keep the command alive.
            self._expiry = asyncio.get_running_loop().call_later(self._call.timeout_s, self._expire)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the command if it still runs."""
        if self._expiry is not None:
            self._expiry.cancel()
        await self._command.end()

    def __aiter__(self) -> Self:
        """Iterates over the output, from here to its end."""
        return self

    async def __anext__(self) -> OutputChunk:
        """Waits for the next chunk.

        Raises:
            ExecTimeoutError: if the command took too long; its tree has ended.
            ExecTransportError: if the sandbox ended, or could not run it.
        """
        while not self._chunks:
            if self._result is not None:
                raise StopAsyncIteration
            await self._wait_for_news()
        chunk = self._chunks.popleft()
        self._waiting -= len(chunk.data)
        if self._paused and self._waiting < STREAM_BUFFER_BYTES // 2:
            self._paused = False
            self._command.resume()
        return chunk

    async def _wait_for_news(self) -> None:
        self._news.clear()
        if not self._command.exited and self._expired is None:
            await self._news.wait()
            return
        await self._command.end()  # which reads what is left in the pipes
        if not self._chunks:
            self._finish()

    def _finish(self) -> None:
        streams = (Captured(b"", 0, total) for total in self._totals.values())
        timed_out = self._expired is not None
        self._result = self._command.result(*streams, timed_out=timed_out)

    def _expire(self) -> None:
        if self._command.exited:
            return
        self._expired = finishing(self._command.end())
        self._news.set()

    def _take(self, stream: StreamName, data: bytes) -> None:
        self._totals[stream] += len(data)
        self._chunks.append(OutputChunk(stream, data))
        self._waiting += len(data)
        if self._waiting >= STREAM_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._command.pause()
        self._news.set()
