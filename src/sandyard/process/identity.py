"""Owns the uid that a sandbox of root's is on the host: leased, never shared, never uid 0.

A lease is an open file description lock (fcntl(2), F_OFD_SETLK) on one byte of one file: byte n
stands for the n-th identity, and a sandbox of several users has as many bytes in a row. What these
users own on disk is theirs by ids behind the range, which are nobody's and never leased, so that a
later lease shows their files as theirs again. The descriptor goes to the sandbox's outer process, so the lease ends
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

from sandyard.accounts import ACCOUNTS_MOST
from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import IDENTITIES_FIRST, IDENTITIES_LEASED, IDENTITIES_STEP
from sandyard.plan import SpawnUser
from sandyard.platform.shortage import refuse_shortage

__all__ = ["IdentityLease", "first_parked", "free_range", "owner_outside", "taken_ranges"]

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
    """The first range for leases of which, and of the ids behind it, nobody has a part; or None."""
    ranges = list(taken)
    whole = IDENTITIES_LEASED + ACCOUNTS_MOST
    for first in range(IDENTITIES_FIRST, 2**31 - whole, IDENTITIES_STEP):
        if not any(max(r.start, first) < min(r.stop, first + whole) for r in ranges):
            return range(first, first + IDENTITIES_LEASED)
    return None


_ID_DIGITS = 10
_SUBORDINATE = ("/etc/subuid", "/etc/subgid")
_ACCOUNTS = "/etc/passwd"
_NOTHING_FREE = "/etc/subuid and /etc/passwd leave no range of user ids free"


def _leasable() -> range | None:
    """The range to lease from, as the files that give out ids say now."""
    return _range_for(tuple(_version(path) for path in (*_SUBORDINATE, _ACCOUNTS)))


def first_parked(count: int) -> int:
    """The id on disk of a session's first user besides its own; the others follow (blocking).

    It is the same for all sessions, for as long as nobody is given ids of the range; an ordinary
    user's are ids of that user's own.

    Args:
        count: how many are needed.

    Raises:
        ConfinementUnavailableError: there are none.
    """
    if os.geteuid() != 0:
        from sandyard.subordinate import own_range  # noqa: PLC0415  # few sessions have several users

        return own_range(count).start
    ids = _leasable()
    if ids is None:
        raise _refused(_NOTHING_FREE)
    return ids.stop


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


def owner_outside(
    sandbox: tuple[int, int] | None, user: SpawnUser | None
) -> tuple[int, int] | None:
    """Who a command is on the host.

    Args:
        sandbox: uid and gid of the sandbox's own user there, or None for the caller.
        user: whom the command runs as, or None for the sandbox's own.
    """
    if sandbox is None or user is None:
        return sandbox
    uid, gid = sandbox
    return uid + user.number, gid + user.number


@dataclass(slots=True)
class IdentityLease:
    """A uid (and the equal gid) that no other sandbox on this machine has, or several in a row.

    Attributes:
        uid: the id on the host, or the first of them.
        fd: the descriptor that holds the lease; whoever keeps a copy keeps the lease.
    """

    uid: int
    fd: int

    @classmethod
    def take(cls, count: int = 1) -> IdentityLease:
        """Leases a free identity (blocking file work: call it in a thread).

        Args:
            count: how many in a row.

        Raises:
            ConfinementUnavailableError: if all are taken, or the lock file can't be used.
            OSError: EMFILE or ENFILE.
        """
        ids = _leasable()
        if ids is None:
            raise _refused(_NOTHING_FREE)
        try:
            fd = _open_locks()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # no fault of the file's
            raise _refused(f"{_FILE}: {error.strerror}", error) from error
        try:
            return cls(_lock_any(fd, ids, count), fd)
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


def _lock_any(fd: int, ids: range, count: int) -> int:
    """Locks bytes that nobody has locked; returns the first one's id."""
    # From a random place on, since trying from the first would cost a call for each lease in use.
    places = max(0, len(ids) - count + 1)
    offset = random.randrange(places) if places else 0  # noqa: S311  # no secret: it spreads them
    for step in range(places):
        at = (offset + step) % places
        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, count, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _refused(f"{_FILE} can't be locked: {error.strerror}", error) from error
        else:
            return ids[at]
    raise _refused(f"all {len(ids)} identities are in use")
