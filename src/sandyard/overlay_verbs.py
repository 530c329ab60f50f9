"""The verbs of a session whose workspace is an overlay: what was changed, and what becomes of it."""

from __future__ import annotations

from abc import ABC
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConfinementUnavailableError,
    ManifestError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.manifest import DEFAULT_ROOT
from sandyard.observing import Observable
from sandyard.workspace.root import WorkspaceRoot

if TYPE_CHECKING:
    from sandyard.confinement.footing import Footing
    from sandyard.manifest import Manifest
    from sandyard.process.layering import LayeredTree
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.workspace.lease import Lease
    from sandyard.workspace.overlay_place import OverlayPlace
    from sandyard.workspace.root import Inode

__all__ = ["OverlayVerbs", "begin_overlay", "lay_over"]


class OverlayVerbs(Observable, ABC):
    """What a session does with an overlay."""

    state: UnixLocalSandboxSessionState
    _lease: Lease
    _root: WorkspaceRoot | None
    _inode: Inode | None
    _tree: LayeredTree | None = None  # the root's, which closes it

    def _overlay_place(self) -> OverlayPlace | None:
        """Where the changes are, if the workspace is an overlay."""
        if not self.state.workspace_overlay:
            return None
        from sandyard.workspace.overlay_place import OverlayPlace  # noqa: PLC0415  # few are

        return OverlayPlace(self._lease, self.state.manifest.root)

    async def _open_root(self) -> WorkspaceRoot:
        """The workspace's root, which the session holds from now on."""
        return await in_thread(self._opened_root) if self._root is None else self._root

    def _opened_root(self) -> WorkspaceRoot:
        owned, place = self.state.workspace_root_owned, self._overlay_place()
        if place is not None:
            self._root = self._overlaid_root(place)
            return self._root
        root = self._root = WorkspaceRoot.open(self.state.manifest.root, owned=owned)
        self._inode = root.inode
        self._lease.note(root.inode)
        root.marks = None if owned else self._lease.directory
        return root

    def _overlaid_root(self, place: OverlayPlace) -> WorkspaceRoot:
        """Make the overlay. It blocks on the file system.

        Raises:
            WorkspaceStartError: the directory beneath is missing, or another one than it was.
            ConfinementUnavailableError: this machine can't mount it.
        """
        from sandyard.process.layering import LayeredTree  # noqa: PLC0415  # few sessions do

        record = place.prepare()
        self._lease.note(record.inode)
        changes, base = place.layers(record)
        self._tree = LayeredTree.make(changes, (base,))
        return WorkspaceRoot.show(self._tree, record.root)

    def _check_overlay(self, footing: Footing) -> None:
        """Refuse a rung without mounts: commands would work in the directory beneath.

        Raises:
            ConfinementUnavailableError: it is one.
        """
        if self._tree is not None and footing.rung == "landlock_seccomp":
            raise ConfinementUnavailableError(
                "an overlay can't be shown to commands",
                dimension="write",
                cause_text=f"without namespaces there are no mounts, and {footing.cause}",
                fix=f"{footing.fix}; or work on a copy of the directory",
            )


def lay_over(workspace: object, manifest: Manifest) -> None:
    """Let the manifest's root be the directory that an overlay is laid over.

    Raises:
        ArgumentError, ArgumentTypeError: ``workspace`` is no overlay, or the manifest names another
            root.
        ManifestError: it names users, who can't be had in an overlay.
        WorkspaceStartError: the path is a symlink or no directory.
    """
    from sandyard.changes import Overlay  # noqa: PLC0415  # it is given

    if not isinstance(workspace, Overlay):
        raise ArgumentTypeError(
            "workspace is an Overlay, such as Overlay('/home/me/project'), or None",
            op="create",
            argument="workspace",
            value=workspace,
        )
    path = WorkspaceRoot.check(workspace.path)
    if manifest.root not in {DEFAULT_ROOT, path}:
        raise ArgumentError(
            f"the manifest's root is {shown(manifest.root)}, and the workspace an overlay over "
            f"{shown(path)}; leave one of them out",
            op="create",
            argument="workspace",
            value=path,
        )
    if manifest.users or manifest.groups:
        raise ManifestError(
            "users and groups can't be had in an overlay: its files are shown as one user's; leave "
            "them out, or work on a copy",
            field="users" if manifest.users else "groups",
        )
    manifest.root = path


def begin_overlay(lease: Lease, path: str, undo: ExitStack) -> None:
    """Make the place of an overlay's changes, from when on what changes outside is noticed. Blocks.

    Args:
        lease: the session's.
        path: what it is laid over.
        undo: removes the place again, if the session can't be made.

    Raises:
        WorkspaceStartError: the directory can't have an overlay, or the place can't be made.
    """
    from sandyard.workspace.overlay_place import OverlayPlace  # noqa: PLC0415  # few sessions do

    place = OverlayPlace(lease, path)
    undo.callback(place.remove)
    place.prepare()
