"""Saving of a whole workspace as a tree, and what a later one needs to know of it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sandyard.archive.report import ArchiveNote, Tally
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import translated
from sandyard.workspace.persist_shared import SharedSaving
from sandyard.workspace.persist_stream import gone_root

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.archive.trees import Intake, Node
    from sandyard.workspace.layered_known import KnownTree
    from sandyard.workspace.root import WorkspaceRoot
    from sandyard.workspace.stat_index import Looks

__all__ = ["SavedTree", "save_tree"]


class SavedTree(NamedTuple):
    """What saving a workspace gave.

    Attributes:
        top: the workspace's own entry.
        report: what could not be saved.
    """

    top: Node
    report: ArchiveReport


def save_tree(
    root: WorkspaceRoot,
    intake: Intake,
    looks: Looks,
    excluded: frozenset[Path],
    stopped: threading.Event,
    known: KnownTree | None = None,
    tallies: Callable[[], Tally] = Tally,
) -> SavedTree:
    """Save a workspace; what looks as it did before is not read.

    Args:
        root: the workspace.
        intake: takes contents and directories.
        looks: how everything looked before, and what takes how it looks.
        excluded: paths that are left out, with all in them.
        stopped: set by whoever wants no more of it.
        known: of a workspace on layers, what was saved of it; what is not touched since is not even
            looked at (default: all of it is walked).
        tallies: gives what counts, for each try.

    Raises:
        WorkspaceArchiveReadError: the workspace was removed, or can't be read.
    """
    if root.gone:
        raise gone_root(root.inside)
    with translated("persist_workspace", root.inside, root):
        saved = (
            None
            if known is None
            else _saved_above(root, intake, looks, excluded, stopped, known, tallies)
        )
        if saved is None:
            counted, owner = tallies(), rightful_owner(root)
            rules = counted, root.ward, owner, stopped
            saving = SharedSaving(root.fd, intake, looks, excluded, *rules)
            saving.names = root.names
            with acting_as(owner):
                top = saving.run()
            report = counted.report()
            saved = SavedTree(top, _in_order(report) if saving.shared else report)
        if os.fstat(root.fd).st_nlink == 0:
            raise gone_root(root.inside)
    return saved


def _saved_above(  # as its caller, which may have to do without
    root: WorkspaceRoot,
    intake: Intake,
    looks: Looks,
    excluded: frozenset[Path],
    stopped: threading.Event,
    known: KnownTree,
    tallies: Callable[[], Tally],
) -> SavedTree | None:
    """Save a workspace on layers, with the costs of what was touched; None if it has to be walked."""
    from sandyard.workspace.layered_known import Touched  # noqa: PLC0415  # few lie upon layers
    from sandyard.workspace.layered_saving import (  # noqa: PLC0415  # likewise
        LayeredSaving,
        UnknownTreeError,
    )

    if root.ward.closes or known.report.unlisted:
        return None
    try:
        touched = Touched(known.above, excluded)
    except OSError:  # somebody inside shut what we would look into
        return None
    tally, owner = tallies(), rightful_owner(root)
    saving = LayeredSaving(root.fd, intake, looks, excluded, tally, root.ward, owner, stopped)
    try:
        with acting_as(owner):
            saving.follow(known, touched)
            top = saving.run()
    except UnknownTreeError:
        return None
    return SavedTree(top, _in_order(tally.report()))


def _in_order(report: ArchiveReport) -> ArchiveReport:
    """The same, its notes in the order in which a walk comes past them."""
    skipped, changed, dropped = (
        tuple(sorted(notes, key=_place_of))
        for notes in (report.skipped, report.changed, report.dropped)
    )
    return replace(report, skipped=skipped, changed=changed, dropped=dropped)


def _place_of(note: ArchiveNote) -> tuple[str, ...]:
    """Where that is."""
    return () if note.path == "." else tuple(note.path.split("/"))
