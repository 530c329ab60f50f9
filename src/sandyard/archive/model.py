"""What an archive has in it, as values, and the one error that reading it raises."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandyard.errors import shown

__all__ = ["ArchiveError", "Extent", "Kind", "Member", "Part", "Piece", "PlainFile", "Read"]

Read = Callable[[int], bytes | memoryview]
"""Gives the next bytes, about as many as asked for, none at the end."""

Extent = tuple[int, int]
"""Offset and length of data in a file with holes."""

Piece = tuple[int, memoryview]
"""Where in a file some bytes stand, and the bytes."""

PlainFile = tuple[bytes, int, int, memoryview]
"""A file of which nothing else is told: name, mode, time in ns, and all of its content."""


class Kind(enum.Enum):
    """What a member is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hardlink"

    # There is one object of each; Enum's own is a call, and each member is looked up several times.
    __hash__ = object.__hash__


@dataclass(slots=True)
class Member:
    """One thing in an archive.

    Attributes:
        name: as the archive has it.
        kind: what it is.
        size: bytes of its content, holes included.
        mode: permission and special bits; None where the archive has none.
        mtime: modification time in ns since 1970; None where the archive has none.
        link: where a symlink points, or the name of what a hard link is another name of.
        attributes: extended attributes, by name.
        sparse: where its data stands; None if it has no holes.
        owner: names of its user and group, with a colon between; empty for the workspace's own.
        pieces: gives the content in order; only once, and before the next member is asked for.
    """

    name: bytes
    kind: Kind
    size: int = 0
    mode: int | None = None
    mtime: int | None = None
    link: bytes = b""
    attributes: dict[bytes, bytes] | None = None
    sparse: list[Extent] | None = None
    owner: bytes = b""
    pieces: Callable[[], Iterator[Piece]] = field(default=lambda: iter(()), repr=False)


Part = Member | list[PlainFile]
"""What reading gives at once: a member of any kind, or plain files that stand one after the other."""


class ArchiveError(Exception):
    """An archive that is refused.

    Attributes:
        reason: a stable phrase, followed by a name where the phrase ends in a colon.
        member: which member it is about.
        limit: the limit that was exceeded.
        actual: what exceeded it.
        knob: name of the limit.
    """

    def __init__(
        self,
        reason: str,
        *,
        member: bytes | None = None,
        limit: int | None = None,
        actual: int | None = None,
        knob: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.member = None if member is None else os.fsdecode(member)
        self.limit = limit
        self.actual = actual
        self.knob = knob

    def __str__(self) -> str:
        """The phrase, the member, and what exceeded the limit."""
        text = self.reason
        if self.member is not None:
            text = f"member {shown(self.member)}: {text}"
        if self.knob is not None:
            text = f"{text} ({self.actual} > {self.limit}); raise {self.knob} in archive_limits"
        return text
