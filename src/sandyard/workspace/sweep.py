"""The sweep: directories that killed programs left are found by their leases, and deleted.

Only a lease that nobody holds, that is whole and says ``live`` lets anything be deleted, and only
the very directory that it names by device and inode.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import random
import stat
import threading
import time
from contextlib import suppress
from typing import Final
from uuid import UUID

from sandyard.errors import SandboxError
from sandyard.limits import SWEEP_EVERY_S, SWEEP_LEASES, SWEEP_WAIT_S
from sandyard.workspace.acting import rightful_owner
from sandyard.workspace.claim import forget_claims
from sandyard.workspace.extract_stage import clear_stages, forget_stages, has_stages
from sandyard.workspace.lease import (
    LEASE_NAME,
    Lease,
    is_in_place,
    lock_file,
    read_record,
)
from sandyard.workspace.log_place import remove_logs
from sandyard.workspace.opener import open_child
from sandyard.workspace.overlay_journal import settle_journal
from sandyard.workspace.overlay_place import remove_changes
from sandyard.workspace.record import LeaseRecord, Unreadable
from sandyard.workspace.root import WorkspaceRoot
from sandyard.workspace.saved_layers import SavedLayers
from sandyard.workspace.state_place import open_sessions

__all__ = ["clear_left", "sweep", "sweep_sometimes"]

_logger = logging.getLogger("sandyard.workspace")
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not hold us


_NOT_IT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST})
"""What rmdir(2) says of a name where our directory is not, or not ours any more."""


class _Pace:
    """When this process last swept, and what; a forked process sweeps for itself."""

    last: tuple[int, str, float] | None = None


def sweep_sometimes(state: str) -> None:
    """Sweep, if this process has not lately; whatever happens, nothing is raised.

    It has a thread of its own, which ends with the sweep or with the program: a deletion that is
    cut short is taken up by the next sweep. A short one has ended when this returns.

    Args:
        state: the user's state directory.
    """
    now, last = time.monotonic(), _Pace.last
    if last is not None and last[:2] == (os.getpid(), state) and now - last[2] < SWEEP_EVERY_S:
        return
    # No lock: two sweeps at once are harmless, and a lock would be inherited locked by a fork.
    _Pace.last = (os.getpid(), state, now)
    thread = threading.Thread(target=sweep, args=(state,), name="sandyard-sweep", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there is no room for a thread, or the interpreter is ending
        return
    thread.join(SWEEP_WAIT_S)


def sweep(state: str) -> None:
    """Delete what owners that are dead left behind, by the leases in a state directory.

    It blocks until that is done. What can't be deleted now stays for the next sweep.

    Args:
        state: the user's state directory; if it is missing, or not ours alone, nothing is done.
    """
    try:
        sessions = open_sessions(state, make=False)
    except SandboxError:
        return
    try:
        forget_claims(state, SWEEP_LEASES)
        names = os.listdir(sessions)
        random.shuffle(names)  # two sweeps at once do not stand in each other's way
        for name in names[:SWEEP_LEASES]:
            with suppress(OSError, SandboxError):
                _sweep_session(sessions, name)
        SavedLayers(state).settle()
    except OSError:
        return
    finally:
        os.close(sessions)


def _sweep_session(sessions: int, name: str) -> None:
    if not _is_session(name):
        return
    session = open_child(sessions, name)
    try:
        try:
            fd = os.open(LEASE_NAME, _FILE, dir_fd=session)
        except FileNotFoundError:  # its owner died before it had a lease, or after
            os.rmdir(name, dir_fd=sessions)
            return
        try:
            if _is_abandoned(fd, session) and _settle(name, read_record(fd), session):
                os.unlink(LEASE_NAME, dir_fd=session)
                os.rmdir(name, dir_fd=sessions)
        finally:
            os.close(fd)
    finally:
        os.close(session)


def _is_session(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _is_abandoned(fd: int, session: int) -> bool:
    """Whether a file is a lease of ours that nobody holds; then it is locked."""
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        return False
    # Whoever held it may have removed it before we had the lock.
    return lock_file(fd) and is_in_place(fd, session)


def _settle(name: str, record: LeaseRecord | Unreadable, session: int) -> bool:
    """Delete what an abandoned lease names; tell whether the lease has served its turn."""
    if isinstance(record, Unreadable):
        # Half-written: its owner died before it made anything. Another version's is its own.
        return record is Unreadable.BROKEN
    if record.session_id != name:
        return False
    settle_journal(os.readlink(f"/proc/self/fd/{session}"))
    cleared = remove_logs(session, record.logs)
    if not _settle_root(record, session):
        return False
    return not remove_changes(session) and cleared


def _settle_root(record: LeaseRecord, session: int) -> bool:
    """Delete the root that an abandoned lease names; tell whether nothing more is to be done."""
    if record.state == "kept":
        return _has_vanished(record)
    if not record.owned:
        _clear_top(record, session)
        return True
    if record.inode is None:
        return _settle_unknown(record.root)
    root = WorkspaceRoot.find(record.root, record.inode)
    if root is None:
        return True
    with root:
        gone = root.delete()
    _logger.info(
        "%s, left by process %d, %s",
        record.root,
        record.pid,
        "was deleted" if gone else f"could not be deleted whole: {root.obstacle}",
    )
    return gone


def _clear_top(record: LeaseRecord, session: int) -> None:
    """Remove what was being unpacked into a directory of the caller's; the rest is the caller's."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        suppress(OSError),
        WorkspaceRoot.adopt(os.open(record.root, flags), record.root) as root,
    ):
        if root.inode == record.inode:
            clear_stages(root.fd, rightful_owner(root), session)
    forget_stages(session)


def clear_left(lease: Lease) -> None:
    """Remove what a program that died was unpacking into the caller's directory of a held lease.

    Raises:
        OSError: the session's directory can't be read.
    """
    session = os.open(lease.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if has_stages(session):
            _clear_top(lease.record, session)
    finally:
        os.close(session)


def _settle_unknown(path: str) -> bool:
    """Remove a root that may just have been made: it is empty, and nothing else is removed."""
    try:
        if os.lstat(WorkspaceRoot.check_private(path)).st_uid == os.geteuid():
            os.rmdir(path)
    except OSError as error:
        return error.errno in _NOT_IT
    return True


def _has_vanished(record: LeaseRecord) -> bool:
    """Whether a root that was kept has been removed, and not only become invisible."""
    if os.path.lexists(record.root) or record.inode is None:
        return False
    # In another container, or with its file system unmounted, a path may be missing as well.
    return os.stat(posixpath.dirname(record.root)).st_dev == record.inode.device
