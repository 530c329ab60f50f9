"""SandyardClient: what ``SandboxRunConfig(client=…)`` is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agents.sandbox import Manifest
from agents.sandbox.session import BaseSandboxClient, SandboxSession, SandboxSessionState
from agents.sandbox.snapshot import (
    LocalSnapshotSpec,
    SnapshotBase,
    SnapshotSpec,
    resolve_snapshot,
)

import sandyard as ours
from sandyard.integrations.openai_agents.faults import told
from sandyard.integrations.openai_agents.manifests import as_ours, refuse
from sandyard.integrations.openai_agents.session import SandyardSession
from sandyard.integrations.openai_agents.snapshots import (
    Link,
    StoreSnapshotSpec,
)
from sandyard.integrations.openai_agents.snapshots import (
    as_ours as snapshot_as_ours,
)
from sandyard.integrations.openai_agents.state import (
    BACKEND_ID,
    SandyardClientOptions,
    SandyardSessionState,
)
from sandyard.integrations.openai_agents.worker import SandyardWorker

if TYPE_CHECKING:
    from agents.sandbox.session import Dependencies, Instrumentation

__all__ = ["SandyardClient"]


class SandyardClient(BaseSandboxClient[SandyardClientOptions | None]):
    """Makes sandboxes on this machine for agents of the OpenAI Agents SDK, behind a wall.

    It takes the place of the SDK's ``UnixLocalSandboxClient``.

    Args:
        policy: what commands may touch (default: ``sandyard.Policy()``: the system's programs, the
            detected toolchains and the workspace; no network). A run, a model or a saved state can't
            change it.
        environ: the variables of the program that its sessions are made for (default: this one's).
        directory: where relative sources of manifests begin, absolute (default: this program's working
            directory).
        mount_providers: who makes mounts of remote storage, by the type of the SDK's entry, such as
            ``"s3_mount"`` (default: nobody).
        events: where our events go, one for each operation, terminals and file verbs included
            (default: nowhere).
        instrumentation: where the SDK's events go (default: nowhere).
        dependencies: values and factories for the SDK's remote snapshots and entries; each session
            has a clone of them.

    Raises:
        sandyard.ArgumentError, sandyard.ArgumentTypeError: an argument is impossible.

    Example:
        >>> client = SandyardClient(policy=Policy(reads=("/srv/data",)))
        >>> run = RunConfig(sandbox=SandboxRunConfig(client=client))
    """

    backend_id = BACKEND_ID
    supports_default_options = True

    def __init__(
        self,
        *,
        policy: ours.Policy | None = None,
        environ: Mapping[str, str] | None = None,
        directory: str | None = None,
        mount_providers: Mapping[str, ours.MountProvider] | None = None,
        events: ours.Instrumentation | None = None,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        self._sandboxes = ours.UnixLocalSandboxClient(
            policy=policy,
            environ=environ,
            directory=directory,
            mount_providers=mount_providers,
            instrumentation=events,
        )
        self._directory = directory
        self._providers = frozenset(mount_providers or ())
        self._instrumentation = instrumentation
        self._dependencies = dependencies

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: SandyardClientOptions | None = None,
    ) -> SandyardSession:
        """Make a session; it is not started yet. The SDK's runner calls it.

        Args:
            snapshot: where ``stop`` saves the workspace (default: nowhere; a runner asks for a tar
                archive beneath the SDK's directory of state).
            manifest: what should exist (default: nothing). The root ``/workspace`` stands for a new
                private directory.
            options: see ``SandyardClientOptions`` (default: none).

        Raises:
            agents.sandbox.errors.ConfigurationError: what is asked for is impossible here, and what
                to change.
            agents.sandbox.errors.WorkspaceStartError: the workspace can't be made.
        """
        asked = Manifest() if manifest is None else manifest.model_copy(deep=True)
        self._validate_manifest_for_create(asked)
        ports = _checked_ports(options)
        link = Link()
        with told("create", asked.root):
            translated = as_ours(asked, self._providers)
            sandbox = await self._sandboxes.create(
                manifest=translated.manifest,
                snapshot=_wanted(snapshot, link),
                options=ours.UnixLocalSandboxClientOptions(ports) if ports else None,
            )
        try:
            identity = sandbox.state.session_id
            asked.root = sandbox.state.manifest.root
            state = SandyardSessionState(
                session_id=identity,
                manifest=asked,
                snapshot=resolve_snapshot(snapshot, str(identity)),
                exposed_ports=ports,
                workspace_root_owned=sandbox.state.workspace_root_owned,
                seal=sandbox.state.seal,
            )
            return self._made(sandbox, state, link)
        except BaseException:
            await self._sandboxes.delete(sandbox)
            raise

    async def resume(
        self,
        state: SandboxSessionState,
        *,
        root: str | os.PathLike[str] | None = None,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
    ) -> SandyardSession:
        """Take up a session where it was left; it is not started yet. The SDK's runner calls it.

        A saved state is data: it grants nothing that the client's policy does not, and deletes nothing
        that this library did not make.

        Args:
            state: what ``deserialize_session_state`` gave, or a session's ``state``.
            root: ``state.manifest.root``, said again, for a state that was changed since it was saved,
                or comes from another machine (default: this user's library has to know the state). A
                runner never gives it: take such a session up yourself, and hand it to the run.
            snapshot: ``state.snapshot``, or the spec that it came of, likewise.

        Raises:
            TypeError: it is no state of this client's kind.
            agents.sandbox.errors.ConfigurationError: it asks for what the policy does not grant; it is
                not known and ``root`` or ``snapshot`` is missing; or one of these is another than the
                state's.
            agents.sandbox.errors.WorkspaceStartError: somebody uses the session now, or something
                else stands in the place of its workspace.
        """
        if not isinstance(state, SandyardSessionState):
            raise TypeError(
                "SandyardClient.resume takes the state of a session that a SandyardClient made, not "
                f"{type(state).__name__}"
            )
        state.assert_path_grants_rebound()
        # A snapshot may hold connections, and is never changed.
        state = state.model_copy(update={"manifest": state.manifest.model_copy(deep=True)})
        link = Link()
        with told("create", state.manifest.root):
            _check_same(snapshot, state.snapshot)
            left = ours.UnixLocalSandboxSessionState(
                session_id=state.session_id,
                manifest=as_ours(state.manifest, self._providers).manifest,
                snapshot=snapshot_as_ours(state.snapshot, link),
                exposed_ports=state.exposed_ports,
                workspace_root_ready=state.workspace_root_ready,
                workspace_root_owned=state.workspace_root_owned,
                seal=state.seal,
            )
            sandbox = await self._sandboxes.resume(
                left, root=root, snapshot=None if snapshot is None else left.snapshot
            )
        state.seal = sandbox.state.seal
        return self._made(sandbox, state, link)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Close a session, and delete its workspace if the library made it; snapshots stay.

        Raises:
            TypeError: it is no session of this client's kind.
            agents.sandbox.errors.WorkspaceStopError: the last stop could not save the workspace, so
                it was not deleted; or something in it can't be removed.
        """
        if not isinstance(session, SandyardSession):
            raise TypeError(
                "SandyardClient.delete takes a session that a SandyardClient made, not "
                f"{type(session).__name__}"
            )
        with told("shutdown", session.state.manifest.root):
            await self._sandboxes.delete(session.sandbox)
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Read back what ``serialize_session_state`` gave.

        Raises:
            ValueError: it is none.
        """
        return self._deserialize_session_state_payload(payload, SandyardSessionState)

    def _made(
        self, sandbox: ours.UnixLocalSandboxSession, state: SandyardSessionState, link: Link
    ) -> SandyardSession:
        return SandyardSession(
            SandyardWorker(sandbox, state, link, self._providers, self._directory),
            instrumentation=self._instrumentation,
            dependencies=self._resolve_dependencies(),
        )


def _checked_ports(options: object) -> tuple[int, ...]:
    """The ports that a run asks for."""
    if options is None:
        return ()
    if not isinstance(options, SandyardClientOptions):
        raise TypeError(f"options are SandyardClientOptions, or None, not {type(options).__name__}")
    return options.exposed_ports


def _check_same(asked: SnapshotSpec | SnapshotBase | None, own: SnapshotBase) -> None:
    """Refuse a snapshot that is not the one of the state."""
    if asked is not None and resolve_snapshot(asked, own.id) != own:
        refuse(
            f"snapshot is another than the saved state's, of the type {own.type!r} and the id {own.id!r}; "
            "give the same, or create a session with this one"
        )


def _wanted(
    asked: SnapshotSpec | SnapshotBase | None, link: Link
) -> (
    ours.SnapshotBase
    | ours.NoopSnapshotSpec
    | ours.LocalSnapshotSpec
    | ours.RemoteSnapshotSpec
    | ours.StoreSnapshotSpec
):
    """What our client is asked for: a spec where ours has the session's id in its snapshot."""
    if type(asked) is LocalSnapshotSpec:
        return ours.LocalSnapshotSpec(base_path=str(asked.base_path))
    if isinstance(asked, StoreSnapshotSpec):
        directory = None if asked.directory is None else str(asked.directory)
        return ours.StoreSnapshotSpec(directory=directory)
    return snapshot_as_ours(asked, link)
