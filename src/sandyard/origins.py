"""Origins: what a caller names to be forked, and what a fork has of it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from sandyard.accounts import accounts_of
from sandyard.changes import Layered
from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ManifestError,
    SnapshotNotRestorableError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.forking import (
    copied_left,
    laid_left,
    laid_saved,
    laid_upon,
    restored_kept,
    restored_snapshot,
)
from sandyard.lifecycle import check_processes
from sandyard.manifest import DEFAULT_ROOT, Manifest
from sandyard.session import UnixLocalSandboxSession
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase, StoreSnapshot
from sandyard.snapshot.records import Snapshot
from sandyard.snapshot.store import SnapshotStore
from sandyard.state import UnixLocalSandboxSessionState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandyard.dependencies import Dependencies
    from sandyard.forking import Forked
    from sandyard.lifecycle import Processes
    from sandyard.making import Made
    from sandyard.policy import Policy
    from sandyard.workspace import WorkspaceRoot
    from sandyard.workspace.layered_place import LayeredPlace

__all__ = ["Origin", "find_origin"]

_HAS_ITS_OWN: Final = "a session's has all of its parent"
_SAYS_WHERE: Final = "this one says itself where it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a fork is made from.

    Attributes:
        name: id of the session or snapshot.
        manifest: the fork's own.
        kept: where the source is saved.
        inside: what commands know the workspace as; None leaves that to the fork.
        policy: what the source's commands may touch; None where nobody in this program says it.
        state: what was saved, if nothing but that says what is forked; it is to be checked.
        ready: whether nothing of the manifest is to be added at the start.
        fill: puts the files into the fork's workspace.
        lay: lets the fork lie upon layers that hold them; None where they are copied.
        lay_new: does so where that is asked for; None where they are copied into a new layer.
    """

    name: str
    manifest: Manifest
    kept: SnapshotBase
    inside: str | None
    policy: Policy | None = None
    state: UnixLocalSandboxSessionState | None = None
    ready: bool = True
    fill: Callable[[WorkspaceRoot], Awaitable[Forked]]
    lay: Callable[[LayeredPlace], Awaitable[Forked]] | None = None
    lay_new: Callable[[LayeredPlace], Awaitable[Forked]] | None = None

    def filling(self, made: Made) -> Callable[[], Awaitable[Forked]]:
        """What puts into a fork's workspace, or beneath it, what it begins with."""
        if self.lay is not None and made.place is not None:
            return partial(self.lay, made.place)
        assert made.root is not None  # noqa: S101  # a fork's is never the caller's
        return partial(self.fill, made.root)


async def find_origin(
    source: object,
    store: SnapshotStore | None,
    manifest: Manifest | None,
    dependencies: Dependencies | None,
    workspace: Layered | None,
    processes: Processes,
) -> Origin:
    """Find out what a caller means.

    Args:
        source: a session, a state, a snapshot, or what finds one.
        store: where the snapshot is; None for this user's.
        manifest: what a snapshot's fork is to have.
        dependencies: what a state's snapshot may need.
        workspace: lets the fork lie upon layers, whatever it is made from.
        processes: what becomes of what runs in a session while it is forked.

    Raises:
        ArgumentError, ArgumentTypeError: it is none of these, or an argument is for another kind.
        SnapshotNotRestorableError: there is no such snapshot.
        SnapshotRestoreError: the store can't be read.
    """
    if workspace is not None and not isinstance(workspace, Layered):
        raise ArgumentTypeError(
            "workspace is Layered(), or None", op="fork", argument="workspace", value=workspace
        )
    check_processes(processes, "fork")
    if isinstance(source, UnixLocalSandboxSession | UnixLocalSandboxSessionState):
        _refuse_unused(store, manifest, _HAS_ITS_OWN)
        origin = _own_origin(source, dependencies, processes)
    elif isinstance(source, SnapshotBase) and not isinstance(source, StoreSnapshot):
        _refuse_unused(store, None, _SAYS_WHERE)
        origin = _kept_origin(source, _checked(manifest), dependencies)
    else:
        origin = await _snapshot_origin(source, store, _checked(manifest))
    if origin.inside is not None:  # it may be as a caller wrote it, with a slash at its end
        origin = replace(origin, inside=posixpath.normpath(origin.inside))
    if workspace is not None and origin.lay is None:
        if accounts_of(origin.manifest.users, origin.manifest.groups).further:
            raise ManifestError(
                "users and groups can't be had on layers: files are shown as one user's; fork without "
                "workspace=Layered()",
                field="users" if origin.manifest.users else "groups",
            )
        return replace(origin, lay=origin.lay_new or partial(laid_upon, origin.fill))
    return origin


def _refuse_unused(store: SnapshotStore | None, manifest: Manifest | None, why: str) -> None:
    """Refuse what other forks take, and why."""
    for argument, value in (("manifest", manifest), ("store", store)):
        if value is not None:
            raise ArgumentError(
                f"{argument} is for the fork of a snapshot; {why}",
                op="fork",
                argument=argument,
                value=value,
            )


def _own_origin(
    source: UnixLocalSandboxSession | UnixLocalSandboxSessionState,
    dependencies: Dependencies | None,
    processes: Processes,
) -> Origin:
    if isinstance(source, UnixLocalSandboxSessionState):
        return _left_origin(source.model_copy(deep=True), None, dependencies)
    state = source.state.model_copy(deep=True)
    if source.closed:
        return _left_origin(state, source.policy, dependencies)
    name = str(state.session_id)
    lay = partial(source.lay_under, source=name, processes=processes)
    return Origin(
        name=name,
        manifest=state.manifest,
        kept=state.snapshot,
        inside=state.manifest.root,
        policy=source.policy,
        fill=partial(source.duplicate_to, source=name, processes=processes),
        lay=lay if state.workspace_layered else None,
    )


def _left_origin(
    state: UnixLocalSandboxSessionState, policy: Policy | None, dependencies: Dependencies | None
) -> Origin:
    if state.workspace_overlay:
        raise ArgumentError(
            "what a session changed on an overlay is seen only while it runs; fork it before its end",
            op="fork",
            argument="source",
            value=str(state.session_id),
        )

    async def fill(root: WorkspaceRoot) -> Forked:
        return await copied_left(state, root, dependencies)

    async def lay(place: LayeredPlace) -> Forked:
        return await laid_left(state, place, dependencies)

    return Origin(
        name=str(state.session_id),
        manifest=state.manifest.model_copy(deep=True),
        kept=state.snapshot,
        inside=state.manifest.root,
        policy=policy,
        state=state if policy is None else None,
        fill=fill,
        lay=lay if state.workspace_layered else None,
    )


def _checked(manifest: object) -> Manifest | None:
    """What a snapshot's fork is to have.

    Raises:
        ArgumentTypeError: it is no manifest.
    """
    if manifest is not None and not isinstance(manifest, Manifest):
        raise ArgumentTypeError(
            "manifest is a Manifest, or None", op="fork", argument="manifest", value=manifest
        )
    return manifest


def _kept_origin(
    kept: SnapshotBase, manifest: Manifest | None, dependencies: Dependencies | None
) -> Origin:
    """What is saved as an archive, which does not say what commands knew the workspace as."""
    own = Manifest() if manifest is None else manifest.model_copy(deep=True)

    async def fill(root: WorkspaceRoot) -> Forked:
        return await restored_kept(kept, root, dependencies)

    return Origin(
        name=kept.id,
        manifest=own,
        kept=NoopSnapshot(id=kept.id),
        inside=None if own.root == DEFAULT_ROOT else own.root,
        ready=not own.entries,
        fill=fill,
    )


async def _snapshot_origin(
    source: object, store: SnapshotStore | None, manifest: Manifest | None
) -> Origin:
    if store is not None and not isinstance(store, SnapshotStore):
        raise ArgumentTypeError(
            "store is a SnapshotStore, or None", op="fork", argument="store", value=store
        )
    if isinstance(source, StoreSnapshot):
        _refuse_unused(store, None, _SAYS_WHERE)
        store, asked = SnapshotStore(source.directory), source.id
        source = await in_thread(store.last_of, asked)
        if source is None:
            raise SnapshotNotRestorableError(snapshot_id=asked, path=store.directory)
    place = SnapshotStore() if store is None else store
    if isinstance(source, str):
        source = await place.resolve(source)
    if not isinstance(source, Snapshot):
        raise ArgumentTypeError(
            "source is a session that a UnixLocalSandboxClient made, the state of one, a snapshot of a "
            f"store, its id, or where something is saved, not {shown(source)}",
            op="fork",
            argument="source",
            value=source,
        )
    snapshot = source
    own = Manifest() if manifest is None else manifest.model_copy(deep=True)
    inside = snapshot.root if own.root == DEFAULT_ROOT else own.root

    async def fill(root: WorkspaceRoot) -> Forked:
        return await restored_snapshot(place, snapshot, root)

    return Origin(
        name=snapshot.id,
        manifest=own,
        kept=NoopSnapshot(id=snapshot.id),
        inside=inside or None,
        ready=not own.entries,
        fill=fill,
        lay_new=partial(laid_saved, place, snapshot),
    )
