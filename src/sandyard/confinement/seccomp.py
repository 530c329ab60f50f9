"""The seccomp program: which system calls are refused, with which error, and why.

The rules are a table, from which a classic BPF program is assembled; everything that the table does
not name is allowed. The program is in force for every process inside, our own first process
included. It runs once per call: of calls that no rule names the kernel remembers the answer.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from sandyard.confinement.bpf import ARCH, NUMBER, Assembler, Label, argument
from sandyard.confinement.syscalls import SYSCALL_TABLES, SyscallTable
from sandyard.errors import ConfinementUnavailableError

__all__ = [
    "AnyBit",
    "Condition",
    "IsNot",
    "IsValue",
    "NoBit",
    "Rule",
    "narrowing_program",
    "seccomp_program",
    "seccomp_rules",
]

# What a filter answers (linux/seccomp.h).
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL_PROCESS: Final = 0x80000000

_BLOCK: Final = 8
"""Refused numbers that are compared one by one. At its installation the kernel tries a program with
every number there is, so the length of its paths is a part of every start."""


@dataclass(frozen=True, slots=True)
class IsValue:
    """The argument at ``index`` is ``value``, in its low 32 bits."""

    index: int
    value: int


@dataclass(frozen=True, slots=True)
class IsNot:
    """The argument at ``index`` is none of ``values``, in its low 32 bits."""

    index: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnyBit:
    """The argument at ``index`` has a bit of ``mask``."""

    index: int
    mask: int


@dataclass(frozen=True, slots=True)
class NoBit:
    """The argument at ``index`` has no bit of ``mask``."""

    index: int
    mask: int


Condition = IsValue | IsNot | AnyBit | NoBit


@dataclass(frozen=True, slots=True)
class Rule:
    """System calls that are refused.

    Attributes:
        calls: their names; those that an architecture does not have are left out there.
        error: the errno that they fail with.
        when: what must hold of the arguments, all of it; empty refuses every call.
    """

    calls: tuple[str, ...]
    error: int
    when: tuple[Condition, ...] = ()


_SETUID_SETGID: Final = 0o6000
_O_WRONLY: Final = 0o1
_O_RDWR: Final = 0o2
_O_CREAT: Final = 0o100
_O_TRUNC: Final = 0o1000
_O_TMPFILE_BIT: Final = 0o20000000  # __O_TMPFILE: O_TMPFILE without O_DIRECTORY, which varies
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_AF_UNIX: Final = 1
_AF_INET: Final = 2
_AF_INET6: Final = 10
_AF_NETLINK: Final = 16
_NETLINK_ROUTE: Final = 0
_SOCKET_NAMES_OTHERS: Final = 0b10
"""Of the kinds of Unix sockets, SOCK_DGRAM (2) and SOCK_RAW (3, the same) have this bit; SOCK_STREAM
(1) and SOCK_SEQPACKET (5) do not, and neither do the flags that come with a kind."""
_ADDR_NO_RANDOMIZE: Final = 0x0040000

_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}. CLONE_NEWTIME lies in the bits that clone(2) takes for
the exit signal, so it can't be asked for there; unshare(2) and clone3(2) are refused as a whole."""

_CREATES: Final = _O_CREAT | _O_TMPFILE_BIT

_OTHERS_MEMORY: Final = Rule(
    # Reaching into a process is reaching past everything that was checked when it did its work.
    ("ptrace", "process_vm_readv", "process_vm_writev"),
    errno.EPERM,
)
_OTHERS_FILES: Final = Rule(("pidfd_getfd",), errno.EPERM)
_PERSONALITY: Final = Rule(("personality",), errno.EPERM)
_DEBUGGER_PERSONALITY: Final = Rule(
    # A debugger asks for the personality and turns address randomisation off, for what it starts.
    ("personality",),
    errno.EPERM,
    (IsNot(0, (0, _ADDR_NO_RANDOMIZE, 0xFFFFFFFF)),),
)
_KEYRINGS: Final = Rule(
    # Keyrings belong to a user id, and no namespace separates them.
    ("keyctl", "add_key", "request_key"),
    errno.EPERM,
)
_KERNEL_PROGRAMS: Final = Rule(
    # Large interfaces to the kernel's inside. io_uring also does what other calls do without
    # passing by this filter.
    (
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    ),
    errno.EPERM,
)
_MOUNTS: Final = Rule(
    (
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "open_by_handle_at",
        "quotactl",
        "quotactl_fd",
    ),
    errno.EPERM,
)
_NAMESPACES: Final = Rule(
    # A user namespace gives back, inside it, every capability that was dropped.
    ("setns", "unshare"),
    errno.EPERM,
)
_MACHINE: Final = Rule(
    (
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "syslog",
        "settimeofday",
        "clock_settime",
        "clock_adjtime",
        "adjtimex",
        "iopl",
        "ioperm",
        "modify_ldt",
    ),
    errno.EPERM,
)
_UNREADABLE: Final = Rule(
    # Their flags and modes lie behind a pointer, which a filter can't follow. ENOSYS is what old
    # kernels say, and the C libraries then use clone(2) and openat(2), whose arguments we see.
    ("clone3", "openat2"),
    errno.ENOSYS,
)
_CONDITIONAL: Final = (
    # A setuid file in the workspace would be the caller's on the host, where no mount says nosuid.
    Rule(("open",), errno.EPERM, (AnyBit(1, _CREATES), AnyBit(2, _SETUID_SETGID))),
    Rule(("openat",), errno.EPERM, (AnyBit(2, _CREATES), AnyBit(3, _SETUID_SETGID))),
    Rule(("chmod", "fchmod", "creat", "mknod", "mkdir"), errno.EPERM, (AnyBit(1, _SETUID_SETGID),)),
    Rule(
        ("fchmodat", "fchmodat2", "mknodat", "mkdirat"), errno.EPERM, (AnyBit(2, _SETUID_SETGID),)
    ),
    # These put characters into a terminal's input, as if its user had typed them.
    Rule(("ioctl",), errno.EPERM, (IsValue(1, _TIOCSTI),)),
    Rule(("ioctl",), errno.EPERM, (IsValue(1, _TIOCLINUX),)),
    Rule(("clone",), errno.EPERM, (AnyBit(0, _NEW_NAMESPACES),)),
    # The first process has the same user id as the commands: they could starve it.
    Rule(("prlimit64",), errno.EPERM, (IsNot(0, (0,)),)),
)
_ANY_SOCKETS: Final = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)

_SHARED_IPC: Final = Rule(
    # Without an IPC namespace these are the whole machine's, and a user's own are open to him.
    (
        "shmget",
        "shmat",
        "shmctl",
        "semget",
        "semop",
        "semtimedop",
        "semctl",
        "msgget",
        "msgsnd",
        "msgrcv",
        "msgctl",
        "mq_open",
        "mq_unlink",
    ),
    errno.ENOSYS,
)
_SHARED_PROCESSES: Final = (
    # Without a PID namespace a number can be any process's of the same user. 0 is the caller.
    Rule(
        ("sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"),
        errno.EPERM,
        (IsNot(0, (0,)),),
    ),
    Rule(("setpriority",), errno.EPERM, (IsNot(0, (0,)),)),
    Rule(("setpriority", "ioprio_set"), errno.EPERM, (IsNot(1, (0,)),)),
    Rule(("migrate_pages", "move_pages"), errno.EPERM, (IsNot(0, (0,)),)),
    Rule(("process_madvise", "process_mrelease", "kcmp"), errno.EPERM),
)


_SHARED_MOUNTS: Final = Rule(
    # They list what is mounted where outside, without a path to ask for.
    ("statmount", "listmount"),
    errno.ENOSYS,
)
_SHARED_FILES: Final = tuple(
    # The third access mode, both bits, asks for no right of Landlock's, and opens whatever modes
    # allow: to empty a file (ABI 1 and 2), or for the ioctl calls of a device (before ABI 5).
    Rule((call,), errno.EACCES, (AnyBit(at, _O_WRONLY), AnyBit(at, _O_RDWR)))
    for call, at in (("open", 1), ("openat", 2))
)
_TRUNCATING: Final = (
    # Of a Landlock that does not know truncation, what opens for writing is all that is asked.
    Rule(("truncate",), errno.EACCES),
    *(
        Rule((call,), errno.EACCES, (AnyBit(at, _O_TRUNC), NoBit(at, _O_WRONLY | _O_RDWR)))
        for call, at in (("open", 1), ("openat", 2))
    ),
)

_OTHER_PAIRS: Final = Rule(
    # It makes a socket of any family before it finds out that the family has no pairs.
    ("socketpair",),
    errno.EAFNOSUPPORT,
    (IsNot(0, (_AF_UNIX,)),),
)


def _unconnected_pairs(error: int) -> Rule:
    """Pairs whose ends are not bound to each other: connect and sendto go on from them to any name."""
    return Rule(("socketpair",), error, (AnyBit(1, _SOCKET_NAMES_OTHERS),))


def seccomp_rules(
    *,
    unix_sockets: bool = True,
    ptrace: bool = False,
    internet: bool = True,
    shared: bool = False,
    truncation: bool = True,
) -> tuple[Rule, ...]:
    """The rules that are in force.

    Args:
        internet: False refuses sockets that speak to a network, loopback included, for where there
            is no network namespace.
        shared: True where processes, IPC and files are those of the host.
        truncation: False refuses to empty a file that is not open for writing.
        ptrace: True allows debuggers and tracers on other processes inside. Filters are applied
            after a tracer has had its say (Linux 4.8), so it can't talk a call past them.
        unix_sockets: False refuses new Unix sockets, and pairs of datagram sockets, which can be
            connected to others; pairs of streams, whose ends reach no one else, are allowed always.
    """
    families = tuple(
        family for family in _ANY_SOCKETS if (unix_sockets if family == _AF_UNIX else internet)
    )
    sockets = (
        # Each family is a protocol stack; most are loaded on demand and seldom looked at.
        Rule(("socket",), errno.EAFNOSUPPORT, (IsNot(0, families),)),
        Rule(
            ("socket",),
            errno.EAFNOSUPPORT,
            (IsValue(0, _AF_NETLINK), IsNot(2, (_NETLINK_ROUTE,))),
        ),
        _OTHER_PAIRS,
        *(() if unix_sockets else (_unconnected_pairs(errno.ESOCKTNOSUPPORT),)),
    )
    return (
        *_CONDITIONAL,
        *sockets,
        *((_SHARED_IPC, *_SHARED_PROCESSES, _SHARED_MOUNTS, *_SHARED_FILES) if shared else ()),
        *(() if truncation else _TRUNCATING),
        *((_DEBUGGER_PERSONALITY,) if ptrace else (_OTHERS_MEMORY, _PERSONALITY)),
        _UNREADABLE,
        _OTHERS_FILES,
        _KEYRINGS,
        _KERNEL_PROGRAMS,
        _MOUNTS,
        _NAMESPACES,
        _MACHINE,
    )


@lru_cache(maxsize=16)  # one program for each machine and set of options
def seccomp_program(
    machine: str,
    *,
    unix_sockets: bool = True,
    ptrace: bool = False,
    internet: bool = True,
    shared: bool = False,
    truncation: bool = True,
) -> bytes:
    """The program for ``machine``, as an array of ``struct sock_filter``.

    Raises:
        ConfinementUnavailableError: the numbers of this machine's system calls are not known.
    """
    table = SYSCALL_TABLES.get(machine)
    if table is None:
        raise ConfinementUnavailableError(
            "system calls can't be confined",
            dimension="syscalls",
            cause_text=f"there is no table of system calls for {machine or 'this processor'}",
            fix=f"use a machine of the kind {' or '.join(SYSCALL_TABLES)}",
        )
    rules = seccomp_rules(
        unix_sockets=unix_sockets,
        ptrace=ptrace,
        internet=internet,
        shared=shared,
        truncation=truncation,
    )
    return _assemble(table, rules)


@lru_cache(maxsize=16)
def narrowing_program(
    machine: str, *, network: bool = True, unix_sockets: bool = True, ptrace: bool = True
) -> bytes:
    """Another program for a command that has less than its session; empty if it lacks nothing.

    It stands beside the session's own, and the stricter answer of the two counts.

    Args:
        machine: the processor; its table is known, since the session runs.
        network: False refuses new sockets of all families but Unix ones.
        unix_sockets: False refuses new Unix sockets, and pairs that can be connected to others.
        ptrace: False refuses reaching into other processes.
    """
    rules: tuple[Rule, ...] = ()
    if not network:
        rules += (Rule(("socket",), errno.EACCES, (IsNot(0, (_AF_UNIX,)),)),)
    if not unix_sockets:
        rules += (Rule(("socket",), errno.EACCES, (IsValue(0, _AF_UNIX),)),)
        rules += (_unconnected_pairs(errno.EACCES),)
    if not ptrace:
        rules += (_OTHERS_MEMORY,)
    return _assemble(SYSCALL_TABLES[machine], rules) if rules else b""


def _assemble(table: SyscallTable, rules: tuple[Rule, ...]) -> bytes:
    code = Assembler()
    _check_architecture(code, table)
    for call, its_rules in _conditional_rules(rules).items():
        if call in table.numbers:
            _add_conditional(code, table.numbers[call], its_rules)
    _add_refused(code, _refused_numbers(table, rules))
    return code.program()


def _check_architecture(code: Assembler, table: SyscallTable) -> None:
    """Refuse what the numbers below would misjudge; leaves the call's number loaded."""
    ours, known = Label(), Label()
    code.load(ARCH)
    code.if_equal(table.audit_arch, yes=ours)
    code.give(_KILL_PROCESS)
    code.place(ours)
    code.load(NUMBER)
    # Above the highest we know lie the calls of later kernels, and on x86_64 the x32 calls: 64-bit
    # numbers with bit 30 set, and 512 to 547, which older kernels also take without it.
    code.if_greater(table.highest, no=known)
    code.give(_ERRNO | errno.ENOSYS)
    code.place(known)


def _conditional_rules(rules: tuple[Rule, ...]) -> Mapping[str, tuple[Rule, ...]]:
    by_call: dict[str, tuple[Rule, ...]] = {}
    for rule in rules:
        for call in rule.calls if rule.when else ():
            by_call[call] = (*by_call.get(call, ()), rule)
    return MappingProxyType(by_call)


def _add_conditional(code: Assembler, number: int, rules: tuple[Rule, ...]) -> None:
    """One call's block: it starts and, for other calls, ends with the number loaded."""
    after = Label()
    code.if_equal(number, no=after)
    for rule in rules:
        unmatched = Label()
        for condition in rule.when:
            _add_condition(code, condition, unmatched)
        code.give(_ERRNO | rule.error)
        code.place(unmatched)
    code.give(_ALLOW)
    code.place(after)


def _add_condition(code: Assembler, condition: Condition, unmatched: Label) -> None:
    code.load(argument(condition.index))
    match condition:
        case IsValue():
            code.if_equal(condition.value, no=unmatched)
        case IsNot():
            for value in condition.values:
                code.if_equal(value, yes=unmatched)
        case AnyBit():
            code.if_any_bit(condition.mask, no=unmatched)
        case NoBit():
            code.if_any_bit(condition.mask, yes=unmatched)


def _refused_numbers(table: SyscallTable, rules: tuple[Rule, ...]) -> Mapping[int, int]:
    """The error of each number that is refused whatever its arguments, in ascending order."""
    errors = {
        table.numbers[call]: rule.error
        for rule in rules
        if not rule.when
        for call in rule.calls
        if call in table.numbers
    }
    return MappingProxyType(dict(sorted(errors.items())))


def _add_refused(code: Assembler, errors: Mapping[int, int]) -> None:
    """Blocks in ascending order: a number that a block could hold is in it or nowhere."""
    answers = {error: Label() for error in errors.values()}
    allowed = Label()
    numbers = list(errors)
    for first in range(0, len(numbers), _BLOCK):
        block, above = numbers[first : first + _BLOCK], Label()
        code.if_greater(block[-1], yes=above)
        for number in block[:-1]:
            code.if_equal(number, yes=answers[errors[number]])
        code.if_equal(block[-1], yes=answers[errors[block[-1]]], no=allowed)
        code.place(above)
    code.place(allowed)
    code.give(_ALLOW)
    for error, label in answers.items():
        code.place(label)
        code.give(_ERRNO | error)
