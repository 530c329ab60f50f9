"""The contract of whole trees: archives, the manifest, copies from and to the host, mounts."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from sandyard.contract.optional import optional

if TYPE_CHECKING:
    from sandyard.archive import SandboxArchiveLimits
    from sandyard.archive.report import ArchiveReport
    from sandyard.archive_verbs import ArchiveSourceLike
    from sandyard.changes import AppliedChanges, Changes
    from sandyard.manifest import Mount
    from sandyard.workspace.copying import Materialized
    from sandyard.workspace.progress import Hearer
    from sandyard.workspace.review import Review
    from sandyard.workspace.transfer import Transferred

__all__ = ["TreeContract"]


class TreeContract(ABC):
    """What a session does with its workspace as a whole, and with parts of it as trees."""

    @abstractmethod
    async def persist_workspace(self) -> io.BufferedIOBase:
        """Save the workspace as a tar archive, a stream that the caller closes.

        Mounts, ephemeral entries and paths that were registered to be left out are not in it.

        Raises:
            WorkspaceArchiveReadError: it can't be read.
        """

    @abstractmethod
    async def hydrate_workspace(
        self, data: ArchiveSourceLike, *, archive_limits: SandboxArchiveLimits | None = None
    ) -> ArchiveReport | None:
        """Restore what ``persist_workspace`` saved, all of it or nothing; other files stay.

        Returns:
            What was done, where a kind can tell.

        Raises:
            WorkspaceArchiveWriteError: the archive is refused, or can't be written.
            WorkspaceWriteTypeError: ``data`` is text or something else.
        """

    @optional("materialize")
    async def apply_manifest(
        self, *, only_ephemeral: bool = False, progress: Hearer | None = None
    ) -> Materialized:
        """Make the manifest's entries real once more, or its ephemeral ones alone."""
        raise NotImplementedError

    @optional("materialize")
    async def provision_manifest_accounts(self) -> None:
        """Make the manifest's users and groups inside; doing it again does nothing."""
        raise NotImplementedError

    @optional("extract")
    async def extract(
        self,
        path: str | PurePath,
        data: ArchiveSourceLike,
        *,
        compression_scheme: str | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
        keep_archive: bool = True,
    ) -> ArchiveReport | None:
        """Put a tar or zip archive at a path, and unpack it beside: all of it, or nothing."""
        raise NotImplementedError

    @optional("pack")
    async def pack(
        self, path: str | PurePath, *, name: str | None = None, outer_links: bool = True
    ) -> io.BufferedIOBase:
        """Save a file or a tree as a tar archive, a stream that the caller closes."""
        raise NotImplementedError

    @optional("unpack")
    async def unpack(
        self,
        path: str | PurePath,
        data: ArchiveSourceLike,
        *,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> ArchiveReport | None:
        """Unpack a tar archive into a directory that exists: all of it, or nothing."""
        raise NotImplementedError

    @optional("upload")
    async def upload(
        self,
        source: str | PurePath,
        path: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        progress: Hearer | None = None,
    ) -> Transferred:
        """Copy a file or a directory of the caller's machine into the workspace."""
        raise NotImplementedError

    @optional("download")
    async def download(
        self,
        path: str | PurePath,
        destination: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        outer_links: bool = False,
        progress: Hearer | None = None,
    ) -> Transferred:
        """Copy a file or a directory of the workspace to the caller's machine."""
        raise NotImplementedError

    @optional("mount")
    async def mount(self, path: str | PurePath, entry: Mount) -> str:
        """Mount something in the running sandbox, and return where it stands."""
        raise NotImplementedError

    @optional("unmount")
    async def unmount(self, path: str | PurePath) -> None:
        """Take a mount out of the running sandbox."""
        raise NotImplementedError

    @optional("review")
    async def review(self) -> Review:
        """Tell what has appeared or changed that programs outside would run or obey."""
        raise NotImplementedError

    @optional("diff")
    async def diff(self, *, text: bool = True) -> Changes:
        """Tell what was changed in a workspace that is an overlay, deletions first."""
        raise NotImplementedError

    @optional("apply")
    async def apply(
        self, paths: Iterable[str | PurePath] | None = None, *, overwrite: bool = False
    ) -> AppliedChanges:
        """Put what was changed in an overlay into the directory beneath: all that was chosen, or nothing.

        Raises:
            ApplyRefusedError: somebody changed it outside, or programs outside would run it.
        """
        raise NotImplementedError

    @optional("discard")
    async def discard(self) -> None:
        """Throw away what was changed in an overlay, and begin anew."""
        raise NotImplementedError
