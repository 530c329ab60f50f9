"""Exact copies of the host's files and directories into a workspace, by descriptor on both sides."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import LocalDirReadError, LocalFileReadError, shown
from sandyard.limits import COPY_CHUNK_BYTES, COPY_DEPTH, KERNEL_COPY_BYTES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.kernel import PATH_ONLY, open_without_links, reopen_file
from sandyard.workspace.placing import (
    Look,
    Target,
    facts_of,
    finish_directory,
    open_or_make,
    put_file,
    put_link,
    unlock,
    write_all,
)
from sandyard.workspace.ward import NO_RULES, ClosedError, Ward

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandyard.workspace.root import Owner

__all__ = ["Copied", "Origin", "Skipped", "Tree", "copy_file", "copy_tree", "open_source"]

_PERMISSIONS: Final = 0o777
"""Set-user-id, set-group-id and sticky bits are not copied: the copy has another owner."""

_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FILE: Final = frozenset({errno.EISDIR, errno.EINVAL})
_NO_LONGER: Final = _NO_FILE | {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
"""What opening says of an entry that is something else by now."""

_NO_KERNEL_COPY: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)
"""What copy_file_range(2) says when these two files need the plain way."""


class Skipped(NamedTuple):
    """Something that was not copied.

    Attributes:
        path: where it would have been, beneath the root.
        reason: what it is: ``fifo``, ``socket`` or ``device``.
    """

    path: str
    reason: str


@dataclass(slots=True)
class Copied:
    """What a copy did.

    Attributes:
        written: files and symlinks that were written, beneath the root.
        skipped: what was left out.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where sources may lie.

    Attributes:
        base: absolute directory that relative sources start at; what lies beneath it is allowed. None
            where the working directory is gone: then there are no relative sources.
        grants: further absolute paths on the host whose contents are allowed.
    """

    base: str | None
    grants: tuple[str, ...] = ()

    def located(self, src: Path, failure: type[LocalFileReadError | LocalDirReadError]) -> str:
        """Return the absolute path of a source.

        Args:
            src: as given in the manifest.
            failure: which error to raise.

        Raises:
            LocalFileReadError, LocalDirReadError: it lies outside of what is allowed.
        """
        path = posixpath.normpath(posixpath.join(self.base or "", str(src)))
        if self.base is None and not posixpath.isabs(path):
            raise failure(
                src=src,
                message=f"source {shown(str(src))} is relative, and the working directory is gone; give "
                "an absolute path, or change to a directory that exists",
                context={"reason": "no_base_dir"},
            )
        tops = self.grants if self.base is None else (self.base, *self.grants)
        if any(_is_beneath(path, top) for top in tops):
            return path
        raise failure(
            src=src,
            message=f"source {shown(str(src))} is not beneath the working directory "
            f"{'(which is gone)' if self.base is None else shown(self.base)} and no path grant covers it; add "
            f"SandboxPathGrant(path={posixpath.dirname(path)!r}, read_only=True) to the manifest",
            context={
                "reason": "outside_base_dir",
                "base_dir": self.base,
                "extra_path_grants": self.grants,
            },
        )


def _is_beneath(path: str, top: str) -> bool:
    top = top.rstrip("/")
    return path == top or path.startswith(f"{top}/")


def open_source(path: str, src: Path, failure: type[LocalFileReadError | LocalDirReadError]) -> int:
    """Open a source of the host for reading.

    Args:
        path: its absolute path; no part of it may be a symlink.
        src: as given in the manifest, for errors.
        failure: which error to raise.

    Returns:
        Its descriptor, the caller's to close.

    Raises:
        LocalFileReadError, LocalDirReadError: it is missing, of another kind, behind a symlink, or
            can't be read.
    """
    is_dir = failure is LocalDirReadError
    try:
        if is_dir:
            return open_without_links(path, _OPEN_DIRECTORY)
        return _opened_file(open_without_links(path, PATH_ONLY))
    except OSError as error:
        raise _unreadable(path, src, failure, error) from error


def _opened_file(handle: int) -> int:
    """Open what an O_PATH descriptor leads to, if it is a regular file, and close that."""
    try:
        return reopen_file(handle)
    finally:
        os.close(handle)


def _unreadable(
    path: str, src: Path, failure: type[LocalFileReadError | LocalDirReadError], error: OSError
) -> LocalFileReadError | LocalDirReadError:
    """Say why a source can't be opened."""
    context: dict[str, object] = {"reason": errno.errorcode.get(error.errno or 0, "").lower()}
    message = None
    link = _first_link(path) if error.errno in {errno.ELOOP, errno.ENOTDIR} else None
    if link is not None:
        context = {"reason": "symlink_not_supported", "child": link}
        message = (
            f"source {shown(str(src))} is reached through the symlink {shown(link)}, which may "
            f"change between a check and its use; give {shown(os.path.realpath(path))} instead"
        )
    elif error.errno == errno.ENOENT:
        context = {"reason": "path_not_found"}
        message = f"source {shown(str(src))} does not exist (looked at {shown(path)})"
    elif error.errno in _NO_FILE and failure is LocalFileReadError:
        context = {"reason": "not_a_regular_file"}
        message = f"source {shown(str(src))} is not a regular file"
    return failure(src=src, message=message, context=context, cause=error)


def _first_link(path: str) -> str | None:
    """Find the first part of a path that is a symlink, for a message."""
    for part in [*reversed(Path(path).parents), Path(path)]:
        if part.is_symlink():
            return str(part)
    return None


# --- files ------------------------------------------------------------------------------------


def copy_file(source: int, target: Target, owner: Owner | None, mode: int | None) -> None:
    """Copy an open file: content, modification time, and permissions unless others are given.

    Args:
        source: descriptor of a regular file, at its beginning.
        target: where the copy is to stand.
        owner: whom it is made as; None is this program.
        mode: permission bits; None takes the source's.

    Raises:
        OSError: as reading and writing do.
    """
    facts = os.fstat(source)
    look = Look(
        owner=owner,
        mode=facts.st_mode & _PERMISSIONS if mode is None else mode,
        times=(facts.st_atime_ns, facts.st_mtime_ns),
    )
    put_file(target, lambda opened: _pour(source, opened, facts.st_size), look)


def _pour(source: int, target: int, size: int) -> None:
    """Move all bytes; large files are moved by the kernel where it can."""
    if size > COPY_CHUNK_BYTES and hasattr(os, "copy_file_range"):
        try:
            while os.copy_file_range(source, target, KERNEL_COPY_BYTES):
                pass
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
    # Both descriptors stand where the kernel stopped, so this takes up what it left: everything,
    # or what was appended meanwhile, or the files of which it says too early that they end.
    while piece := os.read(source, COPY_CHUNK_BYTES):
        write_all(target, memoryview(piece))


# --- trees ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """What stays the same during one copy of a tree.

    Attributes:
        src: the source as given in the manifest, for errors.
        owner: whom everything is made as; None is this program. The source is read as this
            program.
        done: where to report.
        own: ``(st_dev, st_ino)`` of the directories that are copied into, which a copy of something
            around them must leave out, or it would never end.
        ward: what of the source is denied, so that all of the copy is; and what must stay as it is,
            if somebody moves it into the copy (default: nothing).
    """

    src: Path
    owner: Owner | None
    done: Copied
    own: frozenset[tuple[int, int]]
    ward: Ward = NO_RULES


def copy_tree(tree: Tree, source: int, target: int, path: str) -> None:
    """Copy all that is in a directory: permissions, times, symlinks, empty directories.

    Files that exist are replaced, those that only the target has are left alone.

    Args:
        tree: what it is a copy of.
        source: descriptor of the source directory, open for reading.
        target: descriptor of the target directory, open for reading.
        path: the target's path beneath the root, for the report.

    Raises:
        LocalDirReadError: something changed during the copy, is too deep, or can't be read.
        OSError: something can't be written.
    """
    _copy_children(tree, source, target, path, COPY_DEPTH)


def _copy_children(tree: Tree, source: int, target: int, path: str, depth: int) -> None:
    """Copy what is in one directory."""
    if not depth:
        raise LocalDirReadError(
            src=tree.src,
            message=f"source {shown(str(tree.src))} is nested more than {COPY_DEPTH} directories "
            "deep; copy it as an archive instead",
            context={"reason": "too_deep", "child": path},
        )
    with os.scandir(source) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        _copy_child(tree, (source, target), name, f"{path}/{name}" if path else name, depth)


def _copy_child(tree: Tree, pair: tuple[int, int], name: str, path: str, depth: int) -> None:
    """Copy one entry of a directory."""
    source, target = pair
    facts = facts_of(source, name)
    if facts is None:
        raise _changed(tree, path)
    rule = tree.ward.rule_of(facts)
    if rule is not None and rule.kind == "deny":
        raise ClosedError(rule)
    if (facts.st_dev, facts.st_ino) in tree.own:
        tree.done.skipped.append(Skipped(path, "the workspace itself"))
        return
    copy = _COPIERS.get(stat.S_IFMT(facts.st_mode))
    if copy is None:
        tree.done.skipped.append(Skipped(path, _special(facts.st_mode)))
        return
    if name in tree.ward.names:
        tree.ward.check_itself(target, name)
    copy(tree, source, Target(target, name, facts_of(target, name)), facts, path, depth)


def _copy_regular(
    tree: Tree, source: int, target: Target, facts: os.stat_result, path: str, _depth: int
) -> None:
    opened = _open_same(tree, source, target.name, _open_entry, path)
    try:
        copy_file(opened, target, tree.owner, None)
    finally:
        os.close(opened)
    tree.done.written.append(path)


def _copy_link(
    tree: Tree, source: int, target: Target, facts: os.stat_result, path: str, _depth: int
) -> None:
    try:
        points_to = os.readlink(target.name, dir_fd=source)
    except OSError as error:
        raise _changed(tree, path, error) from error
    look = Look(owner=tree.owner, times=(facts.st_atime_ns, facts.st_mtime_ns))
    put_link(target, points_to, look)
    tree.done.written.append(path)


def _copy_directory(
    tree: Tree, source: int, target: Target, facts: os.stat_result, path: str, depth: int
) -> None:
    deeper = _open_same(tree, source, target.name, _open_below, path)
    try:
        with acting_as(tree.owner):
            made = open_or_make(target.directory, target.name)
        try:
            tree.ward.check_directory(made)  # somebody may have put another in its place
            unlock(made, tree.owner)
            _copy_children(tree, deeper, made, path, depth - 1)
            # Last, since a read-only directory takes no files, and each file changes its time.
            finish_directory(made, tree.owner, facts.st_mode & _PERMISSIONS, facts)
        finally:
            os.close(made)
    finally:
        os.close(deeper)


_COPIERS: Final[dict[int, Callable[[Tree, int, Target, os.stat_result, str, int], None]]] = {
    stat.S_IFREG: _copy_regular,
    stat.S_IFLNK: _copy_link,
    stat.S_IFDIR: _copy_directory,
}


def _open_entry(directory: int, name: str) -> int:
    return _opened_file(os.open(name, _LOOK, dir_fd=directory))


def _open_below(directory: int, name: str) -> int:
    return os.open(name, _OPEN_DIRECTORY, dir_fd=directory)


def _open_same(
    tree: Tree, directory: int, name: str, opens: Callable[[int, str], int], path: str
) -> int:
    """Open an entry, if it is still what it was when it was looked at."""
    try:
        return opens(directory, name)
    except OSError as error:
        if error.errno in _NO_LONGER:
            raise _changed(tree, path, error) from error
        raise LocalDirReadError(
            src=tree.src, context={"reason": "unreadable", "child": path}, cause=error
        ) from error


def _changed(tree: Tree, path: str, cause: OSError | None = None) -> LocalDirReadError:
    return LocalDirReadError(
        src=tree.src,
        message=f"source {shown(str(tree.src))} changed while it was copied, at {shown(path)}; "
        "copy it when nothing writes to it",
        context={"reason": "path_changed_during_copy", "child": path},
        cause=cause,
    )


def _special(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "socket" if stat.S_ISSOCK(mode) else "device"
