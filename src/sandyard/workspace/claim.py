"""Claims: who works in a directory of a caller's, so that no two sessions take it for theirs alone.

A claim is a flock(2) on ``claims/DEVICE-INODE`` in the user's state directory: held alone, or shared by
all who say so. It ends with whoever holds it. The directory itself is not locked, since commands may
want to do that.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.errors import LeaseHeldError, shown
from sandyard.limits import LEASE_HELD_S, LEASE_PAUSE_S

if TYPE_CHECKING:
    from sandyard.workspace.root import Inode

__all__ = ["Claim", "forget_claims"]

_CLAIMS: Final = "claims"
_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Claim:
    """One session's claim to one directory. Blocks on the file system."""

    def __init__(self, fd: int, place: str, name: str) -> None:
        """Take over a locked descriptor; use ``take`` instead."""
        self._fd = fd
        self._place = place
        self._name = name
        self._pid = os.getpid()

    @classmethod
    def take(cls, state: str, path: str, inode: Inode, *, shared: bool) -> Claim:
        """Claim a directory.

        Args:
            state: the user's state directory, which is there.
            path: of the directory, for errors.
            inode: what it is.
            shared: True shares it with others who do.

        Raises:
            LeaseHeldError: another session has it, and one of the two does not share it.
            OSError: the claim can't be made.
        """
        place, name = posixpath.join(state, _CLAIMS), f"{inode.device}-{inode.number}"
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
        until = time.monotonic() + LEASE_HELD_S
        while True:
            fd = _locked(place, name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if fd is not None:
                return cls(fd, place, name)
            if time.monotonic() >= until:
                raise _held(path, shared=shared)
            time.sleep(LEASE_PAUSE_S)

    def release(self) -> None:
        """Let go of it; a forked worker's copy ends nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._pid == os.getpid():
                with suppress(OSError):  # somebody shares it, and removes it
                    _remove(fd, self._place, self._name)
                with suppress(OSError):  # as little can be done about it as in ``Lease.keep``
                    fcntl.flock(fd, fcntl.LOCK_UN)  # a worker that was forked has it open
        finally:
            os.close(fd)


def forget_claims(state: str, most: int) -> None:
    """Remove what killed programs left, if nobody holds it.

    Args:
        state: the user's state directory.
        most: how many to look at.
    """
    place = posixpath.join(state, _CLAIMS)
    with suppress(OSError):
        for name in os.listdir(place)[:most]:
            fd = os.open(posixpath.join(place, name), _FILE & ~os.O_CREAT)
            try:
                with suppress(OSError):
                    _remove(fd, place, name)
            finally:
                os.close(fd)


def _locked(place: str, name: str, how: int) -> int | None:
    """Make and lock a claim's file; None if somebody else has it locked."""
    while True:
        fd = os.open(posixpath.join(place, name), _FILE, 0o600)
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            if _is_at(fd, place, name):  # else who held it before has removed it
                kept, fd = fd, -1
                return kept
        except BlockingIOError:
            return None
        finally:
            if fd >= 0:
                os.close(fd)


def _remove(fd: int, place: str, name: str) -> None:
    """Remove a claim's file that nobody else holds."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if _is_at(fd, place, name):
        os.unlink(posixpath.join(place, name))


def _is_at(fd: int, place: str, name: str) -> bool:
    try:
        there = os.stat(posixpath.join(place, name), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _held(path: str, *, shared: bool) -> LeaseHeldError:
    how = "does not share it" if shared else "works in it"
    return LeaseHeldError(
        path=path,
        message=f"another session {how}: {shown(path)}; close that one first, or give shared=True for "
        "both if neither is to have the directory for itself",
        context={"reason": "in_use"},
        retryable=True,
    )
