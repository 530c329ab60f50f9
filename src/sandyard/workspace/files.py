"""The first file verbs: read, write, append, mkdir and rm, each by descriptor beneath its tree.

All of them block; the session calls them in threads. Paths are relative to the root, or absolute
and beneath it or a granted directory. Errors of the kernel become typed ones here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from sandyard.errors import (
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
    shown,
)
from sandyard.limits import COPY_CHUNK_BYTES, OPEN_RETRIES
from sandyard.workspace.acting import rightful_owner
from sandyard.workspace.descent import refuse_rules
from sandyard.workspace.faults import as_command_failed, fault_of, typed_error
from sandyard.workspace.kernel import PATH_ONLY, reopen
from sandyard.workspace.placing import (
    Look,
    found_target,
    made_directory,
    put_file,
    refuse_odd,
    write_all,
)
from sandyard.workspace.reach import Spot, at_path, real_names, spot_of
from sandyard.workspace.removal import remove_tree
from sandyard.workspace.ward import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import PurePath
    from threading import Event

    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["BinarySource", "append", "make_directory", "read", "read_range", "remove", "write"]

_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
_APPEND_NEW: Final = _APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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

    def work(spot: Spot) -> io.BufferedReader:
        return open(spot.tree.opener.open_file(spot.names), "rb")

    return at_path(root, path, "read", work)


def read_range(root: WorkspaceRoot, path: str | PurePath, offset: int, size: int) -> bytes:
    """Read a part of a regular file.

    Args:
        root: the workspace.
        path: the file.
        offset: bytes before it; negative counts from the end.
        size: bytes at most.

    Returns:
        What is there, which may be less: nothing at and after the end.

    Raises:
        SandboxError: as ``read``.
    """

    def work(spot: Spot) -> bytes:
        opened = spot.tree.opener.open_file(spot.names)
        try:
            end = os.fstat(opened).st_size
            # Also a number that no system call takes lies behind the end.
            start = min(offset, end) if offset >= 0 else max(0, end + offset)
            return _read_at(opened, start, size)
        finally:
            os.close(opened)

    return at_path(root, path, "read", work)


def _read_at(opened: int, start: int, size: int) -> bytes:
    """Read so many bytes, or to the end; pread(2) may give fewer at a time."""
    pieces: list[bytes] = []
    while size:
        piece = os.pread(opened, min(size, COPY_CHUNK_BYTES), start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return b"".join(pieces)


# --- writing ----------------------------------------------------------------------------------


def write(
    root: WorkspaceRoot,
    path: str | PurePath,
    data: bytes | bytearray | memoryview | BinarySource,
    stopped: Event | None = None,
) -> None:
    """Write a file as a whole: readers see the old content or the new, and a failure changes nothing.

    Missing directories are made. A symlink inside the workspace is followed, also to where nothing
    is yet. What is replaced keeps its permissions; a new file has 0666 less the umask. Memory use
    does not grow with the size.

    Args:
        root: the workspace.
        path: the file.
        data: its content, or a binary stream that is read to its end (and not closed).
        stopped: set by whoever wants no more of it: a stream may never end.

    Raises:
        WorkspaceWriteTypeError: the data is text or something else; nothing was touched.
        WorkspaceArchiveWriteError: a directory, FIFO or device is there, or it can't be written.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    spot_of(root, path, "write")  # a path that can't be one is refused before the data is looked at
    fill = _filler(data, str(path), stopped)  # reads the beginning, before anything is made

    def work(spot: Spot) -> None:
        owner = rightful_owner(spot.tree)
        with found_target(spot.tree, spot.names, owner) as target:
            put_file(target, fill, Look(owner=owner))

    at_path(root, path, "write", work, acting=False)


def append(root: WorkspaceRoot, path: str | PurePath, data: bytes | bytearray | memoryview) -> None:
    """Add bytes to the end of a file, in place; a file that does not exist is written.

    What others append at the same time stands before it or after it, never in it. A file that has
    other names (hard links) is written anew, so that what they lead to stays as it is.

    Args:
        root: the workspace.
        path: the file; symlinks are followed.
        data: what to add.

    Raises:
        WorkspaceArchiveWriteError: it can't be written; the context's ``written`` says how many bytes
            were added all the same, where some were.
        SandboxError: else as ``write``.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise WorkspaceWriteTypeError(path=str(path), actual_type=type(data).__name__)
    whole = _flat(data)

    def work(spot: Spot) -> None:
        names = real_names(spot)
        if not names:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            directory = spot.tree.opener.open_parent(names)
        except FileNotFoundError:
            owner = rightful_owner(spot.tree)
            with found_target(spot.tree, names, owner) as target:
                put_file(target, lambda opened: write_all(opened, whole), Look(owner=owner))
            return
        try:
            opened = _opened_to_append(spot.tree, directory, names[-1])
        finally:
            os.close(directory)
        if opened is None:
            _written_anew(spot, whole)
            return
        try:
            _add(opened, whole, str(path))
        finally:
            os.close(opened)

    at_path(root, path, "append", work)


def _add(opened: int, whole: memoryview, path: str) -> None:
    """Write to the end of a file; where the disk becomes full in between, say how much is there.

    It is not taken back: by then somebody else may have written behind it.
    """
    left = whole
    try:
        while left:
            left = left[os.write(opened, left) :]
    except OSError as error:
        if len(left) == len(whole):
            raise
        added, fault = len(whole) - len(left), fault_of(error)
        raise WorkspaceArchiveWriteError(
            path=path,
            message=f"only the first {added} of {len(whole)} bytes could be appended to "
            f"{shown(path)}: {fault.text}",
            context={"reason": fault.reason, "written": added},
            cause=error,
            retryable=False,
        ) from error


def _written_anew(spot: Spot, more: memoryview) -> None:
    """Write a file that is what it was and more, and let its name lead there."""
    owner = rightful_owner(spot.tree)
    before = spot.tree.opener.open_file(spot.names)

    def fill(opened: int) -> None:
        while piece := os.read(before, COPY_CHUNK_BYTES):
            write_all(opened, memoryview(piece))
        write_all(opened, more)

    try:
        with found_target(spot.tree, spot.names, owner) as target:
            put_file(target, fill, Look(owner=owner))
    finally:
        os.close(before)


def _opened_to_append(tree: WorkspaceRoot, directory: int, name: str) -> int | None:
    """Open a file in its directory for appending, or make it there; None if it has other names."""
    for _ in range(OPEN_RETRIES):
        try:
            handle = os.open(name, PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            tree.ward.check_entry(directory, name)
        else:
            return _appending(tree, directory, handle, name)
        with suppress(FileExistsError):
            return os.open(name, _APPEND_NEW, 0o666, dir_fd=directory)
    raise OSError(errno.EAGAIN, "it is made and removed again and again")


def _appending(tree: WorkspaceRoot, directory: int, handle: int, name: str) -> int | None:
    """Open what a handle leads to for appending, and close the handle."""
    try:
        facts = os.fstat(handle)
        refuse_odd(facts, name)
        tree.ward.check_content(directory, handle)
        if facts.st_nlink > 1 or not _is_only_name(directory, name, facts):
            return None
        return reopen(handle, _APPEND)
    finally:
        os.close(handle)


def _is_only_name(directory: int, name: str, facts: os.stat_result) -> bool:
    """Tell whether a file of one name has this one: the other may be what was left when this went."""
    try:
        present = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(present, facts) and present.st_nlink == 1


def _flat(data: bytes | bytearray | memoryview) -> memoryview:
    """Its bytes in order, also of a view that leaves some out."""
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _filler(data: object, path: str, stopped: Event | None) -> Callable[[int], None]:
    """Return what writes the data to a descriptor; the first piece is read at once."""
    if isinstance(data, bytes | bytearray | memoryview):
        whole = _flat(data)
        return lambda opened: write_all(opened, whole)
    read_some = getattr(data, "read", None)
    if isinstance(data, io.TextIOBase) or not callable(read_some):
        raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
    first = _piece(read_some, path)

    def fill(opened: int) -> None:
        piece = first
        while piece:
            if stopped is not None and stopped.is_set():
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
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

    def work(spot: Spot) -> None:
        if not parents:
            with spot.tree.opener.place(spot.names) as place:
                if len(place.rest) > 1:
                    missing = "/".join((*place.real, place.rest[0]))
                    raise WorkspaceArchiveWriteError(
                        path=str(path),
                        message=f"{shown(str(path))} could not be made: {shown(missing)} is not a "
                        "directory; give parents=True to make what is missing on the way",
                        context={"reason": "parent_missing"},
                    )
        os.close(made_directory(spot.tree, spot.names, None))

    at_path(root, path, "mkdir", work)


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

    def work(spot: Spot) -> None:
        if not spot.names or spot.names[-1] == "..":
            raise _root_refused(str(path))
        try:
            directory = spot.tree.opener.open_parent(spot.names)
            try:
                _remove_name(spot.tree, str(path), directory, spot.names[-1], recursive=recursive)
            finally:
                os.close(directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            if root.gone:
                raise
            if not recursive:
                raise as_command_failed(("rm", "--", str(path)), str(path), error) from error

    at_path(root, path, "rm", work)


def _remove_name(
    root: WorkspaceRoot, path: str, directory: int, name: str, *, recursive: bool
) -> None:
    """Remove one name from a directory."""
    facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    root.ward.check_entry(directory, name)
    if not stat.S_ISDIR(facts.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    if not recursive:
        os.rmdir(name, dir_fd=directory)
        return
    refuse_rules(directory, name, root.ward)
    failures = remove_tree(directory, name, root.ward)
    if failures:
        error = next((each for each in failures if isinstance(each, ClosedError)), failures[0])
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
