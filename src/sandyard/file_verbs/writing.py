"""The verbs that change files: each whole or not at all."""

from __future__ import annotations

import io
import threading
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from sandyard.observing import observed
from sandyard.types import Permissions, User
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace.files import append

if TYPE_CHECKING:
    from sandyard.workspace.copying import Skipped

__all__ = ["WritingVerbs"]


class WritingVerbs(WorkspaceVerbBase):
    """What a session changes of its files."""

    @observed("write")
    async def write(
        self,
        path: str | PurePath,
        data: io.IOBase | bytes | bytearray | memoryview,
        *,
        user: str | User | None = None,
    ) -> None:
        """Write a file of the workspace whole, or not at all.

        Parents are made, an existing file keeps its mode, and whoever reads meanwhile sees the old
        content or the new.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            data: bytes, or a binary stream, which is read to its end, or until the call is cancelled.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            WorkspaceWriteTypeError: ``data`` is text or gives text; nothing was touched.
            WorkspaceArchiveWriteError: it can't be written.
            PolicyDeniedError: the policy lets nobody write there.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("write", user)
        await workspace.write(path, data)

    @observed("append")
    async def append(
        self,
        path: str | PurePath,
        data: bytes | bytearray | memoryview,
        *,
        user: str | User | None = None,
    ) -> None:
        """Add bytes to the end of a file, in place; a file that does not exist is written.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory; symlinks
                are followed.
            data: what to add.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            WorkspaceWriteTypeError: ``data`` is no bytes; nothing was touched.
            WorkspaceArchiveWriteError: it can't be written; the context's ``written`` says how many
                bytes were added all the same, where some were.
            PolicyDeniedError: the policy lets nobody write there.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("append", user)
        await workspace.run("append", partial(append, path=path, data=data))

    @observed("mkdir")
    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Make a directory of the workspace; one that exists is left as it is.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            parents: True makes missing parents too (default: False).
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            WorkspaceArchiveWriteError: it can't be made.
            PolicyDeniedError: the policy lets nobody write there.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("mkdir", user)
        await workspace.mkdir(path, parents=parents)

    @observed("rm")
    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link (never its target), or with ``recursive`` a tree.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory; never the workspace itself.
            recursive: True removes a directory with all in it, and a missing path silently.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ExecNonZeroError: there is no such entry.
            WorkspaceArchiveWriteError: it can't be removed, such as a directory that is not empty.
            PolicyDeniedError: the policy keeps it, or something in it; nothing was removed.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("rm", user)
        await workspace.rm(path, recursive=recursive)

    @observed("mv")
    async def mv(
        self,
        source: str | PurePath,
        destination: str | PurePath,
        *,
        user: str | User | None = None,
    ) -> None:
        """Rename a file, symlink or directory in one step; symlinks are moved, not followed.

        A file or symlink at the destination is replaced. A directory there is an error: nothing is
        moved into it.

        Args:
            source: relative to the workspace, or absolute in it or in a granted directory.
            destination: its new path; the directory that holds it exists.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ExecNonZeroError: there is no such source, a directory is at the destination, or it lies
                on another file system.
            PolicyDeniedError: the policy keeps one of them, or something in it, in its place.
            InvalidManifestPathError: a path leaves the workspace and what is granted.
        """
        from sandyard.workspace.changing import move  # noqa: PLC0415  # seldom needed

        workspace = self._open_workspace("mv", user)
        await workspace.run("mv", partial(move, source=source, destination=destination))

    @observed("copy")
    async def copy(
        self,
        source: str | PurePath,
        destination: str | PurePath,
        *,
        recursive: bool = False,
        user: str | User | None = None,
    ) -> tuple[Skipped, ...]:
        """Copy a file or a tree: content, permissions, times, empty directories, symlinks as such.

        The copy appears whole or not at all.

        Args:
            source: relative to the workspace, or absolute in it or in a granted directory; a symlink
                is followed here, and not within a tree.
            destination: the copy's path; missing directories are made. A file is replaced by a file,
                and nothing by a tree.
            recursive: True copies directories as well (default: False).
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            What of a tree was left out: FIFOs, sockets and devices.

        Raises:
            WorkspaceArchiveWriteError: it can't be read or written, or something is in the way.
            PolicyDeniedError: the policy denies a part of the source, or writing there.
            InvalidManifestPathError: a path leaves the workspace and what is granted.
        """
        from sandyard.workspace.changing import copy  # noqa: PLC0415  # seldom needed

        workspace = self._open_workspace("copy", user)
        stopped = threading.Event()
        work = partial(
            copy, source=source, destination=destination, recursive=recursive, stopped=stopped
        )
        return await workspace.run("copy", work, stopped)

    @observed("chmod")
    async def chmod(
        self, path: str | PurePath, mode: int | Permissions, *, user: str | User | None = None
    ) -> None:
        """Set the permission bits of a file or directory; symlinks are followed.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            mode: nine bits, such as ``0o644``, or ``Permissions``.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ArgumentError: the mode has other bits; set-user-id, set-group-id and sticky are never
                set.
            WorkspaceArchiveWriteError: it can't be changed.
            PolicyDeniedError: the policy keeps it as it is.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        from sandyard.workspace.changing import change_mode  # noqa: PLC0415  # seldom needed

        workspace = self._open_workspace("chmod", user)
        await workspace.run("chmod", partial(change_mode, path=path, mode=mode))
