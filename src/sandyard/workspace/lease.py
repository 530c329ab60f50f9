"""Leases: one locked file for each session, which says who uses its directory.

A lease is a flock(2) on ``sessions/ID/lease`` in the user's state directory. It is taken before the
session's directory is made and removed after that was deleted, so a program that is killed between
any two instructions leaves a lease without an owner: what ``sweep`` looks for. The lock ends with
the last process that has the descriptor. Programs that are executed do not get it, forked workers
do: what one of them may still use is not swept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import stat
import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from sandyard.errors import LeaseHeldError, WorkspaceStopError
from sandyard.limits import LEASE_BYTES, LEASE_HELD_S, LEASE_PAUSE_S, LEASE_SWEPT_S
from sandyard.workspace.kernel import closed_on_error
from sandyard.workspace.record import LeaseRecord, Unreadable
from sandyard.workspace.root import Inode, WorkspaceRoot
from sandyard.workspace.state_place import SESSIONS, open_sessions, unusable

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.workspace.claim import Claim

__all__ = [
    "LEASE_NAME",
    "Lease",
    "is_in_place",
    "lock_file",
    "open_root",
    "read_record",
]

LEASE_NAME: Final = "lease"

_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us
_START_FIELD: Final = 22 - 3
"""The start time's place in /proc/PID/stat: field 22, and what stands behind the name begins with
field 3 (proc_pid_stat(5))."""


class Lease:
    """One session's lease. It is a context manager; leaving it only lets go of the lock.

    It does file work, so coroutines call it in a thread.
    """

    def __init__(self, fd: int, path: str, record: LeaseRecord, *, shared: bool) -> None:
        """Take over a locked descriptor; use ``take`` instead."""
        self._fd: int | None = fd
        self._shared = shared
        self._claim: Claim | None = None
        self._path = path
        self._record = record

    @classmethod
    def take(
        cls,
        state: str,
        session_id: str,
        *,
        root: str,
        owned: bool,
        kept: bool = False,
        shared: bool = False,
    ) -> Lease:
        """Take the lease of a session, before its root is made.

        What it knew of the root is kept, if it is about the same one.

        Args:
            state: the user's state directory; it is made if it is missing.
            session_id: the session.
            root: absolute path of its workspace, which need not exist yet.
            owned: True if the library will make it, so that it may be deleted.
            kept: True lets no sweep delete it, also if this program is killed.
            shared: True lets other sessions that say the same work in a directory of the caller's.

        Raises:
            LeaseHeldError: the session is in use.
            WorkspaceStartError: the state directory is not ours alone, or
                can't be used.
        """
        sessions = open_sessions(state)
        record = LeaseRecord(
            session_id=session_id,
            root=root,
            owned=owned,
            state="kept" if kept else "live",
            pid=os.getpid(),
            started=_started(),
        )
        path = posixpath.join(state, SESSIONS, session_id, LEASE_NAME)
        try:
            fd = _claimed(sessions, record)
            with closed_on_error(fd):
                record = _with_root(record, read_record(fd))
        except OSError as error:
            raise unusable(path, error) from error
        finally:
            os.close(sessions)
        lease = cls(fd, path, record, shared=shared)
        try:
            _write(fd, record)
        except OSError as error:
            lease.remove()
            raise unusable(path, error) from error
        return lease

    @property
    def inode(self) -> Inode | None:
        """What the root is, as far as it was noted."""
        return self._record.inode

    @property
    def record(self) -> LeaseRecord:
        """What it says."""
        return self._record

    @property
    def held(self) -> bool:
        """Whether the lock is ours."""
        return self._fd is not None

    def note(self, inode: Inode) -> None:
        """Write down what the root is, once it exists; one of the caller's is claimed before.

        Raises:
            LeaseHeldError: another session works in it.
            WorkspaceStartError: that can't be written.
        """
        if not self._record.owned and self._claim is None:
            state, root = posixpath.dirname(posixpath.dirname(self.directory)), self._record.root
            try:
                from sandyard.workspace.claim import Claim  # noqa: PLC0415  # for the caller's alone

                self._claim = Claim.take(state, root, inode, shared=self._shared)
            except OSError as error:
                raise unusable(state, error) from error
        if self._record.inode == inode:
            return
        try:
            self._change(replace(self._record, inode=inode))
        except OSError as error:
            raise unusable(self._path, error) from error

    def note_logs(self, logs: Inode) -> None:
        """Write down what the directory of the session's logs is, once it exists.

        Raises:
            OSError: that can't be written.
        """
        self._change(replace(self._record, logs=logs))

    @property
    def restoring(self) -> str | None:
        """What was being restored into the root and may not be there whole; None for nothing."""
        return self._record.restoring

    def note_restoring(self, snapshot: str | None) -> None:
        """Write down what is being restored before anything of it is in the root, or that it is done.

        Args:
            snapshot: its id, if it has one of at most 16 characters; else an empty text. None when
                all of it is there, or nothing.

        Raises:
            WorkspaceStartError: that can't be written.
        """
        try:
            self._change(replace(self._record, restoring=snapshot))
            if self._fd is not None:  # a loss of power must not keep the half and forget this
                os.fsync(self._fd)
        except OSError as error:
            raise unusable(self._path, error) from error

    def protect(self) -> None:
        """Let no sweep delete the root from now on, also if this program is killed."""
        try:
            self._change(replace(self._record, state="kept"))
        except OSError as error:
            raise unusable(self._path, error) from error

    @property
    def directory(self) -> str:
        """The session's directory in the state directory: where the lease lies."""
        return posixpath.dirname(self._path)

    def keep(self) -> None:
        """Leave the root to the caller, for good: no sweep touches it. Again does nothing.

        Raises:
            WorkspaceStopError: that can be neither written down nor brought about by removing the
                lease. It stays locked then, so the root is safe while this program runs.
        """
        if self._is_mine():
            try:
                self._change(replace(self._record, state="kept"))
            except OSError:
                self._discard()  # nobody deletes a root without a lease
            if self._fd is not None:  # closing would not do where a forked worker has a copy
                with suppress(OSError):  # a kernel that is short of memory; then closing has to do
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.release()

    def retake(self) -> None:
        """Take a lease that was kept again, to delete its root; one that is gone stays so.

        Raises:
            LeaseHeldError: somebody else uses the session now.
            WorkspaceStopError: who has it can't be told.
        """
        try:
            self._retake()
        except OSError as error:
            self.release()
            raise WorkspaceStopError(path=self._path, cause=error) from error

    def _retake(self) -> None:
        began = time.monotonic()
        while not self.held:
            try:
                fd = os.open(self._path, _FILE)
            except OSError:  # it was removed: by us, or by whoever removed the state directory
                return
            self._fd = fd
            if self._is_locked():
                if not _is_at(fd, self._path):
                    self.release()
                    continue
                self._record = replace(self._record, pid=os.getpid(), started=_started())
                with suppress(OSError):  # it says "kept" then, and is only not swept
                    self._change(replace(self._record, state="live"))
                return
            holder = self._holder()
            self.release()
            if not _pause(began, LEASE_SWEPT_S if holder is None else LEASE_HELD_S):
                raise _in_use(self._record, holder)

    def remove(self) -> None:
        """Remove the lease and let go of it; again does nothing.

        Raises:
            WorkspaceStopError: it can't be removed.
        """
        if self._is_mine():
            self._discard()
        self.release()

    def release(self) -> None:
        """Let go of the lock and change nothing: a live one can be swept from now on."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):  # EIO and the like: it is closed all the same (close(2))
                os.close(fd)

    def _is_mine(self) -> bool:
        """Whether it is held, and by this process: a forked worker's copy ends nothing."""
        return self.held and self._record.pid == os.getpid()

    def _is_locked(self) -> bool:
        """Lock the descriptor, unless somebody else has; where nobody can, nobody has."""
        try:
            return self._fd is not None and lock_file(self._fd)
        except OSError:
            return True

    def _holder(self) -> LeaseRecord | None:
        """What somebody else wrote who has it locked; None while it says what we wrote."""
        said = None if self._fd is None else read_record(self._fd)
        return said if isinstance(said, LeaseRecord) and said != self._record else None

    def _change(self, record: LeaseRecord) -> None:
        if self._fd is not None and self._is_mine():
            _write(self._fd, record)
            self._record = record

    def _discard(self) -> None:
        try:
            if self._fd is not None and _is_at(self._fd, self._path):
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise WorkspaceStopError(path=self._path, cause=error) from error
        with suppress(OSError):  # what else lies there is not a lease's to remove
            os.rmdir(self.directory)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the lock."""
        self.release()


def open_root(lease: Lease, path: str, *, owned: bool) -> WorkspaceRoot:
    """Open a session's root, and write down what it is; one that is the caller's is made if missing.

    Raises:
        WorkspaceStartError: it can't be opened, or that can't be written.
        LeaseHeldError: another session works in it.
    """
    root = WorkspaceRoot.open(path, owned=owned)
    try:
        lease.note(root.inode)
    except BaseException:
        root.close()
        raise
    root.marks = None if owned else lease.directory
    return root


def lock_file(fd: int) -> bool:
    """Lock a file if nobody has it locked; tell whether it is ours now.

    Raises:
        OSError: its file system knows no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_in_place(fd: int, session: int) -> bool:
    """Whether a locked file is still the lease of the session whose directory is given."""
    return _is_at(fd, LEASE_NAME, session)


def read_record(fd: int) -> LeaseRecord | Unreadable:
    """Read what a lease says.

    Raises:
        OSError: it can't be read.
    """
    return LeaseRecord.decode(os.pread(fd, LEASE_BYTES, 0))


def _claimed(sessions: int, record: LeaseRecord) -> int:
    """Make and lock a lease, or lock one that nobody holds."""
    name = f"{record.session_id}/{LEASE_NAME}"
    began = time.monotonic()
    while True:
        with suppress(FileExistsError):
            os.mkdir(record.session_id, 0o700, dir_fd=sessions)
        try:
            fd = os.open(name, _FILE | os.O_CREAT, 0o600, dir_fd=sessions)
        except FileNotFoundError:  # a sweep took the empty directory for an ended session's
            continue
        try:
            if lock_file(fd):
                if _is_at(fd, name, sessions):
                    kept, fd = fd, -1
                    return kept
                continue  # a sweep took the empty file for one
            said = read_record(fd)
        finally:
            if fd >= 0:
                os.close(fd)
        holder = said if isinstance(said, LeaseRecord) else None
        if not _pause(began, LEASE_SWEPT_S if holder is None else LEASE_HELD_S):
            raise _in_use(record, holder)


def _with_root(record: LeaseRecord, before: LeaseRecord | Unreadable) -> LeaseRecord:
    """Take over what an earlier owner noted of the same root, and of its logs."""
    if isinstance(before, Unreadable) or before.session_id != record.session_id:
        return record
    if (before.root, before.owned) != (record.root, record.owned):
        return record
    return replace(record, inode=before.inode, logs=before.logs, restoring=before.restoring)


def _pause(began: float, allowed: float) -> bool:
    """Wait a little; tell whether there is time for another attempt."""
    time.sleep(LEASE_PAUSE_S)
    return time.monotonic() - began < allowed


def _write(fd: int, record: LeaseRecord) -> None:
    raw = record.encode()
    if os.pwrite(fd, raw, 0) != len(raw):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if os.fstat(fd).st_size > len(raw):  # an older one of this session stood there
        os.ftruncate(fd, len(raw))


def _is_at(fd: int, path: str, directory: int | None = None) -> bool:
    """Whether a descriptor's regular file still stands at a path."""
    ours = os.fstat(fd)
    try:
        there = os.stat(path, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, there)


def _in_use(record: LeaseRecord, holder: LeaseRecord | None) -> LeaseHeldError:
    by = "another program" if holder is None else f"process {holder.pid}"
    return LeaseHeldError(
        path=record.root,
        message=f"session {record.session_id} is in use by {by}; close it there first",
        context={"reason": "in_use", "pid": None if holder is None else holder.pid},
        retryable=True,
    )


def _started() -> int:
    return _start_time(os.getpid())


@lru_cache(maxsize=1)
def _start_time(pid: int) -> int:
    """When a process started, in clock ticks since the boot; 0 where that can't be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return 0
