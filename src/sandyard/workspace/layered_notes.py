"""What a save of a workspace on layers notes for the next one, and what that finds known of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sandyard.archive.report import ArchiveNote, ArchiveReport
from sandyard.workspace.layered_known import KnownTree
from sandyard.workspace.saved_layers import SavedLayers
from sandyard.workspace.stat_index import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandyard.archive.naming import Path
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.stat_index import IndexWriter, StatIndex

__all__ = ["Recorded", "known_tree", "note_stack"]

_KEY: Final = b"\0layers"
"""Under which it stands among the directories of an index: no path has a NUL."""

_NO_DIGEST: Final = bytes(32)
_COUNTS: Final = ("files", "directories", "symlinks", "hard_links", "size")
_LISTS: Final = ("skipped", "changed", "dropped")


class Recorded(Protocol):
    """A snapshot's record, as far as it is needed."""

    @property
    def id(self) -> str:
        """The snapshot's."""

    @property
    def tree(self) -> str:
        """Digest of all that was saved."""

    @property
    def files(self) -> int:
        """Regular files."""

    @property
    def directories(self) -> int:
        """Directories."""

    @property
    def symlinks(self) -> int:
        """Symbolic links."""

    @property
    def hard_links(self) -> int:
        """Further names of files that count once."""

    @property
    def size(self) -> int:
        """Bytes of the files together."""


class _Note(NamedTuple):
    """What was noted of a save.

    Attributes:
        session: whose changes were saved: those of another one upon the same layers are others.
        stack: the layers beneath, the uppermost first.
        excluded: digest of what was left out by its path.
        report: what was saved, and what could not be.
    """

    session: str
    stack: tuple[str, ...]
    excluded: str
    report: ArchiveReport


def known_tree(
    place: LayeredPlace,
    stack: tuple[str, ...],
    before: StatIndex,
    excluded: frozenset[Path],
    recorded: Callable[[str], Recorded | None],
) -> KnownTree | None:
    """What is known of a workspace on layers, so that only what lies above has to be looked at.

    Args:
        place: where it keeps its changes.
        stack: the layers beneath, the uppermost first.
        before: what its last save noted.
        excluded: paths that are left out of this one.
        recorded: gives a snapshot of the store that it is saved to, by the path of its record.

    Returns:
        The tree of its last save, or of the snapshot that the lowest layer holds; None if neither is
        known.
    """
    note, asked = _noted(before), (place.session_id, _digest_of(excluded))
    if note is not None and (note.session, note.excluded) == asked:
        depth = len(stack) - len(note.stack)
        if depth >= 0 and stack[depth:] == note.stack:
            return KnownTree(before.tree, note.report, _above(place, stack[:depth]))
    held = SavedLayers(place.state).held_by(stack[-1])
    found = None if held is None else recorded(held.record)
    if held is None or found is None or (found.id, found.tree) != (held.id, held.tree):
        return None
    counts = {name: getattr(found, name) for name in _COUNTS}  # all that was kept is there
    return KnownTree(found.tree, ArchiveReport(**counts), _above(place, stack[:-1]))


def note_stack(
    after: IndexWriter,
    place: LayeredPlace,
    stack: tuple[str, ...],
    excluded: frozenset[Path],
    report: ArchiveReport,
) -> None:
    """Note what a workspace on layers was saved as.

    Args:
        after: takes what the next save needs.
        place: where it keeps its changes.
        stack: the layers beneath, the uppermost first.
        excluded: paths that were left out.
        report: what was saved.
    """
    told = {field.name: getattr(report, field.name) for field in fields(report)}
    said: dict[str, object] = {"session": place.session_id, "excluded": _digest_of(excluded)}
    said |= {"stack": stack, "report": told}
    after.add(_KEY, Known(_NO_DIGEST, False, json.dumps(said).encode()))


def _above(place: LayeredPlace, stack: tuple[str, ...]) -> tuple[str, ...]:
    return (place.upper, *(place.store.tree(name) for name in stack))


def _noted(before: StatIndex) -> _Note | None:
    """What the last save noted; an index tells only what was written."""
    known = before.get(_KEY)
    if known is None:
        return None
    said = json.loads(known.looks)
    told = said["report"]
    lists = {name: tuple(ArchiveNote(*note) for note in told[name]) for name in _LISTS}
    return _Note(
        said["session"], tuple(said["stack"]), said["excluded"], ArchiveReport(**(told | lists))
    )


def _digest_of(paths: frozenset[Path]) -> str:
    return hashlib.sha256(repr(sorted(paths)).encode()).hexdigest()
