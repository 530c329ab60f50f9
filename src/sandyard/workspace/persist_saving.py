"""Saving of a whole workspace as a tree, and what a later one needs to know of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from sandyard.archive.report import Tally
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import translated
from sandyard.workspace.persist_stream import gone_root
from sandyard.workspace.persist_tree import TreeSaving

if TYPE_CHECKING:
    import threading

    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.archive.trees import Intake, Node
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
) -> SavedTree:
    """Save a workspace; what looks as it did before is not read.

    Args:
        root: the workspace.
        intake: takes contents and directories.
        looks: how everything looked before, and what takes how it looks.
        excluded: paths that are left out, with all in them.
        stopped: set by whoever wants no more of it.

    Raises:
        WorkspaceArchiveReadError: the workspace was removed, or can't be read.
    """
    if root.gone:
        raise gone_root(root.inside)
    tally = Tally()
    with translated("persist_workspace", root.inside, root):
        owner = rightful_owner(root)
        saving = TreeSaving(root.fd, intake, looks, excluded, tally, root.ward, owner, stopped)
        saving.names = root.names
        with acting_as(owner):
            top = saving.run()
        if os.fstat(root.fd).st_nlink == 0:
            raise gone_root(root.inside)
    return SavedTree(top, tally.report())
