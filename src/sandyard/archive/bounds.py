"""SandboxArchiveLimits: how much an archive may unpack to; and the count of what it has so far."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import (
    ARCHIVE_DEPTH,
    ARCHIVE_EXTRACTED_BYTES,
    ARCHIVE_INPUT_BYTES,
    ARCHIVE_MEMBERS,
    ARCHIVE_RATIO,
    ARCHIVE_RATIO_FLOOR,
    PATH_TOTAL_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandyard.archive.model import PlainFile

__all__ = ["UNLIMITED", "ArchiveMeter", "SandboxArchiveLimits"]


@dataclass(frozen=True, slots=True)
class SandboxArchiveLimits:
    """How much an archive may hold; what holds more is refused, and nothing of it is kept.

    Each limit is a whole number, 1 at least, or None for none.

    Attributes:
        max_input_bytes: bytes of the archive itself (default: 1 GiB).
        max_extracted_bytes: bytes of all files in it together, holes of sparse files included
            (default: 4 GiB).
        max_members: files, directories and links in it (default: 100,000).
        max_ratio: how many times larger than the archive its content may be, counted from 64 MiB
            of content on (default: 250).
        max_depth: directories that one path in it leads through (default: 128).
        max_path_bytes: bytes of one path in it (default: 4,095).

    Raises:
        ArgumentError, ArgumentTypeError: a limit is no such number.
    """

    max_input_bytes: int | None = ARCHIVE_INPUT_BYTES
    max_extracted_bytes: int | None = ARCHIVE_EXTRACTED_BYTES
    max_members: int | None = ARCHIVE_MEMBERS
    max_ratio: int | None = ARCHIVE_RATIO
    max_depth: int | None = ARCHIVE_DEPTH
    max_path_bytes: int | None = PATH_TOTAL_BYTES

    def __post_init__(self) -> None:
        """Check every limit."""
        for each in fields(self):
            value = getattr(self, each.name)
            argument = f"archive_limits.{each.name}"
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ArgumentTypeError(
                    f"{argument} is a whole number, or None for no limit",
                    op="extract",
                    argument=argument,
                    value=value,
                )
            if value < 1:
                raise ArgumentError(
                    f"{argument} must be at least 1; give None for no limit",
                    op="extract",
                    argument=argument,
                    value=value,
                )


UNLIMITED = SandboxArchiveLimits(None, None, None, None, None, None)


class ArchiveMeter:
    """Counts what an archive has, and refuses what is too much.

    Attributes:
        limits: how much is allowed.
        taken: bytes of the archive that were read.
    """

    def __init__(self, limits: SandboxArchiveLimits) -> None:
        """Begin at nothing."""
        self.limits = limits
        self.taken = 0
        self._given = 0
        self._members = 0
        self._extracted = 0

    def take(self, size: int) -> None:
        """Count bytes of the archive.

        Raises:
            ArchiveError: they are too many.
        """
        self.taken += size
        most = self.limits.max_input_bytes
        if most is not None and self.taken > most:
            raise _exceeded("archive input size exceeds limit", "max_input_bytes", most, self.taken)

    def expand(self, size: int) -> None:
        """Count bytes that came out of a decoder.

        Raises:
            ArchiveError: they are too many for what went in.
        """
        self._given += size
        self._compare(self._given)

    def expect(self, count: int) -> None:
        """Refuse an archive that says itself that it has too many members.

        Raises:
            ArchiveError: it does.
        """
        most = self.limits.max_members
        if most is not None and count > most:
            raise _exceeded("archive member count exceeds limit", "max_members", most, count)

    def note(self, member: Member) -> None:
        """Count a member.

        Raises:
            ArchiveError: it is one too many, or too large.
        """
        self._members += 1
        limits = self.limits
        if limits.max_members is not None and self._members > limits.max_members:
            raise _exceeded(
                "archive member count exceeds limit",
                "max_members",
                limits.max_members,
                self._members,
                member,
            )
        if member.kind is not Kind.FILE:
            return
        self._extracted += member.size
        most = limits.max_extracted_bytes
        if most is not None and self._extracted > most:
            raise _exceeded(
                "archive extracted size exceeds limit",
                "max_extracted_bytes",
                most,
                self._extracted,
                member,
            )

    def note_files(self, files: Sequence[PlainFile], size: int) -> None:
        """Count files of so many bytes together.

        Raises:
            ArchiveError: there is one too many, or too large.
        """
        limits = self.limits
        members, extracted = self._members + len(files), self._extracted + size
        if (limits.max_members is None or members <= limits.max_members) and (
            limits.max_extracted_bytes is None or extracted <= limits.max_extracted_bytes
        ):
            self._members, self._extracted = members, extracted
            return
        for name, _, _, data in files:
            self.note(Member(name, Kind.FILE, len(data)))

    def _compare(self, size: int) -> None:
        most = self.limits.max_ratio
        if most is not None and size > ARCHIVE_RATIO_FLOOR and size > most * self.taken:
            ratio = size // max(self.taken, 1)
            raise _exceeded("archive compression ratio exceeds limit", "max_ratio", most, ratio)


def _exceeded(
    reason: str, knob: str, limit: int, actual: int, member: Member | None = None
) -> ArchiveError:
    name = None if member is None else member.name
    return ArchiveError(reason, knob=knob, limit=limit, actual=actual, member=name)
