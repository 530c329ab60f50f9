"""A debugger of the least kind: it seizes a process with all its threads and lets them go on."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["allow_debugging", "watched"]

_CONT, _SEIZE, _LISTEN = 7, 0x4206, 0x4208
_CLONE = 1 << 3  # PTRACE_O_TRACECLONE: new threads too
_WALL = 0x40000000
_STOPPED = 128  # PTRACE_EVENT_STOP
_SET_PTRACER = 0x59616D61  # PR_SET_PTRACER, for kernels where only a parent may trace (Yama)
_STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def allow_debugging() -> None:
    """Lets any process of this user trace us."""
    _libc.prctl(_SET_PTRACER, ctypes.c_ulong(2**64 - 1))


@contextmanager
def watched() -> Iterator[None]:
    """Has another process trace this one for the length of a block."""
    words = [sys.executable, "-m", "tests.faults.debugger", str(os.getpid())]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as debugger:
        try:
            assert debugger.stdout is not None
            assert debugger.stdout.readline() == b"seized\n", "it could not trace us"
            yield
        finally:
            debugger.kill()  # which lets go of whatever it traces


def debug(pid: int) -> None:
    """Traces a process until it ends."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        if _libc.ptrace(_SEIZE, int(thread), None, _CLONE) != 0:
            raise OSError(ctypes.get_errno(), "it can't be seized")
    sys.stdout.write("seized\n")
    sys.stdout.flush()
    with suppress(ChildProcessError):  # when the last thread has ended
        while True:
            tid, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                go_on(tid, status)


def go_on(tid: int, status: int) -> None:
    number, event = os.WSTOPSIG(status), status >> 16
    if event == _STOPPED and number in _STOPS:
        _libc.ptrace(_LISTEN, tid, None, None)  # it stays stopped, until somebody continues it
    else:
        _libc.ptrace(_CONT, tid, None, None if event else number)


if __name__ == "__main__":
    debug(int(sys.argv[1]))
