"""What clocks say: of which run of the machine a note is, and whether its clock was set back since."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

__all__ = ["Moment", "boot_id", "moment_of", "present_moment"]

_BOOT: Final = "/proc/sys/kernel/random/boot_id"
_STEP_NS: Final = 100_000_000
"""Differences of the two clocks that are none: they are not read at once."""


class Moment(NamedTuple):
    """When something was noted, by the clock for files and by one that nobody sets.

    Attributes:
        time: nanoseconds since 1970, as the kernel tells when files change.
        uptime: nanoseconds since the machine was started, sleep included (CLOCK_BOOTTIME).
        boot: which run of the machine it was; empty where that can't be told.
    """

    time: int
    uptime: int = 0
    boot: str = ""

    def earliest(self, now: Moment) -> int:
        """The lowest time that what happened since then may bear.

        Args:
            now: the present moment.

        Returns:
            The time then, unless the clock was set back since: less by as much, as far as can be told.
        """
        if self.boot and self.boot == now.boot:
            step = (now.time - self.time) - (now.uptime - self.uptime)
            return self.time if step > -_STEP_NS else self.time + step - _STEP_NS
        # Of another run of the machine: by how much, nobody knows.
        return self.time if now.time > self.time else -1


def moment_of(changed: int) -> Moment:
    """The present moment, of which a file that was made just now bears the time."""
    return Moment(changed, time.clock_gettime_ns(_UPTIME), boot_id())


def present_moment() -> Moment:
    """The present moment."""
    return moment_of(time.time_ns())


def boot_id() -> str:
    """Which run of the machine this is; empty where that can't be told."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


_UPTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
