"""The system call numbers that the seccomp program names, per architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["SYSCALL_TABLES", "SyscallTable"]


@dataclass(frozen=True, slots=True)
class SyscallTable:
    """One architecture, as seccomp sees it.

    Attributes:
        audit_arch: AUDIT_ARCH_* (linux/audit.h), what ``seccomp_data.arch`` holds.
        highest: the highest number that we know.
        numbers: name to number; a name that is missing does not exist on this architecture.
    """

    audit_arch: int
    highest: int
    numbers: Mapping[str, int]


_HIGHEST_KNOWN: Final = 469
"""file_setattr(2), the last of Linux 6.18. Numbers have been the same on all architectures since
number 424 (scripts/syscall.tbl)."""

_COMMON: Final = {
    "clone3": 435,
    "fchmodat2": 452,
    "fsconfig": 431,
    "fsmount": 432,
    "fsopen": 430,
    "fspick": 433,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "io_uring_setup": 425,
    "listmount": 458,
    "mount_setattr": 442,
    "move_mount": 429,
    "open_tree": 428,
    "open_tree_attr": 467,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "process_mrelease": 448,
    "quotactl_fd": 443,
    "statmount": 457,
}

_X86_64: Final = {
    # arch/x86/entry/syscalls/syscall_64.tbl
    "acct": 163,
    "add_key": 248,
    "adjtimex": 159,
    "bpf": 321,
    "chmod": 90,
    "chroot": 161,
    "clock_adjtime": 305,
    "clock_settime": 227,
    "clone": 56,
    "creat": 85,
    "delete_module": 176,
    "fchmod": 91,
    "fchmodat": 268,
    "finit_module": 313,
    "init_module": 175,
    "ioctl": 16,
    "ioperm": 173,
    "iopl": 172,
    "ioprio_set": 251,
    "kcmp": 312,
    "kexec_file_load": 320,
    "kexec_load": 246,
    "keyctl": 250,
    "migrate_pages": 256,
    "mkdir": 83,
    "mkdirat": 258,
    "mknod": 133,
    "mknodat": 259,
    "modify_ldt": 154,
    "mount": 165,
    "move_pages": 279,
    "mq_open": 240,
    "mq_unlink": 241,
    "msgctl": 71,
    "msgget": 68,
    "msgrcv": 70,
    "msgsnd": 69,
    "open": 2,
    "open_by_handle_at": 304,
    "openat": 257,
    "perf_event_open": 298,
    "personality": 135,
    "pivot_root": 155,
    "prlimit64": 302,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "ptrace": 101,
    "quotactl": 179,
    "reboot": 169,
    "request_key": 249,
    "sched_setaffinity": 203,
    "sched_setattr": 314,
    "sched_setparam": 142,
    "sched_setscheduler": 144,
    "semctl": 66,
    "semget": 64,
    "semop": 65,
    "semtimedop": 220,
    "setns": 308,
    "setpriority": 141,
    "settimeofday": 164,
    "shmat": 30,
    "shmctl": 31,
    "shmget": 29,
    "socket": 41,
    "socketpair": 53,
    "truncate": 76,
    "swapoff": 168,
    "swapon": 167,
    "syslog": 103,
    "umount2": 166,
    "unshare": 272,
    "userfaultfd": 323,
}

_AARCH64: Final = {
    # include/uapi/asm-generic/unistd.h: the calls that others superseded do not exist.
    "acct": 89,
    "add_key": 217,
    "adjtimex": 171,
    "bpf": 280,
    "chroot": 51,
    "clock_adjtime": 266,
    "clock_settime": 112,
    "clone": 220,
    "delete_module": 106,
    "fchmod": 52,
    "fchmodat": 53,
    "finit_module": 273,
    "init_module": 105,
    "ioctl": 29,
    "ioprio_set": 30,
    "kcmp": 272,
    "kexec_file_load": 294,
    "kexec_load": 104,
    "keyctl": 219,
    "migrate_pages": 238,
    "mkdirat": 34,
    "mknodat": 33,
    "mount": 40,
    "move_pages": 239,
    "mq_open": 180,
    "mq_unlink": 181,
    "msgctl": 187,
    "msgget": 186,
    "msgrcv": 188,
    "msgsnd": 189,
    "open_by_handle_at": 265,
    "openat": 56,
    "perf_event_open": 241,
    "personality": 92,
    "pivot_root": 41,
    "prlimit64": 261,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "ptrace": 117,
    "quotactl": 60,
    "reboot": 142,
    "request_key": 218,
    "sched_setaffinity": 122,
    "sched_setattr": 274,
    "sched_setparam": 118,
    "sched_setscheduler": 119,
    "semctl": 191,
    "semget": 190,
    "semop": 193,
    "semtimedop": 192,
    "setns": 268,
    "setpriority": 140,
    "settimeofday": 170,
    "shmat": 196,
    "shmctl": 195,
    "shmget": 194,
    "socket": 198,
    "socketpair": 199,
    "truncate": 45,
    "swapoff": 225,
    "swapon": 224,
    "syslog": 116,
    "umount2": 39,
    "unshare": 97,
    "userfaultfd": 282,
}

SYSCALL_TABLES: Final[Mapping[str, SyscallTable]] = MappingProxyType(
    {
        "x86_64": SyscallTable(0xC000003E, _HIGHEST_KNOWN, MappingProxyType(_COMMON | _X86_64)),
        "aarch64": SyscallTable(0xC00000B7, _HIGHEST_KNOWN, MappingProxyType(_COMMON | _AARCH64)),
    }
)
"""Tables by the name that uname(2) gives the machine."""
