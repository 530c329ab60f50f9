"""Owns the meaning of an end: init's account of a command becomes a result, or a typed error."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from functools import partial

from sandyard.errors import (
    ArgumentError,
    ExecTimeoutError,
    ExecTransportError,
    ResourceLimitError,
    SandboxError,
)
from sandyard.process.capture import Captured
from sandyard.process.watch import wall_time_hit
from sandyard.process.wire import Exited, Failure, Step, Usage
from sandyard.types import ExecResult, Leftover, ResourceUsage

__all__ = [
    "exec_result",
    "exit_code",
    "gone_error",
    "listed_leftovers",
    "resource_usage",
    "timeout_error",
    "unborn_result",
    "usage_later",
]

NOT_FOUND = 127
"""What a shell reports for a program that does not exist (POSIX, Shell Command Language 2.8.2)."""

NOT_EXECUTABLE = 126
"""What a shell reports for a program that exists but can't be run."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_SHORT = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def exit_code(status: int) -> int:
    """The exit code of a wait status; the negative signal number where one ended it."""
    return os.waitstatus_to_exitcode(status)


def resource_usage(exited: Exited) -> ResourceUsage | None:
    """What a command used; None where nobody counted."""
    return None if exited.keeper_lost else _counted(exited.usage)


def usage_later(exited: Exited | None) -> Callable[[], ResourceUsage] | None:
    """The same, made when it is asked for, which it mostly is not."""
    return None if exited is None or exited.keeper_lost else partial(_counted, exited.usage)


def _counted(usage: Usage) -> ResourceUsage:
    return ResourceUsage(
        user_s=usage.user_us / 1e6,
        system_s=usage.system_us / 1e6,
        max_rss_bytes=usage.max_rss_kib * 1024,
        minor_faults=usage.minor_faults,
        major_faults=usage.major_faults,
        blocks_in=usage.blocks_in,
        blocks_out=usage.blocks_out,
        voluntary_switches=usage.voluntary_switches,
        involuntary_switches=usage.involuntary_switches,
    )


def listed_leftovers(exited: Exited) -> tuple[Leftover, ...]:
    """What a command had left running when it exited."""
    if not exited.listed:
        return ()
    return tuple(Leftover(pid=one.pid, name=one.name) for one in exited.listed)


def exec_result(
    exited: Exited | None, stdout: Captured, stderr: Captured, duration_s: float
) -> ExecResult:
    """What is told of a command that was born.

    Args:
        exited: init's account; None if it could not be had in time, which reads as a kill.
    """
    return ExecResult(
        stdout=stdout.data,
        stderr=stderr.data,
        exit_code=-signal.SIGKILL if exited is None else exit_code(exited.status),
        stdout_dropped=stdout.dropped,
        stderr_dropped=stderr.dropped,
        stdout_total=stdout.total,
        stderr_total=stderr.total,
        duration_s=duration_s,
        usage=usage_later(exited),
        leftovers=() if exited is None else listed_leftovers(exited),
        refused=0 if exited is None else exited.refused,
        refused_calls=() if exited is None else exited.kinds,
    )


def timeout_error(
    words: tuple[str, ...],
    timeout_s: float | None,
    result: ExecResult,
    *,
    wall_time: bool,
    ended: bool,
) -> ExecTimeoutError:
    """The error for a command that took too long.

    Args:
        words: the command.
        timeout_s: what it had.
        result: what it did until then.
        wall_time: whether that is the session's own limit.
        ended: whether its tree is known to be gone.
    """
    context: dict[str, object] = {} if ended else {"still_running": True}
    if wall_time and timeout_s is not None:
        context["limit"] = "wall_time"
        result.limit_hits += (wall_time_hit(timeout_s),)
    return ExecTimeoutError(command=words, timeout_s=timeout_s, result=result, context=context)


def unborn_result(failure: Failure, words: tuple[str, ...], cwd: str) -> ExecResult:
    """What a shell would report of a command that could not be run.

    Raises:
        ArgumentError: if its directory can't be entered.
        ResourceLimitError: if there is no room for one more process.
        ExecTransportError: if the sandbox is at fault.
    """
    reason = os.strerror(failure.error)
    if failure.step is Step.SPAWN_EXEC:
        code = NOT_FOUND if failure.error in _ABSENT else NOT_EXECUTABLE
        text = f"sandyard: {words[0]}: {reason}\n"
        return ExecResult(
            stdout=b"", stderr=text.encode("utf-8", "surrogateescape"), exit_code=code
        )
    raise _unborn_error(failure, words, cwd, reason)


def _unborn_error(failure: Failure, words: tuple[str, ...], cwd: str, reason: str) -> SandboxError:
    if failure.step is Step.SPAWN_CWD:
        return ArgumentError(
            f"the command's directory {cwd!r} can't be entered inside: {reason}",
            op="exec",
            argument="cwd",
            value=cwd,
        )
    if failure.step is Step.SPAWN_FORK and failure.error in (errno.EAGAIN, errno.ENOMEM):
        return ResourceLimitError(
            f"the sandbox has no room for one more process ({reason}); end some of its processes, "
            "or give it a higher limit",
            limit="processes",
            value=failure.error,
            unit="errno",
            context={"command": words},
            retryable=True,
        )
    if failure.step is Step.SPAWN_STDIO and failure.error in _SHORT:
        return ResourceLimitError(
            f"the machine has no room for the pipes of one more command ({reason}); close files of some "
            "program, or raise its limit (fs.file-max)",
            limit="open_files",
            value=failure.error,
            unit="errno",
            context={"command": words},
            retryable=True,
        )
    if failure.step is Step.SPAWN_TERMINAL and failure.error in _SHORT:
        return ResourceLimitError(
            f"the sandbox has no room for one more terminal ({reason}); close some of its own, of which "
            "there are 1,280 at most, or raise the machine's limit (kernel.pty.max) or the sandbox's on "
            "open files",
            limit="terminals",
            value=failure.error,
            unit="errno",
            context={"command": words},
            retryable=True,
        )
    return ExecTransportError(
        command=words,
        message=f"the sandbox could not run the command: {failure.step.name.lower()}: {reason}",
        context={"step": failure.step.name.lower(), "errno": failure.error},
        retryable=False,
    )


def gone_error(words: tuple[str, ...], *, born: bool) -> ExecTransportError:
    """What a command of an ended sandbox gets.

    Args:
        born: whether it was running when the sandbox ended.
    """
    when = "while the command ran" if born else "before the command could run"
    return ExecTransportError(
        command=words,
        message=f"the sandbox ended {when}: its first process is gone; start a new session",
        context={"reason": "sandbox_ended"},
        retryable=False,
    )
