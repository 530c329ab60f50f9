"""The archive verbs of a session: unpack one into the workspace, save it or a part of it, restore it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    InvalidCompressionSchemeError,
    InvalidManifestPathError,
    ManifestError,
    MountConfigError,
    shown,
)
from sandyard.observing import observed
from sandyard.snapshot.kinds import NoopSnapshot, SnapshotBase
from sandyard.state import skipped_path
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace import Workspace

if TYPE_CHECKING:
    from sandyard.archive import SandboxArchiveLimits
    from sandyard.archive.report import ArchiveReport
    from sandyard.checkpoints import Checkpoint, Checkpoints
    from sandyard.dependencies import Dependencies
    from sandyard.workspace.lease import Lease
    from sandyard.workspace.persist_stream import WorkspaceArchive
    from sandyard.workspace.progress import Hearer

__all__ = ["ArchiveSourceLike", "ArchiveVerbs", "checkpoints_of"]

_SCHEMES = {
    "zip": "zip",
    **dict.fromkeys(
        ("tar", "tar.gz", "tgz", "tar.zst", "tzst", "tar.xz", "txz", "tar.bz2", "tbz2"), "tar"
    ),
}


class _BinaryStream(Protocol):
    """Anything that gives bytes when it is read."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


ArchiveSourceLike = bytes | bytearray | memoryview | _BinaryStream | AsyncIterable[bytes]
"""An archive: bytes, a binary stream, or what gives pieces of it asynchronously."""


class ArchiveVerbs(WorkspaceVerbBase):
    """What a session does with archives, in its host's program."""

    _checkpoints: Checkpoints | None = None
    _dependencies: Dependencies | None = None

    @abstractmethod
    def _mounted_paths(self) -> frozenset[tuple[str, ...]]:
        """Where something is mounted in the workspace, which is not of it."""

    @observed("extract")
    async def extract(
        self,
        path: str | PurePath,
        data: ArchiveSourceLike,
        *,
        compression_scheme: str | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
        keep_archive: bool = True,
    ) -> ArchiveReport:
        """Put an archive at a path of the workspace, and unpack it beside.

        All of it comes to stand there, or nothing. What kind of archive it is, its content tells:
        tar, plain or compressed by gzip, zstd, xz or bzip2, or zip. Files keep their permissions
        and times; symlinks must stay within the archive, names must be such that every system
        reads them alike. Files and links that have the name of a member are replaced, directories
        merged.

        Args:
            path: of the archive, relative to the workspace or absolute within it; its members are
                unpacked into the directory that holds it, which is made if it is missing.
            data: bytes, a binary stream, or an asynchronous iterable of bytes.
            compression_scheme: ``"tar"`` or ``"zip"`` refuses the other (default: either);
                ``"tar.gz"`` and the like are ``"tar"``.
            archive_limits: how much it may hold (default: ``SandboxArchiveLimits()``).
            keep_archive: False leaves the archive itself away (default: True).

        Returns:
            What was unpacked, and what of it was dropped, such as set-user-id bits.

        Raises:
            WorkspaceArchiveWriteError: the archive is refused, with the ``reason`` and the
                ``member``, or can't be written. Nothing of it is there.
            WorkspaceWriteTypeError: ``data`` is text or something else.
            InvalidCompressionSchemeError: there is no such scheme.
            PolicyDeniedError: a rule of the policy closes what would be changed; nothing was.
            InvalidManifestPathError: the path leaves the workspace.
            ArgumentError, ArgumentTypeError: an argument is impossible.

        Example:
            >>> report = await session.extract("vendor/library.tar.gz", data)
            >>> report.files
            120
        """
        workspace = self._open_workspace("extract", None)
        form = _checked_form(path, compression_scheme)
        limits = _checked_limits(archive_limits)
        return await workspace.extract(path, data, form=form, limits=limits, keep=keep_archive)

    @observed("persist_workspace")
    async def persist_workspace(self) -> WorkspaceArchive:
        """Save the workspace as a tar archive, a stream that is made while it is read.

        Permissions, times, symlinks, hard links, holes, empty directories, odd names and user
        attributes are in it. Ephemeral entries of the manifest and mounts are not, nor paths
        that were registered to be left out. Commands may write meanwhile: what vanished or changed is in the
        archive's ``report``.

        Returns:
            The stream, the caller's to close.

        Raises:
            WorkspaceArchiveReadError: the workspace was removed.
            SessionClosedError: the session was not started, or is closed.
        """
        workspace = self._open_workspace("persist_workspace", None)
        return await workspace.persist(self._unsaved_paths())

    def _unsaved_paths(self) -> frozenset[tuple[str, ...]]:
        """What is never saved."""
        entries = self._present_manifest().walk()
        ephemeral = {tuple(path.split("/")) for path, entry in entries if entry.ephemeral}
        named = frozenset(tuple(path.split("/")) for path in self.state.persist_skip_paths)
        return named | ephemeral | self._mounted_paths()

    @observed("hydrate_workspace")
    async def hydrate_workspace(
        self, data: ArchiveSourceLike, *, archive_limits: SandboxArchiveLimits | None = None
    ) -> ArchiveReport:
        """Restore into the workspace what ``persist_workspace`` saved, or another tar archive.

        All of it is restored exactly, or nothing and the workspace is as it was. What the archive
        does not have stays.

        Args:
            data: bytes, a binary stream, or an asynchronous iterable of bytes; compressed or not.
            archive_limits: how much it may hold (default: as much as the disk).

        Raises:
            WorkspaceArchiveWriteError: the archive is refused, with the ``reason`` and the
                ``member``, or can't be written.
            PolicyDeniedError: a rule of the policy closes what would be changed; nothing was.
            WorkspaceWriteTypeError: ``data`` is text or something else.
            SessionClosedError: the session was not started, or is closed.
        """
        workspace = self._open_workspace("hydrate_workspace", None)
        return await workspace.hydrate(data, _checked_limits(archive_limits))

    @observed("pack")
    async def pack(
        self, path: str | PurePath, *, name: str | None = None, outer_links: bool = True
    ) -> WorkspaceArchive:
        """Save a file or a tree of the workspace as a tar archive, made while it is read.

        What is kept of files, and what ``report`` says, is as in ``persist_workspace``; nothing is
        left out but FIFOs, sockets, devices and what the policy denies. ``unpack`` makes it again,
        in this session or another.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory; a symlink
                is followed here, and not within a tree.
            name: what the archive calls it (default: the last name of the path). Empty, and for
                ``.``, the archive has what is in the directory, without a directory around it.
            outer_links: False leaves out symlinks that may lead out of the tree, which is wise for
                what is unpacked on the host (default: True).

        Returns:
            The stream, the caller's to close.

        Raises:
            WorkspaceReadNotFoundError: there is nothing.
            WorkspaceArchiveReadError: it can't be read.
            PolicyDeniedError: the policy denies it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
            ArgumentError, ArgumentTypeError: the name is none of a single file or directory.

        Example:
            >>> async with await session.pack("src") as archive:
            ...     report = await other.unpack("vendor", archive)
        """
        workspace = self._open_workspace("pack", None)
        if name is not None and not isinstance(name, str):
            raise ArgumentTypeError("name is a str", op="pack", argument="name", value=name)
        return await workspace.pack(path, name, outer_links=outer_links)

    @observed("unpack")
    async def unpack(
        self,
        path: str | PurePath,
        data: ArchiveSourceLike,
        *,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> ArchiveReport:
        """Unpack into a directory what ``pack`` made, or another tar archive.

        All of it comes to stand there, or nothing. Names and targets of symlinks are taken as they
        are, and nothing is written through a symlink. Files and links that have the name of a member
        are replaced, directories merged; a directory never takes the place of something else.

        Args:
            path: a directory that exists, relative to the workspace, or absolute in it or in a
                granted directory.
            data: bytes, a binary stream, or an asynchronous iterable of bytes; compressed or not.
            archive_limits: how much it may hold (default: as much as the disk).

        Raises:
            WorkspaceArchiveWriteError: the archive is refused, with the ``reason`` and the
                ``member``, or can't be written; there is no such directory.
            PolicyDeniedError: a rule of the policy closes what would be changed; nothing was.
            WorkspaceWriteTypeError: ``data`` is text or something else.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("unpack", None)
        return await workspace.unpack(path, data, _checked_limits(archive_limits))

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What the last stop saved; None before, and where nothing is kept."""
        return None if self._checkpoints is None else self._checkpoints.last

    async def _is_bare(self, workspace: Workspace, lease: Lease) -> bool:
        """Whether a workspace that was taken up again has not what is kept, whatever its state says.

        So it is after a start that failed or was killed before it had restored all of that.
        """
        if self._checkpoints is None:
            return False
        if lease.restoring is not None:
            return True
        from sandyard.workspace.deletion import is_empty  # noqa: PLC0415  # where one is saved

        return await workspace.run("start", is_empty)

    async def _restore(self, workspace: Workspace, lease: Lease, progress: Hearer | None) -> None:
        """Restore what is kept of a workspace with nothing in it; that makes it ready."""
        ready = self.state.workspace_root_ready
        self.state.workspace_root_ready = False  # what is not restored is not saved either
        restored = False
        if self._checkpoints is not None:
            asked = workspace, lease, self._dependencies, progress
            restored = await self._checkpoints.restore(*asked)
        self.state.workspace_root_ready = restored or ready

    async def _save(self, workspace: Workspace | None, progress: Hearer | None = None) -> None:
        """Save a workspace that is ready, where it is to be kept."""
        if self._checkpoints is not None and workspace is not None:
            asked = self._unsaved_paths(), self._dependencies, self._layered_place()
            await self._checkpoints.save(workspace, *asked, progress)

    def register_persist_workspace_skip_path(self, path: str | PurePath) -> PurePath:
        """Leave a path, with all beneath it, out of what is saved of the workspace.

        The session's state keeps it: a session that is resumed leaves it out as well.

        Args:
            path: relative to the workspace, and not the workspace itself.

        Returns:
            The path in normal form.

        Raises:
            InvalidManifestPathError: it is absolute, or has ``..``.
            MountConfigError: something is mounted there, above or beneath; mounts are never saved.
            ArgumentError, ArgumentTypeError: it is the workspace itself, or can't be a path.
        """
        key = _left_out(path)
        names = tuple(key.split("/"))
        for mounted in sorted(self._mounted_paths()):
            shorter = min(len(names), len(mounted))
            if names[:shorter] == mounted[:shorter]:
                raise MountConfigError(
                    f"{shown(key)} overlaps the mount at {shown('/'.join(mounted))}; what is mounted is "
                    "never saved: name a path apart from it",
                    op="persist_workspace",
                    path=key,
                    context={"reason": "overlaps_mount"},
                )
        if key not in self.state.persist_skip_paths:
            self.state.persist_skip_paths += (key,)
        return PurePath(key)


def _left_out(path: object) -> str:
    if not isinstance(path, str | PurePath):
        raise ArgumentTypeError(
            f"path must be a str or a path, not {shown(path)}",
            op="persist_workspace",
            argument="path",
            value=path,
        )
    try:
        return skipped_path(path)
    except InvalidManifestPathError:
        raise
    except ManifestError as error:
        raise ArgumentError(
            error.message, op="persist_workspace", argument="path", value=path, cause=error
        ) from error


def _checked_form(path: str | PurePath, scheme: object) -> str | None:
    """The format that a scheme stands for; None for either."""
    if scheme is None:
        return None
    form = _SCHEMES.get(scheme) if isinstance(scheme, str) else None
    if form is None:
        raise InvalidCompressionSchemeError(path=path, scheme=scheme)
    return form


def _checked_limits(limits: object) -> SandboxArchiveLimits | None:
    from sandyard.archive import SandboxArchiveLimits  # noqa: PLC0415  # few sessions unpack archives

    if limits is None or isinstance(limits, SandboxArchiveLimits):
        return limits
    raise ArgumentTypeError(
        "archive_limits is a SandboxArchiveLimits, or None",
        op="extract",
        argument="archive_limits",
        value=limits,
    )


def checkpoints_of(snapshot: SnapshotBase) -> Checkpoints | None:
    """What saves a session to a snapshot; None where that keeps nothing."""
    if isinstance(snapshot, NoopSnapshot):
        return None
    from sandyard.checkpoints import Checkpoints  # noqa: PLC0415  # most sessions are not saved

    return Checkpoints(snapshot)
