"""The manifest verb of a session: what should exist is made real, at its start and when asked."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sandyard.accounts import Accounts, accounts_of
from sandyard.caller import Caller
from sandyard.errors import (
    ArgumentTypeError,
    LocalDirReadError,
    ManifestError,
    SandboxError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.limits import GIT_CLONES, MANIFEST_MOST_WORKERS, MANIFEST_WORKERS
from sandyard.manifest import Environment, Manifest
from sandyard.observing import observed
from sandyard.policy import Policy
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace import Workspace

if TYPE_CHECKING:
    from sandyard.cloning import Spare
    from sandyard.manifest.concurrency import SandboxConcurrencyLimits
    from sandyard.workspace.copying import Materialized
    from sandyard.workspace.entry_plan import CopyClone
    from sandyard.workspace.materialize import Attempt, Ledger
    from sandyard.workspace.progress import Hearer

__all__ = ["ManifestVerbs"]


class ManifestVerbs(WorkspaceVerbBase):
    """What a session does with its manifest's entries."""

    materialized: Materialized | None = None
    _accounts: Accounts
    _caller: Caller
    _ledger: Ledger | None = None
    _at_once: SandboxConcurrencyLimits | None = None

    @abstractmethod
    def _spare_sandbox(self, policy: Policy) -> AbstractAsyncContextManager[Spare]:
        """A running sandbox with an empty workspace; leaving it takes both away."""

    def limit_concurrency(self, limits: SandboxConcurrencyLimits) -> None:
        """Set how much of the manifest is made at the same time, from the next application on.

        Args:
            limits: at most so much (before: ``SandboxConcurrencyLimits()``).

        Raises:
            ArgumentTypeError: it is something else.
        """
        from sandyard.manifest.concurrency import (  # noqa: PLC0415  # few set them
            SandboxConcurrencyLimits,
        )

        if not isinstance(limits, SandboxConcurrencyLimits):
            raise ArgumentTypeError(
                "limits is a SandboxConcurrencyLimits",
                op="materialize",
                argument="limits",
                value=limits,
            )
        self._at_once = limits

    @observed("materialize")
    async def apply_manifest(
        self, *, only_ephemeral: bool = False, progress: Hearer | None = None
    ) -> Materialized:
        """Make the entries of the session's manifest real once more, as its first start did.

        What exists is replaced file by file, each whole or not at all, so changes to files of the
        manifest are lost; what it does not name is left alone. Several entries are made at a time,
        but never two of which one lies beneath the other.

        Args:
            only_ephemeral: True makes ephemeral entries alone, with all that is in them (default:
                all entries).
            progress: called on the event loop with the newest ``Progress``; states in between may be
                passed over.

        Returns:
            What was written, and what of the sources was left out and why.

        Raises:
            ManifestError: an entry can't be made; nothing was written.
            ArtifactError: a source, an archive or a repository can't be copied.
            WorkspaceArchiveWriteError: something can't be written. The ``entry`` of the last two's
                context names it; what was made before stays.
            PolicyDeniedError: a rule of the policy closes what would be changed.
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> session.state.manifest.entries["notes.md"] = File(content="new")
            >>> await session.apply_manifest()
        """
        from sandyard.workspace.materialize import Attempt  # noqa: PLC0415  # not all have entries

        workspace = self._open_workspace("materialize", None)
        attempt = Attempt(only_ephemeral=only_ephemeral)
        return await self._materialize(workspace, attempt, progress)

    @observed("materialize")
    async def provision_manifest_accounts(self) -> None:
        """Make sure that the manifest's users and groups exist inside; the start has made them.

        Nothing is made on the host. Users cost the sandbox ids, so that none can be added to one that
        stands.

        Raises:
            ManifestError: the manifest was changed, and names others than the session has.
            SessionClosedError: the session was not started, or is closed.
        """
        self._check_open("materialize")
        manifest = self._present_manifest()
        asked = accounts_of(manifest.users, manifest.groups)
        if (asked.users, asked.groups) != (self._accounts.users, self._accounts.groups):
            raise ManifestError(
                "the manifest names other users or groups than this session was made with; they are "
                "made with a session's sandbox: resume its state, or create another session",
                field="users" if asked.users != self._accounts.users else "groups",
            )

    async def _make_ready(self, workspace: Workspace, progress: Hearer | None) -> None:
        """Apply the manifest at the first start, and at later ones what is ephemeral of it."""
        first, manifest = not self.state.workspace_root_ready, self._present_manifest()
        if first or any(entry.ephemeral for _, entry in manifest.walk()):
            done = await self._applied(workspace, progress, first=first)
            self.materialized = done if first else self.materialized
        self.state.workspace_root_ready = True

    async def _applied(
        self, workspace: Workspace, progress: Hearer | None, *, first: bool
    ) -> Materialized | None:
        """Apply the manifest, going on where an earlier attempt of a first start ended."""
        if not self._present_manifest().entries:
            return None
        from sandyard.workspace.materialize import Attempt, Ledger  # noqa: PLC0415  # as above

        if not first:
            return await self._materialize(workspace, Attempt(only_ephemeral=True), progress)
        self._ledger = self._ledger or Ledger()
        # Nobody looks into a directory that was made for this session before it has started.
        attempt = Attempt(ledger=self._ledger, direct=self.state.workspace_root_owned)
        done = await self._materialize(workspace, attempt, progress)
        self._ledger = None
        return done

    async def _materialize(
        self, workspace: Workspace, attempt: Attempt, progress: Hearer | None
    ) -> Materialized:
        """Clone what has to be cloned, then make what the attempt's ledger does not have."""
        from sandyard.workspace.entry_plan import clones_of, plan_entries  # noqa: PLC0415  # as above
        from sandyard.workspace.progress import tracked  # noqa: PLC0415

        manifest = self._present_manifest()
        plan = partial(plan_entries, manifest, only_ephemeral=attempt.only_ephemeral)
        clones = clones_of(attempt.ledger.missing(await in_thread(plan)))
        async with AsyncExitStack() as stack:
            places = await self._cloned(clones, manifest, stack) if clones else {}
            whole = replace(
                attempt,
                clones=places,
                stopped=threading.Event(),
                tracker=tracked(progress),
                workers=self._entries_at_once(MANIFEST_WORKERS, MANIFEST_MOST_WORKERS),
            )
            return await workspace.apply(manifest, whole, base_dir=self._caller.directory)

    def _entries_at_once(self, usual: int, most: int) -> int:
        """How many entries may be made at once, where ``most`` could be."""
        wanted = usual if self._at_once is None else self._at_once.manifest_entries
        return most if wanted is None else min(wanted, most)

    async def _cloned(
        self, clones: Sequence[CopyClone], manifest: Manifest, stack: AsyncExitStack
    ) -> dict[str, str]:
        """Clone repositories, a few at a time; the first that fails ends the others."""
        turns = asyncio.Semaphore(self._entries_at_once(GIT_CLONES, len(clones)))

        async def clone(step: CopyClone) -> str:
            async with turns:
                try:
                    return await self._cloned_one(step, manifest, stack)
                except SandboxError as error:
                    error.context.setdefault("entry", step.path)
                    raise

        tasks = [asyncio.create_task(clone(step)) for step in clones]
        try:
            places = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {step.path: place for step, place in zip(clones, places, strict=True)}

    async def _cloned_one(self, step: CopyClone, manifest: Manifest, stack: AsyncExitStack) -> str:
        """Clone one repository; where it stands on the host until the stack is left."""
        from sandyard.cloning import (  # noqa: PLC0415  # few manifests have repositories
            WORKING_TREE,
            clone_policy,
            clone_repository,
        )

        repository = step.repository
        if repository.local is not None:
            await in_thread(_check_local, manifest, repository.local, self._caller.directory)
        token = await _token(manifest, repository.token_env, self._caller.variables())
        spare = await stack.enter_async_context(
            self._spare_sandbox(clone_policy(self.policy, repository))
        )
        await clone_repository(spare.sandbox, spare.inside, repository, token)
        return f"{spare.host}/{WORKING_TREE}"


def _check_local(manifest: Manifest, path: str, base_dir: str | None) -> None:
    """Refuse a repository of the host that is not where sources may lie.

    Raises:
        LocalDirReadError: it is not, or is no directory.
    """
    from sandyard.workspace.copying import open_source  # noqa: PLC0415  # few have repositories
    from sandyard.workspace.materialize import origin_of  # noqa: PLC0415  # few have repositories

    located = origin_of(manifest, base_dir).located(Path(path), LocalDirReadError)
    os.close(open_source(located, Path(path), LocalDirReadError))


async def _token(manifest: Manifest, name: str | None, variables: Mapping[str, str]) -> str | None:
    """What a variable holds: of the manifest, or else of the program that wants it.

    Raises:
        ManifestError: there is no such variable, or it is empty.
    """
    if name is None:
        return None
    given = {
        member: value for member, value in manifest.environment.value.items() if member == name
    }
    own = await Environment(value=given).resolve(variables)
    token = (own or variables).get(name)
    if not token:
        raise ManifestError(
            f"token_env names the variable {shown(name)}, which is neither in the manifest's "
            "environment nor in this program's",
            field="token_env",
        )
    return token
