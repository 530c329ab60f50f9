"""UnixLocalSandboxClient: makes sessions on this machine, and deletes what it made for them."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sandyard.caller import Caller
from sandyard.contract import BaseSandboxSession
from sandyard.contract.client import BaseSandboxClient
from sandyard.errors import ArgumentTypeError
from sandyard.finishing import finished, in_thread
from sandyard.loading import loading
from sandyard.manifest import DEFAULT_ROOT, Manifest
from sandyard.overlay_verbs import lay_over
from sandyard.policy import INHERITED_VARIABLES, OWN_VARIABLES, Policy
from sandyard.session import UnixLocalSandboxSession
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase
from sandyard.state import SandboxSessionState, UnixLocalSandboxSessionState

if TYPE_CHECKING:
    from sandyard.changes import Layered, Overlay
    from sandyard.dependencies import Dependencies
    from sandyard.events.instrumentation import Instrumentation
    from sandyard.lifecycle import Processes
    from sandyard.manifest.concurrency import SandboxConcurrencyLimits
    from sandyard.manifest.mounts import MountProvider
    from sandyard.options import UnixLocalSandboxClientOptions
    from sandyard.origins import Origin
    from sandyard.snapshot.records import Snapshot
    from sandyard.snapshot.specs import SnapshotSpec
    from sandyard.snapshot.store import SnapshotStore

__all__ = ["UnixLocalSandboxClient"]


class UnixLocalSandboxClient(BaseSandboxClient["UnixLocalSandboxClientOptions"]):
    """Makes sandboxes on this machine: no daemon, no container engine, no account.

    Args:
        policy: what commands of its sessions may touch, unless a session is given another
            (default: ``Policy()``).
        environ: the variables of the program that its sessions are made for: what a policy inherits,
            and where toolchains are looked for (default: those of this program, at each start). For
            a program that makes sessions for others.
        inherit_host_environment: None or False: a sandbox never gets all variables of the host's, and
            True is refused.
        host_environment_allowlist: names of the host's variables that its sessions get, where they
            are set, instead of the short list that they get otherwise (``PATH``, ``HOME`` and their
            kind are the sandbox's own either way); what a policy inherits comes to it.
        directory: where relative sources of manifests begin, absolute (default: this program's
            working directory). Likewise.
        instrumentation: where the events of its sessions go (default: nowhere).
        dependencies: values and factories for its sessions, and for what keeps their snapshots; each
            session has a clone of them.
        mount_providers: who makes the ``RemoteMount`` entries of its sessions, by the name that they
            give (default: nobody).
        concurrency_limits: how much of a manifest its sessions make at the same time (default:
            ``SandboxConcurrencyLimits()``).

    Raises:
        ArgumentError, ArgumentTypeError: an argument is impossible.
        ConfinementUnavailableError: this is not Linux.

    Example:
        >>> client = UnixLocalSandboxClient()
        >>> session = await client.create()
        >>> async with session:
        ...     result = await session.exec("echo hello")
        >>> await client.delete(session)
    """

    backend_id = "unix_local"
    supports_default_options = True

    def __init__(  # noqa: PLR0913  # each has its default
        self,
        *,
        policy: Policy | None = None,
        environ: Mapping[str, str] | None = None,
        inherit_host_environment: bool | None = None,
        host_environment_allowlist: Iterable[str] | None = None,
        directory: str | None = None,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
        mount_providers: Mapping[str, MountProvider] | None = None,
        concurrency_limits: SandboxConcurrencyLimits | None = None,
    ) -> None:
        if sys.platform != "linux":
            from sandyard.elsewhere import unavailable  # noqa: PLC0415  # seldom needed

            raise unavailable()
        self._policy = _checked_policy(policy) or Policy()
        placed = environ, directory, mount_providers
        if any(one is not None for one in placed):
            from sandyard.asked import check_caller  # noqa: PLC0415  # as given

            check_caller(*placed)
        self._allowed: tuple[str, ...] | None = None
        self._caller = Caller(None if environ is None else dict(environ), directory)
        self._providers = {} if mount_providers is None else dict(mount_providers)
        self._concurrency = concurrency_limits
        self._instrumentation = instrumentation
        self._dependencies = dependencies
        asked = inherit_host_environment, host_environment_allowlist
        given = instrumentation, dependencies, concurrency_limits
        if any(one is not None for one in (*asked, *given)):
            from sandyard.asked import asked_variables, check_companions  # noqa: PLC0415  # as given

            self._allowed = asked_variables(*asked)
            check_companions(*given)

    @loading("create")
    async def create(
        self,
        *,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        options: UnixLocalSandboxClientOptions | Mapping[str, object] | None = None,
        policy: Policy | None = None,
        workspace: Layered | Overlay | None = None,
        shared: bool = False,
    ) -> UnixLocalSandboxSession:
        """Make a session; it is not started yet.

        A program's first call, and one every ten minutes after that, also deletes the private
        directories that programs of the same user left behind when they were killed.

        Args:
            snapshot: where ``stop`` and ``aclose`` save its workspace: a snapshot, or a spec such as
                ``StoreSnapshotSpec()`` (default: nowhere). What a given one keeps already is restored
                by the start.
            manifest: what its workspace is made of (default: nothing). The root ``/workspace``
                stands for a new private directory, which ``delete`` removes; any other root is a
                directory of the caller's, made at the start if missing, and never deleted.
            options: ports that are to be reached, as ``UnixLocalSandboxClientOptions(8000)``
                (default: none).
            policy: what its commands may touch (default: the client's).
            workspace: ``Overlay(path)`` lets it work on a directory of the caller's without changing
                it; the manifest has no root of its own then. ``Layered()`` makes its forks cost
                nothing; its root is no directory of the host's (default: the manifest says where).
            shared: True lets other sessions that say the same work in a directory of the caller's at
                once (default: the start is refused with ``LeaseHeldError`` while another one does).

        Raises:
            ArgumentError, ArgumentTypeError: an argument is impossible.
            ManifestError: the manifest asks for what this backend does not have.
            PolicyError: the policy names what does not exist or can't be granted.
            WorkspaceStartError: the private directory can't be made, or the session's lease can't
                be written to the state directory (``$XDG_STATE_HOME/sandyard``).
        """
        session_id, undo = uuid4(), ExitStack()
        ports: tuple[int, ...] = ()
        if options is not None:
            from sandyard.options import UnixLocalSandboxClientOptions  # noqa: PLC0415  # see above

            ports = UnixLocalSandboxClientOptions.parse(options).exposed_ports
        kept: SnapshotBase = NoopSnapshot(id=str(session_id))
        if snapshot is not None:
            kept = await in_thread(_resolved, snapshot, str(session_id))
        if manifest is None:
            manifest = Manifest()
        elif not isinstance(manifest, Manifest):
            raise ArgumentTypeError(
                "manifest is a Manifest, or None", op="create", argument="manifest", value=manifest
            )
        else:
            manifest = manifest.model_copy(deep=True)
        from sandyard.making import make_new  # noqa: PLC0415  # with the first session
        from sandyard.restating import with_grants  # noqa: PLC0415  # likewise

        whole, caller = self._with_variables(_checked_policy(policy) or self._policy)
        whole = with_grants(whole, manifest)
        kind = None if workspace is None else lay_over(workspace, manifest)
        state = UnixLocalSandboxSessionState(
            session_id=session_id,
            manifest=manifest,
            snapshot=kept,
            workspace_root_owned=kind is None and manifest.root == DEFAULT_ROOT,
            workspace_overlay=kind == "overlay",
            workspace_layered=kind == "layers",
            exposed_ports=ports,
        )
        try:
            made = await in_thread(make_new, whole, state, undo, shared=bool(shared))
        except BaseException:
            await in_thread(undo.close)  # nobody will hold what was made
            raise
        return self._furnished(UnixLocalSandboxSession(state, whole, made.root, made.lease, caller))

    def _with_variables(self, policy: Policy) -> tuple[Policy, Caller]:
        """A policy that inherits what this client allows, and a caller with no other variables."""
        if self._allowed is None:
            return policy, self._caller
        known = {*INHERITED_VARIABLES, *OWN_VARIABLES}  # which have rules of their own
        further = (name for name in self._allowed if name not in known)
        allowed = frozenset((*policy.inherit, *self._allowed))
        policy = dataclasses.replace(policy, inherit=(*policy.inherit, *further))
        return policy, self._caller._replace(allowed=allowed)

    def _furnished(self, session: UnixLocalSandboxSession) -> UnixLocalSandboxSession:
        """A session with what all of this client's have."""
        session.provide(self._providers)
        if self._concurrency is not None:
            session.limit_concurrency(self._concurrency)
        if self._dependencies is not None:
            session.set_dependencies(self._dependencies.clone())
        if self._instrumentation is not None:
            from sandyard.events.recorder import SessionEvents  # noqa: PLC0415  # who wants them

            identity = session.state.session_id
            session.observer = SessionEvents(
                session, identity, self._instrumentation, lambda: session.state.confinement
            )
        return session

    @loading("resume")
    async def resume(
        self,
        state: SandboxSessionState,
        *,
        policy: Policy | None = None,
        root: str | os.PathLike[str] | Layered | Overlay | None = None,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        shared: bool = False,
    ) -> UnixLocalSandboxSession:
        """Take up a session where it was left; it is not started yet.

        Its workspace is the directory that it had, with all that is in it. Where a private one is gone,
        an empty one is made at the same path, and the start restores what the session's snapshot keeps.

        Args:
            state: the session's ``state``, as it was or read back with ``deserialize_session_state``.
                It is copied. A state is data: it can't make this library delete what it did not make,
                and says where the workspace is, and where it is kept, only if this user's state
                directory knows it as it is.
            policy: what its commands may touch (default: the client's); no state says that.
            root: ``state.manifest.root``, said again, or ``Overlay`` of it if the workspace is one, or
                ``Layered()`` (default: the state has to be known).
            snapshot: ``state.snapshot``, or the spec that it came of, said again (default: likewise).
            shared: as ``create``.

        Raises:
            LeaseHeldError: somebody uses the session now.
            ArgumentTypeError: it is no state of this client's kind.
            ArgumentError: it was changed since it was sealed, or comes from another machine or user, and
                ``root`` or ``snapshot`` is missing; or one of these is another than the state's.
            PolicyError: the state's manifest grants, or mounts, what the policy does not name; or as
                ``create``.
            ManifestError: as ``create``.
            WorkspaceStartError: something else stands at the private directory's path; neither it nor
                the snapshot was touched. Or as ``create``.

        Example:
            >>> saved = client.serialize_session_state(session.state)
            >>> session = await client.resume(client.deserialize_session_state(saved))
        """
        whole, caller = self._with_variables(_checked_policy(policy) or self._policy)
        from sandyard.resuming import Named, take_up  # noqa: PLC0415  # where one is taken up again

        named, directory = Named(root, snapshot), self._caller.directory
        taken = await take_up(state, whole, named=named, shared=shared, directory=directory)
        return self._furnished(UnixLocalSandboxSession(*taken.around(whole), caller))

    @loading("fork")
    async def fork(
        self,
        source: UnixLocalSandboxSession | SandboxSessionState | Snapshot | SnapshotBase | str,
        *,
        snapshot: SnapshotBase | SnapshotSpec | Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        policy: Policy | None = None,
        store: SnapshotStore | None = None,
        workspace: Layered | None = None,
        keep_path: bool = True,
        processes: Processes = "keep",
    ) -> UnixLocalSandboxSession:
        """Make another session from the same point; it is not started yet.

        Its workspace is a copy of the source's as it is now, in a private directory of its own that
        ``delete`` removes; commands know it under the path of the source's, so absolute links and the
        programs of virtual environments work. What is kept of files is what a snapshot keeps. Commands
        of the source may write meanwhile: what changed while it was read is in ``forked.report``.
        Of a session on layers (``workspace=Layered()``) only what it has changed since it began is
        copied; of one that is closed, nothing.

        Args:
            source: a session that was started, or was and is closed; the ``state`` of one that nobody
                uses now; a snapshot of a store, or its id, or a beginning of that which no other has;
                or where something is saved, such as ``LocalSnapshot(id=…, base_path=…)``.
                Of a workspace that is gone, what its session saved is taken.
            snapshot: where the fork is saved (default: where its parent is, in a history of its own;
                nowhere for a snapshot's).
            manifest: only for a snapshot: its variables, users, mounts, and entries that the start is
                to add. Its root is what commands know the workspace as (default: what they did when
                it was saved). A session's fork has its parent's manifest, with the values of its
                secrets if the parent is a session of this program.
            policy: what its commands may touch (default: that of a session; the client's for a state
                or a snapshot). A session's fork may be given less than its parent has, not more.
            store: where the snapshot is (default: this user's).
            workspace: ``Layered()`` lets the fork lie upon layers, so that its own forks cost nothing
                (default: as its parent does; a snapshot's is copied).
            keep_path: False lets commands know the workspace under its own path (default: under the
                source's). Without mounts, on the lowest rung, there is no other way.
            processes: what becomes of what runs in a session meanwhile, as ``session.stop`` takes it:
                ``"freeze"`` gives the fork all files as they are at one moment.

        Returns:
            The session; its ``forked`` tells how its files came.

        Raises:
            SessionClosedError: the source was not started.
            LeaseHeldError: somebody else uses the session whose state was given.
            SnapshotNotRestorableError: there is no such snapshot; or the workspace is gone, and nothing
                was saved of it.
            SnapshotRestoreError: what was saved can't be read.
            WorkspaceArchiveReadError, WorkspaceArchiveWriteError: files can't be copied, and why;
                nothing of the fork is left.
            PolicyError: the policy allows more than the parent's.
            ManifestError: it has users, which can't be had on layers.
            ConfinementUnavailableError: the layers of a closed session can't be mounted to be copied.
            ArgumentError, ArgumentTypeError: an argument is impossible.
            WorkspaceStartError: as ``create``.
            WorkspaceStopError: what runs in the session can't be held still.

        Example:
            >>> forks = await asyncio.gather(*(client.fork(session) for _ in range(4)))
            >>> async with forks[0] as first:
            ...     await first.exec("make CC=clang test")
        """
        from sandyard.fork_policy import check_narrower  # noqa: PLC0415  # few do it
        from sandyard.forking import kept_likewise  # noqa: PLC0415  # likewise
        from sandyard.origins import find_origin  # noqa: PLC0415  # likewise
        from sandyard.restating import check_grants, with_grants  # noqa: PLC0415  # likewise

        asked = store, manifest, self._dependencies, workspace, processes
        origin = await find_origin(source, *asked)
        given = _checked_policy(policy)
        if origin.policy is not None and given is not None:
            check_narrower(origin.policy, with_grants(given, origin.manifest))
        whole, caller = given or origin.policy or self._policy, self._caller
        if origin.policy is None:
            whole, caller = self._with_variables(whole)
        if origin.state is not None:
            check_grants(whole, origin.manifest)
            from sandyard.resuming import Named, check_known  # noqa: PLC0415  # as resume

            directory = self._caller.directory
            await in_thread(check_known, origin.state, whole, Named(), directory)
        session_id = uuid4()
        if snapshot is None:
            kept = kept_likewise(origin.kept, str(session_id))
        else:
            kept = await in_thread(_resolved, snapshot, str(session_id))
        whole = with_grants(whole, origin.manifest)
        return await self._forked(origin, session_id, kept, whole, caller, keep_path=keep_path)

    async def _forked(
        self,
        origin: Origin,
        session_id: UUID,
        kept: SnapshotBase,
        policy: Policy,
        caller: Caller,
        *,
        keep_path: bool,
    ) -> UnixLocalSandboxSession:
        from sandyard.fork_policy import moved_policy  # noqa: PLC0415  # see above
        from sandyard.making import make_new  # noqa: PLC0415  # as create

        inside = origin.inside if keep_path else None
        origin.manifest.root, undo = DEFAULT_ROOT, ExitStack()
        state = UnixLocalSandboxSessionState(
            session_id=session_id,
            manifest=origin.manifest,
            snapshot=kept,
            workspace_root_owned=origin.lay is None,
            workspace_layered=origin.lay is not None,
            workspace_root_ready=origin.ready,
        )
        try:
            make = partial(make_new, policy, state, undo, inside=inside, filled=False)
            made = await in_thread(make)
        except BaseException:
            await in_thread(undo.close)  # nobody will hold what was made
            raise
        if not keep_path and origin.inside is not None:
            outside = state.manifest.root if made.root is None else made.root.real_path
            policy = moved_policy(policy, origin.inside, outside)
        made_of = state, policy, made.root, made.lease, caller
        session = self._furnished(UnixLocalSandboxSession(*made_of))
        try:
            await session.fill_from(origin.name, origin.filling(made))
            if not isinstance(kept, NoopSnapshot):
                await in_thread(made.lease.protect)
        except BaseException:
            await finished(session.delete_workspace())  # nobody will hold it
            raise
        return session

    @loading("delete")
    async def delete(
        self, session: BaseSandboxSession, *, unsaved: bool = False
    ) -> UnixLocalSandboxSession:
        """Close a session, and delete its workspace if the library made it.

        A directory of the caller's is never touched, nor what has taken the place of a private
        one. Nothing is saved, and what was saved stays. Doing it again does nothing.

        Args:
            session: which one.
            unsaved: True deletes the workspace also if the last stop could not save it (default:
                that is refused).

        Raises:
            ArgumentTypeError: it is no session of this client's kind.
            WorkspaceStopError: the last stop failed, and nothing was deleted; or something in the
                directory can't be removed, such as a mount, and all else is gone. Call it again when
                that is solved.
            WorkspaceStartError: another program uses the session now; nothing was deleted.
        """
        if not isinstance(session, UnixLocalSandboxSession):
            raise ArgumentTypeError(
                "session is one that a UnixLocalSandboxClient made",
                op="delete",
                argument="session",
                value=session,
            )
        await session.delete_workspace(unsaved=unsaved)
        return session


def _resolved(asked: object, session_id: str) -> SnapshotBase:
    from sandyard.snapshot.specs import resolve_snapshot  # noqa: PLC0415  # where one is asked for

    return resolve_snapshot(asked, session_id)


def _checked_policy(policy: object) -> Policy | None:
    if policy is not None and not isinstance(policy, Policy):
        raise ArgumentTypeError(
            "policy is a Policy, or None", op="create", argument="policy", value=policy
        )
    return policy
