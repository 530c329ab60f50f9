"""Reads the audit's records of what Landlock refuses (landlock.rst): from bytes to values, without effects.

The kernel writes what others chose, such as names of files, between quotes, or as hexadecimal digits
where it holds a quote, a space or what can't be printed. So no name can pass for another field.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["LANDLOCK_ACCESS", "LANDLOCK_DOMAIN", "Domain", "Refusal", "read_record"]

LANDLOCK_ACCESS: Final = 1423
LANDLOCK_DOMAIN: Final = 1424
"""Types of records (linux/audit.h)."""

_RECORD: Final = re.compile(rb"audit\((\d{1,12})\.(\d{3}):\d{1,20}\): (\S.*)", re.DOTALL)
_QUOTED: Final = re.compile(rb'"([^"]*)"')
_HEXADECIMAL: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_DOMAIN: Final = re.compile(rb"[0-9a-f]{1,16}")
_NUMBER: Final = re.compile(rb"\d{1,10}")
_BLOCKERS: Final = re.compile(rb"[a-z_]+(?:\.[a-z_]+)?(?:,[a-z_]+(?:\.[a-z_]+)?){0,31}")

Fields = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that a domain refused.

    Attributes:
        domain: its number.
        stamp: when, in seconds since the epoch, no more exact than the kernel's ticks.
        blockers: the rights that were missing, such as ``"fs.read_file"``.
        path: the file, as whoever was refused it sees it; of what is made in a directory or taken
            from it, the directory. None for what is no file.
    """

    domain: int
    stamp: float
    blockers: tuple[str, ...]
    path: str | None


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain, told when it refuses something for the first time, and at its end.

    Attributes:
        domain: its number.
        owner: the uid of whoever made it, in the machine's first user namespace; None at its end.
    """

    domain: int
    owner: int | None


def read_record(kind: int, text: bytes) -> Refusal | Domain | None:
    """What one record says; None where it is none of Landlock's, or not written as these are.

    Args:
        kind: its type.
        text: all that follows the head of the datagram.
    """
    found = _RECORD.fullmatch(text.rstrip(b"\0\n "))
    if found is None or kind not in (LANDLOCK_ACCESS, LANDLOCK_DOMAIN):
        return None
    fields = _fields(found[3])
    if fields is None or not _DOMAIN.fullmatch(fields.get(b"domain", b"")):
        return None
    domain = int(fields[b"domain"], 16)
    if kind == LANDLOCK_DOMAIN:
        return _domain(domain, fields)
    blockers = fields.get(b"blockers", b"")
    if not _BLOCKERS.fullmatch(blockers):
        return None
    stamp = int(found[1]) + int(found[2]) / 1000
    return Refusal(domain, stamp, tuple(blockers.decode().split(",")), _path(fields, blockers))


def _fields(text: bytes) -> Fields | None:
    """The fields of a record; None where one comes twice, or is none."""
    fields: Fields = {}
    for word in text.split():
        name, equals, value = word.partition(b"=")
        if not name or not equals or name in fields:
            return None
        fields[name] = value
    return fields


def _domain(domain: int, fields: Fields) -> Domain | None:
    owner = fields.get(b"uid", b"")
    match fields.get(b"status"):
        case b"deallocated":
            return Domain(domain, None)
        case b"allocated" if _NUMBER.fullmatch(owner):
            return Domain(domain, int(owner))
        case _:
            return None


def _path(fields: Fields, blockers: bytes) -> str | None:
    if not blockers.startswith(b"fs."):
        return None
    path = _text(fields.get(b"path", b""))
    # The name of a Unix socket has the same field, and what has no path a word in its place.
    return os.fsdecode(path) if path.startswith(b"/") and b"\0" not in path else None


def _text(value: bytes) -> bytes:
    """What the kernel wrote with quotes, or as digits; nothing where it is neither."""
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        return quoted[1]
    return bytes.fromhex(value.decode()) if _HEXADECIMAL.fullmatch(value) else b""
