"""ArchiveReport: what unpacking or saving did, and what it could not do; and its tally."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sandyard.archive.model import Kind
from sandyard.limits import ARCHIVE_NOTES

__all__ = ["ArchiveNote", "ArchiveReport", "Fate", "Tally"]

Fate = Literal["skipped", "changed", "dropped"]


class ArchiveNote(NamedTuple):
    """Something that is not in the result as it was.

    Attributes:
        path: what it is about, beneath the directory that was unpacked into, or the workspace.
        reason: why: one word, or one and a name.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReport:
    """What unpacking an archive, or saving a workspace, did.

    Attributes:
        files: regular files.
        directories: directories that the archive names.
        symlinks: symbolic links.
        hard_links: further names of files that count once.
        size: bytes of the files together, holes included.
        skipped: what was left out: ``fifo``, ``socket``, ``device``, ``unreadable``, ``vanished``,
            ``temporary``, ``excluded``, ``denied``, ``mount``.
        changed: files that somebody wrote to while they were read; their content is of several
            moments: ``grew``, ``shrank``, ``changed``.
        dropped: what is not kept of something that is there: ``setuid``, ``setgid``, ``sticky``,
            or ``xattr`` and a name.
        unlisted: how many more there are of the last three; each list ends at 1,000.
    """

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    hard_links: int = 0
    size: int = 0
    skipped: tuple[ArchiveNote, ...] = ()
    changed: tuple[ArchiveNote, ...] = ()
    dropped: tuple[ArchiveNote, ...] = ()
    unlisted: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all is in the result as it was."""
        return not (self.skipped or self.changed or self.dropped or self.unlisted)


class Tally:
    """Counts towards a report.

    Attributes:
        noted: how many notes were taken.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._counts = dict.fromkeys(Kind, 0)
        self._size = 0
        self._notes: dict[Fate, list[ArchiveNote]] = {"skipped": [], "changed": [], "dropped": []}
        self._unlisted = 0

    def count(self, kind: Kind, size: int = 0) -> None:
        """Count something that is there."""
        self._counts[kind] += 1
        self._size += size

    def count_many(self, files: int, symlinks: int, size: int) -> None:
        """Count so many files, of so many bytes together, and symlinks."""
        self._counts[Kind.FILE] += files
        self._counts[Kind.SYMLINK] += symlinks
        self._size += size

    def count_report(self, report: ArchiveReport) -> None:
        """Count all that a report tells of; its notes excepted."""
        self._counts[Kind.FILE] += report.files
        self._counts[Kind.DIRECTORY] += report.directories
        self._counts[Kind.SYMLINK] += report.symlinks
        self._counts[Kind.HARD_LINK] += report.hard_links
        self._size += report.size

    def discount(self, kind: Kind, size: int = 0) -> None:
        """Count something no longer that is not there any more."""
        self._counts[kind] -= 1
        self._size -= size

    def note(self, fate: Fate, path: bytes, reason: str) -> None:
        """Take note of something that is not as it was."""
        self.noted += 1
        notes = self._notes[fate]
        if len(notes) < ARCHIVE_NOTES:
            notes.append(ArchiveNote(os.fsdecode(path) or ".", reason))
        else:
            self._unlisted += 1

    def note_special(self, path: bytes, mode: int) -> None:
        """Take note of the bits of a mode that are never kept."""
        for bit, name in _SPECIAL:
            if mode & bit:
                self.note("dropped", path, name)

    def report(self) -> ArchiveReport:
        """What there is so far."""
        return ArchiveReport(
            files=self._counts[Kind.FILE],
            directories=self._counts[Kind.DIRECTORY],
            symlinks=self._counts[Kind.SYMLINK],
            hard_links=self._counts[Kind.HARD_LINK],
            size=self._size,
            skipped=tuple(self._notes["skipped"]),
            changed=tuple(self._notes["changed"]),
            dropped=tuple(self._notes["dropped"]),
            unlisted=self._unlisted,
        )


_SPECIAL = ((0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky"))
