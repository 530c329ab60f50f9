"""Owns the sockets that a port is listened on, and says who has it where that can't be."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, suppress
from typing import Final

from sandyard.errors import ExposedPortUnavailableError, ResourceLimitError, SandboxError, shown
from sandyard.finishing import in_thread
from sandyard.limits import PORT_BACKLOG
from sandyard.network.connecting import LOOPBACKS

__all__ = ["listen_on"]

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE})
_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_STATE, _INODE = 3, 9  # of its fields


async def listen_on(port: int, exposed: tuple[int, ...]) -> list[socket.socket]:
    """Listen on a port of each loopback that this machine has; the sockets are the caller's to close.

    Args:
        port: which.
        exposed: all that are exposed, for the error.

    Raises:
        ExposedPortUnavailableError: another program listens there, or this user may not.
        ResourceLimitError: this program has no descriptor left.
    """
    listeners = []
    with ExitStack() as undo:
        for family, address in LOOPBACKS:
            try:
                listener = _listen(family, address, port)
            except OSError as error:
                if family == socket.AF_INET6 and error.errno in _NO_IPV6:
                    continue
                raise await _refusal(error, address, port, exposed) from error
            undo.callback(listener.close)
            listeners.append(listener)
        undo.pop_all()
    return listeners


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Old connections that the kernel still remembers don't matter; one who listens does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind((address, port))
        listener.listen(PORT_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def _refusal(
    error: OSError, address: str, port: int, exposed: tuple[int, ...]
) -> SandboxError:
    place = f"port {port} of {address}"
    if error.errno in _SHORT:
        return ResourceLimitError(
            f"this program has no descriptor left to listen on {place}; raise its limit (ulimit -n), "
            "or close what it does not need",
            limit="open_files",
            value=error.errno,
            unit="errno",
            op="start",
            cause=error,
            retryable=True,
        )
    if error.errno == errno.EADDRINUSE:
        who = await in_thread(_listener_name, port)
        reason, retryable = "taken", True
        message = (
            f"{place} is taken{f' by {who}' if who else ''}, and a session is reached under the number "
            "that its server listens on; end what listens there, or choose another number for both"
        )
    elif error.errno == errno.EACCES:
        reason, retryable = "privileged", False
        message = (
            f"this user may not listen on {place}; choose a number from 1024 on for the port and the "
            "server inside (sysctl net.ipv4.ip_unprivileged_port_start is the least one)"
        )
    else:
        reason, retryable = "refused", False
        message = f"this machine does not let this program listen on {place}: {error.strerror}"
    return ExposedPortUnavailableError(
        port=port,
        exposed_ports=exposed,
        reason=reason,
        message=message,
        op="start",
        context={"address": address, "errno": error.errno},
        cause=error,
        retryable=retryable,
    )


def _listener_name(port: int) -> str:
    """Who listens on a port, as far as this user may know; empty where that can't be told."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return ""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # another user's, or gone
            if inodes.isdisjoint(_open_files(pid)):
                continue
            if int(pid) == os.getpid():
                return "this program itself, as by another session"
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                return f"process {pid} ({shown(name.read().strip())})"
    return ""


def _open_files(pid: str) -> set[str]:
    place, found = f"/proc/{pid}/fd", set[str]()
    for number in os.listdir(place):
        with suppress(OSError):  # closed meanwhile
            found.add(os.readlink(f"{place}/{number}"))
    return found


def _listening_inodes(port: int) -> set[str]:
    wanted, found = f"{port:04X}", set[str]()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as lines:
            for fields in map(str.split, lines):
                listens = len(fields) > _INODE and fields[_STATE] == _LISTENING
                if listens and fields[1].rpartition(":")[2] == wanted:
                    found.add(fields[_INODE])
    return found
