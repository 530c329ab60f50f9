"""Explains a plan: which addresses commands reach, which system calls and limits refuse them what."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from sandyard.confinement.etc import HOSTNAME
from sandyard.confinement.explaining_narrowing import (
    lessened_address,
    lessened_call,
    own_limit,
)
from sandyard.confinement.explanation import Explanation, policy_text
from sandyard.confinement.launch import call_options
from sandyard.confinement.seccomp import seccomp_rules
from sandyard.confinement.syscalls import SYSCALL_TABLES
from sandyard.limits import OPEN_FILES_MAX, PROCESSES_MAX, SIZE_MAX_BYTES

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced
    from sandyard.confinement.launch import CallOptions
    from sandyard.types import LimitName

__all__ = [
    "explain_address",
    "explain_limit",
    "explain_network",
    "explain_refusal",
    "explain_syscall",
]

_NETWORK_GRANT: Final = policy_text("network", "host")

_PARTS: Final = {
    "clone": "new namespaces",
    "ioctl": "TIOCSTI and TIOCLINUX",
    "ioprio_set": "other processes",
    "migrate_pages": "other processes",
    "move_pages": "other processes",
    "personality": "all but turning address randomisation off",
    "prlimit64": "other processes",
    "sched_setaffinity": "other processes",
    "sched_setattr": "other processes",
    "sched_setparam": "other processes",
    "sched_setscheduler": "other processes",
    "setpriority": "other processes",
}
"""Which part of a call is refused; of those that are not named, it is the set-id bits of a mode."""

_OPENING: Final = "opening with an access mode that asks for no right"

_MAPPED_IPV4: Final = 0xFFFF
"""The upper bits of an IPv4 address that is written as an IPv6 one (::ffff:127.0.0.1)."""

_SET_ID: Final = "modes with a set-user-id or set-group-id bit"
_MOST: Final = {"open_files": OPEN_FILES_MAX, "processes": PROCESSES_MAX}


def explain_address(host: str, port: int | None, enforced: Enforced) -> Explanation:
    """Explain whether commands can reach an address.

    Args:
        host: a name or an address, without brackets.
        port: None for any.
        enforced: what the session enforces.
    """
    named = f"[{host}]" if ":" in host else host
    subject = named if port is None else f"{named}:{port}"
    if enforced.policy.network != "none":
        told = Explanation(subject, "write", 'Policy.network is "host"', None)
    elif enforced.bare or not _is_loopback(host):
        told = _unreachable(subject, enforced)
    else:
        rule = "the session has a loopback of its own: only what runs in it listens there"
        told = Explanation(subject, "read", rule, _NETWORK_GRANT)
    return lessened_address(told, enforced)


def explain_network(enforced: Enforced) -> Explanation:
    """Explain whether commands have a network at all."""
    if enforced.policy.network != "none":
        told = Explanation("network", "write", 'Policy.network is "host"', None)
        return lessened_address(told, enforced)
    return _unreachable("network", enforced)


def explain_syscall(name: str, enforced: Enforced) -> Explanation | None:
    """Explain whether commands can use a system call; None if there is none of this name."""
    table = SYSCALL_TABLES.get(enforced.machine)
    if table is None or name not in table.numbers:
        return None
    return lessened_call(_explained_call(name, enforced), enforced)


def _explained_call(name: str, enforced: Enforced) -> Explanation:
    options = _options(enforced)
    found = [rule for rule in seccomp_rules(**options) if name in rule.calls]
    if not found:
        return Explanation(name, "write", "no rule refuses it", None)
    error = errno.errorcode[found[0].error]
    if any(not rule.when for rule in found):
        return Explanation(name, "none", f"refused with {error}", _ptrace_grant(name, enforced))
    if name == "socket":
        return _explained_sockets(enforced, options, error)
    if name == "socketpair":
        pairs = "" if options["unix_sockets"] else ", and for pairs of datagram sockets"
        rule = f"refused with {error} for families other than Unix{pairs}"
        return Explanation(name, "read", rule, None)
    parts = {errno.errorcode[rule.error]: _part(name, rule.error) for rule in found}
    told = "; ".join(f"refused with {error} for {part}" for error, part in parts.items())
    return Explanation(name, "read", told, None)


def explain_refusal(number: int, error: int, enforced: Enforced) -> Explanation | None:
    """Explain a call that the kernel says it refused; None if no rule of the session does.

    Args:
        number: of the call, on this machine.
        error: the errno that it was refused with.
        enforced: what the session enforces.
    """
    table = SYSCALL_TABLES.get(enforced.machine)
    names = [] if table is None else [name for name, own in table.numbers.items() if own == number]
    if not names or error not in errno.errorcode:
        return None
    told = explain_syscall(names[0], enforced)
    return None if told is None or told.access == "write" else told


def _part(name: str, error: int) -> str:
    return _OPENING if error == errno.EACCES else _PARTS.get(name, _SET_ID)


def _explained_sockets(enforced: Enforced, options: CallOptions, error: str) -> Explanation:
    unix, internet = options["unix_sockets"], options["internet"]
    kinds = [*(["Unix"] if unix else ()), *(["IPv4", "IPv6"] if internet else ())]
    kinds += ["routing netlink"] if internet else ()
    if not kinds:
        return Explanation("socket", "none", f"refused with {error}", _NETWORK_GRANT)
    rule = f"refused with {error} for families other than {', '.join(kinds[:-1])} and {kinds[-1]}"
    chosen = enforced.policy.syscalls
    lifted = tuple(option for option in chosen if option != "no-unix-sockets")
    grant = None
    if not enforced.bare and lifted != chosen:
        grant = policy_text("syscalls", lifted)
    return Explanation("socket", "read", rule, grant)


def explain_limit(
    name: LimitName, enforced: Enforced, ceiling: float = float("inf")
) -> Explanation:
    """Explain what a limit of the session allows.

    Args:
        name: in ``ResourceLimits``.
        enforced: what the session enforces.
        ceiling: what the calling program itself may have.
    """
    limits, scratch = enforced.policy.limits, enforced.plan.scratch
    value = {
        "open_files": limits.open_files,
        "processes": limits.processes,
        "scratch_size": None if scratch is None else scratch.size,
        "file_size": limits.file_size,
    }.get(name)
    if (own := own_limit(name, enforced, ceiling)) is not None:
        return own
    if value is None:
        return Explanation(name, "write", "no limit of the policy", None)
    if ceiling < value:
        rule = f"the limit of the calling program itself is {ceiling:.0f}"
        return Explanation(name, "none", rule, None)
    larger = min(2 * value, _MOST.get(name, SIZE_MAX_BYTES))
    grant = f"Policy(limits=ResourceLimits({name}={larger}))" if larger > value else None
    return Explanation(name, "none", f"the limit is {value}", grant if ceiling > value else None)


def _unreachable(subject: str, enforced: Enforced) -> Explanation:
    rule = 'Policy.network is "none": there is no interface but the session\'s own loopback'
    if enforced.bare:
        rule = 'Policy.network is "none": without namespaces no socket can be made, for loopback either'
    return Explanation(subject, "none", rule, _NETWORK_GRANT)


def _is_loopback(host: str) -> bool:
    if host in ("localhost", HOSTNAME):
        return True
    try:
        # It also takes the short forms that programs take, such as 127.1 and 0.
        return socket.inet_aton(host)[:1] in {b"\x7f", b"\0"}
    except OSError:
        pass
    try:
        number = int.from_bytes(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))
    except OSError:
        return False
    mapped = number >> 32 == _MAPPED_IPV4 and number >> 24 & 0xFF in {0, 127}
    return number in {0, 1} or mapped


def _options(enforced: Enforced) -> CallOptions:
    return call_options(enforced.policy, enforced.plan.landlock, bare=enforced.bare)


def _ptrace_grant(name: str, enforced: Enforced) -> str | None:
    chosen, options = enforced.policy.syscalls, _options(enforced)
    options["ptrace"] = True
    lifted = seccomp_rules(**options)
    if "ptrace" in chosen or any(name in rule.calls and not rule.when for rule in lifted):
        return None
    return policy_text("syscalls", ("ptrace", *chosen))
