"""What changes its place, its mode or gets a twin: mv, copy and chmod, by descriptors on both sides."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    LocalDirReadError,
    shown,
)
from sandyard.types import Permissions
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.copying import OWN, Copied, Skipped, copy_file
from sandyard.workspace.descent import refuse_rules
from sandyard.workspace.faults import StatedError
from sandyard.workspace.kernel import PATH_ONLY, chmod_handle, reopen_file
from sandyard.workspace.placing import facts_of, finish_directory, found_target, temporary_name
from sandyard.workspace.reach import Spot, at_path, real_names
from sandyard.workspace.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath
    from threading import Event

    from sandyard.workspace.copying_trees import Tree
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["change_mode", "copy", "move"]

_PERMISSIONS: Final = 0o777
_HANDLE: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def change_mode(root: WorkspaceRoot, path: str | PurePath, mode: int | Permissions) -> None:
    """Set the permission bits of a file or directory; symlinks are followed.

    Args:
        root: the workspace.
        path: what to change.
        mode: nine bits, such as ``0o644``, or ``Permissions``.

    Raises:
        ArgumentError: the mode has other bits: set-user-id, set-group-id and sticky are never set.
        ArgumentTypeError: it is neither.
        WorkspaceArchiveWriteError: it can't be changed.
        PolicyDeniedError: the policy keeps it as it is.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """
    bits = _checked_mode(mode)

    def work(spot: Spot) -> None:
        names = real_names(spot)
        directory = spot.tree.opener.open(names[:-1], PATH_ONLY | os.O_DIRECTORY)
        try:
            handle = os.open(names[-1] if names else ".", _HANDLE, dir_fd=directory)
            try:
                if stat.S_ISLNK(os.fstat(handle).st_mode):
                    raise OSError(errno.EAGAIN, "it became a symlink just now")
                spot.tree.ward.check_content(directory, handle)
                chmod_handle(handle, bits)
            finally:
                os.close(handle)
        finally:
            os.close(directory)

    at_path(root, path, "chmod", work)


def _checked_mode(mode: object) -> int:
    if isinstance(mode, Permissions):
        return mode.to_mode() & _PERMISSIONS
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise ArgumentTypeError(
            f"mode is an int such as 0o644, or Permissions, not {shown(mode)}",
            op="chmod",
            argument="mode",
            value=mode,
        )
    if not 0 <= mode <= _PERMISSIONS:
        raise ArgumentError(
            f"mode is nine bits, from 0 to 0o777, not {shown(mode)}; set-user-id, set-group-id and "
            "sticky bits are not set, since another than the sandbox's user could use them outside",
            op="chmod",
            argument="mode",
            value=mode,
        )
    return mode


# --- mv ---------------------------------------------------------------------------------------


def move(root: WorkspaceRoot, source: str | PurePath, destination: str | PurePath) -> None:
    """Rename a file, symlink or directory in one step; symlinks are moved, not followed.

    A file or symlink at the destination is replaced; a directory is not, and nothing is moved into
    it.

    Args:
        root: the workspace.
        source: what to move.
        destination: its new path; the directory that holds it exists.

    Raises:
        ExecNonZeroError: there is no such source, a directory is at the destination, its directory
            is missing, or it lies on another file system.
        PolicyDeniedError: the policy keeps one of them, or something in a moved directory, in its
            place.
        InvalidManifestPathError: a path leaves the workspace and what is granted.
    """

    def work(spot: Spot) -> None:
        with _entry(spot) as (directory, name):
            facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
            spot.tree.ward.check_entry(directory, name)
            is_dir = stat.S_ISDIR(facts.st_mode)
            if is_dir:
                refuse_rules(directory, name, spot.tree.ward)

            def put(target: Spot) -> None:
                with _entry(target) as (beside, to):
                    target.tree.ward.check_entry(beside, to)
                    _refuse_directory(beside, to)
                    _rename((directory, name), (beside, to))

            at_path(root, destination, "mv", put)

    at_path(root, source, "mv", work)


@contextmanager
def _entry(spot: Spot) -> Iterator[tuple[int, str]]:
    """The directory that holds the last name of a path, and that name."""
    if not spot.names or spot.names[-1] == "..":
        raise StatedError(
            errno.EBUSY, "workspace_root", "it is, or ends in, a directory that stays where it is"
        )
    directory = spot.tree.opener.open_parent(spot.names)
    try:
        yield directory, spot.names[-1]
    finally:
        os.close(directory)


def _refuse_directory(directory: int, name: str) -> None:
    facts = facts_of(directory, name)
    if facts is not None and stat.S_ISDIR(facts.st_mode):
        raise StatedError(
            errno.EISDIR,
            "is_a_directory",
            "a directory is there; name the path in it that is meant",
        )


def _rename(source: tuple[int, str], target: tuple[int, str]) -> None:
    try:
        os.rename(source[1], target[1], src_dir_fd=source[0], dst_dir_fd=target[0])
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise StatedError(
                errno.EXDEV,
                "another_file_system",
                "it lies on another file system; copy it, and then remove it",
            ) from error
        if error.errno == errno.EINVAL:
            raise StatedError(
                errno.EINVAL, "into_itself", "a directory can't be moved into itself"
            ) from error
        raise


# --- copy -------------------------------------------------------------------------------------


def copy(
    root: WorkspaceRoot,
    source: str | PurePath,
    destination: str | PurePath,
    *,
    recursive: bool = False,
    stopped: Event | None = None,
) -> tuple[Skipped, ...]:
    """Copy a file, or a tree: content, permissions, times, empty directories, symlinks as such.

    The copy appears whole or not at all. Large files are copied by the kernel, and share their
    blocks where the file system can.

    Args:
        root: the workspace.
        source: what to copy; a symlink is followed here, and only here.
        destination: the copy's path; missing directories are made. A file is replaced by a file.
        recursive: True copies directories as well; nothing may be at their destination.
        stopped: set by whoever wants no more of it.

    Returns:
        What of a tree was left out: FIFOs, sockets and devices.

    Raises:
        WorkspaceArchiveWriteError: it can't be read or written, or a directory is in the way.
        PolicyDeniedError: the policy denies a part of the source, or writing at the destination.
        InvalidManifestPathError: a path leaves the workspace and what is granted.
    """
    done = Copied()

    def work(spot: Spot) -> None:
        handle = spot.tree.opener.open(spot.names, PATH_ONLY)
        try:
            is_dir = stat.S_ISDIR(os.fstat(handle).st_mode)
            if is_dir and not recursive:
                raise StatedError(
                    errno.EISDIR, "is_a_directory", "it is a directory; give recursive=True"
                )
            opened = os.open(".", _DIRECTORY, dir_fd=handle) if is_dir else reopen_file(handle)
        finally:
            os.close(handle)
        try:
            if is_dir:
                from sandyard.workspace.copying_trees import Tree  # noqa: PLC0415  # for trees alone

                tree = Tree(Path(source), None, done, frozenset(), spot.tree.ward, stopped=stopped)
                at_path(root, destination, "copy", lambda to: _put_tree(tree, opened, to))
            else:
                at_path(root, destination, "copy", lambda to: _put_copy(opened, to, stopped))
        finally:
            os.close(opened)

    at_path(root, source, "copy", work)
    return tuple(each for each in done.skipped if each.reason != OWN)  # the copy itself, under way


def _put_copy(opened: int, spot: Spot, stopped: Event | None) -> None:
    owner = rightful_owner(spot.tree)
    with found_target(spot.tree, spot.names, owner) as target:
        facts = os.fstat(opened)
        if target.facts is not None and os.path.samestat(target.facts, facts):
            raise StatedError(errno.EINVAL, "same_file", "it is the same file as its source")
        os.lseek(opened, 0, os.SEEK_SET)
        copy_file(opened, target, owner, None, stopped)


def _put_tree(tree: Tree, opened: int, spot: Spot) -> None:
    """Make a copy beside its place, and rename it there once it is whole."""
    owner = rightful_owner(spot.tree)
    with found_target(spot.tree, spot.names, owner) as target:
        if target.facts is not None:
            raise StatedError(errno.EEXIST, "exists", "something is there; remove it first")
        staged = temporary_name()
        try:
            made = _made_beside(target.directory, staged)
            try:
                facts = os.fstat(made)
                _fill(tree, opened, made, owner, (facts.st_dev, facts.st_ino))
            finally:
                os.close(made)
            if facts_of(target.directory, target.name) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.name)
            _rename((target.directory, staged), (target.directory, target.name))
        except BaseException:
            with acting_as(owner):
                remove_tree(target.directory, staged, spot.tree.ward)
            raise


def _made_beside(directory: int, name: str) -> int:
    os.mkdir(name, 0o700, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _fill(tree: Tree, opened: int, made: int, owner: Owner | None, own: tuple[int, int]) -> None:
    from sandyard.workspace.copying_trees import Tree, copy_tree  # noqa: PLC0415  # for trees alone

    facts = os.fstat(opened)
    own_only = frozenset({own})
    whole = Tree(tree.src, owner, tree.done, own_only, tree.ward, stopped=tree.stopped)
    try:
        copy_tree(whole, opened, made, "")
    except LocalDirReadError as error:
        reason = str(error.context.get("reason", "unreadable"))
        at = shown(str(error.context.get("child", tree.src)))
        raise StatedError(
            errno.EAGAIN, reason, f"{at} in it can't be read, or changed while it was copied"
        ) from error
    finish_directory(made, owner, facts.st_mode & _PERMISSIONS, facts)
