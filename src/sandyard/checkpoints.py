"""Checkpoints: how a session's workspace gets into its snapshot, and back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sandyard.errors import (
    OpName,
    SandboxError,
    SnapshotNotRestorableError,
    WorkspaceStartError,
    WorkspaceStopError,
    shown,
)
from sandyard.finishing import finished, in_thread
from sandyard.snapshot.kinds import SnapshotBase, StoreSnapshot

if TYPE_CHECKING:
    from sandyard.archive.report import ArchiveReport
    from sandyard.dependencies import Dependencies
    from sandyard.snapshot.store import SnapshotStore
    from sandyard.workspace import Workspace, WorkspaceRoot
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.lease import Lease
    from sandyard.workspace.progress import Hearer, Tracker

__all__ = ["Checkpoint", "Checkpoints", "save_into"]

_OP: Final[OpName] = "persist_workspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a stop saved.

    Attributes:
        snapshot: id of the snapshot; in a store, of this very one.
        report: what is in it, and what could not be saved.
    """

    snapshot: str
    report: ArchiveReport


class Checkpoints:
    """Saves one session's workspace and restores it.

    Args:
        snapshot: where it is kept.

    Attributes:
        last: what the last stop saved; None before, and where nothing is kept.
        failure: why the last stop could not; None if it could.
    """

    def __init__(self, snapshot: SnapshotBase) -> None:
        self.last: Checkpoint | None = None
        self.failure: SandboxError | None = None
        self._snapshot = snapshot
        self._turn = asyncio.Lock()  # one save at a time
        self._store: SnapshotStore | None = None

    async def save(
        self,
        workspace: Workspace,
        excluded: frozenset[tuple[str, ...]],
        dependencies: Dependencies | None,
        place: LayeredPlace | None = None,
        progress: Hearer | None = None,
    ) -> None:
        """Save the workspace.

        Args:
            workspace: it.
            excluded: paths that are left out, with all in them.
            dependencies: what the snapshot may need.
            place: where its changes are, if it lies upon layers.
            progress: hears how far it is, where it is saved in a store.

        Raises:
            WorkspaceStopError: it can't be saved, and why; nothing that was saved before is lost.
        """
        async with self._turn:
            try:
                if isinstance(self._snapshot, StoreSnapshot):
                    store = self._opened_store(self._snapshot)
                    asked = store, self._snapshot.id, workspace, excluded, place
                    self.last = await save_into(*asked, progress=progress)
                else:
                    self.last = await self._save_archive(workspace, excluded, dependencies)
            except SandboxError as error:
                self.failure = error
                raise WorkspaceStopError(
                    path=workspace.root.inside,
                    message=f"the workspace {shown(workspace.root.inside)} could not be saved: "
                    f"{error}",
                    context={"reason": "not_saved", "snapshot_id": self._snapshot.id},
                    cause=error,
                ) from error
            self.failure = None

    async def _save_archive(
        self,
        workspace: Workspace,
        excluded: frozenset[tuple[str, ...]],
        dependencies: Dependencies | None,
    ) -> Checkpoint:
        async with await workspace.persist(excluded) as archive:
            await self._snapshot.persist(archive, dependencies=dependencies)
            while await anext(archive, b""):  # a client may leave the end of the archive unread
                pass
            report = archive.report
        assert report is not None  # noqa: S101  # it was read to its end
        return Checkpoint(snapshot=self._snapshot.id, report=report)

    def _opened_store(self, snapshot: StoreSnapshot) -> SnapshotStore:
        if self._store is None:
            from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # where one is used

            self._store = SnapshotStore(snapshot.directory)
        return self._store

    def refuse_loss(self, path: str) -> None:
        """Refuse to delete what could not be saved.

        Raises:
            WorkspaceStopError: the last save failed.
        """
        if self.failure is not None:
            raise WorkspaceStopError(
                path=path,
                message=f"the workspace {shown(path)} was not deleted, because its last save failed: "
                f"{self.failure}; stop the session again, or give unsaved=True to lose what is only "
                "there",
                context={"reason": "not_saved"},
                cause=self.failure,
            )

    def _conflict(self, path: str) -> WorkspaceStartError:
        """Say that something was saved, and something else is there."""
        return WorkspaceStartError(
            path=path,
            message=f"the workspace {shown(path)} has files, and snapshot {shown(self._snapshot.id)} "
            "would be restored into it; neither was touched: empty the directory or name another to "
            "restore, or set workspace_root_ready in the state to go on with what is there",
            context={"reason": "workspace_not_empty", "snapshot_id": self._snapshot.id},
            retryable=False,
        )

    async def restore(
        self,
        workspace: Workspace,
        lease: Lease,
        dependencies: Dependencies | None,
        progress: Hearer | None = None,
    ) -> bool:
        """Restore what is kept into a workspace that is not ready; all of it, or nothing.

        That it is under way stands in the lease: whoever is killed meanwhile leaves a part, which is
        not taken for newer work, and the next call makes it whole.

        Args:
            workspace: it.
            lease: the session's.
            dependencies: what the snapshot may need.
            progress: hears how far it is, where a store keeps it.

        Returns:
            Whether something was kept.

        Raises:
            WorkspaceStartError: it can't be restored, and why; the workspace is as it was.
        """
        from sandyard.workspace.deletion import is_empty  # noqa: PLC0415  # where that matters

        begun = lease.restoring
        with self.start_errors(workspace.root.inside):
            if not await self._snapshot.restorable(dependencies=dependencies):
                if begun is None:
                    return False
                raise SnapshotNotRestorableError(
                    snapshot_id=begun or self._snapshot.id, path=workspace.root.path
                )
        if begun is None and not await workspace.run("start", is_empty):
            raise self._conflict(workspace.root.path)
        try:
            await self._restore(workspace, lease, dependencies, progress)
        except BaseException:
            # Without files nothing is half there; what stays with some is made whole by the next start.
            if await finished(workspace.run("start", is_empty)):
                await finished(in_thread(lease.note_restoring, None))
            raise
        await finished(in_thread(lease.note_restoring, None))
        return True

    async def _restore(
        self,
        workspace: Workspace,
        lease: Lease,
        dependencies: Dependencies | None,
        progress: Hearer | None,
    ) -> None:
        with self.start_errors(workspace.root.inside):
            if isinstance(self._snapshot, StoreSnapshot):
                await self._restore_tree(self._snapshot, workspace, lease, progress)
                return
            stream = await self._snapshot.restore(dependencies=dependencies)
            try:
                finish = await in_thread(_begin, workspace.root, lease, "")
                await workspace.hydrate(stream, None, finish=finish)
            finally:
                stream.close()

    async def _restore_tree(
        self,
        snapshot: StoreSnapshot,
        workspace: Workspace,
        lease: Lease,
        progress: Hearer | None,
    ) -> None:
        from sandyard.workspace.extract import restore_members  # noqa: PLC0415  # likewise
        from sandyard.workspace.progress import HeardTally, tracked  # noqa: PLC0415  # likewise

        store, stopped = self._opened_store(snapshot), threading.Event()
        tally = HeardTally(tracked(progress))

        def work(root: WorkspaceRoot) -> None:
            begun = lease.restoring
            wanted = store.find(begun) if begun else store.last_of(snapshot.id)
            if wanted is not None:
                with store.reading(wanted.id) as reader:
                    finish = _begin(root, lease, wanted.id)
                    members = reader.members(wanted.tree)
                    restore_members(
                        root, members, stopped, finish=finish, tally=tally, reader=reader
                    )

        await workspace.run("hydrate_workspace", work, stopped)

    @contextmanager
    def start_errors(self, path: str) -> Iterator[None]:
        """Say of what goes wrong that the workspace could not be restored.

        Args:
            path: what commands know the workspace as.

        Raises:
            WorkspaceStartError: something went wrong.
        """
        try:
            yield
        except SandboxError as error:
            raise WorkspaceStartError(
                path=path,
                message=f"the workspace {shown(path)} could not be restored: {error}",
                context={"reason": "not_restored", "snapshot_id": self._snapshot.id},
                cause=error,
            ) from error


def _begin(root: WorkspaceRoot, lease: Lease, snapshot: str) -> bool:
    """Note that a snapshot is being restored; tell whether that was begun before, and killed."""
    from sandyard.workspace.acting import rightful_owner  # noqa: PLC0415  # where one is restored
    from sandyard.workspace.extract_stage import clear_abandoned  # noqa: PLC0415  # likewise

    if root.owned:  # of a caller's directory, they were removed by their marks
        clear_abandoned(root.fd, rightful_owner(root))
    if lease.restoring is not None:
        return True
    lease.note_restoring(snapshot)
    return False


async def save_into(
    store: SnapshotStore,
    history: str,
    workspace: Workspace,
    excluded: frozenset[tuple[str, ...]],
    place: LayeredPlace | None = None,
    *,
    label: str = "",
    tags: tuple[str, ...] = (),
    progress: Hearer | None = None,
) -> Checkpoint:
    """Save a workspace as a snapshot of a store.

    Args:
        store: it.
        history: the history that the snapshot belongs to.
        workspace: what is saved.
        excluded: paths that are left out, with all in them.
        place: where its changes are, if it lies upon layers: it is saved with the costs of these.
        label: what the snapshot is called.
        tags: further words.
        progress: hears how far it is.

    Raises:
        SnapshotPersistError: it can't be written; what was saved before is as it was.
        WorkspaceArchiveReadError: the workspace was removed, or can't be read.
        ArgumentError: the history's name is none.
    """
    from sandyard.workspace.deputy import needs_deputies  # noqa: PLC0415  # where one is saved
    from sandyard.workspace.progress import tracked  # noqa: PLC0415  # likewise

    stopped = threading.Event()
    paths = frozenset(tuple(name.encode(*_AS_PATHS) for name in path) for path in excluded)
    work = partial(
        _saved,
        store=store,
        history=history,
        excluded=paths,
        place=place,
        stopped=stopped,
        words=(label, tags),
        tracker=None if needs_deputies(workspace.root) else tracked(progress),
    )
    return await workspace.run_whole(_OP, work, stopped)


def _saved(
    root: WorkspaceRoot,
    *,
    store: SnapshotStore,
    history: str,
    excluded: frozenset[tuple[bytes, ...]],
    place: LayeredPlace | None,
    stopped: threading.Event,
    words: tuple[str, tuple[str, ...]],
    tracker: Tracker | None,
) -> Checkpoint:
    """Save a workspace into a store; in a deputy where it has files of others."""
    from sandyard.workspace.layered_notes import (  # noqa: PLC0415  # where one is saved
        known_tree,
        note_stack,
    )
    from sandyard.workspace.persist_saving import save_tree  # noqa: PLC0415  # where one is
    from sandyard.workspace.progress import HeardTally  # noqa: PLC0415  # likewise
    from sandyard.workspace.stat_index import IndexWriter, Looks, StatIndex  # noqa: PLC0415  # likewise

    with (
        store.saving(history) as saver,
        store.noted(history) as notes,
        store.noting(history) as noting,
    ):
        before, after = StatIndex(notes.size, notes.read_at), IndexWriter(noting.write)
        if not saver.trusts(before.tree):
            before = StatIndex()  # what it speaks of may be gone
        stack = () if place is None else place.names() or ()
        known = None
        if place is not None and stack:
            known = known_tree(place, stack, before, excluded, saver.recorded)
        looks, tallies = Looks(before, after), partial(HeardTally, tracker)
        saved = save_tree(root, saver, looks, excluded, stopped, known, tallies)
        made = saver.finish(saved.top, saved.report, *words, root=root.inside)
        if place is not None and stack:
            note_stack(after, place, stack, excluded, saved.report)
        after.finish(made.tree)
        noting.publish()
        return Checkpoint(snapshot=made.id, report=saved.report)


_AS_PATHS: Final = ("utf-8", "surrogateescape")
