"""Owns what is looked at around each command of a session with limits, and what it tells.

A session whose limits need no looking has no watch, and its commands pay nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Final

from sandyard.errors import ResourceLimitError
from sandyard.limits import CPU_TIME_SLACK_S
from sandyard.process.cgroup import Cgroup, CgroupCounts
from sandyard.process.quota import WorkspaceQuota
from sandyard.resources import EnforcedLimit
from sandyard.types import ExecResult, LimitHit, LimitName

__all__ = ["LimitWatch", "output_hits", "own_hits", "wall_time_hit"]

_SHELL_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended its command."""


class LimitWatch:
    """The limits of one session, as its commands meet them.

    Args:
        limits: what holds each limit.
        group: the session's control groups, or None.
        quota: the watch over the workspace's size, or None.
    """

    def __init__(
        self, limits: Iterable[EnforcedLimit], group: Cgroup | None, quota: WorkspaceQuota | None
    ) -> None:
        self._limits = {limit.limit: limit for limit in limits}
        self._group = group
        self.quota = quota

    def count(self) -> CgroupCounts:
        """What the kernel has counted for the session so far."""
        return CgroupCounts() if self._group is None else self._group.count()

    async def check(self, words: tuple[str, ...]) -> None:
        """Refuses a command while the workspace is too large.

        Raises:
            ResourceLimitError: it is.
        """
        if self.quota is None:
            return
        if size := await self.quota.size_over():
            raise ResourceLimitError(
                f"the workspace takes {size} bytes, and its limit is {self.quota.limit}: no command "
                "is started until something was removed (session.rm), or give a larger "
                "workspace_size",
                limit="workspace_size",
                value=self.quota.limit,
                unit="bytes",
                context={"command": words, "size": size},
                retryable=True,
            )

    def size_error(
        self, words: tuple[str, ...], result: ExecResult, size: int
    ) -> ResourceLimitError:
        """The error for a command that was ended because the workspace was too large."""
        limit = 0 if self.quota is None else self.quota.limit
        hit = self._hit("workspace_size", f"the workspace took {size} bytes; the command was ended")
        result.limit_hits = (*result.limit_hits, *hit)
        return ResourceLimitError(
            f"the workspace took {size} bytes, and its limit is {limit}: the command was ended; "
            "remove something (session.rm), or give a larger workspace_size",
            limit="workspace_size",
            value=limit,
            unit="bytes",
            result=result,
            context={"command": words, "size": size},
            retryable=False,
        )

    def memory_error(self, words: tuple[str, ...], before: CgroupCounts) -> Exception | None:
        """The error for a sandbox that ended because its memory was full; None if it was not."""
        held = self._limits.get("memory")
        if held is None or self.count().killed <= before.killed:
            return None
        return ResourceLimitError(
            f"the session's memory was full ({held.value:.0f} bytes), and the kernel ended its first "
            "process, the sandbox with it; start a new session, with more memory",
            limit="memory",
            value=held.value,
            unit=held.unit,
            context={"command": words, "reason": "sandbox_ended"},
            retryable=False,
        )

    def hits(self, result: ExecResult, before: CgroupCounts) -> tuple[LimitHit, ...]:
        """The limits that were reached while a command ran.

        Args:
            result: what it did.
            before: what had been counted when it began.
        """
        now = self.count()
        killed, refused = now.killed - before.killed, now.refused - before.refused
        ending = _ending_signal(result.exit_code)
        found: tuple[LimitHit, ...] = ()
        if killed > 0:
            whose = "the command" if ending == signal.SIGKILL else "a process of the session"
            found += self._hit(
                "memory", f"the session's memory was full, and the kernel ended {whose}"
            )
        if refused > 0:
            found += self._hit("processes", f"{refused} processes or threads were refused")
        if ending == signal.SIGXCPU or (ending == signal.SIGKILL and self._used_up(result, killed)):
            found += self._hit("cpu_time", "the command used up its processor time and was ended")
        if ending == signal.SIGXFSZ:
            found += self._file_hit()
        return found

    def _used_up(self, result: ExecResult, killed: int) -> bool:
        """Whether a command that got SIGKILL had used its processor time up."""
        held = self._limits.get("cpu_time")
        if held is None or result.usage is None or killed > 0:
            return False
        used = result.usage.user_s + result.usage.system_s
        return used >= held.value - CPU_TIME_SLACK_S

    def _file_hit(self) -> tuple[LimitHit, ...]:
        file, workspace = self._limits.get("file_size"), self._limits.get("workspace_size")
        detail = "the command was ended when it wrote a larger file"
        if workspace is not None and (file is None or workspace.value < file.value):
            return self._hit("workspace_size", detail)
        return self._hit("file_size", detail)

    def _hit(self, name: LimitName, detail: str) -> tuple[LimitHit, ...]:
        held = self._limits.get(name)
        if held is None:
            return ()
        return (LimitHit(limit=name, value=held.value, unit=held.unit, by=held.by, detail=detail),)


def _ending_signal(code: int) -> int:
    """The signal that ended a command, or a shell's last command; 0 if none did."""
    return -code if code < 0 else max(code - _SHELL_SIGNAL, 0)


def output_hits(result: ExecResult, limit: int) -> tuple[LimitHit, ...]:
    """The streams of a result of which something was dropped."""
    streams = (("stdout", result.stdout_dropped), ("stderr", result.stderr_dropped))
    return tuple(
        LimitHit(
            limit="output",
            value=limit,
            unit="bytes",
            by="host capture",
            detail=f"{dropped} bytes of {name} were dropped from its middle",
        )
        for name, dropped in streams
        if dropped
    )


def own_hits(result: ExecResult, held: Iterable[EnforcedLimit]) -> tuple[LimitHit, ...]:
    """The limits that a command has of its own, and reached."""
    return LimitWatch(held, None, None).hits(result, CgroupCounts())


def wall_time_hit(seconds: float) -> LimitHit:
    """The hit of a command that ran longer than the session allows."""
    return LimitHit(
        limit="wall_time",
        value=seconds,
        unit="seconds",
        by="host timer",
        detail="the command took longer, and was ended with all that it had started",
    )
