"""Deletion of a session's root together with its lease, in an order that survives a kill."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from sandyard.errors import WorkspaceStartError, WorkspaceStopError, shown
from sandyard.workspace.root import Inode, WorkspaceRoot

if TYPE_CHECKING:
    from sandyard.workspace.lease import Lease

__all__ = ["ChangesPlace", "delete_leased", "is_empty"]


class ChangesPlace(Protocol):
    """What a session's changes lie in, where they are kept apart."""

    def remove(self) -> None:
        """Remove all of it.

        Raises:
            WorkspaceStopError: that can't be done now, or something can't be removed.
        """


def delete_leased(
    lease: Lease, path: str, inode: Inode | None, changes: ChangesPlace | None = None
) -> bool:
    """Delete a root that the library made, and then its lease. Blocks on the file system.

    Whoever is killed in between is swept after, and so is what could not be removed: the lease
    stays then, and nobody holds it.

    Args:
        lease: the session's, held or kept.
        path: the root.
        inode: what the root is; None if it is the caller's, and then only the lease goes.
        changes: what was changed, where that is kept apart, which goes with the lease; else None.

    Returns:
        True if nothing is left of it; False if it is the caller's, or if something else stands in
        its place.

    Raises:
        WorkspaceStopError: something in it can't be removed; all else is gone.
        WorkspaceStartError: somebody else uses the session now; nothing was deleted.
    """
    lease.retake()
    with lease:
        gone = inode is not None and _delete(path, inode)
        if changes is not None:
            changes.remove()
        lease.remove()
    return gone


def is_empty(root: WorkspaceRoot) -> bool:
    """Whether nothing is in a root but what a killed program was unpacking. Blocks.

    Raises:
        WorkspaceStartError: it can't be listed.
    """
    from sandyard.workspace.extract_stage import is_temporary  # noqa: PLC0415  # few are saved

    try:
        return all(is_temporary(os.fsencode(name)) for name in os.listdir(root.fd))
    except OSError as error:
        raise WorkspaceStartError(path=root.path, cause=error) from error


def _delete(path: str, inode: Inode) -> bool:
    root = WorkspaceRoot.find(path, inode)
    if root is None:  # another directory of the same name is not ours to delete
        return not os.path.lexists(path)
    with root:
        if root.delete():
            return True
    raise WorkspaceStopError(
        path=path,
        message=f"the workspace {shown(path)} could not be deleted whole: {root.obstacle}; "
        "remove what is left, or what holds it, and call delete again",
        context={"reason": "not_removed"},
        cause=root.obstacle,
        retryable=True,
    )
