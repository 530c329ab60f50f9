"""Where a path of a caller leads: into the workspace, or into a tree that the policy grants besides."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sandyard.errors import InvalidManifestPathError
from sandyard.limits import SYMLINK_HOPS
from sandyard.platform import is_within
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import translated
from sandyard.workspace.names import names_beneath, split_names
from sandyard.workspace.opener import ElsewhereError
from sandyard.workspace.root import Granted, WorkspaceRoot
from sandyard.workspace.ward import Rule, Ward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import PurePath

    from sandyard.errors import OpName
    from sandyard.planted import ProtectedPart
    from sandyard.platform import Grant
    from sandyard.workspace.names import Names

__all__ = ["Spot", "at_path", "govern", "real_names", "spot_of"]

_T = TypeVar("_T")
_LOOK: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Spot(NamedTuple):
    """A path of a caller, seen from the tree that it leads into.

    Attributes:
        tree: the workspace, or a granted directory.
        names: the path beneath it.
    """

    tree: WorkspaceRoot
    names: Names


def at_path(
    root: WorkspaceRoot,
    path: str | PurePath,
    op: OpName,
    work: Callable[[Spot], _T],
    *,
    acting: bool = True,
) -> _T:
    """Do work where a path leads; errors of the kernel and of rules become typed ones.

    A symlink that leads from one tree into another is followed there, as commands would follow it.

    Args:
        root: the workspace.
        path: as the caller gave it.
        op: the operation, for errors.
        work: resolves what it is given before it changes anything, since it is called once more
            for each tree that the path leads through.
        acting: False lets ``work`` itself take the identity of the tree's owner.

    Raises:
        SandboxError: whatever the work raised, in words.
    """
    spot = spot_of(root, path, op)
    with translated(op, str(path), root):
        for _ in range(SYMLINK_HOPS):
            try:
                owner = rightful_owner(spot.tree)
                with acting_as(owner if acting else None):
                    if ".." in spot.names:  # what leaves all trees is refused before all else
                        real_names(spot)
                    return work(spot)
            except ElsewhereError as left:
                found = _find(root, left.path)
                if found is None:
                    raise
                spot = found
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def spot_of(root: WorkspaceRoot, path: object, op: OpName) -> Spot:
    """Take a caller's path apart, by its words alone.

    Raises:
        ArgumentError, ArgumentTypeError: it can't be a path.
        InvalidManifestPathError: it is absolute, and beneath nothing that is reached.
    """
    try:
        names = names_beneath(path, root.inside, op)
    except InvalidManifestPathError:
        found = _find(root, "/" + "/".join(split_names(str(path))))
        if found is None:
            raise
        return found
    return Spot(root, names)


def real_names(spot: Spot, *, follow: bool = True) -> Names:
    """Where a path leads within its tree, free of symlinks and ``..``; it need not exist."""
    with spot.tree.opener.place(spot.names, follow=follow) as place:
        return (*place.real, *place.rest)


def _find(root: WorkspaceRoot, path: str) -> Spot | None:
    """The deepest tree that an absolute path lies in, by its words; None if it lies in none."""
    for top in (root.inside, root.real_path):
        if is_within(path, top):
            return Spot(root, split_names(path[len(top) :]))
    longest, best = "", None
    for granted in root.granted:
        for top in (granted.path, granted.tree.inside):
            if _covers(granted, top, path) and len(top) >= len(longest):
                longest, best = top, Spot(granted.tree, split_names(path[len(top) :]))
    return best


def _covers(granted: Granted, top: str, path: str) -> bool:
    """Tell whether a path lies in a granted directory, or is a granted file that still is itself."""
    if not granted.name:
        return is_within(path, top)
    if path != posixpath.join(top, granted.name):
        return False
    try:
        facts = os.stat(granted.name, dir_fd=granted.tree.fd, follow_symlinks=False)
    except OSError:
        return False
    return (facts.st_dev, facts.st_ino) == granted.inode


# --- what a start found out -------------------------------------------------------------------


def govern(
    root: WorkspaceRoot,
    grants: Iterable[Grant],
    denied: Iterable[str],
    parts: Iterable[ProtectedPart],
) -> None:
    """Let the file verbs reach what the policy grants, and keep to what it closes.

    Blocks on the file system. What is granted beneath something denied is not reached.

    Args:
        root: the workspace; it holds what is opened here until it is closed.
        grants: what the policy grants, as found on the host.
        denied: real paths on the host.
        parts: what is protected.
    """
    refused = tuple(denied)
    wanted = [grant for grant in grants if not any(is_within(grant.source, no) for no in refused)]
    rules = [Rule("write", root.inside, root.inode)]
    rules.extend(
        Rule("write" if grant.writable else "read", grant.source, grant.inode)
        for grant in sorted(wanted, key=lambda grant: grant.writable)
    )
    rules.extend(
        Rule("protect" if part.read_only else "hold", part.path, part.inode) for part in parts
    )
    for path in refused:
        inside, within = path, is_within(path, root.real_path)
        if within:
            inside = root.inside + path[len(root.real_path) :]
        facts = _seen(root, inside) if within and root.layered is not None else _facts(path)
        if facts is not None:
            rules.append(Rule("deny", inside, (facts.st_dev, facts.st_ino)))
    root.govern(Ward(rules), _opened(root, wanted))


def _seen(root: WorkspaceRoot, inside: str) -> os.stat_result | None:
    """What is at a path of the workspace, where that is another thing than on the host."""
    try:
        opened = root.opener.open(names_beneath(inside, root.inside, "start"), _LOOK)
    except OSError:
        return None
    try:
        return os.fstat(opened)
    finally:
        os.close(opened)


def _facts(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _opened(root: WorkspaceRoot, grants: Iterable[Grant]) -> tuple[Granted, ...]:
    """Open what is granted; of one granted twice the one for writing counts, which comes later."""
    known = {(each.path, each.inode): each for each in root.granted}
    found: dict[str, Granted] = {}
    for grant in grants:
        granted = known.get((grant.path, grant.inode)) or _open_grant(grant)
        if granted is not None:
            found[grant.path] = known[grant.path, grant.inode] = granted
    return tuple(found.values())


def _open_grant(grant: Grant) -> Granted | None:
    """Open a granted directory, or the directory of a granted file; None if it has changed since."""
    facts = _facts(grant.source)
    if facts is None or (facts.st_dev, facts.st_ino) != grant.inode:
        return None
    is_file = not stat.S_ISDIR(facts.st_mode)
    source, name = posixpath.split(grant.source) if is_file else (grant.source, "")
    try:
        tree = WorkspaceRoot.adopt(os.open(source or "/", _OPEN), source or "/")
    except OSError:
        return None
    if not is_file and tree.inode != grant.inode:
        tree.close()
        return None
    path = posixpath.dirname(grant.path) if is_file else grant.path
    return Granted(path, tree, grant.inode, name)
