"""Owns what a session's making does on the disk, all of it in one turn of a thread.

Each turn of a thread wakes the loop, which has to find a processor for it: on a busy machine that costs
more than what is done in it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from sandyard.admission import admit, possible_accounts
from sandyard.preparing import prepare, prepare_again, state_place
from sandyard.restating import seal_state

if TYPE_CHECKING:
    from sandyard.policy import Policy
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.workspace import WorkspaceRoot
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.lease import Lease

__all__ = ["Made", "make_again", "make_new"]


class Made(NamedTuple):
    """What a session holds before it starts.

    Attributes:
        root: its private directory; None where the workspace is the caller's, or lies upon layers.
        lease: its lease.
        place: where its changes lie, if it lies upon layers and is still to be filled.
    """

    root: WorkspaceRoot | None
    lease: Lease
    place: LayeredPlace | None = None


def make_new(
    policy: Policy,
    state: UnixLocalSandboxSessionState,
    undo: ExitStack,
    *,
    shared: bool = False,
    inside: str | None = None,
    filled: bool = True,
) -> Made:
    """Take the lease of a new session and make its root or what stands for it, then seal its state. Blocks.

    Args:
        policy: the session's.
        state: says all of it; what is only known now is put into it.
        undo: takes what undoes all of it.
        shared: whether others may work in a directory of the caller's.
        inside: what commands know the workspace as (default: as its manifest says).
        filled: False for one that is to be swept until it is filled, though it is kept then.

    Raises:
        ManifestError, PolicyError, WorkspaceStartError: as ``UnixLocalSandboxClient.create``.
    """
    accounts = possible_accounts(state.manifest)
    if state.workspace_layered:
        made = _make_layered(policy, state, undo, inside=inside, filled=filled)
    else:
        shared = shared or state.workspace_overlay  # which only reads its directory
        asked = policy, state.manifest, state.snapshot, state.session_id, shared, undo, inside
        root, lease = prepare(*asked, filled=filled)
        admit(root, accounts)
        if root is not None and root.inside != root.path:
            state.workspace_root_path = root.path
        if state.workspace_overlay:
            _begin_overlay(lease, state.manifest.root, undo)
        made = Made(root, lease)
    seal_state(state_place(), state)
    return made


def make_again(
    policy: Policy,
    state: UnixLocalSandboxSessionState,
    undo: ExitStack,
    *,
    shared: bool,
) -> Made:
    """Take the lease of a session that was left and find its root, then seal its state. Blocks.

    Takes what ``make_new`` takes.

    Raises:
        LeaseHeldError, ManifestError, WorkspaceStartError: as ``UnixLocalSandboxClient.resume``.
    """
    accounts = possible_accounts(state.manifest)
    if state.workspace_layered:
        from sandyard.layered import find_layers  # noqa: PLC0415  # few sessions have some

        made = Made(None, find_layers(policy, state, undo))
    else:
        shared = shared or state.workspace_overlay
        made = Made(*prepare_again(policy, state, shared, undo))
        admit(made.root, accounts)
    seal_state(state_place(), state)
    return made


def _make_layered(
    policy: Policy,
    state: UnixLocalSandboxSessionState,
    undo: ExitStack,
    *,
    inside: str | None,
    filled: bool,
) -> Made:
    """The same for a workspace upon layers; one that is filled begins upon nothing."""
    from sandyard.layered import prepare_layers  # noqa: PLC0415  # few sessions have some

    asked = policy, state.snapshot, state.session_id, undo
    place, lease = prepare_layers(*asked, filled=filled)
    if inside is not None:
        state.manifest.root = inside
    if not filled:
        return Made(None, lease, place)
    place.begin(())
    return Made(None, lease)


def _begin_overlay(lease: Lease, path: str, undo: ExitStack) -> None:
    """Make the place of an overlay's changes, from when on what changes outside is noticed."""
    from sandyard.workspace.overlay_place import OverlayPlace  # noqa: PLC0415  # few sessions do

    place = OverlayPlace(lease, path)
    undo.callback(place.remove)
    place.prepare()
