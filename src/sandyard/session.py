"""A session: one workspace, one sandbox, one policy; it introduces the rooms to each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from sandyard.accounts import accounts_of
from sandyard.archive_verbs import ArchiveVerbs, checkpoints_of
from sandyard.background_verbs import BackgroundVerbs
from sandyard.bounds import SessionLimits
from sandyard.caller import Caller
from sandyard.calls import find_user
from sandyard.command_verbs import CommandVerbs
from sandyard.confinement import WorkspaceRoot as PlannedRoot
from sandyard.confinement import plan_session
from sandyard.confinement.explanation import Enforced
from sandyard.confinement.footing import Footing
from sandyard.confinement.holding import Circumstances
from sandyard.contract import BaseSandboxSession
from sandyard.errors import OpName, SessionClosedError
from sandyard.explaining import Explainer
from sandyard.file_verbs import FileVerbs
from sandyard.finishing import each_in_turn, finished, in_thread
from sandyard.fork_verbs import ForkVerbs
from sandyard.ladder import Ladder, planned_on
from sandyard.lifecycle import (
    CloseStep,
    DeleteStep,
    Phase,
    Processes,
    StartStep,
    check_alive,
    check_loop,
    check_phase,
    plan_close,
    plan_delete,
    plan_start,
)
from sandyard.loading import loading
from sandyard.manifest import Manifest
from sandyard.manifest_verbs import ManifestVerbs
from sandyard.mount_verbs import MountVerbs
from sandyard.observing import observed
from sandyard.overlay_verbs import OverlayVerbs
from sandyard.plan import LaunchPlan
from sandyard.platform import host_facts, resolve_denied, resolve_devices, resolve_grants
from sandyard.policy import Policy
from sandyard.port_verbs import PortVerbs
from sandyard.process import Commands, InitProcess
from sandyard.process.identity import first_parked
from sandyard.protection import Protection
from sandyard.pty_verbs import PtyVerbs
from sandyard.state import UnixLocalSandboxSessionState
from sandyard.types import User
from sandyard.workspace import Workspace, WorkspaceRoot
from sandyard.workspace.lease import Lease
from sandyard.workspace.reach import govern

if TYPE_CHECKING:
    from sandyard.changes import Overlay
    from sandyard.cloning import Spare
    from sandyard.snapshot.kinds import SnapshotBase
    from sandyard.snapshot.specs import SnapshotSpec
    from sandyard.state import SandboxSessionState
    from sandyard.workspace.progress import Hearer
    from sandyard.workspace.review import Review

__all__ = ["UnixLocalSandboxSession"]


class UnixLocalSandboxSession(
    CommandVerbs,
    FileVerbs,
    MountVerbs,
    ArchiveVerbs,
    ForkVerbs,
    ManifestVerbs,
    BackgroundVerbs,
    PtyVerbs,
    PortVerbs,
    OverlayVerbs,
    BaseSandboxSession,
):
    """A place on this machine where commands run confined.

    Made by ``UnixLocalSandboxClient.create``; use it as an async context manager, which starts it
    and, on leaving, ends everything that runs in it. It belongs to the event loop that started it.

    Attributes:
        state: what identifies the session and describes its workspace.
        policy: what its commands may touch; it never changes.
        limits: its limits; ``limits.report`` says what holds each of them, once it was started.
        materialized: what the manifest's entries wrote, and what of their sources they left out and
            why; None until they were applied.

    Example:
        >>> async with await client.create() as session:
        ...     result = await session.exec("python3 --version")
        ...     print(result.stdout.decode())
    """

    state: UnixLocalSandboxSessionState  # as its verbs have it; the contract knows less of it

    def __init__(
        self,
        state: UnixLocalSandboxSessionState,
        policy: Policy,
        root: WorkspaceRoot | None,
        lease: Lease,
        caller: Caller | None = None,
    ) -> None:
        """Take over a workspace; use ``UnixLocalSandboxClient.create`` instead."""
        self.state = state
        self.policy = policy
        self.limits = SessionLimits(policy)
        self.materialized = None
        self._root = root
        self._lease = lease
        self._caller = caller or Caller()
        self._accounts = accounts_of(state.manifest.users, state.manifest.groups)
        self._protection = Protection(policy.protect)
        self._checkpoints = checkpoints_of(state.snapshot)
        self._ladder = Ladder(policy)
        self._explainer = Explainer()
        self._inode = None if root is None else root.inode
        self._phase = Phase.NEW
        self._turn, self._settling = asyncio.Lock(), asyncio.Lock()  # one start or end at a time
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host_environment: dict[str, str] = {}
        self._environment: tuple[dict[str, str], tuple[tuple[bytes, bytes], ...]] | None = None
        self._workspace: Workspace | None = None
        self._init: InitProcess | None = None
        self._commands: Commands | None = None

    @classmethod
    @loading("resume")
    async def from_state(
        cls,
        state: SandboxSessionState,
        *,
        policy: Policy | None = None,
        root: str | os.PathLike[str] | Overlay | None = None,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        shared: bool = False,
    ) -> Self:
        """Take up a session where it was left, as ``UnixLocalSandboxClient(policy=…).resume`` does.

        Args:
            state: its ``state``, as it was or read back; it is copied.
            policy: what its commands may touch (default: ``Policy()``); no state says that.
            root: as ``resume`` takes it; ``snapshot`` and ``shared`` likewise.

        Raises:
            SandboxError: as ``resume``.
            ConfinementUnavailableError: this is not Linux.

        Example:
            >>> async with await UnixLocalSandboxSession.from_state(state) as session:
            ...     await session.exec("ls")
        """
        from sandyard.resuming import Named, checked_policy, take_up  # noqa: PLC0415  # seldom needed

        whole, named = checked_policy(policy), Named(root, snapshot)
        return cls(*(await take_up(state, whole, named=named, shared=shared)).around(whole))

    # --- life -------------------------------------------------------------------------------------

    @observed("start")
    async def start(self, *, progress: Hearer | None = None) -> None:
        """Makes the workspace ready and builds the sandbox around it.

        The manifest is applied at the first start, and its ephemeral entries at every one. If an
        entry can't be made, those that were made stay, and calling this again goes on with the
        others. Starting a running session does nothing; a session that was shut down may be started
        again. One that was resumed finds its workspace as it was left; if that is gone, what was saved
        of it is restored.

        Args:
            progress: called on the event loop with the newest ``Progress`` of the manifest's
                entries, and of what a store's snapshot restores (default: nobody is told).

        Raises:
            ManifestError, ArtifactError: an entry can't be made; ``context["entry"]`` names it.
            PolicyError: the policy asks for what can't be granted on this machine.
            ConfinementUnavailableError: this machine can't enforce the policy; nothing is left.
            ExposedPortUnavailableError: a port of ``state.exposed_ports`` can't be listened on.
            ResourceLimitError: this program or the machine has no descriptor left.
            WorkspaceStartError: the workspace's directory can't be made or opened; or what was saved
                can't be restored into it, and why: nothing was changed then.
        """
        async with self._turn:
            check_phase("start", self._phase)
            self._check_loop("start")
            if self._phase is Phase.RUNNING:
                return
            self._host_environment, self._environment = self._caller.variables(), None
            workspace = await self._enter_workspace()
            works: dict[StartStep, Callable[[], Awaitable[object]]] = {
                StartStep.RESTORE: partial(self._restore, workspace, self._lease, progress),
                StartStep.ENTRIES: partial(self._make_ready, workspace, progress),
                StartStep.SANDBOX: partial(self._build_sandbox, workspace),
                StartStep.MOUNTS: partial(self._mount_entries, workspace.root),
                StartStep.PORTS: self._open_ports,
            }
            bare = self._phase is Phase.NEW and await self._is_bare(workspace, self._lease)
            ready, discarded = self.state.workspace_root_ready, self._discarded
            for step in plan_start(bare=bare, ready=ready, discarded=discarded):
                await works[step]()
            self._loop = asyncio.get_running_loop()
            self._phase = Phase.RUNNING

    async def _enter_workspace(self) -> Workspace:
        root = await self._open_root()
        self._workspace = self._workspace or Workspace(root)
        if self._accounts.further:
            first = await in_thread(first_parked, self._accounts.further)
            self._accounts = replace(self._accounts, first=first)
            root.names = self._accounts.disk_names()
        return self._workspace

    async def _build_sandbox(self, workspace: Workspace) -> None:
        root = workspace.root
        self._init = await self._ladder.start(root, partial(self._plan, root), self._tree)
        self.state.confinement = self._ladder.document()
        self._hear_refusals(self._init)
        self._commands = Commands(self._init, self.limits.watch(self._init, workspace))

    @observed("stop")
    async def stop(self, *, processes: Processes = "keep", progress: Hearer | None = None) -> None:
        """Makes a checkpoint: saves the workspace to the session's snapshot; the session goes on.

        Unless they are held, commands may write meanwhile: what changed while it was read is told in
        ``checkpoint.report``.
        Without a snapshot nothing is saved.

        Args:
            processes: what becomes of what runs. ``"keep"`` (default) leaves it alone. ``"end"`` ends
                background processes, terminals, and what earlier commands left running.
                ``"freeze"`` holds all still, running commands included, until it is saved: what is
                saved is of one moment. Commands that are started meanwhile begin afterwards, and
                time that is held counts towards timeouts.
            progress: called on the event loop with the newest ``Progress`` of a save to a store:
                files looked at, and their bytes (default: nobody is told). Where only what was changed
                is looked at, and where an ordinary user's session has several users, it is not called.

        Raises:
            WorkspaceStopError: the workspace can't be saved, or what runs not be held still, and
                why; what was saved before is whole.
            ArgumentError: ``processes`` is none of these.
        """
        check_phase("stop", self._phase)
        async with self._quieted(processes, "stop"):
            ready = self._workspace if self.state.workspace_root_ready else None
            await self._save(ready, progress)

    @observed("shutdown", ends=True)
    async def shutdown(self) -> None:
        """Ends everything that runs in the sandbox and takes the sandbox down.

        The workspace stays and its files can still be read and written. Doing it again does nothing.
        """
        self._check_loop("shutdown")
        async with self._turn:
            await self._end_sandbox()

    async def aclose(self, *, save: bool = True) -> None:
        """Stops, shuts down and lets go of the workspace. Doing it again does nothing.

        The workspace's directory is not deleted, neither now nor by a later sweep; it is the
        caller's to keep. ``UnixLocalSandboxClient.delete`` deletes one that the library made.

        Args:
            save: False saves nothing (default: the workspace is saved to the session's snapshot).

        Raises:
            WorkspaceStopError: the workspace can't be saved; all else is done.
        """
        self._check_loop("shutdown")
        await self._in_one_close(partial(self._close_all, save=save))

    async def _close_all(self, *, save: bool = True) -> None:
        works = {
            CloseStep.HOOKS: self.run_pre_stop_hooks,
            CloseStep.STOP: self._stop_for_good,
            CloseStep.SHUTDOWN: self._close_for_good,
            CloseStep.COMPANIONS: self._close_companions,
        }
        steps = plan_close(self._phase, held=self._lease.held, save=save)
        await each_in_turn(works[step] for step in steps)

    async def _stop_for_good(self) -> None:
        if self._workspace is not None and self.state.workspace_root_ready:
            await self._stop_last()

    @observed("stop", ends=True)
    async def _stop_last(self) -> None:
        """The last save, told as the stop that it is."""
        async with self._turn:
            await self._save(self._workspace if self.state.workspace_root_ready else None)

    @observed("shutdown", ends=True)
    async def _close_for_good(self) -> None:
        """The end of the sandbox, of the workspace and of the lease, told as the shutdown that it is."""
        async with self._turn:
            try:
                await self._let_go()
            finally:
                if self._lease.held:
                    kept = self.state.kept_apart or self._lease.restoring is not None
                    await in_thread(self._lease.keep if kept else self._lease.remove)

    @observed("running")
    async def running(self) -> bool:
        """Tell whether commands can run: the session is started and its sandbox stands."""
        return self._phase is Phase.RUNNING and self._init is not None and self._init.alive

    # --- what may be asked of it -------------------------------------------------------------------

    @observed("review")
    async def review(self) -> Review:
        """Tell what has appeared or changed that programs outside would run or obey.

        Commands can write what Git, editors and agents on your side run without asking: hooks, keys
        of Git's configuration, tasks, servers to be started. Look at the findings before you use
        the workspace's files outside. What was there at the first start is compared with what is
        there now; what ``Policy.protect`` kept is the same.

        Raises:
            SessionClosedError: the session was not started, or is closed.
        """
        workspace = self._open_workspace("review", None)
        grants = await in_thread(resolve_grants, self._placed_policy(workspace.root))
        return await in_thread(self._protection.review, workspace.root, grants)

    # --- inside -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _spare_sandbox(self, policy: Policy) -> AsyncIterator[Spare]:
        from sandyard.cloning import Spare  # noqa: PLC0415  # few sessions need another
        from sandyard.spare import make_spare  # noqa: PLC0415

        state, root, lease = await make_spare()
        session = UnixLocalSandboxSession(state, policy, root, lease)
        try:
            async with session:
                yield Spare(session, root.inside, root.real_path)
        finally:
            await finished(session.delete_workspace())

    async def delete_workspace(self, *, unsaved: bool = False) -> bool:
        """Close the session, and delete its directory if the library made it.

        ``UnixLocalSandboxClient.delete`` calls this.

        Args:
            unsaved: True deletes it also if the last stop could not save it.

        Returns:
            True if nothing of an owned directory is left; False if the directory is the caller's,
            or if something else stands in its place.

        Raises:
            WorkspaceStopError: something in it can't be removed; all else is gone.
            WorkspaceStartError: another program uses the session now; nothing was deleted.
        """
        self._check_loop("shutdown")
        try:
            return await self._delete(unsaved=unsaved)
        finally:
            await self._close_companions()

    @observed("delete", ends=True)
    async def _delete(self, *, unsaved: bool) -> bool:
        works = {
            DeleteStep.CHECK: self._refuse_loss,
            DeleteStep.LET_GO: self._let_go,
            DeleteStep.REMOVE: self._remove_own,
        }
        async with self._turn:
            steps = plan_delete(unsaved=unsaved)
            return bool([await works[step]() for step in steps][-1])

    async def _refuse_loss(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.refuse_loss(self.state.manifest.root)

    async def _remove_own(self) -> bool:
        from sandyard.workspace.deletion import delete_leased  # noqa: PLC0415  # at the very end

        inode = self._inode if self.state.workspace_root_owned else None
        path, changes = self.state.host_root, self._changes_place()
        return await in_thread(delete_leased, self._lease, path, inode, changes)

    async def _close_companions(self) -> None:
        """Ends what came with the client: what was made of its dependencies, and waiting events."""
        try:
            await self._close_dependencies()
        finally:
            if self.observer is not None:
                await self.observer.close()

    def _plan(self, root: WorkspaceRoot, footing: Footing) -> LaunchPlan:
        facts = host_facts(self._host_environment)
        self._check_overlay(footing)
        planned = PlannedRoot(root.inside, root.real_path, root.inode, root.layered is not None)
        policy = self._placed_policy(root, footing)
        grants, denied = resolve_grants(policy), resolve_denied(policy)
        protected = self._protection.survey(root, grants)
        govern(root, grants, denied, protected)  # the file verbs keep to what binds commands
        limits = self.limits.plan(facts, several=self._accounts.further > 0)
        devices = resolve_devices(policy)
        kept, held = tuple(part.path for part in protected), limits.enforced
        known = Circumstances(facts, root.real_path, root.owned, grants, denied, kept, held)
        footing = self._ladder.judge(known, footing)
        asked = policy, facts, planned, grants, denied, protected, limits, devices
        plan, shown = planned_on(
            footing, lambda standing: plan_session(*asked, standing, self._accounts)
        )
        told = policy, shown, facts.machine, root.inside, grants, denied, footing.rung
        self._explainer.learn(Enforced(*told))
        return plan

    async def _let_go(self) -> None:
        """Ends the sandbox and closes the workspace; its lease stays as it is."""
        try:
            await self._end_sandbox()
        finally:
            self._phase = Phase.CLOSED
            try:
                await self._forget_processes()
            finally:
                workspace, self._workspace = self._workspace, None
                root, self._root = self._root, None
                if workspace is not None:
                    await workspace.close()  # and its root with it
                elif root is not None:
                    root.close()

    async def _end_sandbox(self) -> None:
        init, self._init = self._init, None
        commands, self._commands = self._commands, None
        if self._phase is Phase.RUNNING:
            self._phase = Phase.SHUT_DOWN
        if commands is not None:
            commands.close()
        try:
            await self._close_ports()
        finally:
            await self._take_down(init)
            await self._tell_ends()

    async def _take_down(self, init: InitProcess | None) -> None:
        try:
            if init is not None:
                await init.close()
        finally:
            self._loop = None
            try:
                await self._settle_processes()
                await self._ladder.close()
            finally:
                try:
                    await self.limits.close()
                finally:
                    await self._end_mounts()

    def _check_loop(self, op: OpName) -> None:
        check_loop(op, self._phase, self._loop)

    def _check_open(self, op: OpName) -> None:
        check_phase(op, self._phase)
        self._check_loop(op)

    def _running_commands(self, op: OpName = "exec") -> Commands:
        running = self._phase is Phase.RUNNING and self._loop is asyncio.get_running_loop()
        if not running:  # a loop that runs is not closed either
            self._check_open(op)
            check_alive(op, self._phase, self._loop)
        if (commands := self._commands) is None:
            raise SessionClosedError(op=op, state=self._phase.value)
        return commands

    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        check_phase(op, self._phase)
        account = find_user(op, user, self._accounts)
        if self._workspace is None:
            raise SessionClosedError(op=op, state=self._phase.value)
        if not account.number:
            return self._workspace
        user_id, *groups = map(self._accounts.disk_id, (account.number, *account.groups))
        return self._workspace.acting_for(user_id, tuple(groups))

    def _present_manifest(self) -> Manifest:
        return self.state.manifest
