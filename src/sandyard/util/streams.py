"""Owns streams made of an iterator's pieces, and checksums of streams and files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Protocol

from sandyard.errors import ArgumentTypeError, shown

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

__all__ = ["IteratorIO", "sha256_file", "sha256_io"]


class IteratorIO(io.RawIOBase):
    """A stream to read from, of the pieces that an iterator gives.

    At its end, or when it is closed before, a generator is closed and ``on_close`` is called, once.

    Args:
        it: gives the pieces; empty ones are passed over.
        on_close: called without an argument.

    Example:
        >>> IteratorIO(iter([b"ab", b"cd"])).read(3)
        b'abc'
    """

    def __init__(
        self, it: Iterator[bytes], *, on_close: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self._pieces = it
        self._on_close = on_close
        self._held = bytearray()
        self._ended = False

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes as asked for, less only at the end; all that is left for -1 or None.

        Raises:
            ValueError: it is closed, as with every stream of Python's.
        """
        self._check_open()
        wanted = None if size is None or size < 0 else size
        while wanted is None or len(self._held) < wanted:
            if not self._fetch():
                break
        return self._take(len(self._held) if wanted is None else wanted)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill some of a buffer; return how much of it, 0 at the end.

        Raises:
            ValueError: it is closed, as with every stream of Python's.
        """
        self._check_open()
        with memoryview(buffer).cast("B") as view:
            while not self._held and len(view):
                if not self._fetch():
                    break
            taken = self._take(len(view))
            view[: len(taken)] = taken
            return len(taken)

    def close(self) -> None:
        """End it."""
        if not self.closed:
            super().close()
            self._held.clear()
            self._finish()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed stream")

    def _fetch(self) -> bool:
        """Take in the next piece; False at the end."""
        if self._ended:
            return False
        piece = next(self._pieces, None)
        if piece is None:
            self._finish()
            return False
        self._held += piece
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            if isinstance(self._pieces, Generator):
                self._pieces.close()
        finally:
            if self._on_close is not None:
                self._on_close()


class ReadableStream(Protocol):
    """What ``sha256_io`` needs of a stream."""

    def read(self, size: int, /) -> object:
        """The next of it."""

    def seekable(self) -> bool:
        """Whether it can be read again."""

    def tell(self) -> int:
        """Where it is."""

    def seek(self, offset: int, /) -> object:
        """Go there."""


def sha256_io(stream: ReadableStream, *, chunk_size: int = 1024 * 1024) -> str:
    """The SHA-256 of the rest of a stream, in hexadecimal; it stands where it stood, if it can.

    Args:
        stream: of bytes; text is hashed as UTF-8.
        chunk_size: bytes that are read at a time.

    Raises:
        ArgumentTypeError: it gives something else.
    """
    start = stream.tell() if stream.seekable() else None
    digest = hashlib.sha256()
    while chunk := stream.read(chunk_size):
        if isinstance(chunk, str):
            digest.update(chunk.encode())
        elif isinstance(chunk, bytes | bytearray | memoryview):
            digest.update(chunk)
        else:
            raise ArgumentTypeError(
                f"stream gives bytes or text, not {shown(chunk)}",
                op="util",
                argument="stream",
                value=stream,
            )
    if start is not None:
        stream.seek(start)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file of this machine's, in hexadecimal.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
