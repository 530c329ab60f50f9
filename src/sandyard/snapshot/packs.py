"""Packs: files that hold many objects one after the other, and a sorted list of them at their end.

An object is some bytes under the name of their SHA-256. A pack is written once, from its beginning to
its end, and comes to stand under its name when all of it is on the disk; it never changes then.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import sys
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from sandyard.archive.trees import DIGEST_BYTES
from sandyard.archive.zstandard import ZstdError, compress, compress_pieces, open_decoder
from sandyard.limits import ARCHIVE_WINDOW_BITS, COPY_CHUNK_BYTES
from sandyard.snapshot.place import Place
from sandyard.snapshot.sizes import (
    BUFFER_BYTES,
    COMPRESSION_LEVEL,
    HASTEN_BYTES,
    PACK_BYTES,
    PACK_OBJECTS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

__all__ = [
    "SUFFIX",
    "DamagedPackError",
    "PackWriter",
    "Packed",
    "SortedList",
    "pieces_of",
    "prefix_of",
    "read_list",
    "salvage",
]

SUFFIX: Final = ".pack"

_HEADER: Final = b"SYPACK1\n"
_OBJECT: Final = struct.Struct("<4sBBHQQ32s")
"""Before each object: a mark, codec, nothing, nothing, its size, its size as stored, its digest."""

_MARK: Final = b"OBJ1"
_LISTED: Final = struct.Struct("<32sQQQB7x")
"""In the list: digest, where its bytes begin, its size, its size as stored, codec."""

_TRAILER: Final = struct.Struct("<QQ32s8s")
"""At the very end: where the list begins, how many it has, its own digest, a mark."""

_END: Final = b"SYPEND1\n"
_PREFIX: Final = 8
"""Bytes of a digest that are held: of a million objects, two begin alike once in a hundred million
stores."""

_AT_ONCE: Final = 4096
"""Entries of a list that are read at once: 256 KiB."""

_RAW: Final = 0
_ZSTD: Final = 1
_KEPT: Final = 2
"""As they are, and compressing gained nothing."""


class DamagedPackError(Exception):
    """A pack's bytes are not what was written."""


class Packed(NamedTuple):
    """Where an object is.

    Attributes:
        digest: its name.
        at: where its stored bytes begin.
        size: of its bytes.
        stored: of its bytes as they are stored.
        codec: 0 as they are, 1 compressed by zstd, 2 as they are since that gained nothing.
    """

    digest: bytes
    at: int
    size: int
    stored: int
    codec: int

    @property
    def untried(self) -> bool:
        """Whether nobody has tried yet to compress it."""
        return self.codec == _RAW


class PackWriter:
    """Writes one pack. It is a context manager; left without ``publish``, nothing of it stays.

    Args:
        place: the store, whose lock the caller shares.
        packs: descriptor of the directory of packs; it stays the caller's.
        compressed: True compresses what gets smaller by it.
    """

    def __init__(self, place: Place, packs: int, *, compressed: bool = False) -> None:
        self._place = place
        self._disk = place.disk
        self._packs = packs
        self._compressed = compressed
        self._name = place.temporary_name()
        self._file = place.disk.make(packs, self._name)
        self._buffer = bytearray(_HEADER)
        self._written = 0
        self._hastened = 0
        self._held: set[bytes] = set()
        self._listed = bytearray()

    @property
    def full(self) -> bool:
        """Whether another pack should be begun: its list is held while it is written."""
        size = self._written + len(self._buffer)
        return size >= PACK_BYTES or len(self._held) >= PACK_OBJECTS

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._written + len(self._buffer)

    def __contains__(self, digest: bytes) -> bool:
        """Whether it has an object."""
        return digest in self._held

    def __len__(self) -> int:
        """How many objects it has."""
        return len(self._held)

    def add(self, digest: bytes, data: bytes | bytearray) -> None:
        """Add an object."""
        codec, stored = _RAW, data
        if self._compressed:
            small = compress(bytes(data), COMPRESSION_LEVEL)
            codec, stored = (_ZSTD, small) if len(small) < len(data) else (_KEPT, data)
        self._buffer += _OBJECT.pack(_MARK, codec, 0, 0, len(data), len(stored), digest)
        at = self._written + len(self._buffer)
        self._held.add(digest)
        self._listed += _LISTED.pack(digest, at, len(data), len(stored), codec)
        if len(stored) >= BUFFER_BYTES:
            self._flush()
            self._put(stored)
        else:
            self._buffer += stored
            if len(self._buffer) >= BUFFER_BYTES:
                self._flush()

    def add_run(
        self,
        run: memoryview,
        objects: Iterable[tuple[bytes, int]],
        is_known: Callable[[bytes], bool],
    ) -> None:
        """Add objects that lie one after the other, few enough to be gathered, as they are.

        Args:
            run: where they lie.
            objects: digests and sizes.
            is_known: whether the store has an object already.
        """
        held, listed, buffer, written = self._held, self._listed, self._buffer, self._written
        start = 0
        for digest, size in objects:
            end = start + size
            if digest not in held and not is_known(digest):
                buffer += _OBJECT.pack(_MARK, _RAW, 0, 0, size, size, digest)
                held.add(digest)
                listed += _LISTED.pack(digest, written + len(buffer), size, size, _RAW)
                buffer += run[start:end]
            start = end
        if len(buffer) >= BUFFER_BYTES:
            self._flush()

    def begin(self) -> int:
        """Begin an object whose digest is not known yet; ``feed`` it, then ``settle``."""
        self._flush()
        start = self._written
        self._written += _OBJECT.size
        return start

    def feed(self, piece: bytes) -> None:
        """Add a piece to the object that was begun."""
        self._put(piece)

    def settle(self, start: int, digest: bytes, *, wanted: bool) -> None:
        """End the object that was begun, or drop it if it is not wanted.

        Args:
            start: what ``begin`` returned.
            digest: of all its pieces.
            wanted: False if the store has it already.
        """
        size = self._written - start - _OBJECT.size
        if wanted and digest not in self._held:
            self._disk.write(self._file, _OBJECT.pack(_MARK, _RAW, 0, 0, size, size, digest), start)
            self._note(Packed(digest, start + _OBJECT.size, size, size, _RAW))
            return
        self._disk.cut(self._file, start)
        self._written = start

    def copy(self, packed: Packed, pieces: Iterable[bytes]) -> None:
        """Add an object that another pack has, whatever its size.

        Args:
            packed: what the other pack says of it.
            pieces: its bytes.
        """
        if packed.size < BUFFER_BYTES:
            self.add(packed.digest, b"".join(pieces))
            return
        codec, start = _RAW, self.begin()
        if self._compressed:
            codec, pieces = _ZSTD, compress_pieces(pieces, COMPRESSION_LEVEL)
        for piece in pieces:
            self.feed(piece)
        stored = self._written - start - _OBJECT.size
        held = Packed(packed.digest, start + _OBJECT.size, packed.size, stored, codec)
        head = _OBJECT.pack(_MARK, codec, 0, 0, held.size, stored, held.digest)
        self._disk.write(self._file, head, start)
        self._note(held)

    def publish(self) -> str | None:
        """Have it survive, and give it its name; an empty one has none.

        Returns:
            Its name; None if it was empty.
        """
        if not self._held:
            return None
        entries = range(0, len(self._listed), _LISTED.size)
        listed = b"".join(sorted(bytes(self._listed[at : at + _LISTED.size]) for at in entries))
        at, name = self.size, hashlib.sha256(listed).digest()
        self._buffer += listed
        self._buffer += _TRAILER.pack(at, len(self._held), name, _END)
        self._flush()
        self._disk.sync(self._file)
        final = name.hex() + SUFFIX
        self._disk.publish(self._packs, self._name, final)
        self._name = ""
        return final

    def _note(self, packed: Packed) -> None:
        self._held.add(packed.digest)
        self._listed += _LISTED.pack(*packed)

    def _put(self, data: bytes | bytearray) -> None:
        self._disk.write(self._file, data, self._written)
        self._written += len(data)
        ahead = self._written - self._hastened
        if ahead >= HASTEN_BYTES:
            self._disk.hasten(self._file, self._hastened, ahead)
            self._hastened = self._written

    def _flush(self) -> None:
        if self._buffer:
            self._put(self._buffer)
            self._buffer = bytearray()

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and remove it unless it was published."""
        os.close(self._file)
        if self._name:
            self._disk.remove(self._packs, self._name)


# --- reading --------------------------------------------------------------------------------------


class SortedList:
    """The list of one pack: objects by digest. Of each, eight bytes are held; the rest is read there.

    Args:
        prefixes: of the digests, as numbers, sorted.
        at: where the list begins in the pack.
        raw: the list itself, where the pack has none that is whole.
    """

    def __init__(self, prefixes: array[int], at: int, raw: bytes | None = None) -> None:
        self._prefixes = prefixes
        self._at = at
        self._raw = raw

    def __len__(self) -> int:
        """How many objects it has."""
        return len(self._prefixes)

    @property
    def end(self) -> int:
        """The size of its pack."""
        return self._at + len(self) * _LISTED.size + _TRAILER.size

    @property
    def prefixes(self) -> Iterable[int]:
        """The beginnings of all digests, as numbers."""
        return self._prefixes

    def has_prefix(self, prefix: int) -> bool:
        """Whether an object's digest may begin so: far faster than ``find``, and nothing is read."""
        place = bisect_left(self._prefixes, prefix)
        return place < len(self._prefixes) and self._prefixes[place] == prefix

    def find(self, file: int, digest: bytes) -> Packed | None:
        """Look for an object.

        Args:
            file: descriptor of the pack.
            digest: of the object.

        Raises:
            OSError: the pack can't be read.
        """
        prefix = prefix_of(digest)
        place = bisect_left(self._prefixes, prefix)
        while place < len(self._prefixes) and self._prefixes[place] == prefix:
            raw = self._entries(file, place, 1)
            if raw[:DIGEST_BYTES] == digest and len(raw) == _LISTED.size:
                return Packed(*_LISTED.unpack(raw))
            place += 1
        return None

    def each(self, file: int) -> Iterator[Packed]:
        """All objects.

        Raises:
            OSError: the pack can't be read, or was cut off since.
        """
        for place in range(0, len(self), _AT_ONCE):
            count = min(_AT_ONCE, len(self) - place)
            raw = self._entries(file, place, count)
            if len(raw) != count * _LISTED.size:
                raise OSError(errno.EIO, "a pack of the snapshot store was cut off")
            for fields in _LISTED.iter_unpack(raw):
                yield Packed(*fields)

    def _entries(self, file: int, place: int, count: int) -> bytes:
        start, size = place * _LISTED.size, count * _LISTED.size
        if self._raw is not None:
            return self._raw[start : start + size]
        return os.pread(file, size, self._at + start)


def prefix_of(digest: bytes) -> int:
    """The beginning of a digest as a number, which sorts as digests do."""
    return int.from_bytes(digest[:_PREFIX])


def _prefixes_of(raw: bytes) -> array[int]:
    """The beginnings of the digests in a list, or a part of it."""
    words = array("Q")
    words.frombytes(raw)
    found = words[:: _LISTED.size // _PREFIX]
    if sys.byteorder == "little":
        found.byteswap()
    return found


def read_list(file: int) -> SortedList:
    """Read the list at the end of a pack.

    Raises:
        DamagedPackError: it is not what was written.
        OSError: it can't be read.
    """
    size = os.fstat(file).st_size
    try:
        at, count, digest, end = _TRAILER.unpack(
            os.pread(file, _TRAILER.size, max(0, size - _TRAILER.size))
        )
    except struct.error as error:
        raise DamagedPackError("it is cut off") from error
    length = count * _LISTED.size
    if end != _END or at + length + _TRAILER.size != size:
        raise DamagedPackError("its end is not what was written")
    hasher, prefixes = hashlib.sha256(), array("Q")
    for start in range(at, at + length, _AT_ONCE * _LISTED.size):
        raw = _read_whole(file, start, min(_AT_ONCE * _LISTED.size, at + length - start))
        hasher.update(raw)
        prefixes += _prefixes_of(raw)
    if hasher.digest() != digest:
        raise DamagedPackError("its list is not what was written")
    return SortedList(prefixes, at)


def salvage(file: int) -> SortedList:
    """List what a pack with a damaged end still holds, by what stands before each object.

    Whether an object's bytes are whole is seen when it is read.
    """
    size, at = os.fstat(file).st_size, len(_HEADER)
    found: dict[bytes, Packed] = {}
    while True:
        head = os.pread(file, _OBJECT.size, at)
        if len(head) < _OBJECT.size:
            break
        mark, codec, _, _, whole, stored, digest = _OBJECT.unpack(head)
        at += _OBJECT.size
        if mark != _MARK or at + stored > size:
            break
        found[digest] = Packed(digest, at, whole, stored, codec)
        at += stored
    raw = b"".join(_LISTED.pack(*found[digest]) for digest in sorted(found))
    return SortedList(_prefixes_of(raw), 0, raw)


def pieces_of(file: int, packed: Packed) -> Iterator[bytes]:
    """Read an object's bytes, piece by piece; the last one comes when all are known to be right.

    Raises:
        DamagedPackError: they are not what was written.
        OSError: they can't be read.
    """
    hasher, given = hashlib.sha256(), 0
    last = b""
    for piece in _plain(_stored(file, packed), packed):
        given += len(piece)
        if given > packed.size:
            raise DamagedPackError("an object is longer than it was")
        hasher.update(piece)
        if last:
            yield last
        last = piece
    if given != packed.size or hasher.digest() != packed.digest:
        raise DamagedPackError("an object is not what was written")
    if last:
        yield last


def _stored(file: int, packed: Packed) -> Iterator[bytes]:
    at, end = packed.at, packed.at + packed.stored
    while at < end:
        piece = os.pread(file, min(COPY_CHUNK_BYTES, end - at), at)
        if not piece:
            raise DamagedPackError("it is cut off")
        at += len(piece)
        yield piece


def _plain(pieces: Iterable[bytes], packed: Packed) -> Iterator[bytes]:
    if packed.codec in {_RAW, _KEPT}:
        yield from pieces
        return
    if packed.codec != _ZSTD:
        raise DamagedPackError("an object has an unknown codec")
    decoder = open_decoder(ARCHIVE_WINDOW_BITS)
    try:
        for piece in pieces:
            fed = piece
            while (not decoder.eof and fed) or not (decoder.needs_input or decoder.eof):
                out = decoder.decompress(fed, COPY_CHUNK_BYTES)
                fed = b""
                if out:
                    yield out
    except (ZstdError, EOFError) as error:
        raise DamagedPackError("an object can't be decompressed") from error


def _read_whole(file: int, at: int, size: int) -> bytes:
    parts, end = [], at + size
    while at < end:
        piece = os.pread(file, end - at, at)
        if not piece:
            raise DamagedPackError("it is cut off")
        parts.append(piece)
        at += len(piece)
    return b"".join(parts)
