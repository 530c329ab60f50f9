"""Owns the uid that a sandbox of root's is on the host: leased, never shared, never uid 0.

A lease is an open file description lock (fcntl(2), F_OFD_SETLK) on one byte of one file: byte n
stands for the n-th identity. The descriptor goes to the sandbox's outer process, so the lease ends
when that process does, however either program ends, and nothing has to be cleaned up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import IDENTITIES_FIRST, IDENTITIES_LEASED, IDENTITIES_STEP
from sandyard.platform.shortage import refuse_shortage

__all__ = ["IdentityLease", "free_range", "taken_ranges"]

_LOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_FILE = "/run/sandyard/identities"


def taken_ranges(subordinate: str, accounts: str) -> list[range]:
    """The ids that ``/etc/subuid`` (or subgid) and ``/etc/passwd`` give to somebody."""
    ranges = []
    for line in subordinate.splitlines():
        _, first, count, *_ = [*line.split(":"), "", "", ""]
        if _is_number(first) and _is_number(count):
            ranges.append(range(int(first), int(first) + int(count)))
    for line in accounts.splitlines():
        _, _, uid, *_ = [*line.split(":"), "", "", ""]
        if _is_number(uid):
            ranges.append(range(int(uid), int(uid) + 1))
    return ranges


def _is_number(text: str) -> bool:
    # Ids have ten digits at most; and a superscript two is a digit as well.
    return len(text) <= _ID_DIGITS and text.isascii() and text.isdigit()


def free_range(taken: Iterable[range]) -> range | None:
    """The first range for leases of which nobody has a part, or None."""
    ranges = list(taken)
    for first in range(IDENTITIES_FIRST, 2**31 - IDENTITIES_LEASED, IDENTITIES_STEP):
        candidate = range(first, first + IDENTITIES_LEASED)
        if not any(max(r.start, candidate.start) < min(r.stop, candidate.stop) for r in ranges):
            return candidate
    return None


_ID_DIGITS = 10
_SUBORDINATE = ("/etc/subuid", "/etc/subgid")
_ACCOUNTS = "/etc/passwd"


def _leasable() -> range | None:
    """The range to lease from, as the files that give out ids say now."""
    return _range_for(tuple(_version(path) for path in (*_SUBORDINATE, _ACCOUNTS)))


def _version(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=1)  # read again only when one of them has changed
def _range_for(versions: tuple[tuple[int, int] | None, ...]) -> range | None:
    return free_range(taken_ranges("\n".join(map(_read, _SUBORDINATE)), _read(_ACCOUNTS)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        refuse_shortage(error)  # else a lease could lie in somebody's range
        return ""


def _open_locks() -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(_FILE, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(_FILE), mode=0o700, exist_ok=True)
        return os.open(_FILE, flags, 0o600)


def _refused(cause: str, error: OSError | None = None) -> ConfinementUnavailableError:
    return ConfinementUnavailableError(
        "no identity of its own could be leased for the sandbox",
        dimension="processes",
        cause_text=cause,
        fix=f"make {os.path.dirname(_FILE)} a directory that root can write, or run as an ordinary user",
        cause=error,
    )


@dataclass(slots=True)
class IdentityLease:
    """A uid (and the equal gid) that no other sandbox on this machine has.

    Attributes:
        uid: the id on the host.
        fd: the descriptor that holds the lease; whoever keeps a copy keeps the lease.
    """

    uid: int
    fd: int

    @classmethod
    def take(cls) -> IdentityLease:
        """Leases a free identity (blocking file work: call it in a thread).

        Raises:
            ConfinementUnavailableError: if all are taken, or the lock file can't be used.
            OSError: EMFILE or ENFILE.
        """
        ids = _leasable()
        if ids is None:
            raise _refused("/etc/subuid and /etc/passwd leave no range of user ids free")
        try:
            fd = _open_locks()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # no fault of the file's
            raise _refused(f"{_FILE}: {error.strerror}", error) from error
        try:
            return cls(_lock_any(fd, ids), fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Closes this copy of the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> IdentityLease:
        """Holds the lease for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes this copy of the descriptor."""
        self.close()


def _lock_any(fd: int, ids: range) -> int:
    """Locks a byte that nobody has locked; returns its id."""
    # From a random place on, since trying from the first would cost a call for each lease in use.
    offset = random.randrange(len(ids))  # noqa: S311  # no secret: it spreads them
    for step in range(len(ids)):
        at = (offset + step) % len(ids)
        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _refused(f"{_FILE} can't be locked: {error.strerror}", error) from error
        else:
            return ids[at]
    raise _refused(f"all {len(ids)} identities are in use")
