"""Owns descriptors that come out of a sandbox: what was asked for is taken, anything else is closed.

Whoever has broken init chooses what comes: a directory, a device, the end of a pipe. So it is looked
at before it is used, and none but a pty's master or a TCP socket is.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import stat

from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Failure,
    Passed,
    ProtocolError,
    StartFailed,
    decode_event,
)

__all__ = [
    "close_all",
    "receive_passed",
    "take_passed",
    "taken_master",
    "taken_pipes",
    "taken_socket",
]

_MASTER = (5, 2)
"""Major and minor number of /dev/ptmx, and of every master that is opened by it
(Documentation/admin-guide/devices.txt)."""

_PTY_NUMBER = 0x80045430
"""TIOCGPTN, which only a master answers; termios has no name for it."""

_ITEM = array.array("i").itemsize
_MOST = 2
_ROOM = socket.CMSG_LEN(_MOST * _ITEM)
"""For as many descriptors as can be asked for: more are closed by the kernel, which says so."""


def receive_passed(channel: socket.socket, size: int) -> tuple[bytes, list[int] | None]:
    """One datagram, and the descriptors that came with it, which are the caller's to close.

    In their place is None where this program had no descriptor left for one of them.

    Raises:
        OSError: as recvmsg(2); a datagram that can't be taken whole is an error of the connection.
    """
    data, control, flags, _ = channel.recvmsg(size, _ROOM, socket.MSG_CMSG_CLOEXEC)
    passed: list[int] = []
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i", content[: len(content) - len(content) % _ITEM])
            passed.extend(found)
    if flags & socket.MSG_CTRUNC:
        lost = len(passed) < _MOST
        close_all(passed)
        if lost:
            return data, None
        raise ConnectionResetError(errno.ECONNRESET, "more descriptors came than can be asked for")
    return data, passed


def take_passed(channel: socket.socket, number: int, passed: list[int]) -> Failure | None:
    """Take one descriptor, or the step that failed.

    Raises:
        ProtocolError: something else came, or the end.
        OSError: EMFILE where this program has no room for it.
    """
    datagram, came = receive_passed(channel, DATAGRAM_LIMIT + 1)
    if came is None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    passed.extend(came)
    event = decode_event(datagram)
    if isinstance(event, StartFailed):
        return event.failure
    if not isinstance(event, Passed) or event.number != number or len(came) != 1:
        raise ProtocolError("something else came than the descriptor that was asked for")
    return None


def close_all(passed: list[int]) -> None:
    """Closes what was passed, and forgets it."""
    while passed:
        os.close(passed.pop())


def taken_master(passed: list[int]) -> int:
    """The one descriptor that was passed, if it is a terminal's master; it never blocks.

    Raises:
        ProtocolError: if it is anything else; then ``passed`` is as it was.
    """
    if len(passed) != 1:
        raise ProtocolError("a terminal is born with one descriptor")
    (master,) = passed
    try:
        facts = os.fstat(master)
        number = (os.major(facts.st_rdev), os.minor(facts.st_rdev))
        if not stat.S_ISCHR(facts.st_mode) or number != _MASTER:
            raise ProtocolError("what was passed is no terminal's master")
        fcntl.ioctl(master, _PTY_NUMBER, b"\0" * _ITEM)
        if not os.isatty(master):
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        os.set_blocking(master, False)
    except OSError as error:
        raise ProtocolError("what was passed does not answer as a terminal's master") from error
    passed.clear()
    return master


def taken_pipes(passed: list[int]) -> tuple[int, int]:
    """Two ends of pipes to read from, if such were passed; they never block.

    Each is opened anew: whether reading waits belongs to what was opened, and whoever has broken init
    may have kept what it passed, and change that while this program reads.

    Raises:
        ProtocolError: if they are anything else; then ``passed`` is as it was.
        OSError: EMFILE, ENFILE where there is no room for them; likewise.
    """
    if len(passed) != _MOST:
        raise ProtocolError("a command's output comes with two descriptors")
    for fd in passed:
        try:
            reads = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH) == os.O_RDONLY
            if not stat.S_ISFIFO(os.fstat(fd).st_mode) or not reads:
                raise ProtocolError("what was passed is no pipe's end to read from")
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise ProtocolError("what was passed can't be opened as a pipe of ours") from error
        os.dup2(again, fd, inheritable=False)
        os.close(again)
    stdout, stderr = passed
    passed.clear()
    return stdout, stderr


def taken_socket(passed: list[int], family: int) -> socket.socket:
    """The one descriptor that was passed, if it is a TCP socket of a family; it never blocks.

    Raises:
        ProtocolError: if it is anything else; then ``passed`` is as it was.
    """
    if len(passed) != 1:
        raise ProtocolError("a socket comes with one descriptor")
    try:
        taken = socket.socket(fileno=passed[0])
    except OSError as error:
        raise ProtocolError("what was passed is no socket") from error
    kind = taken.family, taken.type, taken.proto
    if kind != (family, socket.SOCK_STREAM, socket.IPPROTO_TCP):
        taken.detach()
        raise ProtocolError("what was passed is no TCP socket of the family that was asked for")
    passed.clear()
    taken.setblocking(False)
    return taken
