"""The fields of tar headers: numbers, texts, checksums, pax records, and maps of sparse files."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from zlib import adler32

from sandyard.archive.model import ArchiveError, Extent
from sandyard.limits import ARCHIVE_EXTENTS

__all__ = [
    "BLOCK",
    "MAX_TIME_NS",
    "Pax",
    "adler_told",
    "has_right_checksum",
    "parse_map",
    "parse_number",
    "parse_pax",
    "parse_seconds",
    "parse_text",
    "parse_time",
    "sum_of",
    "whole",
]

BLOCK: Final = 512
CORRUPT: Final = "corrupt header"

Pax = dict[bytes, bytes]
"""Keywords of extended headers, and what they say."""

_CHECKSUM: Final = slice(148, 156)
_BLANK: Final = 8 * 32
"""What the checksum's own field counts as: eight spaces."""

_REMEMBERED: Final = 512
"""Numbers that are not read anew: modes, times and sizes repeat in an archive."""

_LOWER: Final = 0xFFFF
_BINARY: Final = 0x80
_NEGATIVE: Final = 0xFF
_OCTAL: Final = re.compile(rb"[0-7]*", re.ASCII)
_OCTAL_DIGITS: Final = b"01234567"
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_MAX_SIZE: Final = 2**63 - 1
"""The largest file that a system call takes (off_t)."""

_TIME: Final = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_RECORD: Final = re.compile(rb"([0-9]{1,9}) ")

MAX_TIME_NS: Final = 2**63 * 10**9 - 1
"""The latest time that a system call takes, in ns: its seconds have 64 bits."""


@lru_cache(_REMEMBERED)
def parse_number(field: bytes) -> int:
    """Read a number: octal digits, or where GNU's mark says so, binary.

    Raises:
        ArchiveError: it is neither.
    """
    digits = field[:-1]
    if digits.isdigit() and not digits.strip(_OCTAL_DIGITS):  # as nearly everybody writes them
        return int(digits, 8)
    first = field[0]
    if first & _BINARY:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if first == _NEGATIVE else value - (1 << (bits - 1))
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if not _OCTAL.fullmatch(text):
        raise ArchiveError(CORRUPT)
    return int(text, 8)


def parse_text(field: bytes) -> bytes:
    """Read a text: all before the first NUL."""
    return field.partition(b"\0")[0]


def has_right_checksum(block: bytes) -> bool:
    """Tell whether a block is a header, by its checksum: of unsigned bytes, or in old ones signed."""
    text = block[_CHECKSUM].strip(b" \0")
    if not text.isdigit() or text.strip(_OCTAL_DIGITS):
        return False
    told = int(text, 8)
    total = sum_of(block) - sum(block[_CHECKSUM]) + _BLANK
    if told == total:
        return True
    rest = block[:148] + block[156:]
    return told == total - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004  # the sign bit


def sum_of(block: bytes) -> int:
    """Add the bytes of a block up, several times as fast as ``sum``.

    Adler's checksum has in its lower half one more than the sum, modulo a number that the bytes of
    half a block never reach.
    """
    half = len(block) // 2
    return (adler32(block[:half]) & _LOWER) + (adler32(block[half:]) & _LOWER) - 2


@lru_cache(_REMEMBERED)
def adler_told(field: bytes) -> int:
    """What the lower halves of Adler's checksums of a header's halves come to, as it tells.

    Args:
        field: the header's own checksum.

    Returns:
        Their sum; 0, which it never is, if the field is no octal number.
    """
    text = field.strip(b" \0")
    if not text.isdigit() or text.strip(_OCTAL_DIGITS):
        return 0
    return int(text, 8) + sum(field) - _BLANK + 2


def whole(text: bytes) -> int:
    """Read a decimal number of an extended header.

    Raises:
        ArchiveError: it is none.
    """
    if not _DECIMAL.fullmatch(text):
        raise ArchiveError(CORRUPT)
    return int(text)


@lru_cache(_REMEMBERED)
def parse_seconds(field: bytes) -> int:
    """Read a time of a header, in whole seconds, as ns.

    Raises:
        ArchiveError: it is none, or none that a system call takes.
    """
    value = parse_number(field) * 10**9
    if abs(value) > MAX_TIME_NS:
        raise ArchiveError(CORRUPT)
    return value


def parse_time(text: bytes) -> int:
    """Read a time of an extended header, in seconds with as many decimals as it likes, as ns.

    Raises:
        ArchiveError: it is none, or none that a system call takes.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ArchiveError(CORRUPT)
    fraction = (match[3] or b"")[:9].ljust(9, b"0")
    value = int(match[2]) * 10**9 + int(fraction)
    if value > MAX_TIME_NS:
        raise ArchiveError(CORRUPT)
    return -value if match[1] else value


def parse_pax(data: bytes, into: Pax) -> list[tuple[bytes, bytes]]:
    """Read the records of an extended header.

    Args:
        data: all of them.
        into: is told; of two records with one keyword, the later counts.

    Returns:
        The records about extents of a sparse file, which repeat, in order.

    Raises:
        ArchiveError: they are malformed.
    """
    at, repeated = 0, []
    while at < len(data) and data[at]:
        match = _RECORD.match(data, at)
        if match is None:
            raise ArchiveError(CORRUPT)
        end = at + int(match[1])
        if end > len(data) or end <= match.end() or data[end - 1] != ord("\n"):
            raise ArchiveError(CORRUPT)
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise ArchiveError(CORRUPT)
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            repeated.append((key, value))
        else:
            into[key] = value
        at = end
    return repeated


def parse_map(numbers: list[int], size: int, stored: int) -> list[Extent]:
    """Pair numbers to the map of a sparse file.

    Args:
        numbers: offset and length of each piece of data.
        size: the file's, with holes.
        stored: bytes of data in the archive.

    Raises:
        ArchiveError: they overlap, are out of order, or do not fit the file or its data.
    """
    if len(numbers) % 2 or len(numbers) > 2 * ARCHIVE_EXTENTS:
        raise ArchiveError("corrupt map of a sparse file")
    extents, end = list(zip(numbers[::2], numbers[1::2], strict=True)), 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise ArchiveError("corrupt map of a sparse file")
        end = offset + length
    if not end <= size <= _MAX_SIZE or sum(length for _, length in extents) != stored:
        raise ArchiveError("corrupt map of a sparse file")
    return [extent for extent in extents if extent[1]]
