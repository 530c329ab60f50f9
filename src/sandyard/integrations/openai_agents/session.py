"""A session of the SDK's whose commands and files are those of a session of ours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import PatchFormat
from agents.sandbox.materialization import MaterializationResult
from agents.sandbox.session import SandboxSession
from agents.sandbox.types import User

import sandyard as ours
from sandyard.integrations.openai_agents.worker import Operations, SandyardWorker

if TYPE_CHECKING:
    from agents.sandbox.session import Dependencies, Instrumentation

__all__ = ["SandyardSession"]


class SandyardSession(SandboxSession):
    """What ``SandyardClient`` makes: the SDK's session with its events, over a ``SandyardWorker``.

    Attributes:
        worker: it.
    """

    def __init__(
        self,
        worker: SandyardWorker,
        *,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        super().__init__(worker, instrumentation=instrumentation, dependencies=dependencies)
        self.worker = worker

    @property
    def sandbox(self) -> ours.UnixLocalSandboxSession:
        """Our session, which can do more: background processes, ``why``, ``review``, limits."""
        return self.worker.sandbox

    # The SDK's wrapper does these itself, by other verbs, and never asks the session that it wraps; or
    # does not know them, before 0.23.

    async def mv(
        self,
        source: Path | str,
        destination: Path | str,
        *,
        user: str | User | None = None,
    ) -> None:
        """Rename a file, symlink or directory; a file at the destination is replaced."""
        await self.worker.mv(source, destination, user=user)

    async def same_file(
        self,
        left: Path | str,
        right: Path | str,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether two paths lead to one file."""
        return await self.worker.same_file(left, right, follow_symlinks=follow_symlinks, user=user)

    async def apply_patch(
        self, operations: Operations, *, patch_format: PatchFormat | Literal["v4a"] = "v4a"
    ) -> str:
        """Carry out a patch: all of it, or nothing."""
        return await self.worker.apply_patch(operations, patch_format=patch_format)

    async def extract(
        self,
        path: Path | str,
        data: io.IOBase,
        *,
        compression_scheme: Literal["tar", "zip"] | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> None:
        """Put an archive at a path, and unpack it beside: all of it, or nothing."""
        await self.worker.extract(
            path, data, compression_scheme=compression_scheme, archive_limits=archive_limits
        )

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        return await self.worker.apply_manifest(only_ephemeral=only_ephemeral)

    async def provision_manifest_accounts(self) -> None:
        """Nothing: users and groups are there from the start."""

    def _manifest_base_dir(self) -> Path:
        return self.worker._manifest_base_dir()  # noqa: SLF001  # the SDK's hook
