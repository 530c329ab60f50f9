"""The fork verbs of a session: what it does when another one is made from it, or it from something else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from sandyard.lifecycle import Phase, Processes, check_processes
from sandyard.observing import observed
from sandyard.verb_bases import WorkspaceVerbBase

if TYPE_CHECKING:
    from sandyard.confinement.footing import Footing
    from sandyard.forking import Forked
    from sandyard.layered import ForkPoints
    from sandyard.policy import Policy
    from sandyard.process import InitProcess
    from sandyard.snapshot.records import Snapshot
    from sandyard.workspace import WorkspaceRoot
    from sandyard.workspace.layered_place import LayeredPlace
    from sandyard.workspace.progress import Hearer

__all__ = ["ForkVerbs"]


class ForkVerbs(WorkspaceVerbBase):
    """What a session knows of forks.

    Attributes:
        forked: what it was made from; None for a session that is no fork, or was taken up again.
    """

    forked: Forked | None = None
    _init: InitProcess | None
    _points: ForkPoints | None = None

    @abstractmethod
    def _unsaved_paths(self) -> frozenset[tuple[str, ...]]:
        """What is never saved."""

    @property
    def closed(self) -> bool:
        """Whether it has let go of its workspace: it can only be resumed, forked or deleted."""
        return self._phase is Phase.CLOSED

    @observed("snapshot_persist")
    async def save_snapshot(
        self,
        *,
        label: str = "",
        tags: Iterable[str] = (),
        history: str | None = None,
        processes: Processes = "keep",
        progress: Hearer | None = None,
    ) -> Snapshot:
        """Save the workspace as a snapshot of the store now; the session goes on.

        ``client.fork`` makes a session of it. What is saved, and what it costs, is as at a ``stop`` of a
        session with ``StoreSnapshotSpec()``; where the session has such a snapshot itself, this one
        comes into the same store.

        Args:
            label: what it is called; no retention removes what has a label or a tag.
            tags: further words.
            history: which history it belongs to (default: the session's id).
            processes: what becomes of what runs, as ``stop`` takes it: ``"freeze"`` saves all files as
                they are at one moment.
            progress: as ``stop`` takes it.

        Returns:
            The snapshot; the last one of the history if nothing has changed and neither a label nor
            tags are given.

        Raises:
            SnapshotPersistError: it can't be written; what was saved before is as it was.
            WorkspaceArchiveReadError: the workspace was removed, or can't be read.
            WorkspaceStopError: what runs can't be held still; nothing was saved.
            ArgumentError: a name or a word is none.
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> before = await session.save_snapshot(label="before the rewrite")
            >>> again = await client.fork(before)
        """
        from sandyard.checkpoints import save_into  # noqa: PLC0415  # few sessions are saved
        from sandyard.snapshot.kinds import StoreSnapshot  # noqa: PLC0415  # likewise
        from sandyard.snapshot.records import check_name, check_words  # noqa: PLC0415  # likewise
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # likewise

        workspace, kept = self._open_workspace("snapshot_persist", None), self.state.snapshot
        words = check_words(label, tags)
        name = str(self.state.session_id) if history is None else history
        check_name(name, "snapshot_persist")
        store = SnapshotStore(kept.directory if isinstance(kept, StoreSnapshot) else None)
        async with self._quieted(processes, "snapshot_persist"):
            made = await save_into(
                store,
                name,
                workspace,
                self._unsaved_paths(),
                self._layered_place(),
                label=words[0],
                tags=words[1],
                progress=progress,
            )
        return await store.get(made.snapshot)

    @observed("fork")
    async def duplicate_to(
        self, target: WorkspaceRoot, source: str, processes: Processes = "keep"
    ) -> Forked:
        """Copy the workspace into a new, empty directory; ``UnixLocalSandboxClient.fork`` calls this.

        Args:
            target: the directory; it stays the caller's.
            source: id of this session.
            processes: as ``fork`` takes it.

        Raises:
            WorkspaceArchiveReadError: the workspace was removed, or can't be read.
            WorkspaceArchiveWriteError: the copy can't be written.
            WorkspaceStopError: what runs can't be held still.
            SessionClosedError: the session was not started, or is closed.
        """
        from sandyard.forking import copied_workspace  # noqa: PLC0415  # few sessions are forked

        workspace = self._open_workspace("fork", None)
        async with self._quieted(processes, "fork"):
            return await copied_workspace(workspace, target, source, self._unsaved_paths())

    @observed("fork")
    async def lay_under(
        self, target: LayeredPlace, source: str, processes: Processes = "keep"
    ) -> Forked:
        """Let a fork lie upon what this session has; ``UnixLocalSandboxClient.fork`` calls this.

        Args:
            target: where the fork keeps its changes; it is made.
            source: id of this session.
            processes: as ``fork`` takes it.

        Raises:
            WorkspaceStartError: a place in the state directory can't be made or used.
            WorkspaceArchiveReadError, WorkspaceArchiveWriteError: what was changed can't be copied.
            WorkspaceStopError: what runs can't be held still.
            SessionClosedError: the session was not started, or is closed.
        """
        from sandyard.forking import laid_workspace  # noqa: PLC0415  # few sessions are forked
        from sandyard.layered import ForkPoints, Still  # noqa: PLC0415  # likewise
        from sandyard.workspace.layered_place import LayeredPlace  # noqa: PLC0415  # likewise

        check_processes(processes, "fork")
        workspace, place = self._open_workspace("fork", None), LayeredPlace(self._lease)
        if self._points is None:
            self._points = ForkPoints(self._quiet)
        asked = workspace, place, self._unsaved_paths()
        still = Still(processes, partial(self._quieted, processes, "fork"))
        return await laid_workspace(self._points, target, *asked, source=source, still=still)

    def _quiet(self) -> object:
        """Since when nothing of any command has been alive; None while something is."""
        init = self._init
        if init is None:
            return True
        since = init.quiet_since
        return None if since is None else (init, since)

    @observed("fork")
    async def fill_from(self, source: str, fill: Callable[[], Awaitable[Forked]]) -> None:
        """Take what a fork begins with; ``UnixLocalSandboxClient.fork`` calls this, once.

        Args:
            source: what it comes from, for events.
            fill: puts it into the workspace.
        """
        self.forked = await fill()

    def _placed_policy(self, root: WorkspaceRoot, footing: Footing | None = None) -> Policy:
        """The policy, with the paths in the workspace that it names where they are on the host.

        Raises:
            ConfinementUnavailableError: commands can't know the workspace by that path on this rung.
        """
        if root.inside == root.path:
            return self.policy
        from sandyard.fork_policy import check_rung, moved_policy  # noqa: PLC0415  # few are forks

        if footing is not None:
            check_rung(footing)
        return moved_policy(self.policy, root.inside, root.real_path)
