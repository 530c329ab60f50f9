"""What attacks in Python begin with: raw system calls, and the words in which they tell."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

# The same on all machines since they were unified, from 424 on.
COMMON = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
    "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435, "openat2": 437,
    "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443, "fchmodat2": 452,
    "io_uring_enter": 426, "io_uring_register": 427,
}  # fmt: skip
NUMBERS = COMMON | {
    "x86_64": {
        "open": 2, "ioctl": 16, "clone": 56, "mkdir": 83, "creat": 85, "chmod": 90, "fchmod": 91,
        "ptrace": 101, "syslog": 103, "mknod": 133, "personality": 135, "modify_ldt": 154,
        "pivot_root": 155, "acct": 163, "adjtimex": 159, "chroot": 161, "settimeofday": 164,
        "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "iopl": 172, "ioperm": 173,
        "init_module": 175, "delete_module": 176, "quotactl": 179, "clock_settime": 227,
        "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "openat": 257,
        "mkdirat": 258, "mknodat": 259, "fchmodat": 268, "unshare": 272, "perf_event_open": 298,
        "prlimit64": 302, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
        "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313,
        "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "swapoff": 168, "shmget": 29,
        "linkat": 265,
    },
    "aarch64": {
        "ioctl": 29, "mknodat": 33, "mkdirat": 34, "linkat": 37, "umount2": 39, "mount": 40,
        "pivot_root": 41, "chroot": 51, "fchmod": 52, "fchmodat": 53, "openat": 56, "quotactl": 60,
        "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
        "settimeofday": 170, "adjtimex": 171, "shmget": 194, "add_key": 217, "request_key": 218,
        "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225, "perf_event_open": 241,
        "prlimit64": 261, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280,
        "userfaultfd": 282, "kexec_file_load": 294,
    },
}[os.uname().machine]  # fmt: skip

REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EAFNOSUPPORT)


def tell(*words: object) -> None:
    """Write a line at once, whatever happens next."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def call(which: str | int, *arguments: int | bytes | None) -> int:
    """Make a system call; returns its result, or the error's number made negative."""
    number = which if isinstance(which, int) else NUMBERS.get(which)
    if number is None:
        tell(f"{which}: not on this machine")
        return -errno.ENOSYS
    words = [
        ctypes.c_char_p(word) if isinstance(word, bytes | None) else ctypes.c_long(word)
        for word in arguments
    ]
    ctypes.set_errno(0)
    result: int = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        result = -ctypes.get_errno()
        tell(f"{which}:", errno.errorcode.get(-result, result))
    return result


def escape_if(succeeded: object, *what: object) -> None:
    """Tell of an escape."""
    if succeeded:
        tell("ESCAPE", *what)


def reach(which: str, *arguments: int | bytes | None) -> None:
    """Tell of an escape where the kernel looks at a call's arguments instead of refusing it."""
    result = call(which, *arguments)
    escape_if(result >= 0 or -result not in REFUSALS, which, result)


def attempt(which: str, *arguments: int | bytes | None) -> int:
    """Tell of an escape where a call succeeds, and return what it gave."""
    result = call(which, *arguments)
    escape_if(result >= 0, which, result)
    return result
