"""Asks whether the machine's audit is on, and whether this program may read it. It is never switched."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final, Literal

from sandyard.platform.shortage import refuse_shortage

__all__ = [
    "AUDIT_GET",
    "NETLINK_AUDIT",
    "NETLINK_HEAD",
    "AuditStanding",
    "audit_question",
    "audit_standing",
    "read_status",
]

AuditStanding = Literal["read", "off", "closed", "distant", "halting", "none"]
"""``read``: it is on, and tells us. ``off``: it is not on. ``closed``: we may not ask. ``distant``: it tells
the machine's first network namespace alone, and this is another. ``halting``: the machine is set to halt
when a record is lost, so that nothing of ours is to make records. ``none``: the kernel has no audit."""

NETLINK_AUDIT: Final = 9
NETLINK_HEAD: Final = struct.Struct("=IHHII")
"""Length, type, flags, number, port (linux/netlink.h)."""

AUDIT_GET: Final = 1000
_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST: Final = 1  # NLM_F_REQUEST
_STATUS: Final = struct.Struct("=IIIIIIII")
"""The beginning of struct audit_status (linux/audit.h): mask, enabled, failure, pid, rate limit, backlog
limit, lost, backlog."""

_CODE: Final = struct.Struct("=i")
_HALTS: Final = 2  # AUDIT_FAIL_PANIC
_ANSWER_BYTES: Final = 4096
_PATIENCE_S: Final = 1.0
"""The kernel answers from a thread of its own, within a millisecond where it is not overloaded."""


def audit_question(number: int) -> bytes:
    """The question for the audit's state."""
    return NETLINK_HEAD.pack(NETLINK_HEAD.size, AUDIT_GET, _REQUEST, number, 0)


def read_status(answer: bytes) -> tuple[int, int, int] | None:
    """What an answer to the question says: enabled, failure, backlog; None where it is no such answer.

    Raises:
        OSError: the kernel refuses to answer.
    """
    if len(answer) < NETLINK_HEAD.size:
        return None
    _, kind, _, _, _ = NETLINK_HEAD.unpack_from(answer)
    body = answer[NETLINK_HEAD.size :]
    if kind == _ERROR and len(body) >= _CODE.size:
        (error,) = _CODE.unpack_from(body)
        raise OSError(-error, os.strerror(-error))
    if kind != AUDIT_GET or len(body) < _STATUS.size:
        return None
    _, enabled, failure, _, _, _, _, backlog = _STATUS.unpack_from(body)
    return enabled, failure, backlog


def audit_standing() -> AuditStanding:
    """Ask the kernel; it blocks for as long as that takes, a second at most.

    Raises:
        OSError: this program, or the machine, has no descriptor left to ask with.
    """
    try:
        enabled, failure = _ask()
    except OSError as error:
        refuse_shortage(error)
        unknown = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL)
        return "none" if error.errno in unknown else "closed"
    if not enabled:
        return "off"
    if failure == _HALTS:
        return "halting"
    return "read" if _is_first_network() else "distant"


def _ask() -> tuple[int, int]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT) as asking:
        asking.settimeout(_PATIENCE_S)
        asking.sendto(audit_question(1), (0, 0))
        while True:
            answer, (port, _) = asking.recvfrom(_ANSWER_BYTES)
            status = read_status(answer) if port == 0 else None
            if status is not None:
                return status[0], status[1]


def _is_first_network() -> bool:
    # Who may ask is in the first PID namespace, so its first process is the machine's.
    try:
        return os.readlink("/proc/1/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError as error:
        refuse_shortage(error)
        return False
