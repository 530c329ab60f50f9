"""The sandbox as the host sees it: its processes and files, and waiting until something is so."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sandyard import UnixLocalSandboxSession
from tests.house.leaks import find_descendants, list_children, read_proc, read_state

POLL_S = 0.01


async def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait until something is so, or fail."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not so within {within} s"
        await asyncio.sleep(POLL_S)


def make_token() -> str:
    """A number of seconds that no other process sleeps for, so that ours are recognised."""
    return f"7{secrets.randbelow(10**9):09}.5"


def find_survivors(token: str) -> list[str]:
    """Living processes of this machine with the token in their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and token in read_proc(f"/proc/{name}/cmdline"):
            state, _ = read_state(int(name))
            if state not in "ZX?":
                found.append(f"{name} {state} {read_proc(f'/proc/{name}/cmdline')!r}")
    return found


def find_init() -> int:
    """The host's number of the first process of the one sandbox that this process has."""
    children = (pid for pid in list_children(os.getpid()) if read_state(pid)[0] not in "ZX?")
    outers = [pid for pid in children if name_of(pid) == "sandyard-init"]
    assert len(outers) == 1, outers
    (init,) = list_children(outers[0])
    return init


def name_of(pid: int) -> str:
    """What the kernel calls a process."""
    return read_proc(f"/proc/{pid}/comm").strip()


def living_processes() -> set[int]:
    """Our descendants that have not ended."""
    return {pid for pid in find_descendants() if read_state(pid)[0] not in "ZX?"}


def open_descriptors() -> set[str]:
    """What this process has open, by number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # it was the one that lists the directory
    return found


def make_dice(seed: int) -> random.Random:
    """Chance that is the same in every run."""
    return random.Random(seed)  # noqa: S311  # to vary a test, not to keep a secret


def names_in(place: Path) -> list[str]:
    """The names of all that a directory holds."""
    return sorted(os.listdir(place))


def root_of(session: UnixLocalSandboxSession) -> Path:
    """Where the workspace lies on the host."""
    return Path(session.state.manifest.root)
