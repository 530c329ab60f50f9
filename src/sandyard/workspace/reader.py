"""Reader: owns the program that reads a part of the files of a save, on another processor."""

from __future__ import annotations

import array
import errno
import mmap
import os
import posixpath
import select
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from sandyard.platform.interpreter import own_interpreter
from sandyard.workspace import reader_program
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.reader_program import ANSWER_BYTES, RESULT, SLOT_BYTES, SLOTS

if TYPE_CHECKING:
    import threading
    from types import TracebackType

    from sandyard.workspace.root import Owner

__all__ = ["Answer", "Reader", "ReaderLostError", "Result"]

_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv[1])\n"
    "from reader_program import serve\n"
    "serve(*map(int, sys.argv[2:]))"
)
_PAUSE_MS: Final = 50
"""How often it is seen, while an answer is waited for, whether anybody wants it."""

_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
"""What the kernel says while it takes no more requests, or no more descriptors in them."""


class ReaderLostError(Exception):
    """The program has ended, or could not be started; who wanted something of it does that itself."""


Result = tuple[bool, int, int, int, bytes]
"""Of a file: whether it was read, its mode, time, size and digest."""


class Answer(NamedTuple):
    """What was read.

    Attributes:
        results: of files in the order in which they were asked for; what was not read is for the caller.
        contents: of those that were, one after the other; it is valid until the next is taken.
    """

    results: list[Result]
    contents: memoryview


class Reader:
    """One such program. It is a context manager, and leaving it ends the program.

    Args:
        owner: whom it acts as; None for this program's own user.
        stopped: set by whoever wants no more of it.

    Raises:
        ReaderLostError: it can't be started.
    """

    def __init__(self, owner: Owner | None, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._slot = SLOTS
        with ExitStack() as stack:
            try:
                self._start(stack, owner)
            except (OSError, AttributeError, subprocess.SubprocessError) as error:
                raise ReaderLostError from error
            self._stack = stack.pop_all()

    def _start(self, stack: ExitStack, owner: Owner | None) -> None:
        python, place = own_interpreter(), posixpath.dirname(reader_program.__file__)
        if not python or getattr(sys, "frozen", False):
            raise FileNotFoundError(errno.ENOENT, "this program does not know its interpreter")
        memory = os.memfd_create("sandyard-reader")
        stack.callback(os.close, memory)
        os.ftruncate(memory, SLOTS * SLOT_BYTES)
        self._memory = mmap.mmap(memory, SLOTS * SLOT_BYTES)
        stack.callback(_unmap, self._memory)
        self._free = os.eventfd(SLOTS, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        stack.callback(os.close, self._free)
        us = os.pidfd_open(os.getpid())
        stack.callback(os.close, us)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(self._channel)
        with theirs:
            fds = (theirs.fileno(), memory, self._free, us)
            whom = (-1, -1) if owner is None else (owner.uid, owner.gid)
            process = subprocess.Popen(
                [python, "-I", "-S", "-c", _PROGRAM, place, *map(str, (*fds, *whom))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=fds,
                start_new_session=True,
            )
        stack.callback(_end, process)

    def ask(self, directory: int, names: list[bytes]) -> bool:
        """Have files of a directory read; False if there is no room for more requests now.

        Args:
            directory: descriptor of the directory.
            names: at most ``reader_program.NAMES``.

        Raises:
            ReaderLostError: the program has ended.
        """
        beside = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [directory]))
        try:
            self._channel.sendmsg(
                [b"/".join(names)], [beside], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            )
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise ReaderLostError from error
        return True

    def answer(self, *, wait: bool = False) -> Answer | None:
        """The next answer, of which the first tells that the program is there; the last one is given up.

        Args:
            wait: False returns None where there is none yet.

        Raises:
            ReaderLostError: the program has ended.
            Abandoned: nobody wants it any more.
        """
        if self._slot < SLOTS:
            os.eventfd_write(self._free, 1)
            self._slot = SLOTS
        while True:
            try:
                said = self._channel.recv(ANSWER_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not wait:
                    return None
                self._wait()
                continue
            except OSError as error:
                raise ReaderLostError from error
            if not said:
                raise ReaderLostError
            self._slot = said[0]
            at = self._slot * SLOT_BYTES
            contents = memoryview(self._memory)[at : at + SLOT_BYTES]
            return Answer([*RESULT.iter_unpack(said[1:])], contents)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not poll.poll(_PAUSE_MS):
            if self._stopped.is_set():
                raise Abandoned

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the program; nothing that it still does is of use."""
        self._stack.close()


def _unmap(memory: mmap.mmap) -> None:
    with suppress(BufferError):  # an error's traceback holds some of it, and with it the rest
        memory.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
