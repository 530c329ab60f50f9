"""Sessions on layers: what one needs before it exists, how it is shown, and what a fork lies upon."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sandyard.finishing import in_thread
from sandyard.platform import state_directory
from sandyard.preparing import checked_places, sweep_left
from sandyard.process.layering import LayeredTree
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.layered_fork import ForkPoint, is_too_deep, make_point
from sandyard.workspace.layered_place import LayeredPlace, changes_path
from sandyard.workspace.lease import Lease
from sandyard.workspace.saved_layers import SavedLayers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from sandyard.archive.naming import Path
    from sandyard.lifecycle import Processes
    from sandyard.policy import Policy
    from sandyard.state import UnixLocalSandboxSessionState
    from sandyard.workspace import Workspace

__all__ = [
    "ForkPoints",
    "Still",
    "find_layers",
    "forget_saved",
    "freeze_left",
    "prepare_layers",
    "show_layers",
]


def prepare_layers(
    policy: Policy, kept: SnapshotBase, session_id: UUID, undo: ExitStack, *, filled: bool = True
) -> tuple[LayeredPlace, Lease]:
    """Take the lease of a session on layers, whose place is still to be made. Blocks.

    Args:
        policy: the session's.
        kept: where it is saved.
        session_id: its id.
        undo: takes what undoes all of it.
        filled: False for a place that is to be swept until it is filled, though it is kept then.

    Raises:
        LeaseHeldError, WorkspaceStartError, PolicyError: as for any session.
    """
    state, identity = checked_places(policy, kept, None), str(session_id)
    sweep_left(state)
    saved = filled and not isinstance(kept, NoopSnapshot)
    path = changes_path(state, identity)
    lease = Lease.take(state, identity, root=path, owned=False, kept=saved)
    undo.callback(lease.remove)
    place = LayeredPlace(lease)
    undo.callback(place.remove)
    return place, lease


def find_layers(policy: Policy, state: UnixLocalSandboxSessionState, undo: ExitStack) -> Lease:
    """Take the lease of a session on layers that was left, and look for them. Blocks.

    Raises:
        LeaseHeldError, WorkspaceStartError, PolicyError: as for any session.
    """
    places, identity = checked_places(policy, state.snapshot, None), str(state.session_id)
    path = changes_path(places, identity)
    lease = Lease.take(places, identity, root=path, owned=False, kept=True)
    undo.callback(lease.keep)
    sweep_left(places)  # not before: what this one left is its own again
    if LayeredPlace(lease).names() is None:
        state.workspace_root_ready = False
    return lease


def show_layers(place: LayeredPlace, inside: str) -> tuple[LayeredTree, WorkspaceRoot]:
    """Lay a session's changes over its layers, and see them as one. Blocks.

    Args:
        place: where the session keeps its changes.
        inside: absolute path under which commands know the workspace.

    Raises:
        WorkspaceStartError: a layer, or the place, can't be used.
        ConfinementUnavailableError: this machine can't mount it.
        ResourceLimitError: this program or the machine has no descriptor left.
    """
    changes, lowers = place.stack(place.prepare())
    tree = LayeredTree.make(changes, lowers)
    return tree, WorkspaceRoot.show(tree, inside)


def forget_saved() -> None:
    """Let go of layers that are kept for snapshots that are there no more. Blocks."""
    SavedLayers(state_directory(os.environ)).settle()


class Still(NamedTuple):
    """What becomes of what runs while a session is forked.

    Attributes:
        processes: the word for it; forks with the same share what is made for them.
        entered: does it, for a block.
    """

    processes: Processes
    entered: Callable[[], AbstractAsyncContextManager[None]]


class ForkPoints:
    """What forks of one session lie upon. Forks that are asked for at once share what is made for them.

    A later one shares it where nothing looks changed, and no command lived when that was made: one that
    lives on may write through a mapping (mmap(2)), which does not show.

    Args:
        quiet: says since when nothing of any command has been alive; None while something is.
    """

    def __init__(self, quiet: Callable[[], object]) -> None:
        self._quiet = quiet
        self._turn = asyncio.Lock()  # one is made at a time, and used while it is the last
        self._asked = 0
        self._served = 0
        self._point: ForkPoint | None = None
        self._asked_as: tuple[frozenset[Path], Processes] = (frozenset(), "keep")

    async def lay_under(
        self,
        target: LayeredPlace,
        workspace: Workspace,
        place: LayeredPlace,
        excluded: frozenset[Path],
        still: Still,
    ) -> ForkPoint:
        """Let a fork lie upon what a session has now.

        Args:
            target: the fork's place, which is made.
            workspace: the session's.
            place: where the session keeps its changes.
            excluded: what of the changes is left out.
            still: what is done with what runs while it is copied.

        Raises:
            WorkspaceStopError: what runs can't be held still.
            WorkspaceStartError: a place can't be made or used.
            WorkspaceArchiveReadError, WorkspaceArchiveWriteError: the changes can't be copied.
        """
        self._asked += 1
        ticket = self._asked
        async with self._turn:
            point, same = self._point, (excluded, still.processes) == self._asked_as
            if point is None or not same or self._served < ticket:
                served, stopped, quiet = self._asked, threading.Event(), self._quiet()
                work = partial(
                    make_point,
                    place=place,
                    before=point if same else None,
                    excluded=excluded,
                    stopped=stopped,
                )
                async with still.entered():
                    point = await workspace.run("fork", work, stopped)
                if point.way != "layers" and (quiet is None or self._quiet() != quiet):
                    point = point._replace(looks=b"")
                self._point, self._served = point, served
                self._asked_as = excluded, still.processes
            await in_thread(target.begin, point.names)
            return point


def freeze_left(state: UnixLocalSandboxSessionState, target: LayeredPlace) -> ForkPoint | None:
    """Let a fork lie upon what a session that nobody uses has left; nothing is copied. Blocks.

    Args:
        state: the session's.
        target: the fork's place, which is made.

    Returns:
        What it lies upon; None if the session's workspace is gone, or has nothing of what was saved.

    Raises:
        LeaseHeldError: somebody uses the session.
        WorkspaceStartError, ConfinementUnavailableError: it can't be used.
    """
    with _place_left(state) as place:
        if place is None:
            return None
        names = place.prepare()
        empty = not os.listdir(place.upper)
        if empty and not names and not isinstance(state.snapshot, NoopSnapshot):
            return None
        if empty or not is_too_deep(names):
            point = ForkPoint(place.freeze())
        else:
            tree, root = show_layers(place, state.manifest.root)
            with tree, root:
                stopped = threading.Event()
                point = make_point(
                    root, place=place, before=None, excluded=frozenset(), stopped=stopped
                )
        target.begin(point.names)
        return point


@contextmanager
def _place_left(state: UnixLocalSandboxSessionState) -> Iterator[LayeredPlace | None]:
    """Hold what a session has left, and its lease; None if there is nothing whole."""
    places, identity = state_directory(os.environ), str(state.session_id)
    path = changes_path(places, identity)
    lease = Lease.take(places, identity, root=path, owned=False, kept=True)
    with ExitStack() as stack:
        place = LayeredPlace(lease)
        there = place.names() is not None
        stack.callback(lease.keep if there else lease.remove)
        yield place if there and lease.restoring is None else None
