"""The file verbs of a session: each is checked, then done by the workspace in a thread."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path, PurePath

from sandyard.errors import OpName
from sandyard.types import FileEntry, User
from sandyard.workspace import Workspace

__all__ = ["FileVerbs"]


class FileVerbs(ABC):
    """What a session does with the files of its workspace, in its host's program."""

    @abstractmethod
    def _open_workspace(self, op: OpName, user: str | User | None) -> Workspace:
        """The workspace, if the session is in a phase in which ``op`` is possible.

        Raises:
            SessionClosedError: it is not.
            ArgumentError, ArgumentTypeError: there is no such user inside.
        """

    async def read(
        self, path: str | PurePath, *, user: str | User | None = None
    ) -> io.BufferedReader:
        """Open a file of the workspace for reading; the caller closes it.

        Args:
            path: relative to the workspace, or absolute within it.
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceReadNotFoundError: there is no such file.
            WorkspaceArchiveReadError: it is no regular file, or can't be read.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("read", user)
        return await workspace.read(path)

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
            path: relative to the workspace, or absolute within it.
            data: bytes, or a binary stream, which is read to its end.
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceWriteTypeError: ``data`` is text or gives text; nothing was touched.
            WorkspaceArchiveWriteError: it can't be written.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("write", user)
        await workspace.write(path, data)

    async def ls(self, path: str | PurePath, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory of the workspace, sorted by name, hidden entries included.

        Raises:
            ExecNonZeroError: it is no directory, or does not exist.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("ls", user)
        return await workspace.ls(path)

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Make a directory of the workspace; one that exists is left as it is.

        Args:
            path: relative to the workspace, or absolute within it.
            parents: True makes missing parents too (default: False).
            user: ``"agent"``, the one user inside (default).

        Raises:
            WorkspaceArchiveWriteError: it can't be made.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("mkdir", user)
        await workspace.mkdir(path, parents=parents)

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link (never its target), or with ``recursive`` a tree.

        Args:
            path: relative to the workspace, or absolute within it; never the workspace itself.
            recursive: True removes a directory with all in it, and a missing path silently.
            user: ``"agent"``, the one user inside (default).

        Raises:
            ExecNonZeroError: there is no such entry.
            WorkspaceArchiveWriteError: it can't be removed, such as a directory that is not empty.
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("rm", user)
        await workspace.rm(path, recursive=recursive)

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """Resolve a path of the workspace to the absolute one that commands see.

        Args:
            path: relative to the workspace, or absolute within it.
            for_write: kept for callers of the old API; every path of the workspace is writable.

        Raises:
            InvalidManifestPathError: the path leaves the workspace.
        """
        workspace = self._open_workspace("normalize_path", None)
        return await workspace.normalize_path(path)
