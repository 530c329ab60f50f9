"""Preparing: what a new session, one that was left, or a fork needs before it exists: its lease and root."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from sandyard.errors import (
    ArgumentError,
    WorkspaceStartError,
    shown,
)
from sandyard.manifest import DEFAULT_ROOT, Manifest
from sandyard.platform import Grant, is_within, resolve_grants, state_directory
from sandyard.policy import Policy
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase, host_directory
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.lease import Lease

if TYPE_CHECKING:
    from sandyard.state import UnixLocalSandboxSessionState

__all__ = [
    "checked_places",
    "prepare",
    "prepare_again",
    "state_place",
    "sweep_left",
]


def prepare(
    policy: Policy,
    manifest: Manifest,
    kept: SnapshotBase,
    session_id: UUID,
    shared: bool,  # one of several things asked for
    undo: ExitStack,
    inside: str | None = None,
    *,
    filled: bool = True,
) -> tuple[WorkspaceRoot | None, Lease]:
    """Check what can be checked before anything exists, then take the lease, then make the root.

    In this order, so that a program that is killed in between leaves what a sweep finds.

    Args:
        policy: the session's.
        manifest: its manifest, whose root is set to what commands will know.
        kept: where it is saved.
        session_id: its id.
        shared: whether others may work in a directory of the caller's.
        undo: takes what undoes all of it.
        inside: what commands know a private root as, whatever the manifest says (default: its path).
        filled: False for a root that is to be swept until it is filled, though it is kept then.
    """
    owned = inside is not None or manifest.root == DEFAULT_ROOT
    path = WorkspaceRoot.private_path() if owned else WorkspaceRoot.check(manifest.root)
    state = checked_places(policy, kept, None if owned else path)
    sweep_left(state)
    saved = filled and not isinstance(kept, NoopSnapshot)
    identity = str(session_id)
    lease = Lease.take(state, identity, root=path, owned=owned, kept=saved, shared=shared)
    undo.callback(lease.remove)
    if not owned:
        return None, lease
    root = WorkspaceRoot.create_private(path, inside=inside)
    undo.callback(root.close)
    undo.callback(root.delete)
    lease.note(root.inode)
    manifest.root = root.inside
    return root, lease


def prepare_again(
    policy: Policy,
    state: UnixLocalSandboxSessionState,
    shared: bool,  # likewise
    undo: ExitStack,
) -> tuple[WorkspaceRoot | None, Lease]:
    """Take the lease of a session that was left, and find its root."""
    owned, asked = state.workspace_root_owned, state.host_root
    inside = None if state.workspace_root_path is None else state.manifest.root
    if state.workspace_root_path is not None and not owned:
        raise ArgumentError(
            "workspace_root_path is where a directory that the library made lies, and the state says "
            "that it did not make this one",
            op="resume",
            argument="workspace_root_path",
            value=state.workspace_root_path,
        )
    path = WorkspaceRoot.check_private(asked) if owned else WorkspaceRoot.check(asked)
    place = checked_places(policy, state.snapshot, None if owned else path)
    session_id = str(state.session_id)
    lease = Lease.take(place, session_id, root=path, owned=owned, kept=True, shared=shared)
    undo.callback(lease.keep if owned or lease.restoring is not None else lease.remove)
    sweep_left(place)  # not before: what this one left is its own again
    if not owned:
        _clear_left(lease)
        state.workspace_root_ready &= os.path.lexists(path)
        return None, lease
    root = None if lease.inode is None else WorkspaceRoot.find(path, lease.inode, inside=inside)
    if root is None:
        if os.path.lexists(path):
            raise WorkspaceStartError(
                path=path,
                message=f"{shown(path)} is not the directory that session {session_id} left there, or "
                "nothing tells that it is; neither it nor the session's snapshot was touched: move it "
                "away to start from the snapshot, or create a session with this root to use it as it is",
                context={"reason": "not_its_own", "snapshot_id": state.snapshot.id},
                retryable=False,
            )
        state.workspace_root_ready = False
        root = WorkspaceRoot.create_private(path, inside=inside)
        lease.note(root.inode)
    undo.callback(root.close)
    return root, lease


def checked_places(policy: Policy, kept: SnapshotBase, root: str | None) -> str:
    """Refuse places of ours that commands could write to; return the state directory."""
    grants = resolve_grants(policy)
    state = state_place()
    _check_apart(state, root, grants, "the state directory", "set XDG_STATE_HOME to")
    saved = host_directory(kept)
    if saved is not None:
        what, place = saved
        _check_apart(place, root, grants, what, "name")
    return state


def sweep_left(state: str) -> None:
    """Delete what killed programs left, if that was not done lately; whatever happens, nothing is raised."""
    from sandyard.workspace.sweep import sweep_sometimes  # noqa: PLC0415  # with the first session

    sweep_sometimes(state)


def _clear_left(lease: Lease) -> None:
    from sandyard.workspace.sweep import clear_left  # noqa: PLC0415  # what is taken up again

    with suppress(OSError):  # litter at most, which the next one finds
        clear_left(lease)


def state_place() -> str:
    """This user's state directory.

    Raises:
        WorkspaceStartError: there is no place for one.
    """
    try:
        return state_directory(os.environ)
    except OSError as error:
        raise WorkspaceStartError(
            path="sandyard",
            message="a session keeps its lease in the state directory, and there is no place for "
            "one; set XDG_STATE_HOME to a directory that you can write",
            context={"reason": "state_directory"},
            cause=error,
        ) from error


def _check_apart(
    place: str, root: str | None, grants: tuple[Grant, ...], what: str, remedy: str
) -> None:
    """Refuse to let commands write what says what is deleted, or restored, on the host."""
    writable = [grant.source for grant in grants if grant.writable]
    if root is not None:
        writable.append(os.path.realpath(root))
    if not writable:
        return
    lies = os.path.realpath(place)
    for tree in writable:
        if is_within(lies, tree) or is_within(tree, lies):
            raise WorkspaceStartError(
                path=tree,
                message=f"commands could write to {shown(tree)}, which {what} {shown(lies)} lies in or "
                f"holds; {remedy} a directory apart from it",
                context={"reason": "state_directory"},
                retryable=False,
            )
