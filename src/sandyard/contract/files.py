"""The contract of files: read, written, listed, moved, searched."""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from sandyard.contract.optional import optional
from sandyard.errors import ArgumentError, WorkspaceReadNotFoundError
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES, GREP_MATCHES
from sandyard.types import FileEntry, Permissions, User

if TYPE_CHECKING:
    from sandyard.file_verbs.matches import GrepResult
    from sandyard.file_verbs.patching import Patches, PatchFormat
    from sandyard.file_verbs.searching import GrepSyntax
    from sandyard.file_verbs.watching import FileWatch
    from sandyard.workspace.copying import Skipped

__all__ = ["FileContract"]


class FileContract(ABC):
    """What a session does with the files of its workspace.

    Paths are those that commands see: relative to the workspace, or absolute in it or in a granted
    directory. One that leads elsewhere raises ``InvalidManifestPathError``, one that the policy closes
    ``PolicyDeniedError``. ``user`` is ``"agent"`` or a user of the manifest's.
    """

    @abstractmethod
    async def read(
        self, path: str | PurePath, *, user: str | User | None = None
    ) -> io.BufferedIOBase:
        """Open a file for reading; the caller closes it.

        Raises:
            WorkspaceReadNotFoundError: there is no such file.
            WorkspaceArchiveReadError: it is no regular file, or can't be read.
        """

    @abstractmethod
    async def write(
        self,
        path: str | PurePath,
        data: io.IOBase | bytes | bytearray | memoryview,
        *,
        user: str | User | None = None,
    ) -> None:
        """Write a file whole, or not at all; missing parents are made, its mode is kept.

        Raises:
            WorkspaceWriteTypeError: ``data`` is text or gives text; nothing was touched.
            WorkspaceArchiveWriteError: it can't be written.
        """

    @abstractmethod
    async def ls(
        self, path: str | PurePath, *, recursive: bool = False, user: str | User | None = None
    ) -> list[FileEntry]:
        """List a directory, sorted by path, hidden entries included; with ``recursive`` all beneath.

        Raises:
            ExecNonZeroError: it is no directory, or does not exist.
        """

    @abstractmethod
    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Make a directory, with ``parents`` what is missing above; one that exists is left alone.

        Raises:
            WorkspaceArchiveWriteError: it can't be made.
        """

    @abstractmethod
    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file, a link (never its target), or with ``recursive`` a tree.

        Raises:
            ExecNonZeroError: there is no such entry.
            WorkspaceArchiveWriteError: it can't be removed.
        """

    @abstractmethod
    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """Resolve a path to the absolute one that commands see."""

    # --- made of the ones above -------------------------------------------------------------------

    async def read_bounded(
        self, path: str | PurePath, *, max_bytes: int, user: str | User | None = None
    ) -> bytes:
        """Read the beginning of a file, at most ``max_bytes``, which are at least 1."""
        if not _is_count(max_bytes):
            raise ArgumentError(
                "max_bytes is a number, at least 1",
                op="read",
                argument="max_bytes",
                value=max_bytes,
            )
        file = await self.read(path, user=user)
        try:
            return await in_thread(file.read, min(max_bytes, sys.maxsize))
        finally:
            file.close()

    async def exists(
        self,
        path: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether something is there; a symlink that leads nowhere is nothing if it is followed."""
        try:
            await self.stat(path, follow_symlinks=follow_symlinks, user=user)
        except WorkspaceReadNotFoundError:
            return False
        return True

    # --- what a kind may leave out ----------------------------------------------------------------

    @optional("stat")
    async def stat(
        self,
        path: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> FileEntry:
        """Describe what is at a path; without ``follow_symlinks`` a link itself.

        Raises:
            WorkspaceReadNotFoundError: nothing is there.
        """
        raise NotImplementedError

    @optional("same_file")
    async def same_file(
        self,
        left: str | PurePath,
        right: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether two paths lead to one file or directory."""
        raise NotImplementedError

    @optional("read")
    async def read_range(
        self,
        path: str | PurePath,
        *,
        offset: int = 0,
        size: int,
        user: str | User | None = None,
    ) -> bytes:
        """Read a part of a file; a negative offset counts from its end."""
        raise NotImplementedError

    @optional("read")
    def read_chunks(
        self,
        path: str | PurePath,
        *,
        offset: int = 0,
        size: int | None = None,
        chunk_bytes: int = COPY_CHUNK_BYTES,
        user: str | User | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Read a file piece by piece; memory use does not grow with its size."""
        raise NotImplementedError

    @optional("append")
    async def append(
        self,
        path: str | PurePath,
        data: bytes | bytearray | memoryview,
        *,
        user: str | User | None = None,
    ) -> None:
        """Add bytes to the end of a file, in place; one that does not exist is written."""
        raise NotImplementedError

    @optional("mv")
    async def mv(
        self,
        source: str | PurePath,
        destination: str | PurePath,
        *,
        user: str | User | None = None,
    ) -> None:
        """Rename in one step; symlinks are moved, not followed, and no directory is replaced.

        Raises:
            ExecNonZeroError: there is no such source, or it can't be moved there.
        """
        raise NotImplementedError

    @optional("copy")
    async def copy(
        self,
        source: str | PurePath,
        destination: str | PurePath,
        *,
        recursive: bool = False,
        user: str | User | None = None,
    ) -> tuple[Skipped, ...]:
        """Copy a file, or with ``recursive`` a tree; the copy appears whole or not at all."""
        raise NotImplementedError

    @optional("chmod")
    async def chmod(
        self, path: str | PurePath, mode: int | Permissions, *, user: str | User | None = None
    ) -> None:
        """Set the permission bits of a file or directory."""
        raise NotImplementedError

    @optional("apply_patch")
    async def apply_patch(
        self,
        operations: Patches,
        *,
        patch_format: Literal["v4a", "unified"] | PatchFormat = "v4a",
        user: str | User | None = None,
    ) -> str:
        """Carry out a patch: all of it, or nothing. Returns ``"Done!"``.

        Raises:
            ApplyPatchError: it is malformed, or does not fit.
        """
        raise NotImplementedError

    @optional("glob")
    async def glob(
        self, pattern: str, *, path: str | PurePath = ".", user: str | User | None = None
    ) -> list[str]:
        """Find files and directories by their names, as paths relative to ``path``, sorted."""
        raise NotImplementedError

    @optional("grep")
    async def grep(  # noqa: PLR0913  # one keyword for each way to search
        self,
        pattern: str,
        path: str | PurePath = ".",
        *,
        syntax: GrepSyntax = "literal",
        ignore_case: bool = False,
        include: str | None = None,
        binary: bool = False,
        max_matches: int = GREP_MATCHES,
        timeout: float | None = 60,
        user: str | User | None = None,
    ) -> GrepResult:
        """Find lines that match a pattern, in a file or in all files beneath a directory."""
        raise NotImplementedError

    @optional("watch")
    def watch(
        self,
        path: str | PurePath = ".",
        *,
        recursive: bool = True,
        user: str | User | None = None,
    ) -> AbstractAsyncContextManager[FileWatch]:
        """Watch a directory: what is made, changed or removed in it is told while the block lasts."""
        raise NotImplementedError


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
