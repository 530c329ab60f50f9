"""Summary: one file that tells which packs may have an object, so that not each of them is asked.

It speaks of packs that were there when it was written, and is a hint: whether a pack has an object is
said by the pack. It may be lost, or be older than the packs that are there, at any time.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from sandyard.snapshot.packs import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sandyard.snapshot.packs import SortedList

__all__ = ["SUMMARY", "Summary", "TornSummaryError", "write_summary"]

SUMMARY: Final = ".packs"
"""What it is called among the notes beside histories, of which none begins so."""

_SHELF_BITS: Final = 12
_SHELVES: Final = 1 << _SHELF_BITS
"""Parts of it, each for the digests with certain first bits: of a million objects, one has 3 KB."""

_SHIFT: Final = 64 - _SHELF_BITS
_ENTRY: Final = struct.Struct(">QI")
"""The first bytes of a digest, and the number of a pack."""

_KEY_BYTES: Final = 8
_PACK: Final = struct.Struct("<32sQ")
"""The digest that a pack is named after, and its size."""

_SHELF: Final = struct.Struct("<II")
"""How many entries a part has, and their CRC."""

_END: Final = struct.Struct("<QQ32s8s")
"""At the very end: where the list of packs begins, how many there are, a digest of what stands from there
to here, a mark."""

_MAGIC: Final = b"SYPSUM1\n"
_AT_ONCE: Final = 64
"""Parts that are copied at once."""


class TornSummaryError(Exception):
    """It is not what was written, as a loss of power may leave it."""


class Summary:
    """Which packs may have an object.

    Args:
        packs: what it has of each pack.
        shelves: how many entries each part has, and their CRC.
        mark: tells it from others.

    Attributes:
        sizes: the packs that it speaks of, and how large they were.
    """

    def __init__(self, packs: bytes, shelves: bytes, mark: bytes) -> None:
        pairs = [(each.hex() + SUFFIX, size) for each, size in _PACK.iter_unpack(packs)]
        self.mark = mark
        self.packs = packs
        self.sizes = dict(pairs)
        self._names = [name for name, _ in pairs]
        self._checks = [check for _, check in _SHELF.iter_unpack(shelves)]
        counts = (count for count, _ in _SHELF.iter_unpack(shelves))
        self._places: list[int] = [0, *accumulate(count * _ENTRY.size for count in counts)]

    @classmethod
    def read(
        cls, size: int, read_at: Callable[[int, int], bytes], before: Summary | None
    ) -> Summary | None:
        """Read one; None if there is none, or it is not what was written.

        Args:
            size: bytes of it.
            read_at: gives so many bytes at a place.
            before: the one that was read last; it is given back if it is this one.
        """
        raw = read_at(_END.size, size - _END.size) if size > _END.size else b""
        if len(raw) != _END.size:
            return None
        at, count, digest, magic = _END.unpack(raw)
        length = count * _PACK.size + _SHELVES * _SHELF.size
        if magic != _MAGIC or at + length + _END.size != size:
            return None
        if before is not None and before.mark == digest:
            return before
        raw = read_at(length, at)
        if hashlib.sha256(raw).digest() != digest:
            return None
        found = cls(raw[: count * _PACK.size], raw[count * _PACK.size :], digest)
        return found if found._places[-1] == at else None

    def packs_with(self, digest: bytes, read_at: Callable[[int, int], bytes]) -> Iterator[str]:
        """The names of packs that may have an object.

        Args:
            digest: of the object.
            read_at: gives so many bytes at a place.

        Raises:
            TornSummaryError: it is not what was written.
        """
        key = digest[:_KEY_BYTES]
        shelf = int.from_bytes(key) >> _SHIFT
        raw = self._checked(shelf, read_at(self._size_of(shelf), self._places[shelf]))
        at = raw.find(key)
        while at >= 0:
            if at % _ENTRY.size == 0:
                yield self._names[_ENTRY.unpack_from(raw, at)[1]]
            at = raw.find(key, at + 1)

    def shelves(self, read_at: Callable[[int, int], bytes]) -> Iterator[bytes]:
        """All its parts.

        Raises:
            TornSummaryError: it is not what was written.
        """
        for first in range(0, _SHELVES, _AT_ONCE):
            start, end = self._places[first], self._places[first + _AT_ONCE]
            raw = read_at(end - start, start)
            for shelf in range(first, first + _AT_ONCE):
                at = self._places[shelf] - start
                yield self._checked(shelf, raw[at : at + self._size_of(shelf)])

    def _size_of(self, shelf: int) -> int:
        return self._places[shelf + 1] - self._places[shelf]

    def _checked(self, shelf: int, raw: bytes) -> bytes:
        if len(raw) != self._size_of(shelf) or zlib.crc32(raw) != self._checks[shelf]:
            raise TornSummaryError
        return raw


def write_summary(
    write: Callable[[bytes], object],
    old: Summary | None,
    read_at: Callable[[int, int], bytes],
    packs: Mapping[str, SortedList],
) -> None:
    """Write a summary.

    Args:
        write: takes it, piece by piece.
        old: what it is to have as well.
        read_at: gives so many bytes at a place of the old one.
        packs: whose objects are to be added.

    Raises:
        TornSummaryError: the old one is not what was written.
    """
    known = b"" if old is None else old.packs
    added: dict[int, bytearray] = {}
    for number, each in enumerate(packs.values(), len(known) // _PACK.size):
        for prefix in each.prefixes:
            added.setdefault(prefix >> _SHIFT, bytearray()).extend(_ENTRY.pack(prefix, number))
    at, told = 0, bytearray()
    held = iter(lambda: b"", None) if old is None else old.shelves(read_at)
    for shelf, before in zip(range(_SHELVES), held, strict=False):
        raw = before + added.get(shelf, b"")
        told += _SHELF.pack(len(raw) // _ENTRY.size, zlib.crc32(raw))
        at += len(raw)
        write(raw)
    names = ((bytes.fromhex(name.removesuffix(SUFFIX)), each.end) for name, each in packs.items())
    tail = b"".join((known, *(_PACK.pack(*pair) for pair in names), told))
    count = len(known) // _PACK.size + len(packs)
    write(tail)
    write(_END.pack(at, count, hashlib.sha256(tail).digest(), _MAGIC))
