"""The verbs that look and read, and change nothing."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path, PurePath

from sandyard.errors import ArgumentError, OpName, shown
from sandyard.limits import COPY_CHUNK_BYTES, READ_PIECE_MAX
from sandyard.observing import observed, observed_pieces
from sandyard.types import FileEntry, User
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace.files import read_range
from sandyard.workspace.listing import (
    describe,
    exists,
    find_matches,
    is_same,
    list_directory,
    normalize,
)

__all__ = ["ReadingVerbs"]


class ReadingVerbs(WorkspaceVerbBase):
    """What a session tells of its files."""

    @observed("read")
    async def read(
        self, path: str | PurePath, *, user: str | User | None = None
    ) -> io.BufferedReader:
        """Open a file of the workspace for reading; the caller closes it.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            WorkspaceReadNotFoundError: there is no such file.
            PolicyDeniedError: the policy denies it.
            WorkspaceArchiveReadError: it is no regular file, or can't be read.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("read", user)
        return await workspace.read(path)

    @observed("read")
    async def read_range(
        self,
        path: str | PurePath,
        *,
        offset: int = 0,
        size: int,
        user: str | User | None = None,
    ) -> bytes:
        """Read a part of a file.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            offset: bytes before it (default: 0); a negative one counts from the end, as in
                ``offset=-1000, size=1000`` for the last thousand.
            size: bytes at most.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            What is there: less than ``size`` where the file ends, nothing behind its end.

        Raises:
            ArgumentError: ``size`` is negative, or one of them is no int.
            SandboxError: what ``read`` raises.
        """
        _check_number("read", "offset", offset, least=None)
        _check_number("read", "size", size, least=0)
        workspace = self._open_workspace("read", user)
        return await workspace.run("read", partial(read_range, path=path, offset=offset, size=size))

    @observed("read")
    async def read_bounded(
        self, path: str | PurePath, *, max_bytes: int, user: str | User | None = None
    ) -> bytes:
        """Read the beginning of a file, at most so many bytes.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            max_bytes: at least 1.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ArgumentError: ``max_bytes`` is less than 1.
            SandboxError: what ``read`` raises.
        """
        _check_number("read", "max_bytes", max_bytes, least=1)
        workspace = self._open_workspace("read", user)
        return await workspace.run("read", partial(read_range, path=path, offset=0, size=max_bytes))

    @observed_pieces("read")
    async def read_chunks(
        self,
        path: str | PurePath,
        *,
        offset: int = 0,
        size: int | None = None,
        chunk_bytes: int = COPY_CHUNK_BYTES,
        user: str | User | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Read a file piece by piece; memory use does not grow with its size.

        The file is opened once, so its pieces are of one file, also if it is replaced meanwhile.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            offset: bytes to leave out at the beginning (default: 0).
            size: bytes in all; None (default) reads to the end.
            chunk_bytes: bytes of each piece but the last, at most 64 MiB (default: 256 KiB).
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ArgumentError: a number is impossible.
            SandboxError: what ``read`` raises.

        Example:
            >>> async for chunk in session.read_chunks("model.bin"):
            ...     digest.update(chunk)
        """
        _check_number("read", "offset", offset, least=0)
        _check_number("read", "chunk_bytes", chunk_bytes, least=1, most=READ_PIECE_MAX)
        if size is not None:
            _check_number("read", "size", size, least=0)
        workspace = self._open_workspace("read", user)
        left = size
        with await workspace.read(path) as file:
            await workspace.read_piece(partial(_skip, file, offset), path)
            while left is None or left > 0:
                wanted = chunk_bytes if left is None else min(chunk_bytes, left)
                chunk = await workspace.read_piece(partial(file.read, wanted), path)
                if not chunk:
                    return
                yield chunk
                left = None if left is None else left - len(chunk)

    @observed("ls")
    async def ls(
        self,
        path: str | PurePath,
        *,
        recursive: bool = False,
        user: str | User | None = None,
    ) -> list[FileEntry]:
        """List a directory, sorted by path, hidden entries included.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            recursive: True lists what lies beneath it too (default: False). Symlinks are listed, not
                followed; what can't be looked into is listed without what it holds.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            Its entries. What the policy denies is listed as commands see it: without permissions,
            empty.

        Raises:
            ExecNonZeroError: it is no directory, or does not exist.
            ResourceLimitError: there are more than 250,000 entries.
            PolicyDeniedError: the policy denies it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("ls", user)
        return await workspace.run("ls", partial(list_directory, path=path, recursive=recursive))

    @observed("stat")
    async def stat(
        self,
        path: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> FileEntry:
        """Describe a file, a directory or anything else.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            follow_symlinks: False describes a symlink itself (default: what it points to).
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            Its facts; the path in them is where it really is.

        Raises:
            WorkspaceReadNotFoundError: nothing is there.
            PolicyDeniedError: the policy denies it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("stat", user)
        work = partial(describe, path=path, follow_symlinks=follow_symlinks)
        return await workspace.run("stat", work)

    @observed("exists")
    async def exists(
        self,
        path: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether something is there.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            follow_symlinks: False asks for a symlink itself; by default one that points to nothing
                is nothing.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            PolicyDeniedError: the policy denies it, so that nothing is told.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("exists", user)
        work = partial(exists, path=path, follow_symlinks=follow_symlinks)
        return await workspace.run("exists", work)

    @observed("same_file")
    async def same_file(
        self,
        left: str | PurePath,
        right: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Tell whether two paths lead to one file or directory, by device and inode.

        Args:
            left: one path; ``right`` is the other. What is missing is the same as nothing.
            follow_symlinks: False says False of every symlink (default: True).
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            ExecNonZeroError: one of them can't be looked at.
            PolicyDeniedError: the policy denies one of them.
            InvalidManifestPathError: a path leaves the workspace and what is granted.
        """
        workspace = self._open_workspace("same_file", user)
        work = partial(is_same, left=left, right=right, follow_symlinks=follow_symlinks)
        return await workspace.run("same_file", work)

    @observed("glob")
    async def glob(
        self, pattern: str, *, path: str | PurePath = ".", user: str | User | None = None
    ) -> list[str]:
        """Find files and directories by their names.

        Args:
            pattern: relative to ``path``: ``*`` and ``?`` stand for characters of one name,
                ``[a-z]`` and ``[!a-z]`` for one of some, ``{a,b}`` for either, and ``**`` as a whole
                name for any number of directories. Names that begin with a dot are matched only by
                a pattern that does.
            path: the directory that is searched (default: the workspace). Symlinks beneath it are
                matched, not followed.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            Paths relative to ``path``, sorted.

        Raises:
            ArgumentError, ArgumentTypeError: it is no pattern.
            WorkspaceReadNotFoundError: there is no such directory.
            ResourceLimitError: more than 250,000 match.

        Example:
            >>> await session.glob("src/**/*.{c,h}")
            ['src/main.c', 'src/net/socket.h']
        """
        workspace = self._open_workspace("glob", user)
        return await workspace.run("glob", partial(find_matches, pattern=pattern, path=path))

    @observed("normalize_path")
    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """Resolve a path of the workspace to the absolute one that commands see.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory.
            for_write: True also refuses what the policy lets nobody write to (default: False).

        Raises:
            InvalidManifestPathError: the path leaves the workspace and what is granted.
            PolicyDeniedError: the policy denies it, or writing to it.
        """
        workspace = self._open_workspace("normalize_path", None)
        return await workspace.run(
            "normalize_path", partial(normalize, path=path, for_write=for_write)
        )


def _skip(file: io.BufferedReader, offset: int) -> None:
    """Go to an offset, or to the end where that is nearer: no system call takes every number."""
    file.seek(min(offset, os.fstat(file.fileno()).st_size))


def _check_number(
    op: OpName, argument: str, value: object, *, least: int | None, most: int | None = None
) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(
            f"{argument} is a number of bytes", op=op, argument=argument, value=value
        )
    if least is not None and value < least:
        raise ArgumentError(
            f"{argument} is at least {least}, not {shown(value)}",
            op=op,
            argument=argument,
            value=value,
        )
    if most is not None and value > most:
        raise ArgumentError(
            f"{argument} is at most {most}, not {shown(value)}",
            op=op,
            argument=argument,
            value=value,
        )
