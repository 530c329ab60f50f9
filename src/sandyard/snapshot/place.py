"""Place: the directory of a store, its locks, and files that come to stand in it whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sandyard.errors import SnapshotPersistError, shown
from sandyard.snapshot.disk import Disk
from sandyard.snapshot.sizes import LOCK_PAUSE_S, LOCK_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TEMPORARY", "Draft", "Place"]

TEMPORARY: Final = "tmp-"
"""What names of files begin with that are being written. Only who shares the lock has such."""

_VERSION: Final = b"sandyard snapshot store 1\n"
_VERSION_FILE: Final = "format"
_LOCK_FILE: Final = "lock"
_UPKEEP_FILE: Final = "upkeep"
_DIRECTORIES: Final = ("packs", "history", "index")
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Draft:
    """A file that is written, and has no name yet.

    Args:
        disk: what changes files.
        directory: descriptor of where it is.
        temporary: its name until then.
        file: its own descriptor, whoever's who made it.

    Attributes:
        published: whether it has a name.
    """

    def __init__(self, disk: Disk, directory: int, temporary: str, file: int) -> None:
        self._disk = disk
        self._directory = directory
        self._temporary = temporary
        self.file = file
        self.published = False

    def sync(self) -> None:
        """Have its bytes survive a loss of power."""
        self._disk.sync(self.file)

    def publish(self, name: str) -> None:
        """Give it a name, in the place of what has it."""
        self._disk.publish(self._directory, self._temporary, name)
        self.published = True


class Place:
    """The directory of a store: ``packs``, ``history``, ``index``, two locks and the format's version.

    Who reads or adds shares a lock; who removes holds it alone. A lock ends with its holder.

    Args:
        directory: absolute path; it is made when something is saved.
        disk: what changes files (default: the machine's).
    """

    def __init__(self, directory: str, disk: Disk | None = None) -> None:
        self.directory = directory
        self.disk = Disk() if disk is None else disk

    @property
    def exists(self) -> bool:
        """Whether a store was ever made here."""
        return os.path.lexists(posixpath.join(self.directory, _VERSION_FILE))

    @contextmanager
    def opened(self, *names: str, make: bool = False) -> Iterator[int]:
        """Open the directory itself, or one in it.

        Args:
            names: of directories, one in the other.
            make: True makes what is missing.

        Raises:
            OSError: it is missing, no directory, somebody else's, or may be written by others.
        """
        if make and not names:
            os.makedirs(posixpath.dirname(self.directory), mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.directory, 0o700)
        here = os.open(self.directory, _OPEN)
        try:
            _check_alone(here, self.directory)
            for name in names:
                if make:
                    self.disk.make_directory(here, name)
                deeper = os.open(name, _OPEN, dir_fd=here)
                os.close(here)
                here = deeper
            yield here
        finally:
            os.close(here)

    def prepare(self) -> None:
        """Make the directory, and write down which format it has.

        Raises:
            OSError: it can't be made.
            SnapshotPersistError: another version of this library wrote it.
        """
        with self.opened(make=True) as top:
            try:
                self._check_version(top)
            except FileNotFoundError:
                with self.shared():  # or another program's first save takes the file for litter
                    for name in _DIRECTORIES:
                        self.disk.make_directory(top, name)
                    self.disk.sync(top)
                    self._sync_above()
                    self.write_file(top, _VERSION_FILE, _VERSION)

    def _sync_above(self) -> None:
        """Have the name of the store itself survive."""
        above = os.open(
            posixpath.dirname(self.directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            self.disk.sync(above)
        finally:
            os.close(above)

    def check(self) -> None:
        """Refuse a store that another version of this library wrote.

        Raises:
            OSError: there is none, or it can't be read.
            SnapshotPersistError: its format is not known.
        """
        with self.opened() as top:
            self._check_version(top)

    def _check_version(self, top: int) -> None:
        said = self.read_file(top, _VERSION_FILE, len(_VERSION) + 1)
        if said != _VERSION:
            raise SnapshotPersistError(
                snapshot_id="",
                path=self.directory,
                message=f"the snapshot store {shown(self.directory)} has the format {shown(said)}, "
                "which this version does not know; use the version that wrote it, or another "
                "directory",
                context={"reason": "format"},
                retryable=False,
            )

    # --- locks ------------------------------------------------------------------------------------

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold off whoever removes.

        Raises:
            OSError: EBUSY if somebody removes for longer than ``LOCK_WAIT_S``.
        """
        with self._locked(_LOCK_FILE, fcntl.LOCK_SH, LOCK_WAIT_S):
            yield

    @contextmanager
    def alone(self, wait: float = LOCK_WAIT_S) -> Iterator[None]:
        """Hold off everybody else.

        Raises:
            OSError: EBUSY if somebody saves or restores for longer than ``wait`` seconds.
        """
        with self._locked(_LOCK_FILE, fcntl.LOCK_EX, wait):
            yield

    @contextmanager
    def upkeep(self) -> Iterator[None]:
        """Hold off others who reclaim space; nobody else notices.

        Raises:
            OSError: EBUSY if somebody does.
        """
        with self._locked(_UPKEEP_FILE, fcntl.LOCK_EX, 0):
            yield

    @contextmanager
    def turn(self, history: str) -> Iterator[int]:
        """Hold off others who add to a history; who does shares the store's lock as well.

        Yields its directory.

        Raises:
            OSError: EBUSY if somebody adds for longer than ``LOCK_WAIT_S``.
        """
        with (
            self.opened("history", history, make=True) as directory,
            _holding(directory, fcntl.LOCK_EX, LOCK_WAIT_S),
        ):
            yield directory

    @contextmanager
    def _locked(self, name: str, how: int, wait: float) -> Iterator[None]:
        with self.opened() as top:
            file = os.open(name, _FILE, 0o600, dir_fd=top)
        try:
            with _holding(file, how, wait):
                yield
        finally:
            os.close(file)

    # --- files ------------------------------------------------------------------------------------

    def write_file(self, directory: int, name: str, data: bytes, *, sync: bool = True) -> None:
        """Make a file stand at a name whole, in the place of what has it.

        Args:
            directory: descriptor of where.
            name: its final name.
            data: its content.
            sync: False leaves to chance whether it survives a loss of power, as a whole or not.

        Raises:
            OSError: it can't be written; then what had the name is as it was.
        """
        with self.draft(directory, data) as draft:
            if sync:
                draft.sync()
            draft.publish(name)
        if sync:
            self.disk.sync(directory)

    @contextmanager
    def draft(self, directory: int, data: bytes) -> Iterator[Draft]:
        """Write a file that has no name yet; it is removed on leaving unless it was given one.

        Args:
            directory: descriptor of where.
            data: its content.

        Raises:
            OSError: it can't be written.
        """
        temporary = self.temporary_name()
        draft = Draft(self.disk, directory, temporary, self.disk.make(directory, temporary))
        try:
            self.disk.write(draft.file, data, 0)
            yield draft
        finally:
            os.close(draft.file)
            if not draft.published:
                self.disk.remove(directory, temporary)

    @staticmethod
    def temporary_name() -> str:
        """A name for a file that is being written."""
        return TEMPORARY + secrets.token_hex(8)

    @staticmethod
    def read_file(directory: int, name: str, most: int) -> bytes:
        """Read a regular file.

        Raises:
            OSError: it is none, or larger than ``most`` bytes (EFBIG), or can't be read.
        """
        file = os.open(name, _READ, dir_fd=directory)
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "no regular file", name)
            if facts.st_size > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
            parts = []
            while piece := os.read(file, most + 1):
                parts.append(piece)
            return b"".join(parts)
        finally:
            os.close(file)

    def sweep(self, history: str) -> None:
        """Remove what programs left that died while they wrote, if nobody writes now.

        Args:
            history: the one whose directory is looked at.
        """
        with suppress(OSError), self.alone(0):
            self._remove_temporary([history])

    def remove_temporary(self) -> None:
        """Remove all files that were being written; whoever calls this holds the lock alone."""
        with self.opened("history") as history:
            sessions = os.listdir(history)
        self._remove_temporary(sessions)

    def _remove_temporary(self, histories: list[str]) -> None:
        for names in ((), ("packs",), ("index",), *(("history", name) for name in histories)):
            with suppress(OSError), self.opened(*names) as directory:
                self._clear(directory)

    def _clear(self, directory: int) -> None:
        for name in os.listdir(directory):
            if name.startswith(TEMPORARY):
                self.disk.remove(directory, name)


@contextmanager
def _holding(file: int, how: int, wait: float) -> Iterator[None]:
    """Lock a file for the block.

    Closing it would not do: a worker that was forked meanwhile has a copy, and would hold the lock for
    as long as it lives. Nor may the worker let go of what its parent holds.
    """
    _lock(file, how, wait)
    holder = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == holder:
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: int, how: int, wait: float) -> None:
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OSError(errno.EBUSY, "somebody else uses the snapshot store") from None
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def _check_alone(opened: int, path: str) -> None:
    """Refuse a directory whose content others may have made."""
    facts = os.fstat(opened)
    if facts.st_uid != os.geteuid() or facts.st_mode & _OTHERS_WRITE:
        raise PermissionError(
            errno.EPERM,
            "the snapshot store is somebody else's, or can be written by others; it must be yours "
            "alone (mode 0700)",
            path,
        )
