"""A sandbox has not started before the outer process keeps what late mounts need."""

from __future__ import annotations

import ctypes
import os
import select
from contextlib import suppress
from typing import Final

import pytest

from sandyard.process.mounting import NAMESPACE_PLACE
from sandyard.process.wire import Started
from tests.process.protocol import Record
from tests.process.raw_init import RawInit

_DETACH, _EVENT_MESSAGE, _SEIZE = 17, 0x4201, 0x4206
_FORKS = 1 << 1 | 1 << 2 | 1 << 3  # PTRACE_O_TRACEFORK and its kind
_ALL: Final = 0x40000000  # __WALL
_LONG_ENOUGH_S = 0.5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def trace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, 0, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def let_born_go(parent: int) -> None:
    """Wait until a process that is traced has a child, and let that go alone."""
    os.waitpid(parent, _ALL)
    born = ctypes.c_ulong()
    trace(_EVENT_MESSAGE, parent, ctypes.addressof(born))
    os.waitpid(born.value, _ALL)
    trace(_DETACH, born.value)


@pytest.mark.user  # root's first process waits for its id map, and so for the outer process
def test_start_waits_for_keeper(records: list[Record]) -> None:
    with RawInit() as init:
        try:
            trace(_SEIZE, init.pid, _FORKS)
        except PermissionError:
            pytest.skip("needs ptrace: runs where no container or Yama forbids it")
        try:
            init.start(records)
            let_born_go(init.pid)
            told, _, _ = select.select([init.channel], [], [], _LONG_ENOUGH_S)
            assert not told, "it has started, and nobody could mount in it"
        finally:
            with suppress(ProcessLookupError):
                trace(_DETACH, init.pid)
        assert isinstance(init.event(), Started)
        kept = f"/proc/{init.pid}/fd/{NAMESPACE_PLACE}"
        assert os.readlink(kept).startswith("mnt:[")
