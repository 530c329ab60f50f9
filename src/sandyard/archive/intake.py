"""Bytes of an archive on their way in: taken in exact portions, and decompressed by what they are."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sandyard.archive.model import ArchiveError
from sandyard.limits import ARCHIVE_WINDOW_BITS, ARCHIVE_XZ_BYTES, COPY_CHUNK_BYTES

if TYPE_CHECKING:
    from sandyard.archive.bounds import ArchiveMeter
    from sandyard.archive.model import Read

__all__ = ["ByteReader", "expanded", "memory_source"]

TRUNCATED: Final = "archive is truncated"
_CORRUPT: Final = "corrupt compressed data"


class ByteReader:
    """Gives the bytes of a source in the portions that are asked for.

    Args:
        read: the source.
    """

    __slots__ = ("_at", "_held", "_read")

    def __init__(self, read: Read) -> None:
        self._read = read
        self._held = memoryview(b"")
        self._at = 0

    def some(self, most: int) -> memoryview:
        """The next bytes, one at least and at most so many; none at the end."""
        if self._at == len(self._held):
            self._held, self._at = memoryview(self._read(COPY_CHUNK_BYTES)), 0
        start = self._at
        self._at = min(start + most, len(self._held))
        return self._held[start : self._at]

    def at_hand(self) -> memoryview:
        """What is in memory of the next bytes, without taking them; nothing where none is."""
        return self._held[self._at :]

    def exactly(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            ArchiveError: there are fewer.
        """
        start, end = self._at, self._at + size
        if end <= len(self._held):
            self._at = end
            return bytes(self._held[start:end])
        parts = []
        while size:
            piece = self.some(size)
            if not piece:
                raise ArchiveError(TRUNCATED)
            parts.append(bytes(piece))
            size -= len(piece)
        return b"".join(parts)

    def peek(self, most: int) -> bytes:
        """The next bytes, without taking them; fewer where there are no more."""
        held = self._held[self._at :]
        while len(held) < most:
            more = self._read(COPY_CHUNK_BYTES)
            if not more:
                break
            held = memoryview(bytes(held) + bytes(more)) if held else memoryview(more)
        self._held, self._at = held, 0
        return bytes(held[:most])

    def skip(self, size: int) -> None:
        """Pass over so many bytes.

        Raises:
            ArchiveError: there are fewer.
        """
        if self._at + size <= len(self._held):
            self._at += size
            return
        while size:
            piece = self.some(size)
            if not piece:
                raise ArchiveError(TRUNCATED)
            size -= len(piece)

    def give_back(self, rest: bytes) -> None:
        """Put bytes that were taken in front of what comes."""
        if rest:
            self._held, self._at = memoryview(rest + bytes(self._held[self._at :])), 0

    def drain(self) -> None:
        """Pass over all that comes: what is compressed is checked to its end so."""
        while self.some(COPY_CHUNK_BYTES):
            pass


def memory_source(data: memoryview) -> Read:
    """A source that gives what is in memory, uncopied."""
    left = data

    def read(size: int) -> memoryview:
        nonlocal left
        piece, left = left[:size], left[size:]
        return piece

    return read


# --- decompression ----------------------------------------------------------------------------


class _Decoder(Protocol):
    """One compressed stream, as ``lzma``, ``bz2`` and ``compression.zstd`` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """The same for gzip; its checksum and length are compared at the end."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class _Format(NamedTuple):
    """A way to compress.

    Attributes:
        magic: how what is compressed so begins.
        opens: begins to decode a stream, and says which errors besides ``_FAILURES`` it raises.
    """

    magic: bytes
    opens: Callable[[], tuple[_Decoder, type[Exception]]]


_FAILURES: Final = (OSError, ValueError, EOFError)


def _open_gzip() -> tuple[_Decoder, type[Exception]]:
    return _Gzip(), zlib.error


def _open_xz() -> tuple[_Decoder, type[Exception]]:
    import lzma  # noqa: PLC0415  # loaded when such an archive comes

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=ARCHIVE_XZ_BYTES), lzma.LZMAError


def _open_bzip() -> tuple[_Decoder, type[Exception]]:
    import bz2  # noqa: PLC0415  # loaded when such an archive comes

    return bz2.BZ2Decompressor(), OSError


def _open_zstd() -> tuple[_Decoder, type[Exception]]:
    from sandyard.archive import zstandard  # noqa: PLC0415  # likewise

    return zstandard.open_decoder(ARCHIVE_WINDOW_BITS), zstandard.ZstdError


_ZSTD: Final = _Format(b"\x28\xb5\x2f\xfd", _open_zstd)
_FORMATS: Final = (
    _Format(b"\x1f\x8b", _open_gzip),
    _ZSTD,
    _Format(b"\xfd7zXZ\0", _open_xz),
    _Format(b"BZh", _open_bzip),
)
_SKIPPABLE: Final = frozenset(bytes((first, 0x2A, 0x4D, 0x18)) for first in range(0x50, 0x60))
"""How Zstandard frames without content begin (RFC 8878, 3.1.2)."""

_LONGEST: Final = 6


def _format_of(head: bytes) -> _Format | None:
    """How what begins so is compressed; None if it is not known as such."""
    if head[:4] in _SKIPPABLE:
        return _ZSTD
    return next((each for each in _FORMATS if head.startswith(each.magic)), None)


def expanded(source: ByteReader, meter: ArchiveMeter) -> ByteReader:
    """Decompress a source, if its first bytes say that it is compressed.

    Args:
        source: the archive.
        meter: counts what comes out.

    Returns:
        Its content; the source itself if it is not compressed.
    """
    form = _format_of(source.peek(_LONGEST))
    return source if form is None else ByteReader(_Expander(source, form, meter).read)


class _Expander:
    """Decodes the streams of a source, one after the other."""

    def __init__(self, source: ByteReader, form: _Format, meter: ArchiveMeter) -> None:
        self._source = source
        self._form = form
        self._meter = meter
        self._decoder: _Decoder | None
        self._decoder, failure = form.opens()
        self._failures = (*_FAILURES, failure)

    def read(self, size: int) -> bytes:
        """The next bytes of the content.

        Raises:
            ArchiveError: the source is corrupt or ends too early, or too much comes out of it.
        """
        while True:
            decoder = self._decoder
            if decoder is None:
                if self._is_at_end():
                    return b""
                decoder, _ = self._form.opens()
                self._decoder = decoder
            piece = b""
            if decoder.needs_input:
                piece = bytes(self._source.some(COPY_CHUNK_BYTES))
                if not piece:
                    raise ArchiveError(TRUNCATED)
            try:
                out = decoder.decompress(piece, size)
            except self._failures as error:
                raise ArchiveError(f"{_CORRUPT}: {error}") from error
            if decoder.eof:
                self._source.give_back(decoder.unused_data)
                self._decoder = None
            if out:
                self._meter.expand(len(out))
                return out

    def _is_at_end(self) -> bool:
        """Whether no other stream follows; the zeros that tapes are padded with are passed over."""
        while head := self._source.peek(_LONGEST):
            if _format_of(head) is self._form:
                return False
            if head.strip(b"\0"):
                raise ArchiveError(f"{_CORRUPT}: something else follows it")
            self._source.skip(len(head))
        return True
