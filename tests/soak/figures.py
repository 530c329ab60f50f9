"""Owns what a long run is judged by: everything that could grow, counted; and the report of it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from sandyard.process.budget import descriptor_budget
from tests.house.leaks import (
    find_cgroups,
    find_descendants,
    find_files,
    find_mounts,
    list_children,
    list_names,
    read_proc,
)

MIB = 1024**2

RSS_BOUND = 2 * MIB
"""Bytes by which memory may grow over the second half of a run. CPython takes memory by arenas of
1 MiB and the C library by steps of its own, so one arena more is noise, and two are the least that a
test can call growth. Over 5,000 commands that finds what loses 420 bytes for each."""

BLOCKS_BOUND = 500
"""Objects of Python by which a run may grow over its second half, whatever their type: caches (of
regular expressions, of linecache and the like) take some dozens. Over 5,000 commands that finds what
loses one object in ten."""


def resident_bytes() -> int:
    """Anonymous memory of this process: files that are mapped are not counted."""
    for line in read_proc("/proc/self/status").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/status has no RssAnon")


def count_own_objects() -> int:
    """Objects of the library's types that the collector knows."""
    return sum(type(each).__module__.startswith("sandyard") for each in gc.get_objects())


def count_lines(path: str) -> int:
    """Lines of a file of /proc."""
    return len(read_proc(path).splitlines())


def count_open(pid: int | str) -> int:
    """Descriptors of a process, as far as we may see them."""
    return len(list_names(f"/proc/{pid}/fd"))


EXACT: dict[str, Callable[[], int]] = {
    "descriptors": lambda: count_open("self"),
    "threads": lambda: len(list_names("/proc/self/task")),
    "processes": lambda: len(find_descendants()),
    "mounts": lambda: len(find_mounts()),
    "cgroups": lambda: len(find_cgroups()),
    "files": lambda: len(find_files()),
    "keys": lambda: count_lines("/proc/keys"),
    "keyrings": lambda: count_lines("/proc/key-users"),
    "budget": lambda: descriptor_budget.used,
    "objects": count_own_objects,
    "tasks": lambda: len(asyncio.all_tasks()),
}
"""What must be as it was, by name. A session's own share is the same at each look."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment.

    Attributes:
        exact: what must not grow at all, by name.
        rss: anonymous memory in bytes.
        blocks: objects of the interpreter's allocator.
    """

    exact: dict[str, int]
    rss: int
    blocks: int


def look(init: int | None = None) -> Look:
    """Count everything; with ``init``, the first process of a session, its own share as well."""
    gc.collect()
    exact = {name: count() for name, count in EXACT.items()}
    if init is not None:
        exact["init's mounts"] = count_lines(f"/proc/{init}/mounts")
        exact["init's descriptors"] = count_open(init)
        exact["init's children"] = len(list(list_children(init)))
    return Look(exact, resident_bytes(), sys.getallocatedblocks())


def slope(values: list[int]) -> float:
    """The least squares' rise from one value to the next."""
    count = len(values)
    middle, mean = (count - 1) / 2, sum(values) / count
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(count))


SETTLED_LOOKS = 3
"""Looks at the end of which the least counts: what leaks stays, what others do on the machine goes."""


def find_growth(looks: list[Look]) -> dict[str, str]:
    """What there is more of at the end than at the beginning, and how much."""
    first, last = looks[0].exact, looks[-SETTLED_LOOKS:]
    least = {name: min(each.exact[name] for each in last) for name in first}
    return {
        name: f"{first[name]} -> {count}" for name, count in least.items() if count > first[name]
    }


@dataclass(slots=True)
class Course:
    """The looks of one run, after its warm-up.

    Attributes:
        what: what ran.
        looks: in order, at equal distances.
    """

    what: str
    looks: list[Look] = field(default_factory=list)

    def judge(self) -> str:
        """Fail if anything grew; returns the line for the report."""
        first, last = self.looks[0], self.looks[-1]
        grown = find_growth(self.looks)
        assert not grown, f"{self.what}: {grown}"
        second = self.looks[len(self.looks) // 2 :]
        rss = slope([each.rss for each in second]) * (len(second) - 1)
        blocks = slope([each.blocks for each in second]) * (len(second) - 1)
        assert rss < RSS_BOUND, [each.rss for each in self.looks]
        assert blocks < BLOCKS_BOUND, [each.blocks for each in self.looks]
        counted = ", ".join(f"{name} {last.exact[name]}" for name in last.exact)
        return (
            f"{self.what}: memory {first.rss / MIB:.1f} -> {last.rss / MIB:.1f} MiB, over the second "
            f"half {rss / 1024:+.0f} KiB and {blocks:+.0f} objects; unchanged: {counted}"
        )


def token_of(number: int) -> str:
    """What tells one of many apart in its output."""
    return f"{os.getpid()}-{number}"
