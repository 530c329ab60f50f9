"""Mount points: empty directories of the workspace that something is mounted on in the sandbox.

The host sees the directory and never what covers it, so the file verbs keep out of it: what they
would find there is not what commands see.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.errors import InvalidManifestPathError, MountConfigError, shown
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import StatedError, translated
from sandyard.workspace.kernel import WALK, open_child
from sandyard.workspace.placing import made_directory
from sandyard.workspace.reach import real_names, spot_of
from sandyard.workspace.ward import ClosedError, Rule

if TYPE_CHECKING:
    from pathlib import PurePath

    from sandyard.errors import OpName
    from sandyard.workspace.names import Names
    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["MountPoint", "make_point", "point_path", "remove_point"]

_FOREIGN: Final = frozenset({errno.EBUSY, errno.EXDEV})


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A directory that something is, or will be, mounted on.

    Attributes:
        path: as commands know it, absolute, free of symlinks.
        names: beneath the workspace.
        inode: its ``(st_dev, st_ino)``.
        made: how many directories were made for this: it, and those above it.
    """

    path: str
    names: Names
    inode: tuple[int, int]
    made: int


def point_path(root: WorkspaceRoot, path: str | PurePath, op: OpName) -> str:
    """The absolute path inside that a caller's path of a mount point means, by its words alone.

    Raises:
        ArgumentError, ArgumentTypeError: it can't be a path.
        InvalidManifestPathError: it is outside the workspace, or has a ``..``.
        MountConfigError: it is in no workspace, but in a directory that is granted.
    """
    spot = spot_of(root, path, op)
    if spot.tree is not root:
        raise MountConfigError(
            f"{shown(str(path))} is not in the workspace; mounts stand in nothing else",
            op=op,
            path=path,
            context={"reason": "outside_workspace"},
        )
    if ".." in spot.names:
        raise InvalidManifestPathError(rel=str(path), reason="escape_root")
    return "/".join((root.inside, *spot.names))


def make_point(root: WorkspaceRoot, path: str | PurePath, op: OpName) -> MountPoint:
    """Find or make an empty directory, and let the file verbs keep out of it.

    Blocks on the file system.

    Args:
        root: the workspace.
        path: relative to it, or absolute within it.
        op: the operation, for errors.

    Raises:
        MountConfigError: it is the workspace itself, or a directory with something in it.
        PolicyDeniedError: the policy keeps what is there, or something is mounted there.
        WorkspaceArchiveWriteError: it is no directory, has a symlink on the way, or can't be made.
        InvalidManifestPathError: it leaves the workspace.
    """
    wanted = point_path(root, path, op)
    with translated("mkdir", str(path), root):
        spot = spot_of(root, wanted, op)
        owner = rightful_owner(root)
        with acting_as(owner):
            names = real_names(spot)
            if names != spot.names:  # a command may have put it there, to have the mount elsewhere
                raise StatedError(
                    errno.ELOOP, "symlink", "a part of it is a symlink; give the path without"
                )
            with root.opener.place(names, follow=False) as place:
                made = len(place.rest)
        if not names:
            raise MountConfigError(
                "the workspace itself can't be a mount point; name a directory in it",
                op=op,
                path=path,
                context={"reason": "workspace"},
            )
        opened = made_directory(root, names, owner)
        try:
            facts = os.fstat(opened)
            inside = "/".join((root.inside, *names))
            point = MountPoint(inside, names, (facts.st_dev, facts.st_ino), made)
            try:
                _check_point(root, point, opened, path, op)
            except BaseException:
                _remove_made(root, point)
                raise
        finally:
            os.close(opened)
    root.govern(root.ward.with_rule(Rule("mount", inside, point.inode)), root.granted)
    return point


def _check_point(
    root: WorkspaceRoot, point: MountPoint, opened: int, path: str | PurePath, op: OpName
) -> None:
    """Refuse a directory that is kept as it is, has something in it, or has a mount of the host's."""
    rule = root.ward.rule_of(os.fstat(opened))
    if rule is not None:  # it is kept as it is, or shown by itself
        raise ClosedError(rule, entry=True)
    if os.listdir(opened):
        raise MountConfigError(
            f"{shown(str(path))} is not empty, and a mount would hide what is in it; name "
            "a directory that is empty, or none",
            op=op,
            path=path,
            context={"reason": "not_empty"},
        )
    _check_on_top(root, point.names)


def remove_point(root: WorkspaceRoot, point: MountPoint) -> None:
    """Open a mount point to the file verbs again; what was made for a mount is removed.

    Blocks on the file system. What somebody has put something into stays.
    """
    root.govern(root.ward.without_mount(point.path), root.granted)
    _remove_made(root, point)


def _remove_made(root: WorkspaceRoot, point: MountPoint) -> None:
    """Remove a mount point that was made, and empty directories above it that were made with it."""
    with suppress(OSError), acting_as(rightful_owner(root)):
        for above in range(point.made):
            names = point.names[: len(point.names) - above]
            parent = root.opener.open_parent(names)
            try:
                facts = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
                if not above and (facts.st_dev, facts.st_ino) != point.inode:
                    return
                root.ward.check_entry(parent, names[-1])
                os.rmdir(names[-1], dir_fd=parent)
            finally:
                os.close(parent)


def _check_on_top(root: WorkspaceRoot, names: Names) -> None:
    """Refuse a directory on which the host itself has mounted something.

    Raises:
        StatedError: it has.
    """
    here = os.open(".", WALK, dir_fd=root.fd)
    try:
        for name in names:
            deeper = open_child(here, name, WALK)
            os.close(here)
            here = deeper
    except OSError as error:
        if error.errno not in _FOREIGN:
            raise
        raise StatedError(
            errno.EBUSY, "busy", "the host has mounted something there; name another directory"
        ) from error
    finally:
        os.close(here)
