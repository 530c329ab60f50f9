"""What differs between an overlay's changes and the directory beneath, entry by entry.

The changes are read where the kernel keeps them (overlayfs.rst): a character device 0/0 stands for
something that was deleted, an attribute for a directory that hides what is beneath it. So the cost
follows what was changed. Nothing here follows a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.limits import COPY_CHUNK_BYTES, OVERLAY_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from sandyard.workspace.names import Names

__all__ = ["Difference", "PlainTree", "find_differences", "is_same"]

_OPAQUE: Final = "user.overlay.opaque"
_ORIGIN: Final = "user.overlay.origin"
_PATH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PERMISSIONS: Final = 0o777


class PlainTree:
    """A directory in which each step is a plain one: no symlink, no ``..``.

    Args:
        top: its descriptor, which stays the caller's.
    """

    def __init__(self, top: int) -> None:
        self.top = top

    @contextmanager
    def above(self, names: Names) -> Iterator[int]:
        """The directory that holds something, by a descriptor for walking."""
        here = os.open(".", _PATH, dir_fd=self.top)
        try:
            for name in names[:-1]:
                deeper = os.open(name, _PATH, dir_fd=here)
                os.close(here)
                here = deeper
            yield here
        finally:
            os.close(here)

    def look(self, names: Names) -> os.stat_result | None:
        """What something is; None if it is not there."""
        try:
            with self.above(names) as here:
                return os.stat(names[-1] if names else ".", dir_fd=here, follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def listed(self, names: Names) -> list[str]:
        """The names in a directory, sorted; none if it is not there."""
        try:
            opened = self.open(names, _LIST)
        except OSError as error:
            if error.errno in _ABSENT:
                return []
            raise
        try:
            return sorted(os.listdir(opened))
        finally:
            os.close(opened)

    def open(self, names: Names, flags: int = _FILE) -> int:
        """Open something itself."""
        with self.above(names) as here:
            return os.open(names[-1] if names else ".", flags, dir_fd=here)

    def target(self, names: Names) -> str:
        """Where a symlink leads."""
        with self.above(names) as here:
            return os.readlink(names[-1], dir_fd=here)

    def marks(self, names: Names) -> frozenset[str]:
        """The attributes of a file or directory by which overlayfs knows it."""
        try:
            opened = self.open(names)
        except OSError:
            return frozenset()
        try:
            return frozenset(os.listxattr(opened))
        except OSError:
            return frozenset()
        finally:
            os.close(opened)


@dataclass(frozen=True, slots=True)
class Difference:
    """An entry that is not as it is beneath.

    Attributes:
        names: its path.
        now: what it is; None if it was deleted.
        before: what is beneath; None if there is nothing.
        inner: True for an entry of a directory that is new itself.
        moved: True if overlayfs knows it as something that was beneath once.
    """

    names: Names
    now: os.stat_result | None
    before: os.stat_result | None
    inner: bool = False
    moved: bool = False


def find_differences(
    upper: PlainTree, base: PlainTree, deep: list[Names], stopped: Event | None = None
) -> Iterator[Difference]:
    """Tell what differs, directories before what is in them.

    Args:
        upper: what was changed, as the kernel keeps it.
        base: the directory beneath.
        deep: hears of directories that lie too deep to look into.
        stopped: set by whoever wants no more of it.

    Raises:
        OSError: something can't be looked at.
    """
    pending: list[tuple[Names, bool, bool]] = [((), True, False)]
    while pending and not (stopped is not None and stopped.is_set()):
        at, beneath, inner = pending.pop()
        names = upper.listed(at)
        hides = bool(at) and beneath and _OPAQUE in upper.marks(at)
        if hides:
            for name in base.listed(at):
                if name not in names:
                    yield Difference((*at, name), None, base.look((*at, name)))
        for name in names:
            here = (*at, name)
            now, before = upper.look(here), base.look(here) if beneath else None
            if now is None:  # it is gone meanwhile
                continue
            found = _compared(upper, base, here, now, before)
            if found is not None:
                yield Difference(
                    here,
                    found.now,
                    found.before,
                    inner=inner,
                    moved=_ORIGIN in upper.marks(here) if before is None else False,
                )
            if stat.S_ISDIR(now.st_mode):
                below = before is not None and stat.S_ISDIR(before.st_mode)
                if len(here) < OVERLAY_DEPTH:
                    pending.append((here, below, not below))
                else:
                    deep.append(here)


def _compared(
    upper: PlainTree,
    base: PlainTree,
    names: Names,
    now: os.stat_result,
    before: os.stat_result | None,
) -> Difference | None:
    if stat.S_ISCHR(now.st_mode) and now.st_rdev == 0:
        return None if before is None else Difference(names, None, before)
    if before is not None and is_same(upper, base, names, now, before):
        return None
    return Difference(names, now, before)


def is_same(
    upper: PlainTree,
    base: PlainTree,
    names: Names,
    now: os.stat_result,
    before: os.stat_result,
    *,
    modes: bool = True,
) -> bool:
    """Tell whether an entry is what it is beneath: kind, permissions, and what it says.

    Args:
        upper: what was changed.
        base: the directory beneath.
        names: the entry.
        now: what it is.
        before: what is beneath.
        modes: False looks at neither permissions.
    """
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(before.st_mode):
        return False
    if stat.S_ISLNK(now.st_mode):
        return upper.target(names) == base.target(names)
    if modes and (now.st_mode ^ before.st_mode) & _PERMISSIONS:
        return False
    if not stat.S_ISREG(now.st_mode):
        return True
    return now.st_size == before.st_size and _says_same(upper, base, names)


def _says_same(upper: PlainTree, base: PlainTree, names: Names) -> bool:
    ours = upper.open(names)
    try:
        theirs = base.open(names)
        try:
            while piece := os.read(ours, COPY_CHUNK_BYTES):
                if os.read(theirs, len(piece)) != piece:
                    return False
            return not os.read(theirs, 1)
        finally:
            os.close(theirs)
    finally:
        os.close(ours)
