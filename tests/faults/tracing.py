"""Owns a traced child: each of its system calls is counted, and one may fail or be its last."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tests.faults.kernel import NAMES, RUNS_FIRST

__all__ = ["Call", "Fault", "Traced", "Window", "can_trace", "trace"]

_TRACE_ME, _SYSCALL, _SET_OPTIONS, _CALL_INFO = 0, 24, 0x4200, 0x420E
_GET_REGISTERS, _SET_REGISTERS = 0x4204, 0x4205
_GOOD, _CLONE, _EXIT_KILL = 1, 1 << 3, 1 << 20  # PTRACE_O_*: no child but threads is traced
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2
_GENERAL, _ARM_CALL = 1, 0x404  # NT_PRSTATUS, NT_ARM_SYSTEM_CALL
_X86 = os.uname().machine == "x86_64"
_RESULT, _NUMBER = (10, 15) if _X86 else (0, -1)  # places in struct user_regs_struct
_ON_FILES = frozenset({"read", "write", "close"})
"""Calls that fail only where the descriptor leads to a file: pipes and the like never do."""

_NO_FILES = ("/run/", "/dev/")
"""Nothing is written late to memory; and a terminal's EIO says that nobody is left at its other end."""
_NEVER_FAIL = (
    fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_GETPIPE_SZ,
)  # fmt: skip
"""What fcntl(2) only looks up, or notes, of an open descriptor."""

_WRITTEN = os.O_WRONLY | os.O_RDWR

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """Calls ptrace(2).

    Raises:
        OSError: what it says, such as ESRCH where the thread was killed meanwhile.
    """
    answer: int = _libc.ptrace(request, pid, address, data)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


class Window:
    """Whether calls are watched; parent and child share it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    @property
    def watched(self) -> bool:
        """Whether they are now."""
        return self._shared[0] == 1

    @watched.setter
    def watched(self, now: bool) -> None:
        self._shared[0] = int(now)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a window: its name, and how many of that name there have been, from 1."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one moment of a window.

    Attributes:
        call: this call fails; None is no call at all.
        error: with this errno.
        kill_at: before the call of this number, of any name, the child is killed; 0 is never.
    """

    call: Call | None = None
    error: int = 0
    kill_at: int = 0


@dataclass(slots=True)
class Traced:
    """What was seen of a child.

    Attributes:
        calls: those of the window that could be made to fail, in order.
        entered: how many there were at all.
        happened: whether the fault did.
        status: the child's wait status.
    """

    calls: list[Call] = field(default_factory=list)
    entered: int = 0
    happened: bool = False
    status: int = 0


def can_trace() -> bool:
    """Whether this machine is one that we know, and lets us trace our own children."""
    if not NAMES:
        return False
    try:
        return trace(lambda _: None, Fault()).status == 0
    except OSError:
        return False


def trace(run: Callable[[Window], None], fault: Fault) -> Traced:
    """Runs a function in a forked child and watches its threads, but no process that it starts.

    The parent must have one thread. Whatever else ends below it is reaped.

    Raises:
        OSError: ptrace(2) is refused here.
    """
    window = Window()
    pid = os.fork()
    if pid == 0:
        _be_traced(run, window)
    return _Tracer(pid, window, fault).follow()


def _be_traced(run: Callable[[Window], None], window: Window) -> NoReturn:
    try:
        _ptrace(_TRACE_ME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        run(window)
        os._exit(0)
    finally:
        os._exit(1)


class _Tracer:
    def __init__(self, pid: int, window: Window, fault: Fault) -> None:
        self._pid = pid
        self._window = window
        self._fault = fault
        self._seen = Traced()
        self._counts: dict[str, int] = {}
        self._threads: set[int] = set()
        self._failing: set[int] = set()

    def follow(self) -> Traced:
        """Lets the child run to its end."""
        _, status = os.waitpid(self._pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise OSError(status, "the child could not be traced")
        self._threads.add(self._pid)
        _ptrace(_SET_OPTIONS, self._pid, 0, _GOOD | _CLONE | _EXIT_KILL)
        _ptrace(_SYSCALL, self._pid)
        while True:
            tid, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                with suppress(ProcessLookupError):  # it was killed in the meantime
                    _ptrace(_SYSCALL, tid, 0, self._pass(tid, status))
            elif tid == self._pid:
                self._seen.status = status
                return self._seen

    def _pass(self, tid: int, status: int) -> int:
        """Handles a stop; returns the signal that the thread is given."""
        number = os.WSTOPSIG(status)
        if number == signal.SIGTRAP | 0x80:
            self._on_call(tid)
            return 0
        if status >> 16:
            return 0
        if tid not in self._threads:  # a new thread begins by a stop
            self._threads.add(tid)
            return 0
        return number

    def _on_call(self, tid: int) -> None:
        info = (ctypes.c_char * 88)()
        size = _ptrace(_CALL_INFO, tid, len(info), ctypes.addressof(info))
        phase = info.raw[0]
        if phase == _EXIT and tid in self._failing:
            self._failing.discard(tid)
            self._set_register(tid, _RESULT, -self._fault.error)
        elif phase == _ENTRY and self._window.watched and size > 0:
            number, first, second = struct.unpack_from("QQQ", info.raw, 24)
            self._on_entry(tid, NAMES.get(number, ""), first, second)

    def _on_entry(self, tid: int, name: str, first: int, second: int) -> None:
        self._seen.entered += 1
        if self._seen.entered == self._fault.kill_at:
            self._seen.happened = True
            os.kill(self._pid, signal.SIGKILL)
            return
        if not name or (name in _ON_FILES and not self._is_file(name, first)):
            return
        if name == "fcntl" and second in _NEVER_FAIL:
            return
        count = self._counts[name] = self._counts.get(name, 0) + 1
        call = Call(name, count)
        self._seen.calls.append(call)
        if call == self._fault.call:
            self._seen.happened = True
            self._failing.add(tid)
            if name not in RUNS_FIRST:
                self._skip_call(tid)

    def _is_file(self, name: str, fd: int) -> bool:
        """Whether it is a call that can fail: close(2) tells of writes that came too late."""
        fd &= 0xFFFFFFFF
        try:
            target = os.readlink(f"/proc/{self._pid}/fd/{fd}")
            if not target.startswith("/") or target.startswith(_NO_FILES):
                return False
            facts = Path(f"/proc/{self._pid}/fdinfo/{fd}").read_text(encoding="ascii")
        except OSError:
            return False
        flags = int(facts.partition("flags:")[2].split()[0], 8)
        return name != "close" or bool(flags & _WRITTEN)

    def _skip_call(self, tid: int) -> None:
        if _X86:
            self._set_register(tid, _NUMBER, -1)
        else:
            _transfer(_SET_REGISTERS, tid, _ARM_CALL, ctypes.c_int(-1))

    def _set_register(self, tid: int, place: int, value: int) -> None:
        registers = (ctypes.c_longlong * (27 if _X86 else 34))()
        _transfer(_GET_REGISTERS, tid, _GENERAL, registers)
        registers[place] = value
        _transfer(_SET_REGISTERS, tid, _GENERAL, registers)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _transfer(
    request: int, tid: int, kind: int, data: ctypes.Array[ctypes.c_longlong] | ctypes.c_int
) -> None:
    vector = _Vector(ctypes.addressof(data), ctypes.sizeof(data))
    _ptrace(request, tid, kind, ctypes.addressof(vector))
