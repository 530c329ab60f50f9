"""StatIndex: how every file looked when it was saved, so that what looks the same is not read again.

A file is taken for unchanged if its device, inode, mode, names, size, time of modification and time of
change are. Nobody can set the last of these, but what was written in the moment in which a save began
may be written again with the same: such a one is noted as one that looks like nothing.
"""

from __future__ import annotations

import hashlib
import struct
import time
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

__all__ = [
    "IndexWriter",
    "Known",
    "Looks",
    "StatIndex",
    "clock_now",
    "look_of",
    "looks_in",
    "settled_look",
    "unlike",
]

_MAGIC: Final = b"SYINDEX2"
_LOOK: Final = struct.Struct("<QQIIQqqH")
"""Device, inode, mode, number of names, size, times of modification and of change, length of name."""

_CHANGE_AT: Final = 40
_NEVER: Final = struct.pack("<q", -1)
"""A time of change that no file has, since its clock is not set to 1969."""

_CHECK: Final = 8
_HEAD: Final = struct.Struct("<IIB32s8s")
"""Before each directory: length of its path and of its looks, whether files have other names, digest of
its entries, and of all that the first bytes of a digest."""

_HEAD_SAID: Final = _HEAD.size - _CHECK
_TABLE: Final = struct.Struct(">QQ")
"""In the table: the first bytes of the digest of a path, and where its directory stands; sorted."""

_TABLE_PIECE: Final = 1024 * _TABLE.size
_END: Final = struct.Struct("<QQ32s32s8s")
"""At the very end: where the table begins, how many it has, the tree, a digest of these and the table, a
mark."""

_END_SAID: Final = 48
_LOOKS_BYTES: Final = 1024**3
"""Largest directory that is believed: some ten million entries."""

_LAST_BITS: Final = 2**64 - 1

_SECOND: Final = 10**9
_COARSE: Final = 2 * _SECOND
"""What the times of the coarsest file system still in use are rounded to, in ns (FAT)."""


class Known(NamedTuple):
    """What is known of a directory.

    Attributes:
        digest: of its saved entries.
        linked: whether a file in it has other names.
        looks: how each entry looked, sorted by name.
    """

    digest: bytes
    linked: bool
    looks: bytes


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
            known = self._known(path, self._places[at])
            if known is not None:
                return known
            at += 1
        return None

    def _known(self, path: bytes, place: int) -> Known | None:
        head = self._read_at(_HEAD.size, place)
        if len(head) != _HEAD.size:
            return None
        path_size, looks_size, linked, digest, check = _HEAD.unpack(head)
        if path_size != len(path) or looks_size > _LOOKS_BYTES:
            return None
        rest = self._read_at(path_size + looks_size, place + _HEAD.size)
        if rest[:path_size] != path or _check_of(head[:_HEAD_SAID], rest) != check:
            return None
        return Known(digest, bool(linked), rest[path_size:])


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
        said = _HEAD.pack(len(path), len(known.looks), known.linked, known.digest, bytes(_CHECK))
        said, rest = said[:_HEAD_SAID], path + known.looks
        self._table.append(_TABLE.pack(_key_of(path), self._at))
        self._put(said + _check_of(said, rest))
        self._put(rest)

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
    return int.from_bytes(hashlib.sha256(path).digest()[:_CHECK])


def _check_of(said: bytes, rest: bytes) -> bytes:
    hasher = hashlib.sha256(said)
    hasher.update(rest)
    return hasher.digest()[:_CHECK]


def clock_now() -> int:
    """The clock by which the kernel tells when files change, in ns: it moves in ticks."""
    clock = getattr(time, "CLOCK_REALTIME_COARSE", 5)  # as linux/time.h numbers it
    return time.clock_gettime_ns(clock)


def look_of(name: bytes, facts: os.stat_result) -> bytes:
    """How an entry looks."""
    same = facts.st_dev, facts.st_ino, facts.st_mode, facts.st_nlink, facts.st_size
    try:
        return _LOOK.pack(*same, facts.st_mtime_ns, facts.st_ctime_ns, len(name)) + name
    except struct.error:  # a time after 2262, which anybody may set; its last bits tell it as well
        times = _folded(facts.st_mtime_ns), _folded(facts.st_ctime_ns)
        return _LOOK.pack(*same, *times, len(name)) + name


def _folded(time: int) -> int:
    return int.from_bytes((time & _LAST_BITS).to_bytes(8), signed=True)


def settled_look(name: bytes, facts: os.stat_result, since: int) -> bytes:
    """How an entry looks, or nothing if it may change once more and look the same.

    Args:
        name: its name.
        facts: how it looked before it was read.
        since: what ``clock_now`` said before.
    """
    look, changed = look_of(name, facts), facts.st_ctime_ns
    slack = 0 if changed % _SECOND else _COARSE
    return look if changed + slack < since else unlike(look)


def unlike(look: bytes) -> bytes:
    """What no entry looks like, in the place of a look."""
    return look[:_CHANGE_AT] + _NEVER + look[_CHANGE_AT + 8 :]


def looks_in(looks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names in a directory, and how each looked."""
    at = 0
    while at < len(looks):
        size = _LOOK.size + _LOOK.unpack_from(looks, at)[-1]
        look = looks[at : at + size]
        yield look[_LOOK.size :], look
        at += size
