"""Owns the place of a session's logs: a directory beside its lease, which no command can reach."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.workspace.root import Inode

if TYPE_CHECKING:
    from sandyard.workspace.lease import Lease

__all__ = ["LogPlace", "remove_logs"]

_NAME: Final = "logs"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class LogPlace:
    """The logs of one session: files that only the session's user can read.

    It blocks on the file system, so it is called in threads, several at a time. The directory is
    made with the first log; ``close`` removes it.

    Args:
        lease: the session's, which is held.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._closed = False

    def open(self, name: str, *, make: bool) -> int:
        """Open a log for reading and writing.

        Args:
            name: its name.
            make: whether to make it if it is missing.

        Raises:
            OSError: that can't be done; ENOENT where the place is closed.
        """
        with self._lock:
            # Under the lock, since a descriptor that is closed meanwhile may be another file's.
            directory = self._opened() if make or self._fd is not None else None
            if directory is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            return os.open(name, _FILE | (os.O_CREAT if make else 0), 0o600, dir_fd=directory)

    def remove(self, name: str) -> None:
        """Remove a log, if it is there.

        Raises:
            OSError: it can't be removed.
        """
        with self._lock, suppress(FileNotFoundError):
            if self._fd is not None:
                os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """Remove all logs and their directory; doing it again does nothing.

        What can't be removed is left to the sweep.
        """
        with self._lock:
            fd, self._fd = self._fd, None
            self._closed = True
            if fd is None:
                return
            try:
                session = os.open(self._lease.directory, _DIRECTORY)
            except OSError:  # whoever removed the state directory removed it as well
                os.close(fd)
                return
            try:
                with suppress(OSError):
                    remove_logs(session, _inode(fd))
            finally:
                os.close(session)
                os.close(fd)

    def _opened(self) -> int | None:
        if self._fd is None and not self._closed:
            session = os.open(self._lease.directory, _DIRECTORY)
            try:
                self._fd = self._made(session)
            finally:
                os.close(session)
        return self._fd

    def _made(self, session: int) -> int:
        with suppress(FileExistsError):  # from an owner of this session that was killed
            os.mkdir(_NAME, 0o700, dir_fd=session)
        fd = os.open(_NAME, _DIRECTORY, dir_fd=session)
        try:
            self._lease.note_logs(_inode(fd))  # before there is anything in it
            _empty(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd


def remove_logs(session: int, logs: Inode | None) -> bool:
    """Remove a session's logs; blocks on the file system.

    Args:
        session: descriptor of the session's directory in the state directory.
        logs: what the directory of the logs is; if that is not known, it is removed only if it is
            empty, as its owner left it that had no time to write it down.

    Returns:
        True if nothing is left of it; False if something can't be removed, or if something else
        stands in its place.
    """
    try:
        fd = os.open(_NAME, _DIRECTORY, dir_fd=session)
    except OSError as error:
        return error.errno == errno.ENOENT
    try:
        if logs is not None:
            if _inode(fd) != logs:
                return False
            _empty(fd)
        os.rmdir(_NAME, dir_fd=session)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _empty(fd: int) -> None:
    for name in os.listdir(fd):
        os.unlink(name, dir_fd=fd)


def _inode(fd: int) -> Inode:
    facts = os.fstat(fd)
    return Inode(facts.st_dev, facts.st_ino)
