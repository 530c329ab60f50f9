"""Owns a file system whose server answers what it must, and then falls silent."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["SilentServer", "silent_server"]

# fuse(4): the kernel's requests and our answers.
_REQUEST: Final = struct.Struct("=IIQQIIII")
_ANSWER: Final = struct.Struct("=IiQ")
_INIT: Final = struct.Struct("=IIIIHHIIHHII6I")
_ATTRIBUTES: Final = struct.Struct("=QIIQQQQQQIIIIIIIIII")
_GETATTR: Final = 3
_START: Final = 26
_READDIR: Final = 28
_VERSION: Final = (7, 31)
_LARGEST: Final = 1 << 17
_FOREVER_S: Final = 1_000_000
_DIRECTORY: Final = 0o40755

LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH: Final = 2


@dataclass(slots=True)
class SilentServer:
    """A mounted file system with one directory, whose attributes the kernel may remember.

    Attributes:
        top: where it is mounted.
        channel: descriptor that its requests come by.
        takes: whether it takes the next request in, to never answer it. What the kernel still has
            to itself a killed process gives up; what was taken in it can't.
        lists: whether it still tells, once, what is in the directory: nothing.
        taken: set when it was.
    """

    top: Path
    channel: int
    takes: bool
    lists: bool
    taken: threading.Event = field(default_factory=threading.Event)

    def serve(self, stop: int) -> None:
        """Answers until the attributes are known, then no more."""
        known = False
        while not known and (request := self._request(stop)):
            call, unique = request
            if call == _START:
                self._answer(unique, _INIT.pack(*_VERSION, 0, 0, 16, 12, 65536, 1, *[0] * 10))
            elif call == _GETATTR:
                facts = (1, 0, 0, 0, 0, 0, 0, 0, 0, _DIRECTORY, 2, 0, 0, 0, 4096, 0)
                self._answer(unique, _ATTRIBUTES.pack(_FOREVER_S, 0, 0, *facts))
                known = True
        listed = not self.lists
        while not listed and (request := self._request(stop)):
            call, unique = request
            listed = call == _READDIR
            self._answer(unique, error=0 if listed else errno.ENOSYS)
        if self.takes and self._request(stop):
            self.taken.set()

    def is_asked(self) -> bool:
        """Whether somebody waits for an answer that never comes."""
        return self.taken.is_set() if self.takes else _is_readable(self.channel)

    def _request(self, stop: int) -> tuple[int, int] | None:
        """What is asked, and its number; None when it is over."""
        poll = select.poll()
        for fd in (self.channel, stop):
            poll.register(fd, select.POLLIN)
        if stop in dict(poll.poll()):
            return None
        _, call, unique, *_ = _REQUEST.unpack_from(os.read(self.channel, _LARGEST))
        return call, unique

    def _answer(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        os.write(self.channel, _ANSWER.pack(_ANSWER.size + len(body), -error, unique) + body)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def silent_server(top: Path, *, takes: bool, lists: bool = False) -> Iterator[SilentServer]:
    """The file system, mounted; at the end whoever still waits for it gets an error."""
    channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={channel},rootmode=40000,user_id=0,group_id=0".encode()
    if LIBC.mount(b"silent", os.fsencode(top), b"fuse", 0, options) != 0:
        os.close(channel)
        raise OSError(ctypes.get_errno(), "mounting a FUSE file system")
    server = SilentServer(top, channel, takes, lists)
    stop = os.eventfd(0)
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    try:
        os.lstat(top)  # so that the kernel knows its attributes
        yield server
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        LIBC.umount2(os.fsencode(top), MNT_DETACH)
        os.close(channel)
        os.close(stop)
