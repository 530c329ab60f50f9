"""The file verbs of a session over files in memory."""

from __future__ import annotations

import io
import tarfile
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, NamedTuple

from sandyard.contract.files import FileContract
from sandyard.contract.trees import TreeContract
from sandyard.errors import (
    ArgumentError,
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
)
from sandyard.file_verbs.patching import read_patch
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.testing.memory_patching import carry_out
from sandyard.types import FileEntry, Permissions, User

if TYPE_CHECKING:
    from sandyard.archive import SandboxArchiveLimits
    from sandyard.archive_verbs import ArchiveSourceLike
    from sandyard.errors import OpName
    from sandyard.file_verbs.patching import Patches, PatchFormat
    from sandyard.testing.memory import MemoryFiles
    from sandyard.workspace.copying import Skipped

__all__ = ["MemoryVerbs"]

_Someone = str | User | None


class MemoryVerbs(FileContract, TreeContract):
    """What a scripted session does with its files."""

    @abstractmethod
    def _files(self, op: OpName, user: object = None) -> MemoryFiles:
        """The files, if the operation is possible now.

        Raises:
            SessionClosedError: it is not.
            ArgumentError, ArgumentTypeError: there is no such user.
        """

    async def read(self, path: str | PurePath, *, user: _Someone = None) -> io.BufferedIOBase:
        """Open a file for reading."""
        return io.BytesIO(self._files("read", user).content(path))

    async def read_range(
        self, path: str | PurePath, *, offset: int = 0, size: int, user: _Someone = None
    ) -> bytes:
        """Read a part of a file; a negative offset counts from its end."""
        files = self._files("read", user)
        _check_number("offset", offset, least=None)
        _check_number("size", size, least=0)
        return _part(files.content(path), offset, size)

    async def read_chunks(
        self,
        path: str | PurePath,
        *,
        offset: int = 0,
        size: int | None = None,
        chunk_bytes: int = COPY_CHUNK_BYTES,
        user: _Someone = None,
    ) -> AsyncGenerator[bytes, None]:
        """Read a file piece by piece."""
        _check_number("chunk_bytes", chunk_bytes, least=1)
        _check_number("offset", offset, least=None)
        if size is not None:
            _check_number("size", size, least=0)
        content = self._files("read", user).content(path)
        left = _part(content, offset, len(content) if size is None else size)
        for at in range(0, len(left), chunk_bytes):
            yield left[at : at + chunk_bytes]

    async def write(
        self,
        path: str | PurePath,
        data: io.IOBase | bytes | bytearray | memoryview,
        *,
        user: _Someone = None,
    ) -> None:
        """Write a file whole, or not at all."""
        self._files("write", user).names(path, "write")  # refused before the source is read
        content = await _taken(path, data)
        self._files("write", user).put(path, content)

    async def append(
        self, path: str | PurePath, data: bytes | bytearray | memoryview, *, user: _Someone = None
    ) -> None:
        """Add bytes to the end of a file; one that does not exist is written."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
        files = self._files("append", user)
        node = files.node(path, "append")
        old = b"" if node is None else node.content or b""
        files.put(path, old + bytes(data), op="append")

    async def ls(
        self, path: str | PurePath, *, recursive: bool = False, user: _Someone = None
    ) -> list[FileEntry]:
        """List a directory, sorted by path."""
        return self._files("ls", user).listed(path, recursive=recursive)

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: _Someone = None
    ) -> None:
        """Make a directory; one that exists is left alone."""
        self._files("mkdir", user).make(path, parents=parents)

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: _Someone = None
    ) -> None:
        """Remove a file, or with ``recursive`` a tree."""
        self._files("rm", user).remove(path, recursive=recursive)

    async def mv(
        self, source: str | PurePath, destination: str | PurePath, *, user: _Someone = None
    ) -> None:
        """Rename a file or a directory."""
        self._files("mv", user).move(source, destination)

    async def copy(
        self,
        source: str | PurePath,
        destination: str | PurePath,
        *,
        recursive: bool = False,
        user: _Someone = None,
    ) -> tuple[Skipped, ...]:
        """Copy a file, or with ``recursive`` a tree; nothing is ever left out."""
        self._files("copy", user).copy(source, destination, recursive=recursive)
        return ()

    async def chmod(
        self, path: str | PurePath, mode: int | Permissions, *, user: _Someone = None
    ) -> None:
        """Set the permission bits, which keep nobody from anything here."""
        self._files("chmod", user).set_mode(path, mode)

    async def stat(
        self, path: str | PurePath, *, follow_symlinks: bool = True, user: _Someone = None
    ) -> FileEntry:
        """Describe what is at a path."""
        return self._files("stat", user).entry(path, "stat")

    async def same_file(
        self,
        left: str | PurePath,
        right: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: _Someone = None,
    ) -> bool:
        """Tell whether two paths lead to one file or directory."""
        files = self._files("same_file", user)
        one, other = files.names(left, "same_file"), files.names(right, "same_file")
        return one == other and files.node(left, "same_file") is not None

    async def glob(
        self, pattern: str, *, path: str | PurePath = ".", user: _Someone = None
    ) -> list[str]:
        """Find files and directories by their names."""
        return self._files("glob", user).matches(pattern, path)

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """Resolve a path to the absolute one that commands would see."""
        files = self._files("normalize_path")
        return Path(files.absolute(files.names(path, "normalize_path")))

    async def apply_patch(
        self,
        operations: Patches,
        *,
        patch_format: Literal["v4a", "unified"] | PatchFormat = "v4a",
        user: _Someone = None,
    ) -> str:
        """Carry out a patch: all of it, or nothing."""
        files = self._files("apply_patch", user)
        carry_out(files, *read_patch(operations, patch_format))
        return "Done!"

    # --- the whole tree ---------------------------------------------------------------------------

    async def persist_workspace(self) -> io.BufferedIOBase:
        """Save all files as a tar archive."""
        return await in_thread(_packed, self._files("persist_workspace"))

    async def hydrate_workspace(
        self, data: ArchiveSourceLike, *, archive_limits: SandboxArchiveLimits | None = None
    ) -> None:
        """Restore what ``persist_workspace`` saved: directories and files, all of them or none."""
        if archive_limits is not None:
            from sandyard.errors import UnsupportedOperationError  # noqa: PLC0415  # seldom

            raise UnsupportedOperationError(
                op="hydrate_workspace",
                method="hydrate_workspace",
                session=type(self).__name__,
                argument="archive_limits",
            )
        self._files("hydrate_workspace")
        content = await _taken(".", data)
        members = await in_thread(_members, content)
        files = self._files("hydrate_workspace")
        files.at_once(partial(_unpack, files, members))


def _part(content: bytes, offset: int, size: int) -> bytes:
    start = max(0, len(content) + offset) if offset < 0 else offset
    return content[start : start + size]


def _check_number(argument: str, value: object, *, least: int | None) -> None:
    known = isinstance(value, int) and not isinstance(value, bool)
    if not known or (least is not None and isinstance(value, int) and value < least):
        raise ArgumentError(
            f"{argument} is a number of bytes{'' if least is None else f', at least {least}'}",
            op="read",
            argument=argument,
            value=value,
        )


async def _taken(path: str | PurePath, data: object) -> bytes:
    """All bytes of what should be written."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    read = getattr(data, "read", None)
    if isinstance(data, io.TextIOBase) or not callable(read):
        raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
    return await in_thread(_read_all, path, read)


def _read_all(path: str | PurePath, read: Callable[[int], object]) -> bytes:
    whole = bytearray()
    while True:
        try:
            piece = read(COPY_CHUNK_BYTES)
        except (OSError, ValueError) as error:
            raise WorkspaceArchiveWriteError(
                path=path, context={"reason": "source_unreadable"}, cause=error
            ) from error
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise WorkspaceWriteTypeError(
                path=path, actual_type=f"a stream of {type(piece).__name__}"
            )
        if not piece:
            return bytes(whole)
        whole += piece


def _packed(files: MemoryFiles) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for names, node in files.walk():
            member = tarfile.TarInfo("/".join((".", *names)))
            member.mode, member.mtime = node.mode, node.modified_ns // 1_000_000_000
            if node.content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(node.content)
                archive.addfile(member, io.BytesIO(node.content))
    stream.seek(0)
    return stream


class _Member(NamedTuple):
    """A directory (without content) or a file of an archive."""

    name: str
    mode: int
    content: bytes | None


def _members(content: bytes) -> list[_Member]:
    """What is in an archive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            return [_member(archive, one) for one in archive]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise WorkspaceArchiveWriteError(
            path=".", context={"reason": "unreadable"}, cause=error, retryable=False
        ) from error


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    if not (member.isdir() or member.isfile()):
        raise WorkspaceArchiveWriteError(
            path=".",
            message=f"the archive has {member.name}, which is no file and no directory; files in "
            "memory have no links",
            context={"reason": "unsupported member type", "member": member.name},
            retryable=False,
        )
    source = archive.extractfile(member)  # None for a directory
    return _Member(member.name, member.mode & 0o777, None if source is None else source.read())


def _unpack(files: MemoryFiles, members: list[_Member]) -> None:
    op: OpName = "hydrate_workspace"
    for name, mode, content in members:
        if content is None:
            files.make(name, parents=True)
        else:
            files.put(name, content, op=op)
        if files.names(name, op):
            files.set_mode(name, mode, op=op)
