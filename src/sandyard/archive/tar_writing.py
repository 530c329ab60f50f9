"""Headers of tar archives, written: POSIX's format with extended headers, the same for the same files.

Nothing in them tells whose the files were, when they were read, or on which machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind
from sandyard.archive.tar_fields import BLOCK, sum_of

if TYPE_CHECKING:
    from sandyard.archive.model import Extent, Member

__all__ = ["END", "headers_of", "padding"]

_RECORD: Final = 20 * BLOCK
END: Final = bytes(_RECORD)
"""The mark of an archive's end; of as many blocks as tapes are written with at once."""

_TYPES: Final = {
    Kind.FILE: b"0",
    Kind.HARD_LINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.DIRECTORY: b"5",
}
_NAME: Final = 100
_OCTAL_LIMIT: Final = 8**11
_SECOND: Final = 10**9
_NO_OWNERS: Final = b"0000000\0" * 2
_BLANK: Final = b" " * 8
"""The checksum's own field, as it counts itself."""

_REST: Final = b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
"""The format, no names of owners, and no numbers of a device."""


def padding(size: int) -> bytes:
    """What fills the last block after so many bytes."""
    return bytes(-size % BLOCK)


def headers_of(member: Member) -> bytes:
    """All that stands before the data of a member; of one with holes, their map too.

    Its data follows: of a file with holes only that of its extents, one after the other; then
    ``padding`` of all that.
    """
    records: list[tuple[bytes, bytes]] = []
    name, size, table = member.name, member.size, b""
    if member.kind is not Kind.FILE:
        size = 0
    if member.sparse is not None:
        table = _table(member.sparse, member.size)
        records += _sparse_records(member)
        name = b"./GNUSparseFile.0/" + name.rpartition(b"/")[2][: _NAME - 18]
        size = len(table) + sum(length for _, length in member.sparse)
    elif len(name) > _NAME:
        records.append((b"path", name))
    if len(member.link) > _NAME:
        records.append((b"linkpath", member.link))
    if size >= _OCTAL_LIMIT:
        records.append((b"size", b"%d" % size))
    mtime = member.mtime or 0
    if mtime % _SECOND or not 0 <= mtime < _OCTAL_LIMIT * _SECOND:
        records.append((b"mtime", _decimal(mtime)))
    for key in sorted(member.attributes or ()):
        records.append((b"SCHILY.xattr." + key, (member.attributes or {})[key]))
    if any(not _is_utf8(value) for key, value in records if key in _PATHS):
        records.insert(0, (b"hdrcharset", b"BINARY"))
    mode = 0o777 if member.mode is None else member.mode
    own = _block(name, _TYPES[member.kind], size, mode, mtime // _SECOND, member.link)
    if not records:
        return own + table
    data = b"".join(_record(key, value) for key, value in records)
    last = name.rstrip(b"/").rpartition(b"/")[2]
    head = _block(b"./PaxHeaders/" + last, b"x", len(data), 0o644, 0, b"")
    return head + data + padding(len(data)) + own + table


_PATHS: Final = frozenset({b"path", b"linkpath", b"GNU.sparse.name"})


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _sparse_records(member: Member) -> list[tuple[bytes, bytes]]:
    return [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", member.name),
        (b"GNU.sparse.realsize", b"%d" % member.size),
    ]


def _table(extents: list[Extent], size: int) -> bytes:
    """The map of a file with holes, which stands before its data; a hole at the end is told so."""
    lines = [b"%d\n%d\n" % extent for extent in extents]
    if not extents or sum(extents[-1]) < size:
        lines.append(b"%d\n0\n" % size)
    text = b"%d\n" % len(lines) + b"".join(lines)
    return text + padding(len(text))


def _record(key: bytes, value: bytes) -> bytes:
    """One record: its own length in digits, which count too, and what it says."""
    rest = len(key) + len(value) + 3  # a space, "=" and a newline
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def _decimal(time: int) -> bytes:
    sign, time = (b"-", -time) if time < 0 else (b"", time)
    seconds, rest = divmod(time, _SECOND)
    return b"%b%d" % (sign, seconds) + (b".%09d" % rest if rest else b"")


def _block(name: bytes, kind: bytes, size: int, mode: int, seconds: int, link: bytes) -> bytes:
    """One header. What does not fit into it is cut: an extended header says it whole."""
    before = b"%b%07o\0%b%011o\0%011o\0" % (
        name[:_NAME].ljust(_NAME, b"\0"),
        mode,
        _NO_OWNERS,
        size if size < _OCTAL_LIMIT else 0,
        min(max(seconds, 0), _OCTAL_LIMIT - 1),
    )
    after = kind + link[:_NAME].ljust(_NAME, b"\0") + _REST
    return b"%b%06o\0 %b" % (before, sum_of(before + _BLANK + after), after)
