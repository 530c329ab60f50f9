"""The second reader's own side: a program that reads files for a save, beside the one that saves.

What Python does for each file is most of a first save, and one program does it on one processor. This
one is given directories and names; it reads and hashes files, and writes nothing but into the memory
that both share. It ends with the program that started it.

This module stands alone, so that the program starts in milliseconds: it imports nothing of the library.
The saving program decides by the same functions which files need no more than this one does.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import stat
import struct
from collections import deque
from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:  # a third of the time of its start is that of this module
    from typing import Final

__all__ = [
    "ANSWER_BYTES",
    "NAMES",
    "RESULT",
    "SLOTS",
    "SLOT_BYTES",
    "has_changed",
    "is_plain",
    "serve",
]

SLOTS: Final = 6
SLOT_BYTES: Final = 1024 * 1024
"""Parts of the shared memory, which are filled and emptied in turn; a larger file is not read here."""

NAMES: Final = 64
"""How many files one request names at most."""

RESULT: Final = struct.Struct("<?IqQ32s")
"""Of each file: whether it was read, its mode, time, size and digest. Before these of one answer stands the
number of the part of the memory with their contents, one after the other; ``SLOTS`` where there are none."""

_NOT_READ: Final = bytes(RESULT.size)
_RESULTS_BYTES: Final = 256 * RESULT.size
ANSWER_BYTES: Final = 1 + _RESULTS_BYTES
_REQUEST_BYTES: Final = NAMES * 256
_ITEM: Final = struct.calcsize("i")
_LOOK: Final = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SPECIAL_BITS: Final = 0o7000
_HELD: Final = 512
"""``st_blocks`` counts these, whatever the file system's own blocks are."""


# --- what both programs do ------------------------------------------------------------------------


def is_plain(opened: int, facts: os.stat_result, most: int) -> bool:
    """Whether a regular file has neither holes nor attributes, and at most so many bytes."""
    if facts.st_size > most or facts.st_blocks * _HELD < facts.st_size:
        return False
    try:
        return not os.listxattr(opened)
    except OSError:  # a file system without
        return True


def has_changed(facts: os.stat_result, now: os.stat_result) -> bool:
    """Whether somebody wrote to a file while it was read."""
    return now.st_mtime_ns != facts.st_mtime_ns or now.st_size != facts.st_size


# --- the program ----------------------------------------------------------------------------------


class _EndedError(Exception):
    """Nobody wants anything any more."""


class _Service:
    """Reads what it is asked for, in that order.

    Args:
        channel: requests and answers.
        memory: where contents go.
        free: counts the parts of it that are free.
        principal: pidfd of the program that saves; others may hold its end of the channel.
    """

    def __init__(self, channel: socket.socket, memory: int, free: int, principal: int) -> None:
        self._channel = channel
        self._free = free
        self._view = memoryview(mmap.mmap(memory, SLOTS * SLOT_BYTES))
        self._requests: deque[tuple[int, list[bytes]]] = deque()
        self._results = bytearray()
        self._slot = SLOTS - 1
        self._at = self._end = 0
        self._heard, self._freed = select.poll(), select.poll()
        for poll in (self._heard, self._freed):
            poll.register(principal, select.POLLIN)
        self._heard.register(channel, select.POLLIN)
        self._freed.register(channel, 0)  # its end is told all the same
        self._freed.register(free, select.POLLIN)

    def run(self) -> None:
        """Say that it is there, with an answer about nothing; then serve until nobody wants more."""
        self._channel.send(bytes((SLOTS,)))
        while True:
            self._hear()
            above, names = self._requests.popleft()
            for name in names:
                self._take(above, name)
            os.close(above)

    def _hear(self) -> None:
        """Take all requests that came; without any, tell what was read, and wait for one."""
        while True:
            try:
                names, beside, _, _ = self._channel.recvmsg(
                    _REQUEST_BYTES, socket.CMSG_SPACE(_ITEM), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                if self._requests:
                    return
                self._answer()
                self._wait(self._heard, self._channel.fileno())
                continue
            if not beside:
                raise _EndedError
            (above,) = struct.unpack("i", beside[0][2])
            self._requests.append((above, names.split(b"/")))

    @staticmethod
    def _wait(poll: select.poll, wanted: int) -> None:
        if not all(number == wanted and event & select.POLLIN for number, event in poll.poll()):
            raise _EndedError

    def _take(self, above: int, name: bytes) -> None:
        """Read a file, unless there is more to it."""
        try:
            result = self._read(above, name)
        except (OSError, struct.error):  # for the other program to meet, which can tell of it
            result = _NOT_READ
        self._results += result
        if len(self._results) >= _RESULTS_BYTES:
            self._answer()

    def _read(self, above: int, name: bytes) -> bytes:
        handle = os.open(name, _LOOK, dir_fd=above)
        try:
            facts = os.fstat(handle)
            mode, size = facts.st_mode, facts.st_size
            if not stat.S_ISREG(mode) or mode & _SPECIAL_BITS:
                return _NOT_READ
            opened = os.open(f"/proc/self/fd/{handle}", _READ)
        finally:
            os.close(handle)
        try:
            if not is_plain(opened, facts, SLOT_BYTES):
                return _NOT_READ
            if self._at + size > self._end:
                self._begin_slot()
            into = self._view[self._at : self._at + size]
            if os.preadv(opened, [into], 0) < size or has_changed(facts, os.fstat(opened)):
                return _NOT_READ
        finally:
            os.close(opened)
        digest = sha256(into).digest() if size else b""
        result = RESULT.pack(
            True, mode, facts.st_mtime_ns, size, digest
        )  # times may be too far away
        self._at += size
        return result

    def _begin_slot(self) -> None:
        """Go on to the next part of the memory, once it is free."""
        self._answer()
        self._wait(self._freed, self._free)
        os.eventfd_read(self._free)
        self._slot = (self._slot + 1) % SLOTS
        self._at = self._slot * SLOT_BYTES
        self._end = self._at + SLOT_BYTES

    def _answer(self) -> None:
        """Tell what was read; the part of the memory with it is the other program's then."""
        if self._results:
            self._channel.send(bytes((self._slot if self._end else SLOTS,)) + self._results)
            self._results.clear()
            self._at = self._end = 0


def serve(channel: int, memory: int, free: int, principal: int, uid: int, gid: int) -> None:
    """Serve on descriptors of these numbers, as a certain user.

    Args:
        channel: see above.
        memory: likewise.
        free: likewise.
        principal: likewise.
        uid: whom to be for good; -1 for whom it is.
        gid: the group, likewise.
    """
    if uid >= 0:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    with socket.socket(fileno=channel) as ours:
        try:
            _Service(ours, memory, free, principal).run()
        except (_EndedError, ConnectionError):
            return
