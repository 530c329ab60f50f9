"""Owns what is written to a background process by hand."""

from __future__ import annotations

import asyncio

from sandyard.errors import ArgumentTypeError, ExecTransportError
from sandyard.process.pipes import InputPipe

__all__ = ["ProcessInput"]


class ProcessInput:
    r"""The standard input of a background process.

    Example:
        >>> shell = await session.start_process("sh", stdin=True)
        >>> await shell.stdin.write(b"echo hi; exit\n")
    """

    def __init__(self, pipe: InputPipe, words: tuple[str, ...]) -> None:
        """Take over a pipe; use ``session.start_process(…, stdin=True)`` instead."""
        self._pipe = pipe
        self._words = words
        self._turn = asyncio.Lock()  # what two callers write is not mixed

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``; a process that reads slowly makes the caller wait.

        Of a write that is cancelled, a part may have been written.

        Raises:
            ArgumentTypeError: it is no bytes.
            ExecTransportError: nobody reads any more, or the input is closed
                (``context["reason"]`` is ``"stdin_closed"``).
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ArgumentTypeError(
                "data is bytes; encode text first", op="process", argument="data", value=data
            )
        async with self._turn:
            try:
                written = await self._pipe.write(data)
            except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
                raise self._closed(error) from error
        if not written:
            raise self._closed(None)

    async def close(self) -> None:
        """Close it, so that the process reads the end; doing it again does nothing.

        What is being written is written first.
        """
        async with self._turn:
            self._pipe.end()

    def _closed(self, error: OSError | None) -> ExecTransportError:
        why = "nobody reads it any more, or it was closed" if error is None else error.strerror
        return ExecTransportError(
            command=self._words,
            message=f"the input of the process can't be written to: {why}",
            context={"reason": "stdin_closed" if error is None else "stdin_failed"},
            cause=error,
            retryable=False,
        )
