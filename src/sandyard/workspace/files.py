"""The file verbs: read, write, mkdir, ls, rm and normalize, each by descriptor beneath the root.

All of them block; the session calls them in threads. Paths are relative to the root, or absolute
and beneath the path under which commands know it. Errors of the kernel become typed ones here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, Protocol

from sandyard.errors import (
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
    shown,
)
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.types import EntryKind, FileEntry, Permissions
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import as_command_failed, translated, typed_error
from sandyard.workspace.names import names_beneath
from sandyard.workspace.placing import (
    Look,
    found_target,
    made_directory,
    put_file,
    write_all,
)
from sandyard.workspace.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandyard.errors import OpName
    from sandyard.workspace.names import Names
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = [
    "AGENT",
    "BinarySource",
    "list_directory",
    "make_directory",
    "normalize",
    "read",
    "remove",
    "write",
]

AGENT: Final = "agent"
"""The name of the one user inside, whom the workspace belongs to."""


class BinarySource(Protocol):
    """Anything that gives bytes when it is read."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


# --- reading ----------------------------------------------------------------------------------


def read(root: WorkspaceRoot, path: str | PurePath) -> io.BufferedReader:
    """Open a regular file for reading; symlinks inside the workspace are followed.

    Args:
        root: the workspace.
        path: the file.

    Returns:
        A reader, the caller's to close.

    Raises:
        WorkspaceReadNotFoundError: there is no such file.
        WorkspaceArchiveReadError: it is a directory, FIFO, socket or device, or can't be read.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = _names(root, path, "read")
    with _working("read", path, root):
        return open(root.opener.open_file(names), "rb")


def list_directory(root: WorkspaceRoot, path: str | PurePath) -> list[FileEntry]:
    """List a directory, sorted by name, hidden entries too.

    Args:
        root: the workspace.
        path: the directory.

    Returns:
        Its entries; a symlink is described itself, not what it points to.

    Raises:
        ExecNonZeroError: there is no such directory, or it can't be listed.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = _names(root, path, "ls")
    with _working("ls", path, root):
        if ".." in names:
            names = _real(root, names)
        opened = root.opener.open(names, os.O_RDONLY | os.O_DIRECTORY)
        try:
            prefix = "/".join((root.inside.rstrip("/"), *names))
            owner = root.owner
            with os.scandir(opened) as entries:
                found = [_described(entry, prefix, owner) for entry in entries]
            if not found and os.fstat(opened).st_nlink == 0:  # it was removed, so it seems empty
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        finally:
            os.close(opened)
    return sorted((entry for entry in found if entry), key=lambda entry: entry.path)


def _described(entry: os.DirEntry[str], prefix: str, owner: Owner) -> FileEntry | None:
    """Describe an entry, or return None if it has gone meanwhile."""
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return FileEntry(
        path=f"{prefix}/{entry.name}",
        permissions=Permissions.from_mode(facts.st_mode),
        owner=AGENT if facts.st_uid == owner.uid else str(facts.st_uid),
        group=AGENT if facts.st_gid == owner.gid else str(facts.st_gid),
        size=facts.st_size,
        kind=_KINDS.get(stat.S_IFMT(facts.st_mode), EntryKind.OTHER),
    )


_KINDS: Final = {
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFLNK: EntryKind.SYMLINK,
}


def normalize(root: WorkspaceRoot, path: str | PurePath) -> Path:
    """Return where a path leads, absolute and free of symlinks; it need not exist.

    Args:
        root: the workspace.
        path: the path.

    Returns:
        The path as commands in the sandbox know it.

    Raises:
        InvalidManifestPathError: the path leaves the workspace.
        WorkspaceArchiveReadError: a directory on the way can't be searched.
        ArgumentError: it can't be a path.
    """
    names = names_beneath(path, root.inside, "normalize_path")
    with _working("normalize_path", path, root):
        return Path(root.inside, *_real(root, names))


# --- writing ----------------------------------------------------------------------------------


def write(
    root: WorkspaceRoot, path: str | PurePath, data: bytes | bytearray | memoryview | BinarySource
) -> None:
    """Write a file as a whole: readers see the old content or the new, and a failure changes nothing.

    Missing directories are made. A symlink inside the workspace is followed, also to where nothing
    is yet. What is replaced keeps its permissions; a new file has 0666 less the umask. Memory use
    does not grow with the size.

    Args:
        root: the workspace.
        path: the file.
        data: its content, or a binary stream that is read to its end (and not closed).

    Raises:
        WorkspaceWriteTypeError: the data is text or something else; nothing was touched.
        WorkspaceArchiveWriteError: a directory, FIFO or device is there, or it can't be written.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = _names(root, path, "write")
    fill = _filler(data, str(path))  # reads the beginning, before anything is made
    with translated("write", str(path), root):
        owner = rightful_owner(root)
        with found_target(root, names, owner) as target:
            put_file(target, fill, Look(owner=owner))


def _filler(data: object, path: str) -> Callable[[int], None]:
    """Return what writes the data to a descriptor; the first piece is read at once."""
    if isinstance(data, bytes | bytearray | memoryview):
        whole = memoryview(data).cast("B")
        return lambda opened: write_all(opened, whole)
    read_some = getattr(data, "read", None)
    if isinstance(data, io.TextIOBase) or not callable(read_some):
        raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
    first = _piece(read_some, path)

    def fill(opened: int) -> None:
        piece = first
        while piece:
            write_all(opened, memoryview(piece))
            piece = _piece(read_some, path)

    return fill


def _piece(read_some: Callable[[int], object], path: str) -> bytes:
    """Read the next piece of a caller's stream, and check that it is bytes."""
    try:
        piece = read_some(COPY_CHUNK_BYTES)
    except OSError as error:
        raise WorkspaceArchiveWriteError(
            path=path,
            message=f"{shown(path)} could not be written, because its source could not be read: "
            f"{error}; the workspace is unchanged",
            context={"reason": "source_unreadable"},
            cause=error,
        ) from error
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    if not isinstance(piece, bytes):
        raise WorkspaceWriteTypeError(path=path, actual_type=f"a stream of {type(piece).__name__}")
    return piece


def make_directory(root: WorkspaceRoot, path: str | PurePath, *, parents: bool = False) -> None:
    """Make a directory; one that exists already is fine.

    Args:
        root: the workspace.
        path: the directory.
        parents: True makes missing directories on the way too (default: that is an error).

    Raises:
        WorkspaceArchiveWriteError: something else is there, or a directory on the way is missing.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = _names(root, path, "mkdir")
    with _working("mkdir", path, root):
        if not parents:
            with root.opener.place(names) as place:
                if len(place.rest) > 1:
                    missing = "/".join((*place.real, place.rest[0]))
                    raise WorkspaceArchiveWriteError(
                        path=str(path),
                        message=f"{shown(str(path))} could not be made: {shown(missing)} is not a "
                        "directory; give parents=True to make what is missing on the way",
                        context={"reason": "parent_missing"},
                    )
        os.close(made_directory(root, names, None))


def remove(root: WorkspaceRoot, path: str | PurePath, *, recursive: bool = False) -> None:
    """Remove a file, a symlink (never what it points to), or a directory.

    Args:
        root: the workspace.
        path: what to remove; never the root itself.
        recursive: True removes a directory with all in it, and does not mind if nothing is there.

    Raises:
        ExecNonZeroError: there is nothing to remove, and ``recursive`` is False.
        WorkspaceArchiveWriteError: it is the root, a directory that is not empty, or it, or a part
            of it, can't be removed.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = _names(root, path, "rm")
    with _working("rm", path, root):
        if not names or names[-1] == "..":
            raise _root_refused(str(path))
        try:
            directory = root.opener.open_parent(names)
            try:
                _remove_name(root, str(path), directory, names[-1], recursive=recursive)
            finally:
                os.close(directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            if root.gone:
                raise
            if not recursive:
                raise as_command_failed(("rm", "--", str(path)), str(path), error) from error


def _remove_name(
    root: WorkspaceRoot, path: str, directory: int, name: str, *, recursive: bool
) -> None:
    """Remove one name from a directory."""
    facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(facts.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    if not recursive:
        os.rmdir(name, dir_fd=directory)
        return
    failures = remove_tree(directory, name)
    if failures:
        error = failures[0]
        if error.errno == errno.ENOTEMPTY:  # it was emptied, but somebody puts more there
            error = OSError(errno.EAGAIN, "it is filled while it is removed", path)
        raise typed_error("rm", path, root, error) from error


def _root_refused(path: str) -> WorkspaceArchiveWriteError:
    return WorkspaceArchiveWriteError(
        path=path,
        message=f"{shown(path)} is, or ends in, a directory that can't be removed from within; "
        "name what to remove, or delete the session to remove the workspace",
        context={"reason": "workspace_root"},
        retryable=False,
    )


# --- paths ------------------------------------------------------------------------------------


def _names(root: WorkspaceRoot, path: str | PurePath, op: OpName) -> Names:
    """Take a path apart; one with ``..`` that leaves the workspace is refused before all else."""
    names = names_beneath(path, root.inside, op)
    if ".." in names:
        with _working(op, path, root):
            _real(root, names)
    return names


@contextmanager
def _working(op: OpName, path: str | PurePath, root: WorkspaceRoot) -> Iterator[None]:
    """Work with the rights of the workspace's owner; errors of the kernel become typed ones.

    Raises:
        WorkspaceRootNotFoundError: somebody removed the workspace, which would look like an empty
            one.
    """
    with translated(op, str(path), root), acting_as(rightful_owner(root)):
        yield


def _real(root: WorkspaceRoot, names: Names) -> Names:
    """Return where a path leads, free of symlinks and ``..``."""
    with root.opener.place(names) as place:
        return (*place.real, *place.rest)
