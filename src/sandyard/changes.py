"""What workspaces may be laid over, as values: a directory, or layers; what was changed, and applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

__all__ = ["AppliedChanges", "Change", "Changes", "Layered", "Overlay"]

ChangeKind = Literal["deleted", "added", "modified", "mode", "type"]
ChangedEntry = Literal["file", "directory", "symlink", "other"]

_SIGNS = {"deleted": "D", "added": "A", "modified": "M", "mode": "P", "type": "T"}


@dataclass(frozen=True, slots=True)
class Overlay:
    """A workspace that is an overlay: commands see a directory of yours and change it, and it stays.

    What they change is kept apart. ``session.diff()`` tells what it is, ``session.apply()`` puts it
    into the directory, ``session.discard()`` throws it away.

    Attributes:
        path: the directory, absolute; it exists, and is yours unless you are root. It should not be
            changed outside while the session runs: commands may or may not see that.

    Example:
        >>> session = await client.create(workspace=Overlay("/home/me/project"))
    """

    path: str | PurePath


@dataclass(frozen=True, slots=True)
class Layered:
    """A workspace that lies upon layers: ``client.fork`` makes another one without copying it.

    What commands change is kept apart from what was there before, which is never changed again and
    which any number of sessions see at once. All of it lies in the state directory
    (``$XDG_STATE_HOME/sandyard``), so there is no directory of the host's to look into; ``delete``
    removes what no other session needs. Commands know the workspace as the manifest's root.

    A directory that was there at a fork can't be renamed in one step (EXDEV; ``mv`` copies it), and of
    such a file with several names the one that is written to becomes a file of its own.

    Example:
        >>> session = await client.create(workspace=Layered())
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry that is not as it is in the directory beneath.

    Attributes:
        path: relative to the workspace.
        kind: ``"deleted"``, ``"added"``, ``"modified"`` (what it says), ``"mode"`` (its permissions
            alone) or ``"type"`` (a file became a directory, and the like).
        entry: what it is, or was.
        mode: its permission bits; of a deleted one those it had.
        size: of a file, its bytes; else 0.
        contains: how many entries a directory had that is deleted, or became something else.
        target: of a symlink, where it leads; else None.
        text: what changed in a text file, as a unified diff; None for anything else, for a file that
            is too large, and where nobody asked for it.
        truncated: whether ``text`` is only the beginning, or left out since it would be too long.
        planted: the program outside that would run or obey it, and how; None for most.
    """

    path: str
    kind: ChangeKind
    entry: ChangedEntry
    mode: int
    size: int = 0
    contains: int = 0
    target: str | None = None
    text: str | None = None
    truncated: bool = False
    planted: str | None = None

    def __str__(self) -> str:
        """Return a line: a letter for the kind, and the path."""
        name = self.path + ("/" if self.entry == "directory" else "")
        more = f" ({self.contains} entries)" if self.contains else ""
        if self.kind == "mode":
            more = f" (mode {self.mode:04o})"
        return f"{_SIGNS[self.kind]} {name}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What was changed in an overlay: deletions first, and sorted by path.

    Attributes:
        entries: the changes.
        complete: False if there are more than are told.
        notes: what could not be looked at, and why.
    """

    entries: tuple[Change, ...]
    complete: bool = True
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a line for each."""
        lines = [str(change) for change in self.entries]
        if not self.complete:
            lines.append("… and more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedChanges:
    """What ``session.apply`` did.

    Attributes:
        applied: paths that are now as in the overlay, relative to the workspace, sorted.
        lowered: those of them that lost set-user-id, set-group-id or sticky bits on the way.
        skipped: those that can't be applied: sockets, FIFOs and devices.
    """

    applied: tuple[str, ...]
    lowered: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
