"""The only opener: descriptors of what lies beneath one directory, and of nothing else.

The kernel resolves paths (openat2(2), Linux 5.6) so that nothing can be swapped between a check and
its use. A walk in user space, one descriptor per name and never a symlink followed by the kernel,
does what the kernel can't: absolute symlinks that point back into the workspace, names that do not
exist yet, and machines without openat2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.limits import OPEN_RETRIES, SYMLINK_HOPS
from sandyard.workspace.names import split_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.workspace.names import Names

__all__ = ["Kernel", "Opener", "Place", "open_child", "open_without_links"]

_OPENAT2: Final = 437
"""Its number in the unified table that every architecture shares since Linux 5.0."""

_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08

_PATH_ONLY: Final = getattr(os, "O_PATH", os.O_RDONLY)
"""Open for walking only, without a right to read; macOS has no such thing."""

_WALK: Final = _PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
"""What opening with O_DIRECTORY and O_NOFOLLOW says of a file or a symlink."""

_WALKED: Final = frozenset({errno.EXDEV, errno.ENAMETOOLONG})
"""What the kernel says when the walk may still find an answer: the path seems to leave the root, or
all of it together is longer than PATH_MAX."""


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of linux/openat2.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW_SIZE: Final = ctypes.sizeof(_OpenHow)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Kernel:
    """Whether openat2 is there; found out by the first call. Tests clear it to take the walk."""

    resolves: bool = sys.platform == "linux"  # elsewhere number 437 is another call


def _openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Call openat2(2).

    Raises:
        OSError: as open(2), and ENOSYS where the kernel or a seccomp filter has no openat2.
    """
    if not Kernel.resolves:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    for _ in range(OPEN_RETRIES):
        opened = _syscall(_OPENAT2, directory, raw, ctypes.byref(how), _HOW_SIZE)
        if opened >= 0:
            return int(opened)
        error = ctypes.get_errno()
        # EAGAIN: somewhere a directory was renamed while ".." was resolved, so the kernel can't
        # vouch for the answer (openat2(2), RESOLVE_BENEATH). EINTR: a signal handler ran.
        if error not in {errno.EAGAIN, errno.EINTR}:
            break
    if error == errno.ENOSYS:
        Kernel.resolves = False
    raise OSError(error, os.strerror(error), path)


def open_child(directory: int, name: str) -> int:
    """Open a directory in ``directory`` for reading, if it is one and on the same mount.

    Raises:
        OSError: EBUSY if something is mounted there, ENOTDIR if it is no directory, or else.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return _openat2(directory, name, flags, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            said = {errno.EXDEV: errno.EBUSY, errno.ELOOP: errno.ENOTDIR}
            number = said.get(error.errno or 0, error.errno or 0)
            raise OSError(number, os.strerror(number), name) from None
    opened = os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    if os.fstat(opened).st_dev != os.fstat(directory).st_dev:
        os.close(opened)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
    return opened


def open_without_links(path: str, flags: int) -> int:
    """Open an absolute path of which no part may be a symlink.

    Raises:
        OSError: ELOOP if a part is a symlink, else as open(2).
    """
    relative = "/".join(split_names(path)) or "."
    top = os.open("/", _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return _openat2(top, relative, flags, _RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        return _open_stepwise(top, split_names(path), flags)
    finally:
        os.close(top)


def _open_stepwise(top: int, names: Names, flags: int) -> int:
    """Do what openat2 with RESOLVE_NO_SYMLINKS does, name by name."""
    here = os.dup(top)
    try:
        for name in names[:-1]:
            try:
                deeper = os.open(name, _WALK, dir_fd=here)
            except NotADirectoryError:
                if _link_target(here, name) is None:
                    raise
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
            os.close(here)
            here = deeper
        last = names[-1] if names else "."
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _link_target(directory: int, name: str) -> str | None:
    """Return where a symlink points, or None if there is none of that name."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:  # no symlink, or gone since
            return None
        raise


# --- beneath one root -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads.

    Attributes:
        directory: descriptor of the deepest directory on the way that exists (O_PATH); valid
            inside the ``with`` block that gave it.
        real: path of that directory beneath the root, free of symlinks.
        rest: the names after it: nothing if the path is that directory; one name if it is
            something else in it, or could be made there; more if directories are missing.
    """

    directory: int
    real: Names
    rest: Names


@dataclass(slots=True)
class _Walk:
    """One walk under way.

    Attributes:
        stack: descriptors from the root to where the walk is; ``..`` only ever pops one.
        real: names of all but the first of them.
        rest: names that were passed although they do not exist.
        todo: names still to come.
        hops: symlinks followed.
    """

    stack: list[int]
    real: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    todo: deque[str] = field(default_factory=deque)
    hops: int = 0

    def back(self) -> None:
        """Go up one directory, never above the root."""
        if self.rest:
            self.rest.pop()
        elif self.real:
            self.real.pop()
            os.close(self.stack.pop())
        else:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "..")

    def to_root(self) -> None:
        """Begin again at the root."""
        while self.real:
            self.back()

    def close(self) -> None:
        """Close every descriptor of the walk."""
        while self.stack:
            os.close(self.stack.pop())


class Opener:
    """Opens what lies beneath one directory, and nothing else.

    Symlinks are followed as the sandbox would follow them, as long as they stay beneath the root.
    Paths come as ``Names``.

    Raises (every method):
        OSError: EXDEV if the path leaves the root, else what the kernel said.
    """

    def __init__(self, root: int, inside: str) -> None:
        """Use a directory's descriptor, which stays the caller's.

        Args:
            root: the directory.
            inside: absolute path under which commands in the sandbox know it; an absolute symlink
                that begins with it is followed from the root.
        """
        self._root = root
        self._inside = split_names(inside)

    def open(self, names: Names, flags: int) -> int:
        """Open something that exists, and return its descriptor, the caller's to close.

        Args:
            names: the path.
            flags: as open(2), without O_CREAT; O_CLOEXEC is added.
        """
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
        try:
            return _openat2(self._root, "/".join(names) or ".", flags, resolve)
        except OSError as error:
            if error.errno != errno.ENOSYS and error.errno not in _WALKED:
                raise
        return self._open_walking(names, flags)

    def _open_walking(self, names: Names, flags: int) -> int:
        """Walk to the last name, then open it without following."""
        follow = not flags & os.O_NOFOLLOW
        for _ in range(SYMLINK_HOPS):
            with self.place(names, follow=follow) as place:
                if len(place.rest) > 1:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/".join(names))
                name = place.rest[0] if place.rest else "."
                try:
                    return os.open(
                        name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory
                    )
                except OSError as error:
                    # It became a symlink after the walk had looked: look again.
                    if error.errno != errno.ELOOP or not follow:
                        raise
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), "/".join(names))

    def open_parent(self, names: Names) -> int:
        """Open the directory that holds the last name, which itself is not looked at (O_PATH).

        Args:
            names: the path, not the root's and not one that ends in ``..``.
        """
        return self.open(names[:-1], _PATH_ONLY | os.O_DIRECTORY)

    @contextmanager
    def place(self, names: Names, *, follow: bool = True) -> Iterator[Place]:
        """Find where a path leads, also if some or all of it does not exist.

        Args:
            names: the path.
            follow: False stops at a symlink that is the last name.
        """
        walk = _Walk(stack=[os.dup(self._root)], todo=deque(names))
        try:
            while walk.todo:
                name = walk.todo.popleft()
                if name == "..":
                    walk.back()
                else:
                    self._step(walk, name, follow=follow or bool(walk.todo))
            yield Place(walk.stack[-1], tuple(walk.real), tuple(walk.rest))
        finally:
            walk.close()

    def _step(self, walk: _Walk, name: str, *, follow: bool) -> None:
        """Take one name: into a directory, along a symlink, or past what is neither."""
        if walk.rest:
            walk.rest.append(name)
            return
        try:
            walk.stack.append(os.open(name, _WALK, dir_fd=walk.stack[-1]))
        except FileNotFoundError:
            walk.rest.append(name)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            target = _link_target(walk.stack[-1], name) if follow else None
            if target is None:
                walk.rest.append(name)
            else:
                self._follow(walk, target)
        else:
            walk.real.append(name)

    def _follow(self, walk: _Walk, target: str) -> None:
        """Put the names of a symlink's target in front of the walk."""
        walk.hops += 1
        if walk.hops > SYMLINK_HOPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
        names = split_names(target)
        if target.startswith("/"):
            depth = len(self._inside)
            if names[:depth] != self._inside:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), target)
            names = names[depth:]
            walk.to_root()
        walk.todo.extendleft(reversed(names))
