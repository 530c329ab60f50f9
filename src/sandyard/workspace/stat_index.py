"""StatIndex: how every file looked when it was saved, so that what looks the same is not read again.

A file is taken for unchanged if its device, inode, mode, names, size, time of modification and time of
change are. Nobody can set the last of these, but what was written in the moment in which a save began
may be written again with the same: such a one is noted as one that looks like nothing.
"""

from __future__ import annotations

import hashlib
import io
import struct
import time
import zlib
from array import array
from bisect import bisect_left
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "LOOKS_AHEAD",
    "Counts",
    "IndexWriter",
    "Known",
    "Look",
    "Looks",
    "StatIndex",
    "clock_now",
    "gathered_looks",
    "is_settled",
    "joined_looks",
    "look_at",
    "look_of",
    "looks_in",
    "packed_looks",
    "unlike",
]

_MAGIC: Final = b"SYINDEX4"

Look = tuple[int, ...]
"""How a file looks, besides its name: device, inode, mode, number of names, size, times of modification
and of change."""

_LOOK: Final = struct.Struct("<QQQQQqq")
_COUNT: Final = struct.Struct("<I")
"""Before the looks of a directory: how many there are; after them stand the names."""

LOOKS_AHEAD: Final = bytes(_COUNT.size)
"""What stands in its place as long as nobody has counted."""

_NAMES: Final = b"/"
"""Between names, of which none has one."""

_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_CHANGE_AT: Final = 48
_NEVER: Final = struct.pack("<q", -1)
"""A time of change that no file has, since its clock is not set to 1969."""

_CHECK: Final = struct.Struct("<I")
"""Before each directory: the CRC of what follows; it finds what a loss of power left, and is far faster for
so few bytes than a digest."""

_HEAD: Final = struct.Struct("<IIIIB32sQQQ")
"""The same, and length of its path, of its looks, and how many directories it has; whether files have other
names, digest of its entries, how many files and symlinks, bytes of these files."""

_KEY_BYTES: Final = 8
_PLACE: Final = 4
"""Bytes of the place of a directory among the entries of its own."""

_WINDOW: Final = 128 * 1024
_AHEAD: Final = 16 * 1024
"""Bytes that are read at once, and how many of them lie behind what was asked for: a directory is written
after all that is in it, and asked for before."""

_TABLE: Final = struct.Struct(">QQ")
"""In the table: the first bytes of the digest of a path, and where its directory stands; sorted."""

_TABLE_PIECE: Final = 1024 * _TABLE.size
_END: Final = struct.Struct("<QQ32s32s8s")
"""At the very end: where the table begins, how many it has, the tree, a digest of these and the table, a
mark."""

_END_SAID: Final = 48
_LOOKS_BYTES: Final = 1024**3
"""Largest directory that is believed: some ten million entries."""

_SECOND: Final = 10**9
_COARSE: Final = 2 * _SECOND
"""What the times of the coarsest file system still in use are rounded to, in ns (FAT)."""


class Counts(NamedTuple):
    """What there is in a directory besides directories.

    Attributes:
        files: regular files.
        symlinks: symbolic links.
        size: bytes of the files together.
    """

    files: int = 0
    symlinks: int = 0
    size: int = 0


class Known(NamedTuple):
    """What is known of a directory.

    Attributes:
        digest: of its saved entries.
        linked: whether a file in it has other names.
        looks: how each entry looked, sorted by name.
        counts: what it has.
        directories: the places of directories among its entries.
        raw: all of this as it was read; empty for what was not.
        key: by what it was found, likewise.
    """

    digest: bytes
    linked: bool
    looks: bytes
    counts: Counts = Counts()
    directories: tuple[int, ...] = ()
    raw: bytes = b""
    key: int = 0


class StatIndex:
    """What is known of the directories of a saved tree, read from where it lies as it is asked for.

    Args:
        size: bytes of it; 0 knows nothing.
        read_at: gives so many bytes at a place.

    Attributes:
        tree: digest of the tree, in hexadecimal; the index is of use while a store has that.
    """

    def __init__(
        self, size: int = 0, read_at: Callable[[int, int], bytes] = lambda _size, _at: b""
    ) -> None:
        self.tree = ""
        self._read_at = read_at
        self._window = b""
        self._window_at = 0
        self._keys: array[int] = array("Q")
        self._places: array[int] = array("Q")
        raw = read_at(_END.size, size - _END.size) if size >= _END.size else b""
        if len(raw) != _END.size:
            return
        at, count, tree, digest, magic = _END.unpack(raw)
        if magic != _MAGIC or at + count * _TABLE.size + _END.size != size:
            return
        hasher = hashlib.sha256(raw[:_END_SAID])
        for start in range(at, at + count * _TABLE.size, _TABLE_PIECE):
            table = read_at(min(_TABLE_PIECE, at + count * _TABLE.size - start), start)
            hasher.update(table)
            for key, place in _TABLE.iter_unpack(table[: len(table) // _TABLE.size * _TABLE.size]):
                self._keys.append(key)
                self._places.append(place)
        if hasher.digest() == digest:
            self.tree = tree.hex()
        else:
            self._keys, self._places = array("Q"), array("Q")

    def __len__(self) -> int:
        """How many directories are known."""
        return len(self._keys)

    def get(self, path: bytes) -> Known | None:
        """What is known of a directory; None for nothing, or if it is not what was written."""
        key = _key_of(path)
        at = bisect_left(self._keys, key)
        while at < len(self._keys) and self._keys[at] == key:
            known = self._known(path, self._places[at], key)
            if known is not None:
                return known
            at += 1
        return None

    def tells_of(self, path: bytes) -> bool:
        """Whether something was written of a directory, and be it that nobody can read it."""
        key = _key_of(path)
        at = bisect_left(self._keys, key)
        return at < len(self._keys) and self._keys[at] == key

    def _known(self, path: bytes, place: int, key: int) -> Known | None:
        head = self._bytes(_HEAD.size, place)
        if len(head) != _HEAD.size:
            return None
        check, path_size, looks_size, count, linked, digest, *counts = _HEAD.unpack(head)
        if path_size != len(path) or looks_size > _LOOKS_BYTES or count > looks_size:
            return None
        looks_at = _HEAD.size + path_size
        looks_end = looks_at + looks_size
        size = looks_end + count * _PLACE
        if size > _WINDOW:
            return self._large(path, place, head)
        raw = self._bytes(size, place)
        if raw[_HEAD.size : looks_at] != path or _check_of(raw) != check or len(raw) != size:
            return None
        places = struct.unpack_from(f"<{count}I", raw, looks_end)
        looks = raw[looks_at:looks_end]
        return Known(digest, bool(linked), looks, Counts(*counts), places, raw, key)

    def _large(self, path: bytes, place: int, head: bytes) -> Known | None:
        """What is known of a directory that is read in parts: as a whole, it would be held twice."""
        check, path_size, looks_size, count, linked, digest, *counts = _HEAD.unpack(head)
        found, parts = zlib.crc32(head[_CHECK.size :]), list[bytes]()
        place += _HEAD.size
        for size in (path_size, looks_size, count * _PLACE):
            parts.append(self._read_at(size, place))
            found = zlib.crc32(parts[-1], found)
            place += size
        if parts[0] != path or found != check:
            return None
        places = struct.unpack(f"<{count}I", parts[2])
        return Known(digest, bool(linked), parts[1], Counts(*counts), places)

    def _bytes(self, size: int, place: int) -> bytes:
        at = place - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window_at = max(0, min(place, place + size + _AHEAD - _WINDOW))
            self._window = self._read_at(_WINDOW, self._window_at)
            at = place - self._window_at
        return self._window[at : at + size]


class IndexWriter:
    """Writes an index as it comes to be known; of each directory, only its place is held.

    Args:
        write: takes it, piece by piece.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._at = 0
        self._table: list[bytes] = []

    def add(self, path: bytes, known: Known) -> None:
        """Write what is known of a directory."""
        self._table.append(_TABLE.pack(known.key if known.raw else _key_of(path), self._at))
        for part in (known.raw,) if known.raw else _record_of(path, known):
            self._put(part)

    def finish(self, tree: str) -> None:
        """Write the rest.

        Args:
            tree: digest of the tree, in hexadecimal.
        """
        self._table.sort()
        head = _END.pack(self._at, len(self._table), bytes.fromhex(tree), b"", _MAGIC)[:_END_SAID]
        hasher = hashlib.sha256(head)
        for entry in self._table:
            hasher.update(entry)
            self._put(entry)
        self._put(head + hasher.digest() + _MAGIC)

    def _put(self, data: bytes) -> None:
        self._write(data)
        self._at += len(data)


class Looks(NamedTuple):
    """How everything looked, and how it looks.

    Attributes:
        before: what the last saving told; empty reads everything.
        after: takes what the next saving needs; whoever made it finishes it.
    """

    before: StatIndex
    after: IndexWriter


def _key_of(path: bytes) -> int:
    return int.from_bytes(hashlib.sha256(path).digest()[:_KEY_BYTES])


def _record_of(path: bytes, known: Known) -> tuple[bytes, ...]:
    """What is written of a directory, in parts: of a large one, all of it would be held twice."""
    places = known.directories
    sizes = len(path), len(known.looks), len(places)
    head = _HEAD.pack(0, *sizes, known.linked, known.digest, *known.counts)[_CHECK.size :]
    parts = head, path, known.looks, struct.pack(f"<{len(places)}I", *places)
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return _CHECK.pack(check), *parts


def _check_of(raw: bytes) -> int:
    return zlib.crc32(memoryview(raw)[_CHECK.size :])


def clock_now() -> int:
    """The clock by which the kernel tells when files change, in ns: it moves in ticks."""
    clock = getattr(time, "CLOCK_REALTIME_COARSE", 5)  # as linux/time.h numbers it
    return time.clock_gettime_ns(clock)


# --- looks ------------------------------------------------------------------------------------


look_of: Final[Callable[[os.stat_result], Look]] = attrgetter(
    "st_dev", "st_ino", "st_mode", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns"
)
"""How something looks of which that is known."""


def packed_looks(found: Iterable[os.stat_result]) -> bytes:
    """How entries of a directory look, one after the other.

    It is called for all files of each save: none has an object of its own.
    """
    words = [*chain.from_iterable(map(look_of, found))]
    form = f"<{len(words)}Q"
    try:
        return struct.pack(form, *words)
    except struct.error:  # a time before 1970 or after 2262, whose last bits tell it as well
        return struct.pack(form, *(word & _WORD for word in words))


def joined_looks(names: Sequence[bytes], packed: Iterable[bytes]) -> bytes:
    """How a directory looks.

    Args:
        names: of its entries, sorted.
        packed: how these look, in parts.
    """
    return b"".join((_COUNT.pack(len(names)), *packed, _NAMES.join(names)))


def gathered_looks(names: Sequence[bytes], packed: io.BytesIO) -> bytes:
    """How a large directory looks, as ``joined_looks`` says it; its parts are not held twice.

    Args:
        names: of its entries, sorted.
        packed: has ``LOOKS_AHEAD``, and behind that how these look; it is of no use afterwards.
    """
    packed.write(_NAMES.join(names))
    packed.seek(0)
    packed.write(_COUNT.pack(len(names)))
    return packed.getvalue()


def looks_in(looks: bytes, names: Iterable[bytes] | None = None) -> Iterator[tuple[bytes, Look]]:
    """The names in a directory, and how each looked.

    Args:
        looks: of the directory.
        names: its names, for who has them (default: they are taken from it, one by one).
    """
    (count,) = _COUNT.unpack_from(looks)
    end = _COUNT.size + count * _LOOK.size
    if not count:
        return iter(())
    each = _LOOK.iter_unpack(memoryview(looks)[_COUNT.size : end])
    return zip(_names_in(looks, end) if names is None else names, each, strict=True)


def _names_in(looks: bytes, at: int) -> Iterator[bytes]:
    while (end := looks.find(_NAMES, at)) >= 0:
        yield looks[at:end]
        at = end + 1
    yield looks[at:]


def look_at(looks: bytes, place: int) -> Look:
    """How the entry at a place of a directory looked."""
    return _LOOK.unpack_from(looks, _COUNT.size + place * _LOOK.size)


def is_settled(changed: int, since: int) -> bool:
    """Whether an entry can't change once more and look the same.

    Args:
        changed: its time of change before it was read.
        since: what ``clock_now`` said before.
    """
    slack = 0 if changed % _SECOND else _COARSE
    return changed + slack < since


def unlike(looks: bytes, places: Iterable[int]) -> bytes:
    """How a directory looks in which the entries at some places look like nothing."""
    told = io.BytesIO(looks)  # which copies it once
    for place in places:
        told.seek(_COUNT.size + place * _LOOK.size + _CHANGE_AT)
        told.write(_NEVER)
    return told.getvalue()
