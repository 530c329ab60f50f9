"""Whose rights the work in a workspace is done with: those of its owner, never more of root's.

Root may do what the owner of a workspace may not: read another's file that stands in it, give away
what it makes, replace what a sticky directory protects. Somebody who swaps names in such a workspace
could borrow these powers. So where this program is root and the workspace is somebody else's, the
thread that works takes the owner's identity for files, and nobody else's, until the work is done.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["acting_as", "acting_for", "has_all_powers", "is_asked", "rightful_owner"]

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    for _call in (_libc.setfsuid, _libc.setfsgid):  # ids are unsigned, as they go in and out
        _call.argtypes, _call.restype = (ctypes.c_uint,), ctypes.c_uint

_NOBODY_AT_ALL: Final = 0xFFFF_FFFF
"""An id that can't be set, so that trying to tells which one is (setfsuid(2))."""

_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159}
"""setgroups(2) by machine. The kernel's call changes one thread; libc's changes all of them."""

_GET_DUMPABLE: Final = 3
_SET_DUMPABLE: Final = 4


class _Asked(threading.local):
    """Another user of the session's than the workspace's owner, for whom this thread works."""

    user: Owner | None = None
    groups: tuple[int, ...] = ()


_asked: Final = _Asked()


@contextmanager
def acting_for(user: Owner, groups: tuple[int, ...]) -> Iterator[None]:
    """Let all work in workspaces that this thread does in the block be somebody's.

    Args:
        user: who asks for it, by ids on disk.
        groups: the user's groups besides its own, likewise.
    """
    before = _asked.user, _asked.groups
    _asked.user, _asked.groups = user, groups
    try:
        yield
    finally:
        _asked.user, _asked.groups = before


def is_asked() -> bool:
    """Tell whether this thread works for another user than the workspace's owner."""
    return _asked.user is not None


def rightful_owner(root: WorkspaceRoot) -> Owner | None:
    """Return whom the work in a workspace is done as; None means as this program.

    An ordinary user can't become another, and need not: what it makes is its own, as the root is.

    Raises:
        OSError: ENOENT if somebody removed the workspace, which would look like an empty one.
    """
    facts = os.fstat(root.fd)
    if not facts.st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), root.path)
    if _asked.user is not None:
        return _asked.user
    if os.geteuid() != 0 or (facts.st_uid, facts.st_gid) == (0, os.getegid()):
        return None
    return Owner(facts.st_uid, facts.st_gid)


def has_all_powers(owner: Owner | None) -> bool:
    """Tell whether work as ``owner`` is root's own, whom no permission bits stop."""
    return owner is None and os.geteuid() == 0


def acting_as(owner: Owner | None) -> AbstractContextManager[None]:
    """Do the block's file work as somebody else; only this thread changes, and only in the block.

    File capabilities go with root's identity (capabilities(7)), supplementary groups are put away.
    It may be nested.

    Args:
        owner: whom to be; None changes nothing.

    Raises:
        PermissionError: this program lacks the capabilities to become another (CAP_SETUID and
            CAP_SETGID); the block is not entered.
    """
    return _AS_WE_ARE if owner is None else _acting(owner)


_AS_WE_ARE: Final = nullcontext()


@contextmanager
def _acting(owner: Owner) -> Iterator[None]:
    """Take another identity, and give it back."""
    groups = os.getgroups()
    with _dumpable:
        uid, gid = _libc.setfsuid(_NOBODY_AT_ALL), _libc.setfsgid(_NOBODY_AT_ALL)
        try:
            more = _asked.groups if owner == _asked.user else ()
            _set_groups((owner.gid, *more), groups)
            _libc.setfsgid(owner.gid)
            _libc.setfsuid(owner.uid)
            _check(owner)
            yield
        finally:
            _libc.setfsuid(uid)
            _libc.setfsgid(gid)
            _set_groups(groups, os.getgroups())


def _check(owner: Owner) -> None:
    """Refuse to go on as somebody else: setfsuid(2) does not tell whether it worked."""
    if Owner(_libc.setfsuid(_NOBODY_AT_ALL), _libc.setfsgid(_NOBODY_AT_ALL)) != owner:
        raise PermissionError(errno.EPERM, f"this program can't act as user {owner.uid}")


def _set_groups(wanted: Sequence[int], present: Sequence[int]) -> None:
    """Give this thread other supplementary groups.

    Raises:
        PermissionError: the kernel refuses.
    """
    if set(wanted) == set(present):
        return
    number = _SETGROUPS.get(os.uname().machine)
    array = (ctypes.c_uint * len(wanted))(*wanted)
    if number is None or _libc.syscall(number, ctypes.c_size_t(len(wanted)), array) != 0:
        raise PermissionError(errno.EPERM, "this program can't put its groups away")


class _Dumpable:
    """The process's dumpable flag (PR_SET_DUMPABLE), as it was before threads changed identity.

    The kernel clears it at each such change, of any thread. Without it, this program could be
    neither debugged nor leave a core file for the rest of its life.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects both attributes, and the flag itself
        self._users = 0
        self._before = 0

    def __enter__(self) -> None:
        """Note the flag, if nobody has changed identity yet."""
        with self._lock:
            if not self._users:
                self._before = _libc.prctl(_GET_DUMPABLE, 0, 0, 0, 0)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        """Put the flag back when everybody is who they were."""
        with self._lock:
            self._users -= 1
            if not self._users and self._before == 1:
                _libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)


_dumpable: Final = _Dumpable()
