"""Forks: what another session is made from, and how its files come."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from sandyard.archive.report import ArchiveReport
from sandyard.errors import (
    ArgumentError,
    SnapshotNotRestorableError,
    WorkspaceStartError,
    shown,
)
from sandyard.finishing import finished, in_thread
from sandyard.limits import SAVED_LAYER_PAUSE_S, SAVED_LAYER_WAIT_S
from sandyard.platform import state_directory
from sandyard.snapshot.kinds import (
    LocalSnapshot,
    NoopSnapshot,
    RemoteSnapshot,
    SnapshotBase,
    StoreSnapshot,
)
from sandyard.snapshot.store import SnapshotStore
from sandyard.workspace import Workspace, WorkspaceRoot
from sandyard.workspace.deletion import is_empty
from sandyard.workspace.lease import Lease
from sandyard.workspace.sweep import clear_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from sandyard.archive.naming import Path
    from sandyard.dependencies import Dependencies
    from sandyard.layered import ForkPoints, Still
    from sandyard.snapshot.records import Snapshot
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.workspace.duplicate import Duplicated
    from sandyard.workspace.layered_place import LayeredPlace

__all__ = [
    "ForkWay",
    "Forked",
    "copied_left",
    "copied_workspace",
    "kept_likewise",
    "laid_left",
    "laid_saved",
    "laid_upon",
    "laid_workspace",
    "restored_kept",
    "restored_snapshot",
]

ForkWay = Literal["copy", "clone", "snapshot", "layers", "changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """How a session was made from another one, or from a snapshot.

    Attributes:
        source: id of that session, or of that snapshot.
        way: how its files came: ``"clone"`` if they share their blocks with the source's until one
            of the two is written to (reflinks), ``"copy"`` if bytes were copied, ``"snapshot"`` if
            they were restored from a store. Of a session on layers: ``"layers"`` if nothing was copied
            or restored,
            ``"changes"`` if what the session had changed was.
        report: what was copied or restored, and what of the source was not.
    """

    source: str
    way: ForkWay
    report: ArchiveReport


# --- how the files come ---------------------------------------------------------------------------


async def copied_workspace(
    workspace: Workspace, target: WorkspaceRoot, source: str, excluded: frozenset[tuple[str, ...]]
) -> Forked:
    """Copy the workspace of a session that is held.

    Raises:
        WorkspaceArchiveReadError: it was removed, or can't be read.
        WorkspaceArchiveWriteError: the copy can't be written.
    """
    from sandyard.workspace.duplicate import duplicate  # noqa: PLC0415  # where one is forked

    stopped, paths = threading.Event(), _raw_paths(excluded)
    work = partial(duplicate, target=target, excluded=paths, stopped=stopped)
    done = await workspace.run_whole("fork", work, stopped)
    return Forked(source=source, way="clone" if done.shared else "copy", report=done.report)


async def laid_workspace(
    points: ForkPoints,
    target: LayeredPlace,
    workspace: Workspace,
    place: LayeredPlace,
    excluded: frozenset[tuple[str, ...]],
    *,
    source: str,
    still: Still,
) -> Forked:
    """Let a fork lie upon what a session on layers has, while that goes on.

    Raises:
        WorkspaceStopError, WorkspaceStartError, WorkspaceArchiveReadError, WorkspaceArchiveWriteError:
            it can't be done.
    """
    point = await points.lay_under(target, workspace, place, _raw_paths(excluded), still)
    return Forked(source=source, way=point.way, report=point.report)


async def laid_left(
    state: UnixLocalSandboxSessionState, target: LayeredPlace, dependencies: Dependencies | None
) -> Forked:
    """Let a fork lie upon what a session on layers has left; what it saved, if that is gone.

    Raises:
        LeaseHeldError, WorkspaceStartError, SnapshotNotRestorableError, SnapshotRestoreError: as
            ``copied_left``.
        ConfinementUnavailableError: this machine can't mount layers.
    """
    from sandyard.layered import freeze_left  # noqa: PLC0415  # where one is forked

    point, source = await in_thread(freeze_left, state, target), str(state.session_id)
    if point is not None:
        return Forked(source=source, way=point.way, report=point.report)
    if isinstance(state.snapshot, StoreSnapshot):
        store, last = await _last_saved(state.snapshot, state.host_root)
        return replace(await laid_saved(store, last, target), source=source)

    async def fill(root: WorkspaceRoot) -> Forked:
        async with _files_in(root) as files:
            return await _restored_saved(state, files, dependencies)

    return await laid_upon(fill, target)


async def laid_saved(store: SnapshotStore, snapshot: Snapshot, target: LayeredPlace) -> Forked:
    """Let a session lie upon a layer that holds a snapshot: one that is kept, or a new one, which is then.

    Args:
        store: where the snapshot is.
        snapshot: it.
        target: where the session keeps its changes; there are none yet.

    Raises:
        WorkspaceStartError: the layer can't be made.
        SnapshotRestoreError, WorkspaceArchiveWriteError: as ``restored_snapshot``.
    """
    from sandyard.workspace.saved_layers import HeldSnapshot, SavedLayers  # noqa: PLC0415  # few do

    saved, fill = SavedLayers(target.state), partial(restored_snapshot, store, snapshot)
    held = HeldSnapshot(snapshot.id, snapshot.tree, store.record_path(snapshot))

    def keep(layer: str, forked: Forked) -> None:
        if forked.report.is_whole:  # else it is not what the snapshot says
            with suppress(OSError):  # then the next one makes its own
                saved.keep(held, layer)

    until = time.monotonic() + SAVED_LAYER_WAIT_S
    while True:
        async with _turn_of(saved.making(held)) as mine:
            name = await in_thread(saved.use, held, target.session_id)
            if name is not None:
                await in_thread(target.lay_under, name)
                return Forked(source=snapshot.id, way="layers", report=ArchiveReport())
            if mine:
                return await laid_upon(fill, target, keep)
        if time.monotonic() > until:
            return await laid_upon(fill, target)
        await asyncio.sleep(SAVED_LAYER_PAUSE_S)


@asynccontextmanager
async def _turn_of(turn: AbstractContextManager[bool]) -> AsyncIterator[bool]:
    """Enter and leave, in threads, what blocks for a moment."""
    held = ExitStack()
    try:
        yield await in_thread(held.enter_context, turn)
    finally:
        await finished(in_thread(held.close))


async def laid_upon(
    fill: Callable[[WorkspaceRoot], Awaitable[Forked]],
    target: LayeredPlace,
    keep: Callable[[str, Forked], None] | None = None,
) -> Forked:
    """Let a fork lie upon a new layer.

    Args:
        fill: puts the files into it.
        target: where the fork keeps its changes; there are none yet.
        keep: is told the layer when it is whole; it blocks (default: nobody is).

    Raises:
        WorkspaceStartError: the layer can't be made.
    """
    made = ExitStack()
    try:
        layer = await in_thread(made.enter_context, target.filling())
        forked = await fill(layer.root)
    except BaseException as error:
        await finished(in_thread(made.__exit__, type(error), error, error.__traceback__))
        raise
    await finished(in_thread(made.close))
    if keep is not None:
        await in_thread(keep, layer.name, forked)
    await in_thread(target.lay_under, layer.name)
    return forked


async def copied_left(
    state: UnixLocalSandboxSessionState,
    target: WorkspaceRoot,
    dependencies: Dependencies | None,
) -> Forked:
    """Copy the workspace that a session has left; what it saved, if the workspace is gone.

    Args:
        state: the session's, which nobody may take up meanwhile.
        target: the copy; it stays the caller's.
        dependencies: what the session's snapshot may need.

    Raises:
        LeaseHeldError: somebody uses the session.
        WorkspaceStartError: something else stands where the workspace was.
        SnapshotNotRestorableError: it is gone, and nothing was saved.
        SnapshotRestoreError: what was saved can't be read.
        WorkspaceArchiveReadError, WorkspaceArchiveWriteError: as ``copied_workspace``.
    """
    stopped, source = threading.Event(), str(state.session_id)
    ephemeral = (path for path, entry in state.manifest.walk() if entry.ephemeral)
    mounted = (path for path, _ in state.manifest.mounts())
    paths = _raw_paths(tuple(path.split("/")) for path in (*ephemeral, *mounted))

    def work(copy: WorkspaceRoot) -> Forked | None:
        with _found_left(state, state_directory(os.environ)) as root:
            if root is None:
                return None
            done = _duplicated(root, copy, paths, stopped)
        return Forked(source=source, way="clone" if done.shared else "copy", report=done.report)

    async with _files_in(target) as files:
        forked = await files.run("fork", work, stopped)
        if forked is not None:
            return forked
        return await _restored_saved(state, files, dependencies)


def _duplicated(
    source: WorkspaceRoot, copy: WorkspaceRoot, excluded: frozenset[Path], stopped: threading.Event
) -> Duplicated:
    """Copy a workspace that nobody uses; in a deputy where it has files of others."""
    from sandyard.workspace.duplicate import duplicate  # noqa: PLC0415  # where one is forked

    work = partial(duplicate, source, copy, excluded, stopped)
    if not copy.names or os.geteuid() == 0:
        return work()
    from sandyard.workspace.deputy import Deputy  # noqa: PLC0415  # few have others

    with Deputy("whole") as deputy:
        return deputy.do(work, stopped=stopped)


async def _restored_saved(
    state: UnixLocalSandboxSessionState, files: Workspace, dependencies: Dependencies | None
) -> Forked:
    """Restore what a session whose workspace is gone has saved."""
    kept, source = state.snapshot, str(state.session_id)
    if isinstance(kept, StoreSnapshot):
        store, last = await _last_saved(kept, state.host_root)
        done = await _restored_tree(store, last, files)
        return replace(done, source=source)
    report = await _restored_archive(kept, files, dependencies, state.host_root)
    return Forked(source=source, way="snapshot", report=report)


async def _restored_archive(
    kept: SnapshotBase, files: Workspace, dependencies: Dependencies | None, path: str
) -> ArchiveReport:
    """Restore what is kept as an archive; ``path`` is told where nothing is."""
    if not await kept.restorable(dependencies=dependencies):
        raise SnapshotNotRestorableError(snapshot_id=kept.id, path=path)
    stream = await kept.restore(dependencies=dependencies)
    try:
        return await files.hydrate(stream, None)
    finally:
        stream.close()


async def restored_kept(
    kept: SnapshotBase, target: WorkspaceRoot, dependencies: Dependencies | None
) -> Forked:
    """Restore what is kept as an archive into a new directory.

    Raises:
        SnapshotNotRestorableError: nothing is kept there.
        SnapshotRestoreError: it can't be read.
        WorkspaceArchiveWriteError: it is refused, or can't be written.
    """
    async with _files_in(target) as files:
        report = await _restored_archive(kept, files, dependencies, target.path)
    return Forked(source=kept.id, way="snapshot", report=report)


async def _last_saved(kept: StoreSnapshot, path: str) -> tuple[SnapshotStore, Snapshot]:
    """The newest snapshot of a session that is gone, and the store that has it."""
    store = SnapshotStore(kept.directory)
    last = await in_thread(store.last_of, kept.id)
    if last is None:
        raise SnapshotNotRestorableError(snapshot_id=kept.id, path=path)
    return store, last


@contextmanager
def _found_left(state: UnixLocalSandboxSessionState, places: str) -> Iterator[WorkspaceRoot | None]:
    """Hold the workspace that a session has left, and its lease; None if it is gone, or has nothing."""
    owned, asked = state.workspace_root_owned, state.host_root
    path = WorkspaceRoot.check_private(asked) if owned else WorkspaceRoot.check(asked)
    lease = Lease.take(places, str(state.session_id), root=path, owned=owned, kept=True)
    with ExitStack() as stack:
        stack.callback(lease.keep if owned or lease.restoring is not None else lease.remove)
        if not owned:
            with suppress(OSError):  # litter at most, which the next one finds
                clear_left(lease)
        root = None
        if owned and lease.inode is not None:
            root = WorkspaceRoot.find(path, lease.inode)
        elif not owned and os.path.lexists(path):
            root = WorkspaceRoot.open(path)
        if root is not None:
            stack.enter_context(root)
            root.inside = state.manifest.root
            saved = not isinstance(state.snapshot, NoopSnapshot)
            # What a killed restore left is not whole, and nobody has worked in it.
            root = None if lease.restoring is not None or (saved and is_empty(root)) else root
        elif os.path.lexists(path):
            raise WorkspaceStartError(
                path=path,
                message=f"{shown(path)} is not the directory that session {state.session_id} left there, "
                "or nothing tells that it is; it was not touched: move it away to fork what was saved",
                context={"reason": "not_its_own", "snapshot_id": state.snapshot.id},
                retryable=False,
            )
        yield root


async def restored_snapshot(
    store: SnapshotStore, snapshot: Snapshot, target: WorkspaceRoot
) -> Forked:
    """Restore a snapshot of a store into a new directory.

    Raises:
        SnapshotRestoreError: it can't be read, or is damaged.
        WorkspaceArchiveWriteError: it can't be written.
    """
    async with _files_in(target) as files:
        return await _restored_tree(store, snapshot, files)


async def _restored_tree(store: SnapshotStore, snapshot: Snapshot, files: Workspace) -> Forked:
    from sandyard.workspace.extract import restore_members  # noqa: PLC0415  # where one is restored

    stopped = threading.Event()

    def work(root: WorkspaceRoot) -> Forked:
        with store.reading(snapshot.id) as reader:
            members = reader.members(snapshot.tree)
            report = restore_members(root, members, stopped, reader=reader)
        return Forked(source=snapshot.id, way="snapshot", report=report)

    return await files.run("fork", work, stopped)


@asynccontextmanager
async def _files_in(root: WorkspaceRoot) -> AsyncIterator[Workspace]:
    """Threads for work in a directory that another holds, and that no session has started in."""
    undo = ExitStack()
    try:
        workspace = Workspace(await in_thread(_opened_again, root, undo))
        try:
            yield workspace
        finally:
            await finished(workspace.close())
    finally:
        undo.close()


def _opened_again(root: WorkspaceRoot, undo: ExitStack) -> WorkspaceRoot:
    again = WorkspaceRoot.adopt(os.dup(root.fd), root.path, inside=root.inside)
    undo.callback(again.close)
    again.is_layer, again.names = root.is_layer, root.names
    return again


def _raw_paths(paths: Iterable[tuple[str, ...]]) -> frozenset[tuple[bytes, ...]]:
    return frozenset(tuple(os.fsencode(name) for name in path) for path in paths)


# --- what a fork has of its parent ----------------------------------------------------------------


def kept_likewise(kept: SnapshotBase, session_id: str) -> SnapshotBase:
    """Where a fork is saved: where its parent is, under an id of its own.

    Raises:
        ArgumentError: the parent's is of a kind that this library does not know.
    """
    if not isinstance(kept, NoopSnapshot | LocalSnapshot | RemoteSnapshot | StoreSnapshot):
        raise ArgumentError(
            f"a fork can't tell where a {type(kept).__name__} would keep it apart from its parent; give "
            "snapshot, or NoopSnapshotSpec() for nowhere",
            op="fork",
            argument="snapshot",
            value=None,
        )
    return kept.model_copy(update={"id": session_id})
