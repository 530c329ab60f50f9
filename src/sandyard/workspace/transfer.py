"""Files and trees between the host and a workspace: up and down, by descriptor on both sides."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import (
    LocalDirReadError,
    LocalFileReadError,
    WorkspaceArchiveReadError,
    shown,
)
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.copying import PERMISSIONS, Copied, Skipped, copy_file, opened_file
from sandyard.workspace.copying_trees import ALL, Chosen, Tree, copy_tree
from sandyard.workspace.faults import fault_of
from sandyard.workspace.kernel import PATH_ONLY, closed_on_error
from sandyard.workspace.placing import (
    Target,
    facts_of,
    finish_directory,
    found_target,
    made_directory,
    unlock,
)
from sandyard.workspace.reach import Spot, at_path
from sandyard.workspace.root import Owner
from sandyard.workspace.ward import ClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath
    from threading import Event

    from sandyard.workspace.progress import Tracker
    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["Errand", "Transferred", "download", "opened_source", "put", "upload"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HANDLE: Final = PATH_ONLY | os.O_CLOEXEC


class Transferred(NamedTuple):
    """What an upload or a download did.

    Attributes:
        files: files and symlinks that were written.
        size: bytes of them.
        skipped: what was left out, and why.
    """

    files: int
    size: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Errand:
    """How a transfer is made.

    Attributes:
        chosen: what of a tree is meant.
        stopped: set by whoever wants no more of it.
        tracker: hears how far it is.
    """

    chosen: Chosen = ALL
    stopped: Event | None = None
    tracker: Tracker | None = None

    def begin(self) -> Copied:
        """Where the work is to report."""
        if self.tracker is None:
            return Copied()
        self.tracker.begin(1)
        return Copied(tell=self.tracker.wrote)

    def end(self, done: Copied, path: str) -> Transferred:
        """What was done."""
        if self.tracker is not None:
            self.tracker.finished(path)
        return Transferred(len(done.written), done.size, tuple(done.skipped))


def upload(
    root: WorkspaceRoot, source: str | PurePath, path: str | PurePath, errand: Errand
) -> Transferred:
    """Copy a file or a directory of the host into the workspace.

    Args:
        root: the workspace.
        source: what to copy, any path of the host; a symlink is followed here, and only here.
        path: the copy's path. Files are replaced each whole or not at all, and a directory is merged
            with one that is there.
        errand: how.

    Raises:
        LocalFileReadError, LocalDirReadError: the source can't be read, or changed meanwhile.
        WorkspaceArchiveWriteError: it can't be written.
        PolicyDeniedError: a rule of the policy closes what would be changed.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """
    opened, is_dir = opened_source(source)
    try:
        return put(root, (opened, is_dir), path, source=str(source), errand=errand)
    finally:
        os.close(opened)


def put(
    root: WorkspaceRoot,
    found: tuple[int, bool],
    path: str | PurePath,
    *,
    source: str,
    errand: Errand,
) -> Transferred:
    """Copy what is open into the workspace, as ``upload`` does.

    Args:
        root: the workspace.
        found: a descriptor, which stays the caller's, and whether it is a directory's.
        path: the copy's path.
        source: where that lies on the host, for errors.
        errand: how.

    Raises:
        LocalFileReadError, LocalDirReadError, WorkspaceArchiveWriteError, PolicyDeniedError,
            InvalidManifestPathError: as ``upload``.
    """
    opened, is_dir = found
    done = errand.begin()

    def work(spot: Spot) -> None:
        owner = rightful_owner(spot.tree)
        if is_dir:
            _fill(spot, owner, opened, Path(source), errand, done)
            return
        with found_target(spot.tree, spot.names, owner) as target:
            os.lseek(opened, 0, os.SEEK_SET)
            copy_file(opened, target, owner, None, errand.stopped)
        done.wrote(str(path), os.fstat(opened).st_size)

    at_path(root, path, "upload", work, acting=False)
    return errand.end(done, str(path))


def opened_source(source: str | PurePath) -> tuple[int, bool]:
    """Open what a path of the host leads to, and tell whether it is a directory.

    The descriptor is the caller's to close.

    Raises:
        LocalFileReadError: it is missing, neither a file nor a directory, or can't be read.
    """
    try:
        return _open_either(os.open(source, _HANDLE))
    except (OSError, ValueError) as error:
        reason, message = "unreadable", None
        if isinstance(error, FileNotFoundError):
            reason = "path_not_found"
        elif isinstance(error, OSError) and error.errno == errno.EINVAL:
            reason = "not_a_regular_file"
            message = f"source {shown(str(source))} is neither a file nor a directory"
        raise LocalFileReadError(
            src=str(source), message=message, context={"reason": reason}, cause=error
        ) from error


def _open_either(handle: int) -> tuple[int, bool]:
    """Open the directory or regular file that an O_PATH descriptor leads to, and close that."""
    with closed_on_error(handle):
        is_dir = stat.S_ISDIR(os.fstat(handle).st_mode)
    if not is_dir:
        return opened_file(handle), False
    try:
        return os.open(".", _DIRECTORY, dir_fd=handle), True
    finally:
        os.close(handle)


def _fill(  # two trees, who writes, what of it, and who hears
    spot: Spot, owner: Owner | None, opened: int, source: Path, errand: Errand, done: Copied
) -> None:
    """Copy an open directory to where a path leads."""
    ward = spot.tree.ward
    top = made_directory(spot.tree, spot.names, owner)
    try:
        ward.check_directory(top)
        facts, into = os.fstat(opened), os.fstat(top)
        is_root = os.path.samestat(into, os.fstat(spot.tree.fd))
        if not is_root:
            unlock(top, owner)
        tree = Tree(
            source,
            owner,
            done,
            frozenset({(into.st_dev, into.st_ino), spot.tree.inode}),
            ward,
            errand.chosen,
            stopped=errand.stopped,
        )
        copy_tree(tree, opened, top, "/".join(spot.names))
        if not is_root:  # which keeps what it looks like
            finish_directory(top, owner, facts.st_mode & PERMISSIONS, facts)
    finally:
        os.close(top)


def download(
    root: WorkspaceRoot, path: str | PurePath, destination: str | PurePath, errand: Errand
) -> Transferred:
    """Copy a file or a directory of the workspace to the host.

    What the workspace holds was made by whoever is confined: nothing is written but beneath the
    destination, no symlink in it is followed, and set-user-id bits are not kept.

    Args:
        root: the workspace.
        path: what to copy; a symlink is followed here, and only here.
        destination: the copy's path, any of the host; missing directories are made. Files are
            replaced each whole or not at all, and a directory is merged with one that is there.
        errand: how.

    Raises:
        WorkspaceReadNotFoundError: there is no such file or directory.
        WorkspaceArchiveReadError: it can't be read, changed meanwhile, or can't be written on the
            host.
        PolicyDeniedError: the policy denies a part of it.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """
    done = errand.begin()

    def work(spot: Spot) -> None:
        reader = rightful_owner(spot.tree)
        # Ours, by name: the thread reads as another.
        writer = None if reader is None else Owner(os.geteuid(), os.getegid())
        with acting_as(reader):
            opened, is_dir = _open_either(spot.tree.opener.open(spot.names, PATH_ONLY))
            try:
                with _host_errors(path, destination):
                    if is_dir:
                        tree = Tree(
                            Path(path),
                            writer,
                            done,
                            frozenset(),
                            spot.tree.ward,
                            errand.chosen,
                            stopped=errand.stopped,
                            settled=True,  # who may enter the caller's directories is the caller's
                        )
                        _put_tree(tree, opened, destination)
                    else:
                        _put_file(opened, destination, writer, errand.stopped)
                        done.wrote(str(destination), os.fstat(opened).st_size)
            finally:
                os.close(opened)

    at_path(root, path, "download", work, acting=False)
    return errand.end(done, str(destination))


@contextmanager
def _host_errors(path: str | PurePath, destination: str | PurePath) -> Iterator[None]:
    """Say of what fails from here on that it is not the path in the workspace that is wrong.

    Raises:
        WorkspaceArchiveReadError: the block raised an error of the kernel, or could not copy a tree.
    """
    try:
        yield
    except ClosedError:
        raise
    except (OSError, LocalDirReadError) as error:
        if isinstance(error, LocalDirReadError):
            at = shown(str(error.context.get("child", path)))
            said = f"{at} in it can't be read, or changed while it was copied"
            reason = str(error.context.get("reason", "unreadable"))
        else:
            fault = fault_of(error)
            said, reason = fault.text, fault.reason
        raise WorkspaceArchiveReadError(
            path=path,
            message=f"{shown(str(path))} could not be downloaded to {shown(str(destination))}: {said}",
            context={"reason": reason, "destination": str(destination)},
            cause=error,
        ) from error


def _put_tree(tree: Tree, opened: int, destination: str | PurePath) -> None:
    """Copy an open directory of the workspace to a path of the host."""
    with acting_as(tree.owner):
        fresh = not os.path.isdir(destination)
        os.makedirs(destination, exist_ok=True)
        top = os.open(destination, _DIRECTORY)
    try:
        facts, into = os.fstat(opened), os.fstat(top)
        mode = facts.st_mode if fresh else into.st_mode
        unlock(top, tree.owner)
        copy_tree(replace(tree, own=frozenset({(into.st_dev, into.st_ino)})), opened, top, "")
        finish_directory(top, tree.owner, mode & PERMISSIONS, facts)
    finally:
        os.close(top)


def _put_file(
    opened: int, destination: str | PurePath, writer: Owner | None, stopped: Event | None
) -> None:
    """Copy an open file of the workspace to a path of the host."""
    with acting_as(writer):  # to look there as well: the reader may not
        # A link at the very end is the caller's own, and leads to what is meant.
        parent, name = os.path.split(os.path.realpath(destination))
        os.makedirs(parent, exist_ok=True)
        directory = os.open(parent, _DIRECTORY)
    try:
        with acting_as(writer):
            target = Target(directory, name, facts_of(directory, name))
        copy_file(opened, target, writer, None, stopped)
    finally:
        os.close(directory)
