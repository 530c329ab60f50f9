"""FileChange, and how the kernel's events become a few of them: pure."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

__all__ = ["ChangeKind", "FileChange", "RawEvent", "coalesce", "decode_events"]

ChangeKind = Literal["created", "modified", "removed", "overflow"]
"""What happened; after ``overflow`` some changes were lost, and what is there is to be looked at."""


class FileChange(NamedTuple):
    """Something that changed.

    Attributes:
        kind: what happened.
        path: of what changed, absolute, as commands see it; of the watched directory itself where
            events were lost.
        is_dir: whether it is, or was, a directory.
    """

    kind: ChangeKind
    path: str
    is_dir: bool = False


class RawEvent(NamedTuple):
    """One event as the kernel told it (inotify(7))."""

    watch: int
    mask: int
    name: str


_HEAD: Final = struct.Struct("iIII")

_AFTER: Final[dict[tuple[ChangeKind, ChangeKind], ChangeKind | None]] = {
    ("created", "created"): "created",
    ("created", "modified"): "created",
    ("created", "removed"): None,
    ("modified", "created"): "modified",
    ("modified", "modified"): "modified",
    ("modified", "removed"): "removed",
    ("removed", "created"): "modified",
    ("removed", "modified"): "modified",
    ("removed", "removed"): "removed",
}
"""What two changes of one path are together; None is nothing."""


def decode_events(data: bytes) -> Iterator[RawEvent]:
    """Take apart what was read from an inotify descriptor."""
    at = 0
    while at + _HEAD.size <= len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + length].rstrip(b"\0")
        at += length
        yield RawEvent(watch, mask, os.fsdecode(name))


def coalesce(changes: Iterable[FileChange]) -> list[FileChange]:
    """Make one change of all that happened to a path, in the order of the last ones.

    What was made and removed again is left out.
    """
    found: dict[tuple[str, bool], FileChange] = {}
    for change in changes:
        key = change.path, change.kind == "overflow"
        before = found.pop(key, None)
        kind: ChangeKind | None = change.kind
        if before is not None and change.kind != "overflow":
            kind = _AFTER[before.kind, change.kind]
        if kind is not None:
            found[key] = change._replace(kind=kind)
    return list(found.values())
