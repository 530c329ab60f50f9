"""FedFile: bytes that come on the event loop, as a file for a thread that reads it."""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import cast

__all__ = ["FedFile"]


class FedFile(io.RawIOBase):
    """What an asynchronous iterator gives, as a file for another thread than the loop's.

    A source that fails is a file that can't be read; ``failure`` keeps what it raised.

    Args:
        source: gives the bytes; it is asked for more only when the thread is.
        loop: the loop that it belongs to.

    Attributes:
        failure: what the source raised; None while all is well.
    """

    def __init__(self, source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._source = source
        self._loop = loop
        self._rest = b""
        self._asking: asyncio.Task[object] | None = None
        self._stopped = False

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Wait for bytes, in the thread.

        Raises:
            OSError: the source has failed, or is to be read no more.
        """
        view = memoryview(cast("bytearray", buffer)).cast("B")
        if not self._rest:
            try:
                self._rest = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            except CancelledError:
                raise OSError(errno.ECANCELED, "it is wanted no more") from None
        taken = self._rest[: len(view)]
        view[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)

    def stop(self) -> None:
        """Let the thread wait no longer; called on the loop."""
        self._stopped = True
        if self._asking is not None:
            self._asking.cancel()

    async def _next(self) -> bytes:
        if self._stopped:
            raise OSError(errno.ECANCELED, "it is wanted no more")
        self._asking = asyncio.current_task()
        try:
            return await anext(self._source, b"")
        except Exception as error:
            self.failure = error
            number = error.errno if isinstance(error, OSError) else None
            raise OSError(number or errno.EIO, f"its source has failed: {error}") from error
        finally:
            self._asking = None
