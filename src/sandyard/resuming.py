"""Takes a session up where it was left: its state checked, its workspace found, its lease taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from sandyard.errors import ArgumentTypeError
from sandyard.finishing import in_thread
from sandyard.making import make_again
from sandyard.policy import Policy
from sandyard.preparing import state_place
from sandyard.restating import check_grants, check_named, check_sources
from sandyard.snapshot.specs import resolve_snapshot
from sandyard.state import UnixLocalSandboxSessionState

if TYPE_CHECKING:
    from sandyard.changes import Layered, Overlay
    from sandyard.making import Made
    from sandyard.snapshot.kinds import SnapshotBase
    from sandyard.snapshot.specs import SnapshotSpec
    from sandyard.workspace import WorkspaceRoot
    from sandyard.workspace.lease import Lease

__all__ = ["Named", "TakenUp", "check_known", "checked_policy", "take_up"]


class Named(NamedTuple):
    """What the caller says of a state besides, so that the state alone need not be believed.

    Attributes:
        root: the workspace's path, or the overlay over it, or that it lies on layers; None to believe a state that is known.
        snapshot: where it is kept, likewise.
    """

    root: str | os.PathLike[str] | Layered | Overlay | None = None
    snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None


class TakenUp(NamedTuple):
    """What a session is made of again.

    Attributes:
        state: a copy of its state, sealed.
        root: its workspace, if that is there.
        lease: on it.
    """

    state: UnixLocalSandboxSessionState
    root: WorkspaceRoot | None
    lease: Lease

    def around(
        self, policy: Policy
    ) -> tuple[UnixLocalSandboxSessionState, Policy, WorkspaceRoot | None, Lease]:
        """What ``UnixLocalSandboxSession`` is made of, in its order."""
        return self.state, policy, self.root, self.lease


async def take_up(
    state: object,
    policy: Policy,
    *,
    named: Named,
    shared: bool = False,
    directory: str | None = None,
) -> TakenUp:
    """Find what a state speaks of, and hold it; if anything fails, nothing is held.

    Args:
        state: as it was or read back; it is copied.
        policy: what its commands may touch.
        named: what the caller says of it.
        shared: whether other sessions may work in a directory of the caller's at once.
        directory: where relative sources of its manifest begin (default: the working directory).

    Raises:
        SandboxError: as ``UnixLocalSandboxClient.resume`` says.
    """
    if not isinstance(state, UnixLocalSandboxSessionState):
        raise ArgumentTypeError(
            "state is one of a session that a UnixLocalSandboxClient made",
            op="resume",
            argument="state",
            value=state,
        )
    copied = state.model_copy(deep=True)
    check_grants(policy, copied.manifest)
    undo = ExitStack()

    def make() -> Made:
        check_known(copied, policy, named, directory)
        return make_again(policy, copied, undo, shared=bool(shared))

    try:
        made = await in_thread(make)
    except BaseException:
        await in_thread(undo.close)
        raise
    return TakenUp(copied, made.root, made.lease)


def checked_policy(policy: object) -> Policy:
    """The policy of a session that is taken up without a client.

    Raises:
        ArgumentTypeError: it is none.
        ConfinementUnavailableError: this is not Linux.
    """
    if sys.platform != "linux":
        from sandyard.elsewhere import unavailable  # noqa: PLC0415  # seldom needed

        raise unavailable()
    if policy is not None and not isinstance(policy, Policy):
        raise ArgumentTypeError(
            "policy is a Policy, or None", op="resume", argument="policy", value=policy
        )
    return policy or Policy()


def check_known(
    state: UnixLocalSandboxSessionState, policy: Policy, named: Named, directory: str | None
) -> None:
    """Refuse a state that names places which neither the caller nor this user's library knows. Blocks.

    Raises:
        ArgumentError: it does.
        PolicyError: it takes copies of what the policy does not name.
    """
    kept = None if named.snapshot is None else resolve_snapshot(named.snapshot, state.snapshot.id)
    check_named(state_place(), state, named.root, kept)
    check_sources(state_place(), state, policy, directory)
