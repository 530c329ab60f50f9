"""The system calls that faults are made at: their numbers, and what each may plausibly answer."""

from __future__ import annotations

import errno
import os
from typing import Final

__all__ = ["NAMES", "PLAUSIBLE", "RUNS_FIRST"]

_SHARED: Final = "pidfd_open=434 clone3=435 openat2=437"
"""The same everywhere since number 424 (scripts/syscall.tbl)."""

_X86_64: Final = """
    read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 dup=32 sendmsg=46 socketpair=53
    clone=56 fcntl=72 flock=73 fsync=74 rename=82 mkdir=83 rmdir=84 unlink=87 symlink=88
    readlink=89 chmod=90 fchmod=91 fchown=93 getdents64=217 epoll_ctl=233 waitid=247 openat=257
    mkdirat=258 fchownat=260 newfstatat=262 unlinkat=263 renameat=264 symlinkat=266
    readlinkat=267 fchmodat=268 utimensat=280 epoll_create1=291 pipe2=293 renameat2=316
    memfd_create=319 copy_file_range=326 statx=332
"""
"""arch/x86/entry/syscalls/syscall_64.tbl"""

_AARCH64: Final = """
    read=63 write=64 close=57 fstat=80 dup=23 sendmsg=211 socketpair=199 clone=220 fcntl=25
    flock=32 fsync=82 renameat=38 mkdirat=34 unlinkat=35 symlinkat=36 readlinkat=78 fchmodat=53
    fchmod=52 fchown=55 getdents64=61 epoll_ctl=21 waitid=95 openat=56 fchownat=54
    newfstatat=79 utimensat=88 epoll_create1=20 pipe2=59 renameat2=276 memfd_create=279
    copy_file_range=285 statx=291
"""
"""include/uapi/asm-generic/unistd.h"""


def _read_table(text: str) -> dict[int, str]:
    pairs = (pair.split("=") for pair in text.split())
    return {int(number): name for name, number in pairs}


_TABLES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}

NAMES: Final = (
    _read_table(_TABLES[os.uname().machine] + _SHARED) if os.uname().machine in _TABLES else {}
)
"""Number to name on this machine; nothing where it is none of those that we run on."""

_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_NO_ENTRY: Final = (errno.ENOSPC, errno.EROFS)
_DISK: Final = (errno.EIO, errno.EROFS)
_LOOK: Final = (errno.EIO, errno.ENOMEM)

PLAUSIBLE: Final[dict[str, tuple[int, ...]]] = {
    "read": (errno.EIO, errno.EINTR),
    "write": (errno.ENOSPC, errno.EIO, errno.EINTR),
    "close": (errno.EIO, errno.EINTR),
    **dict.fromkeys(("open", "openat", "openat2"), (errno.EMFILE, errno.EIO, errno.ENOMEM)),
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx", "readlink"), _LOOK),
    **dict.fromkeys(("readlinkat", "getdents64"), _LOOK),
    **dict.fromkeys(("dup", "pipe2", "epoll_create1"), _NO_DESCRIPTOR),
    **dict.fromkeys(("socketpair", "pidfd_open", "memfd_create"), (*_NO_DESCRIPTOR, errno.ENOMEM)),
    **dict.fromkeys(("mkdir", "mkdirat", "symlink", "symlinkat"), _NO_ENTRY),
    **dict.fromkeys(("rename", "renameat", "renameat2"), (errno.ENOSPC, errno.EIO)),
    **dict.fromkeys(("rmdir", "unlink", "unlinkat", "utimensat"), _DISK),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat"), _DISK),
    **dict.fromkeys(("fchown", "fchownat"), (errno.EPERM, errno.EIO)),
    **dict.fromkeys(("clone", "clone3"), (errno.EAGAIN, errno.ENOMEM)),
    "epoll_ctl": (errno.ENOSPC, errno.ENOMEM),
    "sendmsg": (errno.ENOBUFS, errno.EACCES),
    "fcntl": (errno.ENOLCK,),
    "flock": (errno.ENOLCK,),
    "fsync": (errno.EIO, errno.ENOSPC),
    "copy_file_range": (errno.EIO, errno.ENOSPC, errno.EXDEV),
    "waitid": (errno.EINTR,),
}
"""What a call may say on a machine in trouble; the first is tried always, the others in a soak."""

RUNS_FIRST: Final = frozenset({"close"})
"""Calls that have done their work also where they fail: Linux closes first (close(2))."""
