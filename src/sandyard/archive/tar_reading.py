"""Tar archives, read as streams: ustar, pax, GNU with its long names and sparse files, and older."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final
from zlib import adler32

from sandyard.archive.intake import TRUNCATED
from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.archive.tar_fields import (
    BLOCK,
    CORRUPT,
    adler_told,
    has_right_checksum,
    parse_map,
    parse_number,
    parse_pax,
    parse_seconds,
    parse_text,
    parse_time,
    whole,
)
from sandyard.limits import ARCHIVE_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.archive.intake import ByteReader
    from sandyard.archive.model import Part, Piece, PlainFile
    from sandyard.archive.tar_fields import Pax

__all__ = ["is_tar", "read_runs", "read_tar"]

_ZERO: Final = bytes(BLOCK)
_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,  # one that should lie in one piece on the disk
    b"S": Kind.FILE,  # with holes, as GNU's older format has it
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_WITH_HOLES: Final = ord("S")
_NAMED: Final = {
    b"3": "character device",
    b"4": "block device",
    b"6": "fifo",
    b"D": "incremental directory",
    b"M": "continued file of several volumes",
}
_LOCAL: Final = frozenset({b"x", b"X"})
_LONG: Final = {b"L": b"path", b"K": b"linkpath"}
_XATTR: Final = b"SCHILY.xattr."
_UNFIT: Final = (b"path", b"linkpath", b"size", b"GNU.sparse.", _XATTR)
"""What an extended header for all members may not say: it would give them all one name."""

_PERMISSIONS: Final = 0o7777
_SPARSE_ENTRIES: Final = 4
_MORE_ENTRIES: Final = 21


def is_tar(head: bytes) -> bool:
    """Tell whether something begins as a tar archive does: with a header, or with its end."""
    return len(head) == BLOCK and (head == _ZERO or has_right_checksum(head))


def read_tar(source: ByteReader) -> Iterator[Member]:
    """Give the members of an archive in order.

    Args:
        source: the archive, decompressed. It is read up to the mark of the archive's end.

    Raises:
        ArchiveError: it is truncated, corrupt, or has a member of a kind that is not supported.
    """
    for part in read_runs(source):
        if isinstance(part, Member):
            yield part
        else:
            yield from map(_member_of, part)


def read_runs(source: ByteReader) -> Iterator[Part]:
    """Do what ``read_tar`` does, and give plain files many at a time, which takes far fewer steps."""
    shared: Pax = {}
    while True:
        if not shared and (files := _plain_files(source)):
            yield files
        head = _next_head(source, shared)
        if head is None:
            return
        reading = _Reading(source, head)
        yield reading.member
        reading.finish()


# --- plain files ------------------------------------------------------------------------------

_PLAIN: Final = struct.Struct("100s8s16x12s12s8sc100x8s80xc166x")
"""Name, mode, size, time, checksum, kind, format, and how what stands before the name begins."""

_GNU: Final = b"ustar  \0"
_POSIX: Final = b"ustar\x0000"
_NOTHING: Final = b"\0"
_HALF: Final = BLOCK // 2
_LOWER: Final = 0xFFFF


def _plain_files(source: ByteReader) -> list[PlainFile]:
    """Take the files that come next, as far as they are in memory and have one common header each.

    What is in any way unusual, or wrong, is left to the other way, which would tell the same of these.
    """
    held = source.at_hand()
    files: list[PlainFile] = []
    at, end = 0, len(held)
    while (start := at + BLOCK) <= end:
        name, mode, size, time, told, kind, form, prefix = _PLAIN.unpack_from(held, at)
        if kind != b"0" or (form != _GNU and (form != _POSIX or prefix != _NOTHING)):
            break
        half = at + _HALF  # as ``sum_of`` adds them, without the calls
        lower = (adler32(held[at:half]) & _LOWER) + (adler32(held[half:start]) & _LOWER)
        try:
            if lower != adler_told(told):
                break
            length = parse_number(size)
            name = name.partition(_NOTHING)[0]
            following = start + length + -length % BLOCK
            if length < 0 or following > end or name[-1:] == b"/":
                break
            permissions, mtime = parse_number(mode) & _PERMISSIONS, parse_seconds(time)
        except ArchiveError:
            break
        files.append((name, permissions, mtime, held[start : start + length]))
        at = following
    source.skip(at)
    return files


def _member_of(file: PlainFile) -> Member:
    name, mode, mtime, data = file
    return Member(name, Kind.FILE, len(data), mode, mtime, pieces=partial(_whole, data))


def _whole(data: memoryview) -> Iterator[Piece]:
    return iter(((0, data),) if data else ())


# --- all members ------------------------------------------------------------------------------


class _Head:
    """What the headers of one member say.

    Attributes:
        block: the last of them, which is the member's own.
        pax: what extended headers say.
        pairs: what they say of extents.
    """

    __slots__ = ("block", "pairs", "pax")

    def __init__(self, block: bytes, pax: Pax, pairs: list[tuple[bytes, bytes]]) -> None:
        self.block = block
        self.pax = pax
        self.pairs = pairs


def _next_head(source: ByteReader, shared: Pax) -> _Head | None:
    """Read the headers of the next member; None at the archive's end."""
    told: _Told | None = None
    room = ARCHIVE_HEADER_BYTES
    while True:
        block = source.exactly(BLOCK)
        if not has_right_checksum(block):
            if block == _ZERO and (told is None or told.nothing):
                return None
            raise ArchiveError(CORRUPT)
        kind = block[156:157]
        if kind in _KINDS or kind in _NAMED:
            if told is None:  # as it is with most members
                return _Head(block, shared, [])
            return _Head(block, {**shared, **told.long, **told.pax}, told.pairs)
        size = parse_number(block[124:136])
        room -= BLOCK + size
        if size < 0 or room < 0:
            raise ArchiveError("headers of a member are too long")
        data = source.exactly(-size % BLOCK + size)[:size]
        told = told or _Told(shared)
        if not told.hear(kind, data):
            raise ArchiveError(f"unsupported member type {kind!r}", member=parse_text(block[:100]))


class _Told:
    """What headers before a member's own say.

    Attributes:
        pax: in extended headers.
        long: in GNU's headers for long names.
        pairs: of extents.
        nothing: whether there was none.
    """

    __slots__ = ("_shared", "long", "nothing", "pairs", "pax")

    def __init__(self, shared: Pax) -> None:
        self._shared = shared
        self.pax: Pax = {}
        self.long: Pax = {}
        self.pairs: list[tuple[bytes, bytes]] = []
        self.nothing = True

    def hear(self, kind: bytes, data: bytes) -> bool:
        """Take in one header; tell whether it is of a known kind."""
        if kind in _LOCAL:
            self.pairs.extend(parse_pax(data, self.pax))
            self.nothing = False
        elif kind == b"g":
            told: Pax = {}
            if parse_pax(data, told) or any(key.startswith(_UNFIT) for key in told):
                raise ArchiveError("unsupported global header")
            # Of all else nothing is used, and it would be held, and copied for each member.
            self._shared.update((key, told[key]) for key in told if key == b"mtime")
        elif kind in _LONG:
            self.long[_LONG[kind]] = parse_text(data)
            self.nothing = False
        else:
            return kind == b"V"  # the label of a volume is no member
        return True


class _Reading:
    """One member, and what is left of its data in the archive."""

    __slots__ = ("_left", "_padding", "_source", "member")

    def __init__(self, source: ByteReader, head: _Head) -> None:
        block, pax = head.block, head.pax
        kind = _KINDS.get(block[156:157])
        name = _name_of(block, pax)
        if kind is None:
            raise ArchiveError(f"unsupported member type {_NAMED[block[156:157]]}", member=name)
        if kind is Kind.FILE and name.endswith(b"/"):  # before 1988 directories had no type
            kind = Kind.DIRECTORY
        try:
            stored = whole(pax[b"size"]) if b"size" in pax else parse_number(block[124:136])
            mode = parse_number(block[100:108]) & _PERMISSIONS
            mtime = _time_of(block, pax)
        except ArchiveError as error:
            raise ArchiveError(error.reason, member=name) from None
        if kind is not Kind.FILE:  # others may tell a size, but never have data
            stored = 0
        if stored < 0:
            raise ArchiveError(CORRUPT, member=name)
        self._source = source
        self._left = stored
        self._padding = -stored % BLOCK
        link = pax.get(b"linkpath", parse_text(block[157:257])) if kind in _LINKS else b""
        self.member = Member(name, kind, stored, mode, mtime, link, pieces=self._pieces)
        if pax:
            self.member.attributes = _attributes(pax)
        if kind is Kind.FILE and (pax or block[156] == _WITH_HOLES):
            self._find_holes(head)

    def finish(self) -> None:
        """Pass over the data that nobody asked for."""
        self._source.skip(self._left + self._padding)

    def _pieces(self) -> Iterator[Piece]:
        sparse = self.member.sparse
        extents = ((0, self._left),) if sparse is None else sparse
        for start, length in extents:
            offset, end = start, start + length
            while offset < end:
                piece = self._source.some(end - offset)
                if not piece:
                    raise ArchiveError(TRUNCATED, member=self.member.name)
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)

    # --- holes --------------------------------------------------------------------------------

    def _find_holes(self, head: _Head) -> None:
        """Learn where the data of a sparse file stands, in any of the four ways to tell."""
        pax, member = head.pax, self.member
        try:
            if head.block[156] == _WITH_HOLES:
                size, numbers = parse_number(head.block[483:495]), self._old_map(head.block)
            elif pax.get(b"GNU.sparse.major") == b"1":
                size, numbers = whole(pax.get(b"GNU.sparse.realsize", b"")), self._map_in_data()
            elif b"GNU.sparse.map" in pax:
                size = whole(pax.get(b"GNU.sparse.size", b""))
                numbers = [whole(text) for text in pax[b"GNU.sparse.map"].split(b",") if text]
            elif b"GNU.sparse.size" in pax:
                size = whole(pax[b"GNU.sparse.size"])
                numbers = _paired(head.pairs)
            else:
                return
            member.sparse, member.size = parse_map(numbers, size, self._left), size
        except ArchiveError as error:
            raise ArchiveError(error.reason, member=member.name) from None

    def _old_map(self, block: bytes) -> list[int]:
        numbers = _entries(block, 386, _SPARSE_ENTRIES)
        more = block[482]
        room = ARCHIVE_HEADER_BYTES
        while more:
            room -= BLOCK
            if room < 0:
                raise ArchiveError("corrupt map of a sparse file")
            block = self._source.exactly(BLOCK)
            numbers.extend(_entries(block, 0, _MORE_ENTRIES))
            more = block[504]
        return numbers

    def _map_in_data(self) -> list[int]:
        """Read the map that stands before the data: a count, and so many pairs, a line each."""
        text, numbers, wanted = b"", list[int](), 1
        room = ARCHIVE_HEADER_BYTES
        while len(numbers) < wanted:
            line, newline, rest = text.partition(b"\n")
            if not newline:
                room -= BLOCK
                if self._left < BLOCK or room < 0:
                    raise ArchiveError("corrupt map of a sparse file")
                text += self._source.exactly(BLOCK)
                self._left -= BLOCK
                continue
            numbers.append(whole(line))
            text = rest
            if len(numbers) == 1:
                wanted = 1 + 2 * numbers[0]
        return numbers[1:]


_LINKS: Final = frozenset({Kind.SYMLINK, Kind.HARD_LINK})


def _name_of(block: bytes, pax: Pax) -> bytes:
    """A member's name: what extended headers say, else what its own does."""
    told = pax and (pax.get(b"GNU.sparse.name") or pax.get(b"path"))
    if told:
        return told
    name = parse_text(block[:100])
    if block[257:263] == b"ustar\0":  # GNU's own, "ustar  ", has other things there
        end = 476 if block[508:512] == b"tar\0" else 500
        prefix = parse_text(block[345:end])
        if prefix:
            return prefix + b"/" + name
    return name


def _time_of(block: bytes, pax: Pax) -> int:
    if b"mtime" in pax:
        return parse_time(pax[b"mtime"])
    return parse_seconds(block[136:148])


def _attributes(pax: Pax) -> dict[bytes, bytes] | None:
    found = {key[len(_XATTR) :]: pax[key] for key in pax if key.startswith(_XATTR)}
    return found or None


def _entries(block: bytes, at: int, count: int) -> list[int]:
    """Read entries of the map in a header, up to the first without an offset and a length."""
    numbers = []
    for start in range(at, at + 24 * count, 24):
        entry = block[start : start + 24]
        if not entry[12] or not entry[0]:
            break
        numbers += [parse_number(entry[:12]), parse_number(entry[12:])]
    return numbers


def _paired(pairs: list[tuple[bytes, bytes]]) -> list[int]:
    keys = [key for key, _ in pairs]
    if keys[::2] != [b"GNU.sparse.offset"] * len(keys[::2]) or b"GNU.sparse.offset" in keys[1::2]:
        raise ArchiveError("corrupt map of a sparse file")
    return [whole(value) for _, value in pairs]
