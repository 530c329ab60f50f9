"""The verbs of a session whose workspace is an overlay: how it is shown, what was changed, what becomes of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sandyard.accounts import accounts_of
from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConfinementUnavailableError,
    ManifestError,
    shown,
)
from sandyard.finishing import finished, in_stoppable_thread, in_thread
from sandyard.lifecycle import Phase
from sandyard.manifest import DEFAULT_ROOT
from sandyard.observing import Observable, observed
from sandyard.workspace import Workspace
from sandyard.workspace.faults import translated
from sandyard.workspace.lease import open_root
from sandyard.workspace.root import WorkspaceRoot

if TYPE_CHECKING:
    import asyncio
    from pathlib import PurePath

    from sandyard.changes import AppliedChanges, Changes
    from sandyard.checkpoints import Checkpoints
    from sandyard.confinement.footing import Footing
    from sandyard.errors import OpName
    from sandyard.manifest import Manifest
    from sandyard.process.layering import LayeredTree
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.types import User
    from sandyard.workspace.deletion import ChangesPlace
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.lease import Lease
    from sandyard.workspace.overlay_place import OverlayPlace
    from sandyard.workspace.root import Inode

__all__ = ["OverlayVerbs", "lay_over"]

Laid = Literal["overlay", "layers"]


class OverlayVerbs(Observable, ABC):
    """What a session does with an overlay."""

    state: UnixLocalSandboxSessionState
    _lease: Lease
    _root: WorkspaceRoot | None
    _inode: Inode | None
    _tree: LayeredTree | None = None  # the root's, which closes it
    _workspace: Workspace | None
    _checkpoints: Checkpoints | None
    _phase: Phase
    _turn: asyncio.Lock
    _settling: asyncio.Lock  # one apply or discard at a time, the start after a discard included
    _discarded: bool = False  # then nothing is restored over the directory as it is

    @abstractmethod
    async def start(self) -> None:
        """Make the workspace ready and build the sandbox around it."""

    @abstractmethod
    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        """The workspace, if the session is in a phase in which it may be used."""

    @abstractmethod
    async def _end_sandbox(self) -> None:
        """End the sandbox, and what runs in it."""

    @abstractmethod
    def _layered_place(self) -> LayeredPlace | None:
        """Where the changes are, if the workspace lies upon layers."""

    def _overlay_place(self) -> OverlayPlace | None:
        """Where the changes are, if the workspace is an overlay."""
        if not self.state.workspace_overlay:
            return None
        from sandyard.workspace.overlay_place import OverlayPlace  # noqa: PLC0415  # few are

        return OverlayPlace(self._lease, self.state.manifest.root)

    def _changes_place(self) -> ChangesPlace | None:
        """Where the changes are, if they are kept apart."""
        return self._overlay_place() or self._layered_place()

    async def _open_root(self) -> WorkspaceRoot:
        """The workspace's root, which the session holds from now on; applies to it are whole.

        Raises:
            WorkspaceStartError: it can't be opened, or an apply that was cut short can't be undone.
        """
        if self._root is None:
            if self._phase is Phase.NEW:
                await self._lay_saved()
            return await in_stoppable_thread(self._opened_root)
        if (place := self._overlay_place()) is not None:
            await in_thread(place.settle)
        return self._root

    async def _lay_saved(self) -> None:
        """Let a workspace on layers in which there is nothing lie upon what was saved in a store.

        Raises:
            WorkspaceStartError: it can't.
        """
        from sandyard.snapshot.kinds import StoreSnapshot  # noqa: PLC0415  # few sessions have one

        place, kept, saving = self._layered_place(), self.state.snapshot, self._checkpoints
        if place is None or saving is None or not isinstance(kept, StoreSnapshot):
            return
        if self._lease.restoring is not None or not await in_thread(place.is_untouched):
            return
        from sandyard.forking import laid_saved  # noqa: PLC0415  # few sessions do
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # likewise

        with saving.start_errors(self.state.manifest.root):
            store = SnapshotStore(kept.directory)
            last = await in_thread(store.last_of, kept.id)
            if last is None:
                return
            await laid_saved(store, last, place)
        self.state.workspace_root_ready = True

    def _opened_root(self, stopped: threading.Event) -> WorkspaceRoot:
        owned, place = self.state.workspace_root_owned, self._overlay_place()
        if place is not None:
            self._root = self._overlaid_root(place, stopped)
            return self._root
        stacked = self._layered_place()
        if stacked is not None:
            from sandyard.layered import show_layers  # noqa: PLC0415  # few sessions have some

            self._tree, self._root = show_layers(stacked, self.state.manifest.root)
            return self._root
        root = self._root = open_root(self._lease, self.state.manifest.root, owned=owned)
        self._inode = root.inode
        return root

    def _overlaid_root(self, place: OverlayPlace, stopped: threading.Event) -> WorkspaceRoot:
        """Make the overlay. It blocks on the file system.

        Raises:
            WorkspaceStartError: the directory beneath is missing, or another one than it was.
            ConfinementUnavailableError: this machine can't mount it.
        """
        from sandyard.process.layering import LayeredTree  # noqa: PLC0415  # few sessions do

        record = place.prepare()
        self._lease.note(record.inode)
        changes, base = place.layers(record, stopped)
        self._tree = LayeredTree.make(changes, (base,))
        return WorkspaceRoot.show(self._tree, record.root)

    @observed("diff")
    async def diff(self, *, text: bool = True) -> Changes:
        """Tell what was changed in the overlay, compared with the directory beneath as it is now.

        It costs what was changed, not what there is. Commands may go on changing it meanwhile.

        Args:
            text: True (default) says what changed in text files, as unified diffs; of a large file,
                and where there are very many, it is left out or cut, and ``truncated`` says so.

        Returns:
            The changes, deletions first. What was put beneath by ``apply`` is none any more.

        Raises:
            ArgumentError: the workspace is no overlay.
            WorkspaceReadNotFoundError, WorkspaceArchiveReadError: the directory can't be looked at.
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> print(await session.diff())
            D old.py
            M src/main.py
        """
        place, workspace = self._needed_overlay("diff")

        def tell(root: WorkspaceRoot) -> Changes:
            from sandyard.workspace.overlay_diff import tell_changes  # noqa: PLC0415  # few ask

            with translated("diff", root.path, root), place.opened() as (upper, base):
                return tell_changes(upper, base, stopped, text=text)

        stopped = threading.Event()
        return await workspace.run("diff", tell, stopped)

    @observed("apply")
    async def apply(
        self, paths: Iterable[str | PurePath] | None = None, *, overwrite: bool = False
    ) -> AppliedChanges:
        """Put what was changed in the overlay into the directory beneath.

        All that was chosen is applied, or nothing: after a failure, and after a crash with the next
        start or sweep, the directory is as it was. Deletions come first, each file is replaced in one
        step, and nobody sees half of one. Files become the directory's owner's; set-user-id,
        set-group-id and sticky bits are dropped. The overlay itself stays as it is, and goes on.

        Args:
            paths: what to apply, relative to the workspace or absolute; of a directory all that was
                changed in it (default: everything).
            overwrite: True applies also what somebody changed in the directory since the overlay
                began (default: that is refused).

        Returns:
            What was applied, and what of it was lowered or skipped.

        Raises:
            ApplyRefusedError: something was changed outside; or it is a file that programs outside
                would run or obey, or a symlink that leads out, and ``paths`` does not name it. Nothing
                was changed; ``paths`` of the error tells what.
            ArgumentError: a path names nothing that was changed, or the workspace is no overlay.
            WorkspaceArchiveWriteError: the directory can't be written to; nothing was changed.
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> done = await session.apply(["src"])
            >>> done.applied
            ('src/main.py',)
        """
        self._needed_overlay("apply")
        chosen = None if paths is None else _checked_paths(paths)

        def put(root: WorkspaceRoot) -> AppliedChanges:
            from sandyard.workspace.overlay_apply import apply_changes  # noqa: PLC0415  # few ask

            with translated("apply", root.path, root):
                return apply_changes(place, chosen, stopped, overwrite=overwrite)

        stopped = threading.Event()
        async with self._settling, self._turn:
            place, workspace = self._needed_overlay("apply")  # a discard may have come first
            return await workspace.run("apply", put, stopped)

    @observed("discard")
    async def discard(self) -> None:
        """Throw away what was changed in the overlay, and begin anew from the directory as it is.

        A running sandbox is ended, with all that runs in it, and started again; the manifest is
        applied anew. What the session's snapshot keeps stays there, and is not restored.

        Raises:
            ArgumentError: the workspace is no overlay.
            WorkspaceStartError: the directory beneath is another one, or the changes can't be put
                aside.
            SessionClosedError: the session was not started, or is closed.
        """
        async with self._settling:
            async with self._turn:
                place, _ = self._needed_overlay("discard")
                was_running = self._phase is Phase.RUNNING
                await in_thread(place.check)
                await self._end_sandbox()
                workspace, self._workspace = self._workspace, None
                self._root, self._tree = None, None
                if workspace is not None:
                    await workspace.close()
                await finished(in_thread(place.renew))
                self._discarded = True
                self.state.workspace_root_ready = False
                if not was_running:
                    self._workspace = Workspace(await self._open_root())
            if was_running:
                await self.start()
            await in_thread(place.clear)

    def _needed_overlay(self, op: OpName) -> tuple[OverlayPlace, Workspace]:
        workspace = self._open_workspace(op, None)
        place = self._overlay_place()
        if place is None:
            raise ArgumentError(
                "the workspace is no overlay; create the session with workspace=Overlay(path), on the "
                "command line with --try",
                op=op,
                argument="workspace",
                value=None,
            )
        return place, workspace

    def _check_overlay(self, footing: Footing) -> None:
        """Refuse a rung without mounts: commands would work in the directory beneath.

        Raises:
            ConfinementUnavailableError: it is one.
        """
        if self._tree is not None and footing.bare:
            other = "work on a copy of the directory"
            if self.state.workspace_layered:
                other = "leave workspace out, for a directory that each fork copies"
            raise ConfinementUnavailableError(
                "an overlay can't be shown to commands",
                dimension="write",
                cause_text=f"without namespaces there are no mounts, and {footing.cause}",
                fix=f"{footing.fix}; or {other}",
            )


def _checked_paths(paths: object) -> tuple[str | PurePath, ...]:
    if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):
        raise ArgumentTypeError(
            "paths is a list of paths, or None", op="apply", argument="paths", value=paths
        )
    return tuple(paths)


def lay_over(workspace: object, manifest: Manifest) -> Laid:
    """Let the manifest's root be the directory that an overlay is laid over; layers need none.

    Raises:
        ArgumentError, ArgumentTypeError: ``workspace`` is no overlay, or the manifest names another
            root.
        ManifestError: it names users besides ``agent``, who can't be had in an overlay: what shows a
            layer's files as the session's user's has room for one owner, and what overlayfs makes
            for itself is that one's.
        WorkspaceStartError: the path is a symlink or no directory.
    """
    from sandyard.changes import Layered, Overlay  # noqa: PLC0415  # it is given

    if not isinstance(workspace, Overlay | Layered):
        raise ArgumentTypeError(
            "workspace is an Overlay, such as Overlay('/home/me/project'), or Layered(), or None",
            op="create",
            argument="workspace",
            value=workspace,
        )
    if accounts_of(manifest.users, manifest.groups).further:
        raise ManifestError(
            "users and groups can't be had in an overlay: its files are shown as one user's; leave "
            "them out, or work on a copy",
            field="users" if manifest.users else "groups",
        )
    if isinstance(workspace, Layered):
        return "layers"
    path = WorkspaceRoot.check(workspace.path)
    if manifest.root not in {DEFAULT_ROOT, path}:
        raise ArgumentError(
            f"the manifest's root is {shown(manifest.root)}, and the workspace an overlay over "
            f"{shown(path)}; leave one of them out",
            op="create",
            argument="workspace",
            value=path,
        )
    manifest.root = path
    return "overlay"
