"""Owns the last bytes of a stream's output, in which a command that failed says why."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from sandyard.errors import ExecTimeoutError
from sandyard.explaining.complaints import TAIL_BYTES
from sandyard.process import CommandStream

if TYPE_CHECKING:
    from sandyard.explaining.explainer import Explainer
    from sandyard.narrowing import Narrowing
    from sandyard.process import CommandCall, Commands, OutputChunk
    from sandyard.types import ExecResult

__all__ = ["ExplainedStream"]


class ExplainedStream(CommandStream):
    """A command stream whose result tells what was denied."""

    def __init__(
        self,
        commands: Commands,
        call: CommandCall,
        explainer: Explainer,
        narrow: Narrowing | None,
    ) -> None:
        """Prepare a command; use ``session.stream`` instead."""
        super().__init__(commands, call)
        self._explainer = explainer
        self._spawn, self._narrow = call.spawn, narrow
        self._began = time.time()
        self._tails = {"stdout": _Tail(), "stderr": _Tail()}

    async def __anext__(self) -> OutputChunk:
        """Waits for the next chunk, as ``CommandStream`` does."""
        try:
            chunk = await super().__anext__()
        except StopAsyncIteration:
            if self.result.exit_code and not self.result.denials:
                await self._explain(self.result)
            raise
        except ExecTimeoutError as error:
            if error.result is not None:
                await self._explain(error.result)
            raise
        self._tails[chunk.stream].keep(chunk.data)
        return chunk

    async def _explain(self, result: ExecResult) -> None:
        stderr, stdout = (self._tails[name].content() for name in ("stderr", "stdout"))
        # Of a program that could not be run at all, the words are the result's own.
        stderr += result.stderr
        said = stderr, stdout
        await self._explainer.explain(result, self._spawn, self._narrow, *said, began=self._began)


class _Tail:
    """The last chunks of a stream, as many as hold what is looked at; nothing is copied."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def keep(self, data: bytes) -> None:
        """Take the next chunk."""
        self._chunks.append(data)
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            self._size -= len(self._chunks.popleft())

    def content(self) -> bytes:
        """All that is kept."""
        return b"".join(self._chunks)
