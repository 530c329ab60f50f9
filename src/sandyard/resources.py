"""ResourceLimits: how much the commands of a session may use; and what is said of each limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from sandyard.errors import PolicyError
from sandyard.limits import (
    CPUS_MAX,
    CPUS_MIN,
    MEMORY_MIN_BYTES,
    OPEN_FILES_DEFAULT,
    OPEN_FILES_MAX,
    OPEN_FILES_MIN,
    OUTPUT_LIMIT_BYTES,
    OUTPUT_LIMIT_MAX_BYTES,
    PROCESSES_DEFAULT,
    PROCESSES_MAX,
    PROCESSES_MIN,
    SCRATCH_MIN_BYTES,
    SIZE_MAX_BYTES,
    TIMEOUT_MAX_S,
)
from sandyard.types import LimitName

__all__ = [
    "DEFAULT_LIMITS",
    "LIMIT_UNITS",
    "EnforcedLimit",
    "LimitScope",
    "LimitStrength",
    "ResourceLimits",
]

LimitScope = Literal["session", "process", "command", "stream"]
"""What a limit is counted for."""

LimitStrength = Literal["enforced", "partial"]
"""Whether a limit always holds."""

LIMIT_UNITS: Final[dict[LimitName, str]] = {
    "memory": "bytes",
    "processes": "processes",
    "cpus": "processors",
    "cpu_time": "seconds",
    "wall_time": "seconds",
    "file_size": "bytes",
    "workspace_size": "bytes",
    "open_files": "descriptors",
    "scratch_size": "bytes",
    "output": "bytes",
}
"""What each limit is counted in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceLimits:
    """How much the commands of a session may use.

    ``ResourceLimits()`` bounds what could harm the machine at once: a fork bomb, and a full /tmp.
    A limit that this machine can't enforce at all is refused at the start;
    ``session.limits.report`` says what holds each of the others, and how well.

    Attributes:
        memory: Takes bytes, 16 MiB at least. Bounds what all processes of the session hold
            together, their files in /tmp, HOME and /dev/shm and the disk cache of what they touch
            included (the kernel gives cache up first). When it is full, the kernel ends a process
            of the session with SIGKILL, and results have a hit. Default: None, no limit of its own;
            but where the calling program's own control group has a limit, half of that, so
            that the other half is left to the calling program. Needs a control group; without one,
            each process alone is held to it (RLIMIT_DATA), which is reported as partial.
        processes: Takes a number, 8 at least. Bounds processes and threads of the session at once;
            its first process and one helper for each command count too. More are refused inside
            with EAGAIN; a command that can't be started at all raises ``ResourceLimitError``.
            Default: 4096. Is per session: other sessions and other programs do not count.
        cpus: Takes a number, such as 1.5 for one and a half processors. Bounds the processor time
            of all processes of the session together, in each tenth of a second; what is over waits.
            Default: None, all there are. Needs a control group: without one the start is refused.
            It is never a hit: nothing fails, it only takes longer.
        cpu_time: Takes whole seconds. Bounds the processor time of each process alone; the kernel
            ends a process that used it up, and the result has a hit. Default: None, no limit. Does
            not add up what several processes use: use ``wall_time`` or ``cpus``.
        wall_time: Takes seconds. It is the timeout of each command that is given none; the command
            is ended with all that it started, ``ExecTimeoutError`` is raised, and its result has a
            hit. Default: None, no limit. A ``timeout`` given to ``exec`` or ``stream`` decides
            instead, be it shorter or longer.
        file_size: Takes bytes. Bounds each file that is written or grown. The writer is ended with
            SIGXFSZ, and the result has a hit; a program that ignores the signal, as Python does,
            gets EFBIG instead. Default: None, no limit.
        workspace_size: Takes bytes on disk, as ``du`` counts them. Bounds the workspace, which is
            looked through while commands run, ever less often the longer a look takes. When it is
            over, the session's commands are ended with ``ResourceLimitError``, and further ones
            are refused until something was removed with ``session.rm``. No single file may be
            larger (see ``file_size``). Default: None, no limit. It is partial: what is written
            between two looks, and files that are open without a name, are not seen.
        open_files: Takes a number, 16 at least. Bounds the open descriptors of each process; more
            are refused inside with EMFILE. Default: 4096. Does not raise the calling program's own
            hard limit: the lower one holds.
        scratch_size: Takes bytes, 1 MiB at least. Bounds what /tmp, /var/tmp, HOME, /run and
            /dev/shm hold together, which is memory; more is refused inside with ENOSPC. Default:
            None, half of the memory that the session may use.
        output: Takes bytes, up to 1 GiB. It is what is kept of each of stdout and stderr of a
            command that is given no ``output_limit``; the rest is counted, and the result has a
            hit. Default: 16 MiB.

    Raises:
        PolicyError: a field says something impossible.
    """

    memory: int | None = None
    processes: int = PROCESSES_DEFAULT
    cpus: float | None = None
    cpu_time: int | None = None
    wall_time: float | None = None
    file_size: int | None = None
    workspace_size: int | None = None
    open_files: int = OPEN_FILES_DEFAULT
    scratch_size: int | None = None
    output: int = OUTPUT_LIMIT_BYTES

    def __post_init__(self) -> None:
        """Check every field."""
        _check_whole("processes", self.processes, PROCESSES_MIN, PROCESSES_MAX)
        _check_whole("open_files", self.open_files, OPEN_FILES_MIN, OPEN_FILES_MAX)
        _check_whole("output", self.output, 0, OUTPUT_LIMIT_MAX_BYTES)
        if self.memory is not None:
            _check_whole("memory", self.memory, MEMORY_MIN_BYTES, SIZE_MAX_BYTES)
        if self.scratch_size is not None:
            _check_whole("scratch_size", self.scratch_size, SCRATCH_MIN_BYTES, SIZE_MAX_BYTES)
        if self.file_size is not None:
            _check_whole("file_size", self.file_size, 1, SIZE_MAX_BYTES)
        if self.workspace_size is not None:
            _check_whole("workspace_size", self.workspace_size, 1, SIZE_MAX_BYTES)
        if self.cpu_time is not None:
            _check_whole("cpu_time", self.cpu_time, 1, int(TIMEOUT_MAX_S))
        if self.cpus is not None:
            _check_number("cpus", self.cpus, CPUS_MIN, CPUS_MAX)
        if self.wall_time is not None:
            _check_number("wall_time", self.wall_time, 0, TIMEOUT_MAX_S)
            if self.wall_time == 0:
                raise PolicyError("wall_time is more than 0", field="wall_time", value=0)


def _check_whole(field: LimitName, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(
            f"{field} is a whole number of {LIMIT_UNITS[field]}", field=field, value=value
        )
    if not least <= value <= most:
        raise PolicyError(
            f"{field} is from {least} to {most} {LIMIT_UNITS[field]}", field=field, value=value
        )


def _check_number(field: LimitName, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise PolicyError(f"{field} is a number of {LIMIT_UNITS[field]}", field=field, value=value)
    if not least <= value <= most:
        raise PolicyError(
            f"{field} is from {least:g} to {most:g} {LIMIT_UNITS[field]}", field=field, value=value
        )


DEFAULT_LIMITS: Final = ResourceLimits()
"""What holds where a policy says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnforcedLimit:
    """What holds one limit of a session, and how well.

    Attributes:
        limit: which one, by its name in ``ResourceLimits``.
        value: the limit, in ``unit``.
        by: what holds it, such as ``cgroup v2 memory`` or ``rlimit per process``.
        scope: what it is counted for.
        strength: ``"enforced"`` if it always holds, ``"partial"`` if not.
        why: what is missing where it is partial; else empty.
    """

    limit: LimitName
    value: float
    by: str
    scope: LimitScope
    strength: LimitStrength = "enforced"
    why: str = ""

    @property
    def unit(self) -> str:
        """What ``value`` is counted in."""
        return LIMIT_UNITS[self.limit]
