"""The only opener: descriptors of what lies beneath one directory, and of nothing else.

The kernel resolves paths where it can. A walk in user space, one descriptor per name and never a
symlink followed by the kernel, does what the kernel can't: absolute symlinks that point back into
the workspace, names that do not exist yet, and machines without openat2.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.limits import OPEN_RETRIES, SYMLINK_HOPS
from sandyard.workspace.kernel import (
    NO_DIRECTORY,
    PATH_ONLY,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    WALK,
    closed_on_error,
    link_target,
    open_child,
    openat2,
    reopen_file,
)
from sandyard.workspace.names import split_names
from sandyard.workspace.ward import NO_RULES, Ward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.workspace.names import Names

__all__ = ["ElsewhereError", "Opener", "Place", "open_child"]

_WALKED: Final = frozenset({errno.EXDEV, errno.ENAMETOOLONG, errno.EAGAIN})
"""What the kernel says when the walk may still find an answer: the path seems to leave the root, or
all of it together is longer than PATH_MAX, or directories are renamed all the time."""

_WALK_DESCRIPTORS: Final = 32
"""Descriptors that one walk holds: deeper than that, the upper ones are opened again if the way
leads back to them. Somebody inside may nest directories as deep as they like, and this program's
limit is often 1,024."""


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


class ElsewhereError(OSError):
    """A path leaves the root.

    Attributes:
        path: where it leads from there, absolute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.EXDEV, os.strerror(errno.EXDEV), path)
        self.path = path


_CLOSED: Final = -1
"""Stands for a descriptor that was closed, since it is far above where the walk is."""


def _changing(path: str) -> OSError:
    """Return the error of a path that is something else at every look."""
    return OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


@dataclass(slots=True)
class _Walk:
    """One walk under way.

    Attributes:
        stack: descriptors from the root to where the walk is, those far above closed; ``..`` only
            ever pops one.
        real: names of all but the first of them.
        rest: names that were passed although they do not exist.
        todo: names still to come.
        hops: symlinks followed.
        inside: the root's own path, as commands know it.
        ward: what may not be entered.
    """

    stack: list[int]
    inside: Names
    ward: Ward
    real: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    todo: deque[str] = field(default_factory=deque)
    hops: int = 0

    def enter(self, name: str) -> None:
        """Go into a directory; a symlink is not one."""
        self.stack.append(os.open(name, WALK, dir_fd=self.stack[-1]))
        self.real.append(name)
        self.ward.admit(self.stack[-1])
        far = len(self.stack) - _WALK_DESCRIPTORS
        if far > 0 and self.stack[far] != _CLOSED:  # the root stays open
            os.close(self.stack[far])
            self.stack[far] = _CLOSED

    def back(self) -> None:
        """Go up one directory, never above the root."""
        if self.rest:
            self.rest.pop()
        elif self.real:
            self.real.pop()
            os.close(self.stack.pop())
            if self.stack[-1] == _CLOSED:
                self._enter_again()
        else:
            raise ElsewhereError("/" + "/".join((*self.inside[:-1], *self.todo)))

    def _enter_again(self) -> None:
        """Open anew the directories that lead to where the walk is."""
        names = self.real
        self.to_root()
        try:
            for name in names:
                self.enter(name)
        except (FileNotFoundError, NotADirectoryError):
            raise _changing("/".join(names)) from None

    def to_root(self) -> None:
        """Begin again at the root."""
        self.real, self.rest = [], []
        self._close_to(1)

    def close(self) -> None:
        """Close every descriptor of the walk."""
        self._close_to(0)

    def _close_to(self, depth: int) -> None:
        while len(self.stack) > depth:
            descriptor = self.stack.pop()
            if descriptor != _CLOSED:
                os.close(descriptor)


class Opener:
    """Opens what lies beneath one directory, and nothing else.

    Symlinks are followed as the sandbox would follow them, as long as they stay beneath the root.
    Paths come as ``Names``.

    Raises (every method):
        OSError: EXDEV if the path leaves the root, EAGAIN if somebody changes it so fast that
            there is no answer, else what the kernel said.
    """

    def __init__(self, root: int, inside: str, ward: Ward = NO_RULES) -> None:
        """Use a directory's descriptor, which stays the caller's.

        Args:
            root: the directory.
            inside: absolute path under which commands in the sandbox know it; an absolute symlink
                that begins with it is followed from the root.
            ward: what of it is denied, and so neither entered nor opened (default: nothing).
        """
        self._root = root
        self._inside = split_names(inside)
        self._ward = ward

    def open(self, names: Names, flags: int) -> int:
        """Open something that exists, and return its descriptor, the caller's to close.

        Args:
            names: the path.
            flags: as open(2), without O_CREAT; O_CLOEXEC is added.
        """
        resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
        if self._ward.closes:  # the kernel tells where a way ends, and not what it passed
            return self._open_walking(names, flags)
        try:
            return openat2(self._root, "/".join(names) or ".", flags, resolve)
        except OSError as error:
            if error.errno != errno.ENOSYS and error.errno not in _WALKED:
                raise
        return self._open_walking(names, flags)

    def _open_walking(self, names: Names, flags: int) -> int:
        """Walk to the last name, then open it without following."""
        follow = not flags & os.O_NOFOLLOW
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(OPEN_RETRIES):
            with self.place(names, follow=follow) as place:
                if len(place.rest) > 1:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/".join(names))
                name = place.rest[0] if place.rest else "."
                try:
                    opened = os.open(name, flags, dir_fd=place.directory)
                except OSError as error:
                    if error.errno not in NO_DIRECTORY or not follow:
                        raise
                    if error.errno == errno.ENOTDIR and not _is_way(place.directory, name):
                        raise
                else:
                    with closed_on_error(opened):
                        is_link = follow and stat.S_ISLNK(os.fstat(opened).st_mode)
                    if not is_link:
                        return self._admitted(opened)
                    os.close(opened)  # O_PATH opens the symlink itself
            # It became a symlink after the walk had looked: look again.
        raise _changing("/".join(names))

    def _admitted(self, opened: int) -> int:
        """Pass a descriptor on, unless what it leads to is denied."""
        try:
            self._ward.admit(opened)
        except OSError:
            os.close(opened)
            raise
        return opened

    def open_file(self, names: Names) -> int:
        """Open a regular file for reading, and return its descriptor, the caller's to close.

        What is there is looked at first: a device or FIFO is never opened, since that alone may do
        something.

        Args:
            names: the path.

        Raises:
            OSError: also EISDIR if it is a directory, EINVAL if it is no regular file.
        """
        handle = self.open(names, PATH_ONLY)
        try:
            return reopen_file(handle)
        finally:
            os.close(handle)

    def open_parent(self, names: Names) -> int:
        """Open the directory that holds the last name, which itself is not looked at (O_PATH).

        Args:
            names: the path, not the root's and not one that ends in ``..``.
        """
        try:
            return self.open(names[:-1], PATH_ONLY | os.O_DIRECTORY)
        except ElsewhereError as left:
            raise ElsewhereError(f"{left.path}/{names[-1]}") from None

    @contextmanager
    def place(self, names: Names, *, follow: bool = True) -> Iterator[Place]:
        """Find where a path leads, also if some or all of it does not exist.

        Args:
            names: the path.
            follow: False stops at a symlink that is the last name.
        """
        walk = _Walk([os.dup(self._root)], self._inside, self._ward, todo=deque(names))
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
        for _ in range(OPEN_RETRIES):
            try:
                walk.enter(name)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in NO_DIRECTORY:
                    raise
            else:
                return
            if not follow:
                break
            target = link_target(walk.stack[-1], name)
            if target is not None:
                self._follow(walk, target)
                return
            if not _is_way(walk.stack[-1], name):
                break
        else:
            raise _changing(name)
        walk.rest.append(name)

    def _follow(self, walk: _Walk, target: str) -> None:
        """Put the names of a symlink's target in front of the walk."""
        walk.hops += 1
        if walk.hops > SYMLINK_HOPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
        names = split_names(target)
        if target.startswith("/"):
            depth = len(self._inside)
            if names[:depth] != self._inside:
                raise ElsewhereError("/" + "/".join((*names, *walk.todo)))
            names = names[depth:]
            walk.to_root()
        walk.todo.extendleft(reversed(names))


def _is_way(directory: int, name: str) -> bool:
    """Tell whether a path goes on after a name: it is a directory or a symlink, at this moment."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
