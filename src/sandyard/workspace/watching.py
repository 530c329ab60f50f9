"""Watcher: owns an inotify descriptor and its watches on directories beneath one, by descriptor."""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeVar

from sandyard.errors import ResourceLimitError
from sandyard.limits import WATCH_READ_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.deputy_wire import Handed, Passed
from sandyard.workspace.descent import descend
from sandyard.workspace.events import ChangeKind, FileChange, coalesce, decode_events
from sandyard.workspace.faults import translated
from sandyard.workspace.placing import is_temporary
from sandyard.workspace.reach import at_path, real_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import PurePath
    from types import TracebackType

    from sandyard.workspace.events import RawEvent
    from sandyard.workspace.names import Names
    from sandyard.workspace.reach import Spot
    from sandyard.workspace.root import WorkspaceRoot

    _Found = tuple[Names, bool]  # what is in a directory, and whether it is one itself

__all__ = ["Hand", "Watcher"]

_T = TypeVar("_T")
_libc = ctypes.CDLL(None, use_errno=True)

_MODIFY: Final = 0x002
_ATTRIB: Final = 0x004
_MOVED_FROM: Final = 0x040
_MOVED_TO: Final = 0x080
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_OVERFLOW: Final = 0x4000
_IGNORED: Final = 0x8000
_IS_DIR: Final = 0x4000_0000
_ONLY_DIR: Final = 0x0100_0000
_EXCLUDE_UNLINKED: Final = 0x0400_0000
_ITSELF: Final = _DELETE_SELF | _MOVE_SELF
_WITHIN: Final = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_MASK: Final = _WITHIN | _ITSELF | _ONLY_DIR | _EXCLUDE_UNLINKED
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Hand(Protocol):
    """Has work done with the rights of somebody else."""

    def __call__(self, work: Callable[[], _T], /) -> _T:
        """Do it, and return what it returns."""


class Watcher:
    """Watches a directory, and what lies beneath it.

    It is a context manager; leaving it ends all watches. Its calls block, so they are made in
    threads, one at a time; only ``descriptor`` is for the loop.
    """

    def __init__(self, tree: WorkspaceRoot, begun: _Begun, *, recursive: bool, hand: Hand) -> None:
        """Take over what has begun; use ``open`` instead."""
        self._tree = tree
        self._top = begun.top
        self._recursive = recursive
        self._watches = begun.watches
        self._fd = int(begun.fd)
        self._hand = hand

    @classmethod
    def open(
        cls,
        root: WorkspaceRoot,
        path: str | PurePath,
        *,
        recursive: bool,
        hand: Hand | None = None,
    ) -> Watcher:
        """Watch a directory from now on.

        Args:
            root: the workspace.
            path: the directory.
            recursive: whether to watch what lies beneath it, too.
            hand: has work done that needs somebody else's rights; None does it in this thread.

        Raises:
            WorkspaceReadNotFoundError: there is no such directory.
            ResourceLimitError: the kernel watches no more for this user.
            PolicyDeniedError: the policy denies it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.
        """
        hand = hand or _here
        begun = hand(partial(_begun, root, path, recursive=recursive))
        tree = root if begun.granted is None else root.granted[begun.granted].tree
        return cls(tree, begun, recursive=recursive, hand=hand)

    @property
    def descriptor(self) -> int:
        """Readable when something has changed; it stays this object's."""
        return self._fd

    def take(self) -> list[FileChange]:
        """Return what has changed, one change for each path; nothing if nothing has."""
        found: list[FileChange] = []
        tree = self._tree
        with translated("watch", self._path(self._top), tree), suppress(BlockingIOError):
            events = os.read(self._fd, WATCH_READ_BYTES)
            for event in decode_events(events):
                found += self._told(event)
        return coalesce(found)

    def _told(self, event: RawEvent) -> Iterator[FileChange]:
        """What one event says; a directory that appeared is watched from now on."""
        if event.mask & _OVERFLOW:
            yield FileChange("overflow", self._path(self._top), is_dir=True)
            if self._recursive:  # directories may have been made of which nobody was told
                self._grow(self._top)
            return
        if event.mask & _IGNORED:
            self._watches.pop(event.watch, None)
            return
        directory = self._watches.get(event.watch)
        if event.mask & _ITSELF and directory == self._top:
            yield FileChange("removed", self._path(self._top), is_dir=True)
        if directory is None or not event.name or is_temporary(event.name):
            return
        names = (*directory, event.name)
        is_dir = bool(event.mask & _IS_DIR)
        yield FileChange(_kind(event.mask), self._path(names), is_dir)
        if is_dir and self._recursive and event.mask & (_CREATE | _MOVED_TO):
            for at, is_below in self._grow(names):
                yield FileChange("created", self._path(at), is_below)
        if is_dir and event.mask & _MOVED_FROM:
            self._forget(names)

    def _forget(self, names: Names) -> None:
        """End the watches of a directory that was moved away: their paths are no longer true."""
        for watch, known in list(self._watches.items()):
            if known[: len(names)] == names:
                del self._watches[watch]
                _libc.inotify_rm_watch(self._fd, watch)

    def _grow(self, names: Names) -> list[_Found]:
        """Watch a directory that came, and those beneath it; returns what is in them."""
        grown = self._hand(
            partial(_grown, self._tree, Passed(self._fd), names, is_top=names == self._top)
        )
        self._watches |= grown.watches
        if grown.failure is not None:
            raise grown.failure
        return grown.found

    def _path(self, names: Names) -> str:
        return posixpath.join(self._tree.inside, *names)

    def close(self) -> None:
        """End all watches; doing it again does nothing."""
        opened, self._fd = self._fd, -1
        if opened >= 0:
            os.close(opened)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all watches."""
        self.close()


class _Begun(NamedTuple):
    """A watch that has begun.

    Attributes:
        fd: the inotify descriptor.
        granted: the place among what the policy grants of the tree that the path leads into; None
            for the workspace itself.
        top: the directory, in that tree.
        watches: the directories by their watches.
    """

    fd: Handed
    granted: int | None
    top: Names
    watches: dict[int, Names]

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


class _Grown(NamedTuple):
    """Directories that are watched from now on, what is in them, and why not all are watched."""

    watches: dict[int, Names]
    found: list[_Found]
    failure: OSError | ResourceLimitError | None


def _here(work: Callable[[], _T]) -> _T:
    return work()


def _begun(root: WorkspaceRoot, path: str | PurePath, *, recursive: bool) -> _Begun:
    """Begin to watch a directory, with the rights of whoever does this."""

    def work(spot: Spot) -> _Begun:
        top = real_names(spot)
        fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise _refused(ctypes.get_errno())
        adding = _Adding(spot.tree, fd, recursive=recursive)
        try:
            adding.add(top, is_top=True)
        except BaseException:
            os.close(fd)
            raise
        trees = [granted.tree for granted in root.granted]
        granted = trees.index(spot.tree) if spot.tree in trees else None
        return _Begun(Handed(fd), granted, top, adding.watches)

    return at_path(root, path, "watch", work)


def _grown(tree: WorkspaceRoot, fd: int, names: Names, *, is_top: bool) -> _Grown:
    """Watch a directory and those beneath it, likewise."""
    adding = _Adding(tree, fd, recursive=True)
    failure = None
    with acting_as(rightful_owner(tree)):
        try:
            adding.add(names, is_top=is_top)
        except (OSError, ResourceLimitError) as error:
            failure = error
    return _Grown(adding.watches, adding.found, failure)


class _Adding:
    """Adds watches to an inotify descriptor.

    Attributes:
        watches: those that were added.
        found: what is in the directories that are watched by them.
    """

    def __init__(self, tree: WorkspaceRoot, fd: int, *, recursive: bool) -> None:
        self._tree = tree
        self._fd = fd
        self._recursive = recursive
        self.watches: dict[int, Names] = {}
        self.found: list[_Found] = []

    def add(self, names: Names, *, is_top: bool = False) -> None:
        """Watch a directory and those beneath it.

        Raises:
            OSError: the kernel refuses; of a directory that is gone again only where it is the top.
            ResourceLimitError: the kernel watches no more.
        """
        try:
            top = self._tree.opener.open(names, _DIRECTORY)
        except OSError:
            if is_top:
                raise
            return  # gone again, or a link by now, or closed
        try:
            for level in descend(top, self._tree.ward):
                at = (*names, *level.names)
                self._add_one(level.descriptor, at)
                if not self._recursive:
                    return
                # Looked at once more, now that it is watched: what came since it was listed was told
                # to nobody, and what is told twice is coalesced.
                known = {entry.name for entry in level.entries}
                for name, is_dir in _listed(level.descriptor):
                    self.found.append(((*at, name), is_dir))
                    if is_dir and name not in known:
                        self.add((*at, name))
        except OSError as error:
            if error.errno not in {errno.ESTALE, errno.ENOENT, errno.EAGAIN}:
                raise
        finally:
            os.close(top)

    def _add_one(self, directory: int, names: Names) -> None:
        path = f"/proc/self/fd/{directory}".encode()
        watch = _libc.inotify_add_watch(self._fd, path, _MASK)
        if watch >= 0:
            self.watches[watch] = names
            return
        number = ctypes.get_errno()
        if number == errno.ENOSPC:
            raise _refused(number)
        if number != errno.EACCES:
            raise OSError(number, os.strerror(number))


def _listed(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        return [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if not is_temporary(entry.name)
        ]


def _kind(mask: int) -> ChangeKind:
    if mask & (_CREATE | _MOVED_TO):
        return "created"
    return "removed" if mask & (_DELETE | _MOVED_FROM) else "modified"


def _refused(number: int) -> ResourceLimitError:
    instances = number in {errno.EMFILE, errno.ENFILE}
    knob = "fs.inotify.max_user_instances" if instances else "fs.inotify.max_user_watches"
    return ResourceLimitError(
        f"the kernel watches no more directories for this user; end other watches, or raise {knob}",
        limit="open_files",
        value=number,
        unit="errno",
        op="watch",
        cause=OSError(number, os.strerror(number)),
        retryable=True,
    )
