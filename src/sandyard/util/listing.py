"""Owns the reading of what ``ls -la`` prints."""

from __future__ import annotations

import posixpath
import re
from typing import Final

from sandyard.types import EntryKind, FileEntry, Permissions

__all__ = ["parse_ls_la"]

_LINE: Final = re.compile(
    r"(?P<type>[-a-zA-Z?])(?P<bits>[-rwxsStT]{9})[@+.]?\s+\d+\s+(?P<owner>\S+)\s+(?P<group>\S+)\s+"
    # A device has two numbers, or one in hexadecimal, where others have a size.
    r"(?:(?P<size>\d+)|\d+,\s*\d+|0x[0-9a-fA-F]+)\s+\S+\s+\S+\s+\S+ (?P<name>.+)"
)
_KINDS: Final = {"d": EntryKind.DIRECTORY, "-": EntryKind.FILE, "l": EntryKind.SYMLINK}
_DEVICES: Final = frozenset("bc")
_ARROW: Final = " -> "


def parse_ls_la(output: str, *, base: str) -> list[FileEntry]:
    """Read what ``ls -la`` printed, in another sandbox or container.

    For a session of this library use ``session.ls``: what ``ls`` prints is ambiguous, because names may
    have newlines and arrows.

    Args:
        output: what was printed; lines that say something else are left out, so are ``.`` and ``..``.
        base: the directory that was listed; the entries' paths begin with it.
    """
    entries = [_entry(line, base) for line in output.split("\n")]
    return [entry for entry in entries if entry is not None]


def _entry(line: str, base: str) -> FileEntry | None:
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    kind = _KINDS.get(found["type"], EntryKind.OTHER)
    name, arrow, target = found["name"], "", ""
    if kind is EntryKind.SYMLINK:
        name, arrow, target = name.partition(_ARROW)
    if name in {".", ".."}:
        return None
    shape = "d" if kind is EntryKind.DIRECTORY else "-"
    return FileEntry(
        path=posixpath.join(base, name),
        permissions=Permissions.from_str(shape + found["bits"]),
        owner=found["owner"],
        group=found["group"],
        size=0 if found["type"] in _DEVICES else int(found["size"] or 0),
        kind=kind,
        target=target if arrow else None,
    )
