"""What the kernel opens for us: paths that it resolves itself, and nothing beside what was meant.

openat2(2) (Linux 5.6) resolves a path so that nothing can be swapped between a check and its use.
Where a machine has no such call, or a seccomp filter in front of it, each function here does the
same name by name, or says ENOSYS so that its caller does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from sandyard.limits import OPEN_RETRIES
from sandyard.workspace.names import split_names

__all__ = [
    "NO_DIRECTORY",
    "PATH_ONLY",
    "RESOLVE_BENEATH",
    "RESOLVE_NO_MAGICLINKS",
    "WALK",
    "Kernel",
    "chmod_child",
    "chmod_handle",
    "closed_on_error",
    "link_target",
    "open_child",
    "open_without_links",
    "openat2",
    "reopen",
    "reopen_file",
    "reopen_regular",
]

_OPENAT2: Final = 437
"""Its number in the unified table that every architecture shares since Linux 5.0."""

_RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

PATH_ONLY: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)
"""Open for walking and looking only, which no file, FIFO or device notices; macOS has no such
thing."""

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
"""Non-blocking: who holds a lease on the file could keep us waiting (fcntl(2), F_SETLEASE)."""

WALK: Final = PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
"""What opening with O_DIRECTORY and O_NOFOLLOW says of a file or a symlink."""

_PERHAPS_MISSING: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EACCES})
"""What a kernel without openat2 says, or a seccomp filter that does not know it: those of older
container runtimes say EPERM."""

_BY_NUMBER: Final = "/proc/self/fd/{}" if sys.platform == "linux" else "/dev/fd/{}"
"""Where an open descriptor has a name."""


@contextmanager
def closed_on_error(descriptor: int) -> Iterator[None]:
    """Close a descriptor that was just opened if the block, which is to keep it, fails."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of linux/openat2.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@lru_cache(maxsize=64)  # some few are used; making one takes longer than the kernel does
def _how_of(flags: int, mode: int, resolve: int) -> _OpenHow:
    """What the kernel is told; it only reads it."""
    return _OpenHow(flags | os.O_CLOEXEC, mode, resolve)


_HOW_SIZE: Final = ctypes.sizeof(_OpenHow)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Kernel:
    """Whether openat2 is there; found out by the first refusal. Tests clear it to take the walk."""

    resolves: bool = sys.platform == "linux"  # elsewhere number 437 is another call


def _is_missing() -> bool:
    """Tell a refusal of openat2 as such from one of what it should open.

    The kernel looks at the size of ``open_how`` before all else, at permissions included, and
    refuses one of no bytes with EINVAL. So any other answer comes from something in front of it.
    """
    opened = _syscall(_OPENAT2, -1, None, None, 0)
    return opened >= 0 or ctypes.get_errno() != errno.EINVAL


def openat2(directory: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Ask the kernel to resolve and open a path.

    Raises:
        OSError: as open(2), and ENOSYS where the kernel or a seccomp filter has no openat2; EAGAIN
            if directories were renamed during every attempt.
    """
    if not Kernel.resolves:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    how = _how_of(flags, mode, resolve)
    raw = path if isinstance(path, bytes) else os.fsencode(path)
    for _ in range(OPEN_RETRIES):
        opened = _syscall(_OPENAT2, directory, raw, ctypes.byref(how), _HOW_SIZE)
        if opened >= 0:
            return int(opened)
        error = ctypes.get_errno()
        # EAGAIN: somewhere a directory was renamed while ".." was resolved, so the kernel can't
        # vouch for the answer (openat2(2), RESOLVE_BENEATH). EINTR: a signal handler ran.
        if error not in {errno.EAGAIN, errno.EINTR}:
            break
    if error in _PERHAPS_MISSING and _is_missing():
        Kernel.resolves, error = False, errno.ENOSYS
    raise OSError(error, os.strerror(error), path)


def reopen(handle: int, flags: int) -> int:
    """Open what an O_PATH descriptor leads to, that and nothing else, and return a new descriptor.

    Raises:
        OSError: as open(2), and EOPNOTSUPP where /proc is not mounted.
    """
    try:
        # The magic link is not resolved by name: it leads to the very inode (proc(5)).
        return os.open(_BY_NUMBER.format(handle), flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.EOPNOTSUPP, "/proc is not mounted, but needed") from None


def reopen_file(handle: int) -> int:
    """Open for reading the regular file that an O_PATH descriptor leads to.

    Nothing else is ever opened: a device or FIFO may do something when it is.

    Returns:
        A new descriptor, the caller's to close.

    Raises:
        OSError: EISDIR if it is a directory, EINVAL if it is no regular file, EAGAIN if somebody
            holds a lease on it, or as ``reopen``.
    """
    opened = reopen_regular(handle, os.fstat(handle).st_mode)
    with closed_on_error(opened):
        os.set_blocking(opened, True)
    return opened


def reopen_regular(handle: int, mode: int) -> int:
    """Do what ``reopen_file`` does for who knows the mode of what the descriptor leads to.

    What it returns stays non-blocking, which nobody notices who only reads it.
    """
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return reopen(handle, _READ)


def chmod_child(directory: int, name: str, mode: int) -> None:
    """Set the permissions of a directory in ``directory``, if it is one and on the same mount.

    Raises:
        OSError: as ``open_child`` and chmod(2).
    """
    handle = open_child(directory, name, PATH_ONLY)
    try:
        chmod_handle(handle, mode)
    finally:
        os.close(handle)


def chmod_handle(handle: int, mode: int) -> None:
    """Set the permissions of what an O_PATH descriptor leads to, which is no symlink."""
    # fchmod(2) refuses an O_PATH descriptor; its magic link is the way round (open(2)).
    os.chmod(_BY_NUMBER.format(handle), mode)


def open_child(directory: int, name: str | bytes, access: int = os.O_RDONLY) -> int:
    """Open a directory in ``directory``, if it is one and on the same mount.

    Args:
        directory: descriptor of the directory above.
        name: its name there.
        access: O_RDONLY (default) or O_PATH.

    Raises:
        OSError: EBUSY if something is mounted there, ENOTDIR if it is no directory, or else.
    """
    flags = access | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return openat2(directory, name, flags, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            said = {errno.EXDEV: errno.EBUSY, errno.ELOOP: errno.ENOTDIR}
            number = said.get(error.errno or 0, error.errno or 0)
            raise OSError(number, os.strerror(number), name) from None
    handle = os.open(name, WALK, dir_fd=directory)
    try:
        if _mount_of(handle) != _mount_of(directory):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=handle)
    finally:
        os.close(handle)


def _mount_of(descriptor: int) -> str:
    """Return what a descriptor's mount is known by.

    A device number is not enough where the kernel tells more: a bind mount has that of its source.

    Raises:
        OSError: EBUSY where /proc is not mounted, so that it can't be told.
    """
    if sys.platform != "linux":
        return str(os.fstat(descriptor).st_dev)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as facts:
            return next(line for line in facts if line.startswith("mnt_id:"))
    except FileNotFoundError:
        raise OSError(errno.EBUSY, "without /proc no mount can be told from a directory") from None


def open_without_links(path: str, flags: int) -> int:
    """Open an absolute path of which no part may be a symlink.

    Raises:
        OSError: ELOOP if a part is a symlink, else as open(2).
    """
    relative = "/".join(split_names(path)) or "."
    top = os.open("/", PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return openat2(top, relative, flags, _RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        return _open_stepwise(top, path, flags)
    finally:
        os.close(top)


def _open_stepwise(top: int, path: str, flags: int) -> int:
    """Do what openat2 with RESOLVE_NO_SYMLINKS does, name by name."""
    names = split_names(path)
    here = os.dup(top)
    try:
        for name in names[:-1]:
            try:
                deeper = os.open(name, WALK, dir_fd=here)
            except NotADirectoryError:
                if link_target(here, name) is None:
                    raise
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
            os.close(here)
            here = deeper
        last = names[-1] if names else "."
        opened = os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    with closed_on_error(opened):
        if stat.S_ISLNK(os.fstat(opened).st_mode):  # O_PATH opens the symlink itself
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return opened


def link_target(directory: int, name: str) -> str | None:
    """Return where a symlink points, or None if there is none of that name."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:  # no symlink, or gone since
            return None
        raise
