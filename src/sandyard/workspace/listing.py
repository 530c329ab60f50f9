"""What there is: ls, stat, exists, same_file, glob and normalize, each by descriptor beneath its tree."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import OutputLimitError
from sandyard.limits import LIST_ENTRIES
from sandyard.types import EntryKind, FileEntry
from sandyard.workspace.descent import descend
from sandyard.workspace.kernel import PATH_ONLY
from sandyard.workspace.patterns import compile_glob
from sandyard.workspace.placing import facts_of
from sandyard.workspace.reach import Spot, at_path, real_names, spot_of
from sandyard.workspace.ward import ClosedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePath

    from sandyard.errors import OpName
    from sandyard.workspace.names import Names
    from sandyard.workspace.patterns import States
    from sandyard.workspace.root import Owner, WorkspaceRoot
    from sandyard.workspace.ward import Ward

__all__ = [
    "AGENT",
    "describe",
    "exists",
    "find_matches",
    "is_same",
    "list_directory",
    "normalize",
    "read_link",
]

AGENT: Final = "agent"
"""The name of the user inside whom the workspace belongs to."""

_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY
_KINDS: Final = {
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFLNK: EntryKind.SYMLINK,
}


class _View(NamedTuple):
    """How entries of one tree are described.

    Attributes:
        owner: whose is shown by name.
        ward: what of it is shown as commands see it: a cover that nobody may open.
        names: who else is shown by name.
    """

    owner: Owner
    ward: Ward
    names: Mapping[int, str]

    def name_of(self, number: int, own: int) -> str:
        """What a user or group is called."""
        return AGENT if number == own else self.names.get(number, str(number))


def list_directory(
    root: WorkspaceRoot, path: str | PurePath, *, recursive: bool = False
) -> list[FileEntry]:
    """List a directory, sorted by path, hidden entries too.

    Args:
        root: the workspace.
        path: the directory.
        recursive: True lists what is beneath it as well; links are not followed, and what can't be
            looked into is listed without what it holds.

    Returns:
        Its entries; a symlink is described itself, not what it points to.

    Raises:
        ExecNonZeroError: there is no such directory, or it can't be listed.
        OutputLimitError: there are too many.
        PolicyDeniedError: the policy denies it.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
        ArgumentError: it can't be a path.
    """

    def work(spot: Spot) -> list[FileEntry]:
        names = real_names(spot) if ".." in spot.names else spot.names
        prefix = posixpath.join(spot.tree.inside, *names)
        view = _View(spot.tree.owner, spot.tree.ward, root.names)
        opened = spot.tree.opener.open(names, _LIST)
        try:
            if recursive:
                return _listed_all(opened, prefix, view)
            with os.scandir(opened) as entries:
                found = [_described(entry, opened, prefix, view) for entry in entries]
            if not found and os.fstat(opened).st_nlink == 0:  # removed, so it seems empty
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        finally:
            os.close(opened)
        return sorted((entry for entry in found if entry), key=lambda entry: entry.path)

    return at_path(root, path, "ls", work)


def _listed_all(opened: int, prefix: str, view: _View) -> list[FileEntry]:
    found: list[FileEntry] = []
    for level in descend(opened, view.ward):
        base = posixpath.join(prefix, *level.names)
        for entry in level.entries:
            described = _described(entry, level.descriptor, base, view)
            if described is not None:
                found.append(described)
        _refuse_many(len(found), "ls")
    return sorted(found, key=lambda entry: entry.path)


def _refuse_many(count: int, op: OpName) -> None:
    if count > LIST_ENTRIES:
        raise OutputLimitError(
            f"there are more than {LIST_ENTRIES:,} entries; ask for a directory further down",
            limit="output",
            value=LIST_ENTRIES,
            unit="entries",
            op=op,
            retryable=False,
        )


def _described(
    entry: os.DirEntry[str], directory: int, prefix: str, view: _View
) -> FileEntry | None:
    """Describe an entry, or return None if it has gone meanwhile."""
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    target = None
    if stat.S_ISLNK(facts.st_mode):
        target = read_link(directory, entry.name)
    return _entry(f"{prefix}/{entry.name}", facts, view, target)


def read_link(directory: int, name: str) -> str | None:
    """The text of a symlink; None if it is none any more."""
    with suppress(OSError):
        return os.readlink(name, dir_fd=directory)
    return None


def _entry(path: str, facts: os.stat_result, view: _View, target: str | None) -> FileEntry:
    mode, size = facts.st_mode, facts.st_size
    if view.ward.is_denied(facts):
        mode, size = stat.S_IFMT(mode), 0
    return FileEntry.of(
        mode,
        path=path,
        owner=view.name_of(facts.st_uid, view.owner.uid),
        group=view.name_of(facts.st_gid, view.owner.gid),
        size=size,
        kind=_KINDS.get(stat.S_IFMT(mode), EntryKind.OTHER),
        modified_ns=facts.st_mtime_ns,
        target=target,
    )


# --- one thing --------------------------------------------------------------------------------


def describe(
    root: WorkspaceRoot,
    path: str | PurePath,
    *,
    follow_symlinks: bool = True,
    op: OpName = "stat",
) -> FileEntry:
    """Describe a file, directory or anything else.

    Args:
        root: the workspace.
        path: where it is.
        follow_symlinks: False describes a symlink itself (default: what it points to).
        op: the operation, for errors.

    Returns:
        Its facts; the path is where it really is.

    Raises:
        WorkspaceReadNotFoundError: nothing is there.
        PolicyDeniedError: the policy denies it.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """

    def work(spot: Spot) -> FileEntry:
        names = real_names(spot, follow=follow_symlinks)
        opened = spot.tree.opener.open(names, PATH_ONLY | os.O_NOFOLLOW)
        try:
            facts = os.fstat(opened)
            is_link = stat.S_ISLNK(facts.st_mode)
            target = os.readlink("", dir_fd=opened) if is_link else None
        finally:
            os.close(opened)
        view = _View(spot.tree.owner, spot.tree.ward, root.names)
        return _entry(posixpath.join(spot.tree.inside, *names), facts, view, target)

    return at_path(root, path, op, work)


def exists(root: WorkspaceRoot, path: str | PurePath, *, follow_symlinks: bool = True) -> bool:
    """Tell whether something is there.

    Args:
        root: the workspace.
        path: where it would be.
        follow_symlinks: False asks for a symlink itself; by default a dangling one is nothing.

    Raises:
        PolicyDeniedError: the policy denies it, so that nothing is told.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """

    def work(spot: Spot) -> bool:
        return _inode(spot, follow=follow_symlinks) is not None

    return at_path(root, path, "exists", work)


def is_same(
    root: WorkspaceRoot,
    left: str | PurePath,
    right: str | PurePath,
    *,
    follow_symlinks: bool = True,
) -> bool:
    """Tell whether two paths lead to one file or directory; what is missing is the same as nothing.

    Args:
        root: the workspace.
        left: one path; ``right`` is the other.
        follow_symlinks: False says False of every symlink.

    Raises:
        ExecNonZeroError: one of them can't be looked at.
        PolicyDeniedError, InvalidManifestPathError: as ``exists``.
    """
    found = []
    for path in (left, right):

        def work(spot: Spot) -> tuple[int, int] | None:
            return _inode(spot, follow=follow_symlinks, links=follow_symlinks)

        found.append(at_path(root, path, "same_file", work))
    return found[0] is not None and found[0] == found[1]


def _inode(spot: Spot, *, follow: bool, links: bool = True) -> tuple[int, int] | None:
    """What a path leads to; None if nothing is there, or a symlink where ``links`` is False."""
    flags = PATH_ONLY if follow else PATH_ONLY | os.O_NOFOLLOW
    try:
        opened = spot.tree.opener.open(spot.names, flags)
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
    try:
        facts = os.fstat(opened)
    finally:
        os.close(opened)
    if not links and stat.S_ISLNK(facts.st_mode):
        return None
    return facts.st_dev, facts.st_ino


def normalize(root: WorkspaceRoot, path: str | PurePath, *, for_write: bool = False) -> Path:
    """Return where a path leads, absolute and free of symlinks; it need not exist.

    Args:
        root: the workspace.
        path: the path.
        for_write: True also refuses what the policy lets nobody write to.

    Returns:
        The path as commands in the sandbox know it.

    Raises:
        InvalidManifestPathError: the path leaves the workspace and what is granted.
        PolicyDeniedError: the policy denies it, or writing to it.
        WorkspaceArchiveReadError: a directory on the way can't be searched.
        ArgumentError: it can't be a path.
    """

    def work(spot: Spot) -> Path:
        ward = spot.tree.ward
        with spot.tree.opener.place(spot.names) as place:
            facts = facts_of(place.directory, place.rest[0]) if place.rest else None
            rule = None if facts is None else ward.rule_of(facts)
            if rule is not None and rule.kind == "deny":  # a file, which no walk goes into
                raise ClosedError(rule)
            if for_write:
                for name in place.rest[:1]:
                    ward.check_itself(place.directory, name)
                ward.check_directory(place.directory)
            return Path(spot.tree.inside, *place.real, *place.rest)

    return at_path(root, path, "normalize_path", work)


# --- glob -------------------------------------------------------------------------------------


def find_matches(root: WorkspaceRoot, pattern: str, path: str | PurePath) -> list[str]:
    """Find what matches a pattern; see ``patterns.compile_glob``.

    Args:
        root: the workspace.
        pattern: relative to ``path``.
        path: the directory that is searched. Symlinks beneath it are matched, not followed.

    Returns:
        Paths relative to ``path``, sorted.

    Raises:
        ArgumentError, ArgumentTypeError: the pattern is none, or the path can't be one.
        WorkspaceReadNotFoundError: there is no such directory.
        OutputLimitError: there are too many.
    """
    spot_of(root, path, "glob")
    glob = compile_glob(pattern)

    def work(spot: Spot) -> list[str]:
        reached: dict[Names, States] = {(): glob.start()}
        found: list[str] = []

        def enters(names: Names) -> bool:
            states = glob.step(reached[names[:-1]], names[-1])
            if glob.goes_on(states):
                reached[names] = states
                return True
            return False

        opened = spot.tree.opener.open(spot.names, _LIST)
        try:
            for level in descend(opened, spot.tree.ward, enters=enters):
                states = reached[level.names]
                found.extend(
                    "/".join((*level.names, entry.name))
                    for entry in level.entries
                    if glob.is_match(glob.step(states, entry.name))
                )
                _refuse_many(len(found), "glob")
        finally:
            os.close(opened)
        return sorted(found)

    return at_path(root, path, "glob", work)
