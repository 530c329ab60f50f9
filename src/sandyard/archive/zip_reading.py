"""Zip archives, read by their list of members; what their parts disagree about is refused."""

from __future__ import annotations

import itertools
import stat
import struct
import time
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sandyard.archive.intake import TRUNCATED
from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.limits import ARCHIVE_LINK_BYTES, COPY_CHUNK_BYTES, ZIP_DIRECTORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.archive.bounds import ArchiveMeter
    from sandyard.archive.model import Piece

__all__ = ["ReadAt", "is_zip", "read_zip"]

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_FINDER: Final = struct.Struct("<4sIQI")
_EXTRA: Final = struct.Struct("<HH")
_COMMENT: Final = 0xFFFF
"""Longest comment at an archive's end."""

_WIDE: Final = 0xFFFF_FFFF
_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_SIZES_LATER: Final = 0x0008
_PATCH: Final = 0x0020
_UTF8: Final = 0x0800
_STORED, _DEFLATED = 0, 8
_UNIX: Final = frozenset({3, 19})  # Unix, and macOS
_TIMES: Final = 0x5455
_SIZES64: Final = 0x0001
_UNICODE: Final = 0x7075
_MODIFIED: Final = 0x01
_CORRUPT: Final = "corrupt zip archive"
_MODE: Final = 0o7777


class ReadAt(Protocol):
    """Gives bytes of the archive by offset; fewer where it ends."""

    def __call__(self, offset: int, size: int, /) -> bytes | memoryview:
        """Return at most ``size`` bytes from ``offset`` on."""


class _Entry(NamedTuple):
    """One line of the list of members."""

    system: int
    flags: int
    method: int
    stamp: int
    crc: int
    packed: int
    size: int
    raw: bytes
    name: bytes
    attributes: int
    offset: int
    mtime: int | None


def is_zip(head: bytes) -> bool:
    """Tell whether something begins as a zip archive does: with a member, or with its end."""
    return head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}


def read_zip(read_at: ReadAt, size: int, meter: ArchiveMeter) -> Iterator[Member]:
    """Give the members of an archive, in the order of its list.

    Args:
        read_at: the archive.
        size: its length in bytes.
        meter: counts what comes out of it.

    Raises:
        ArchiveError: it is truncated, corrupt, encrypted, or has a member that is not supported.
    """
    entries, listed_at = _read_list(read_at, size, meter)
    ends = _check_apart(entries, listed_at)
    for entry in entries:
        start = _check_local(read_at, entry, ends[entry.offset])
        yield _member(read_at, entry, start, meter)


# --- the list ---------------------------------------------------------------------------------


def _read_list(read_at: ReadAt, size: int, meter: ArchiveMeter) -> tuple[list[_Entry], int]:
    """Read the list of members, and where it begins."""
    tail_at = max(0, size - _COMMENT - _END.size)
    tail = bytes(read_at(tail_at, size - tail_at))
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:  # the mark may stand in the comment as well
        if at + _END.size <= len(tail):
            end = _END.unpack_from(tail, at)
            if at + _END.size + end[7] == len(tail):
                break
        at = tail.rfind(b"PK\x05\x06", 0, at)
    else:
        raise ArchiveError(TRUNCATED)
    _, disk, first_disk, here, count, length, offset, _ = end
    end_at = tail_at + at
    if here == 0xFFFF or count == 0xFFFF or _WIDE in {length, offset}:  # noqa: PLR2004  # all ones
        disk, first_disk, here, count, length, offset, end_at = _read_wide(read_at, end_at)
    if disk or first_disk or here != count:
        raise ArchiveError("zip archive of several volumes")
    if offset + length != end_at:
        raise ArchiveError(f"{_CORRUPT}: its list is not where it should be")
    if length > ZIP_DIRECTORY_BYTES:
        raise ArchiveError("zip archive has too long a list of members")
    meter.expect(count)  # before memory is taken for each
    return _parse_list(bytes(read_at(offset, length)), count), offset


def _read_wide(read_at: ReadAt, end_at: int) -> tuple[int, int, int, int, int, int, int]:
    """Read the end of an archive that is too large for the old one."""
    at = end_at - _FINDER.size
    raw = bytes(read_at(max(at, 0), _FINDER.size))
    if at < 0 or not raw.startswith(b"PK\x06\x07"):
        raise ArchiveError(_CORRUPT)
    wide_at = _FINDER.unpack(raw)[2]
    raw = bytes(read_at(wide_at, _END64.size))
    if len(raw) < _END64.size or not raw.startswith(b"PK\x06\x06"):
        raise ArchiveError(_CORRUPT)
    _, length, _, _, disk, first_disk, here, count, listed, offset = _END64.unpack(raw)
    if wide_at + length + 12 != at:  # the length leaves out the mark and itself
        raise ArchiveError(_CORRUPT)
    return disk, first_disk, here, count, listed, offset, wide_at


def _parse_list(raw: bytes, count: int) -> list[_Entry]:
    entries: list[_Entry] = []
    at = 0
    while at < len(raw):
        if len(raw) - at < _CENTRAL.size or raw[at : at + 4] != b"PK\x01\x02":
            raise ArchiveError(_CORRUPT)
        fields = _CENTRAL.unpack_from(raw, at)
        name_at = at + _CENTRAL.size
        extra_at = name_at + fields[10]
        at = extra_at + fields[11] + fields[12]
        if at > len(raw) or len(entries) == count:
            raise ArchiveError(_CORRUPT)
        entries.append(_entry(fields, raw[name_at:extra_at], raw[extra_at : extra_at + fields[11]]))
    if len(entries) != count:
        raise ArchiveError(f"{_CORRUPT}: its list has another length than it says")
    return entries


def _entry(fields: tuple[int, ...], raw: bytes, extra: bytes) -> _Entry:
    _, made, _, flags, method, clock, date, crc, packed, size, *_ = fields
    extras = _extras(extra, raw)
    offset = fields[16]
    wide = extras.get(_SIZES64, b"")
    values = []
    for value in (size, packed, offset):
        if value != _WIDE:
            values.append(value)
            continue
        if len(wide) < 8:  # noqa: PLR2004  # bytes of such a number
            raise ArchiveError(_CORRUPT, member=raw)
        values.append(int.from_bytes(wide[:8], "little"))
        wide = wide[8:]
    size, packed, offset = values
    return _Entry(
        system=made >> 8,
        flags=flags,
        method=method,
        stamp=date << 16 | clock,
        crc=crc,
        packed=packed,
        size=size,
        raw=raw,
        name=_name(raw, flags, extras),
        attributes=fields[15],
        offset=offset,
        mtime=_mtime(date << 16 | clock, extras),
    )


def _extras(extra: bytes, raw: bytes) -> dict[int, bytes]:
    """Take the extra fields apart; the first of each kind counts."""
    found: dict[int, bytes] = {}
    at = 0
    while len(extra) - at >= _EXTRA.size:
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        if at + length > len(extra):
            raise ArchiveError(_CORRUPT, member=raw)
        found.setdefault(kind, extra[at : at + length])
        at += length
    return found


def _name(raw: bytes, flags: int, extras: dict[int, bytes]) -> bytes:
    """A member's name as the bytes of a path: UTF-8 where it says so, else code page 437."""
    told = extras.get(_UNICODE, b"")
    try:
        if flags & _UTF8:
            return raw.decode().encode()
        if len(told) > 5 and told[0] == 1 and told[1:5] == _crc_bytes(raw):  # noqa: PLR2004  # its head
            return told[5:].decode().encode()
    except UnicodeDecodeError:
        raise ArchiveError("name is not valid UTF-8", member=raw) from None
    return raw.decode("cp437").encode()


def _crc_bytes(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "little")


def _mtime(stamp: int, extras: dict[int, bytes]) -> int | None:
    """When a member was changed, in ns; where only the old form tells it, by the local clock."""
    told = extras.get(_TIMES, b"")
    if len(told) >= 5 and told[0] & _MODIFIED:  # noqa: PLR2004  # a byte and a number
        return int.from_bytes(told[1:5], "little", signed=True) * 10**9
    date, clock = stamp >> 16, stamp & 0xFFFF
    parts = (
        (date >> 9) + 1980,
        (date >> 5) & 0xF,
        date & 0x1F,
        clock >> 11,
        (clock >> 5) & 0x3F,
        (clock & 0x1F) * 2,
    )
    if not (1 <= parts[1] <= 12 and parts[2]):  # noqa: PLR2004  # months; many leave it empty
        return None
    try:
        return int(time.mktime((*parts, 0, 0, -1))) * 10**9
    except (OverflowError, ValueError):
        return None


# --- what its parts say of each other ---------------------------------------------------------


def _check_apart(entries: list[_Entry], listed_at: int) -> dict[int, int]:
    """Refuse members that share bytes: few bytes could become very many so.

    Returns:
        Where each member must end at the latest, by where it begins.
    """
    starts = sorted(entry.offset for entry in entries)
    ends = dict(itertools.pairwise([*starts, listed_at]))
    for entry in entries:
        if entry.offset + _LOCAL.size + len(entry.raw) + entry.packed > ends[entry.offset]:
            raise ArchiveError("overlapping zip entries", member=entry.name)
    if len(ends) != len(entries):
        twice = next(start for start, after in itertools.pairwise(starts) if start == after)
        name = next(entry.name for entry in entries if entry.offset == twice)
        raise ArchiveError("overlapping zip entries", member=name)
    return ends


def _check_local(read_at: ReadAt, entry: _Entry, end: int) -> int:
    """Compare what stands before a member's data with the list; return where the data begins."""
    head = bytes(read_at(entry.offset, _LOCAL.size))
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise ArchiveError(f"{_CORRUPT}: no member where its list says", member=entry.name)
    _, _, flags, method, _, _, crc, packed, size, name_len, extra_len = _LOCAL.unpack(head)
    name = bytes(read_at(entry.offset + _LOCAL.size, name_len))
    same = name == entry.raw and method == entry.method
    same = same and (flags ^ entry.flags) & (_ENCRYPTED | _SIZES_LATER | _UTF8) == 0
    if not flags & _SIZES_LATER:
        same = same and crc == entry.crc
        same = same and packed in {entry.packed, _WIDE} and size in {entry.size, _WIDE}
    if not same:
        raise ArchiveError("zip member and list disagree", member=entry.name)
    start: int = entry.offset + _LOCAL.size + name_len + extra_len
    if start + entry.packed > end:
        raise ArchiveError("overlapping zip entries", member=entry.name)
    return start


# --- members ----------------------------------------------------------------------------------


def _member(read_at: ReadAt, entry: _Entry, start: int, meter: ArchiveMeter) -> Member:
    if entry.flags & _ENCRYPTED:
        raise ArchiveError("encrypted zip member", member=entry.name)
    if entry.method not in {_STORED, _DEFLATED} or entry.flags & _PATCH:
        raise ArchiveError(f"unsupported zip compression method {entry.method}", member=entry.name)
    if entry.method == _STORED and entry.packed != entry.size:
        raise ArchiveError("zip member and list disagree", member=entry.name)
    kind, mode = _kind(entry)

    def pieces() -> Iterator[Piece]:
        return _content(read_at, entry, start, meter)

    member = Member(entry.name, kind, entry.size, mode, entry.mtime, pieces=pieces)
    if kind is Kind.DIRECTORY and entry.size:
        raise ArchiveError("zip directory with content", member=entry.name)
    if kind is Kind.SYMLINK:
        if entry.size > ARCHIVE_LINK_BYTES:
            raise ArchiveError("symlink target is empty, too long, or has a NUL", member=entry.name)
        member.link = b"".join(piece for _, piece in pieces())
        member.size = 0
    return member


def _kind(entry: _Entry) -> tuple[Kind, int | None]:
    """What a member is, and its permissions where they are told."""
    mode = entry.attributes >> 16 if entry.system in _UNIX else 0
    kinds = {stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE}
    told = kinds.get(stat.S_IFMT(mode)) if stat.S_IFMT(mode) else Kind.FILE
    if told is None:
        raise ArchiveError("unsupported member type special file", member=entry.name)
    if entry.name.endswith(b"/"):
        if told is Kind.SYMLINK:
            raise ArchiveError("zip member and list disagree", member=entry.name)
        told = Kind.DIRECTORY
    return told, mode & _MODE if mode else None


def _content(read_at: ReadAt, entry: _Entry, start: int, meter: ArchiveMeter) -> Iterator[Piece]:
    """Give the content of a member, and check that it is what the list says."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS) if entry.method == _DEFLATED else None
    crc = given = 0
    for packed in _packed(read_at, entry, start):
        data = packed
        while data or (inflater is not None and not inflater.eof and inflater.unconsumed_tail):
            if inflater is None:
                out, data = data, b""
            else:
                try:
                    out = inflater.decompress(inflater.unconsumed_tail or data, COPY_CHUNK_BYTES)
                except zlib.error as error:
                    raise ArchiveError(f"{_CORRUPT}: {error}", member=entry.name) from error
                data = b""
                meter.expand(len(out))
            if given + len(out) > entry.size:
                raise ArchiveError("zip member is longer than its list says", member=entry.name)
            if out:
                crc = zlib.crc32(out, crc)
                yield given, memoryview(out)
                given += len(out)
    whole = inflater is None or (inflater.eof and not inflater.unused_data)
    if given != entry.size or crc != entry.crc or not whole:
        raise ArchiveError("zip member has a wrong checksum or length", member=entry.name)


def _packed(read_at: ReadAt, entry: _Entry, start: int) -> Iterator[bytes]:
    at, end = start, start + entry.packed
    while at < end:
        piece = bytes(read_at(at, min(COPY_CHUNK_BYTES, end - at)))
        if not piece:
            raise ArchiveError(TRUNCATED, member=entry.name)
        at += len(piece)
        yield piece
