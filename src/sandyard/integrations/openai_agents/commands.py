"""What commands come back with, in the SDK's values: a command that can't start is a result as well.

A tool of the SDK's that meets an exception ends the whole run of an agent. So what a model can bring
about, by a command that no shell could run or a limit that it meets, comes back as a shell would tell
it: an exit code of 126, and a sentence on standard error.
"""

from __future__ import annotations

from typing import Final

from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, User

import sandyard as ours

__all__ = ["CANT_RUN", "as_result", "as_update", "named", "refused", "refused_update"]

CANT_RUN: Final = (
    ours.ArgumentError,
    ours.ResourceLimitError,
    ours.PolicyError,
    ours.ConfinementUnavailableError,
)
"""What may be wrong with a command, while the sandbox is well."""

_NOT_EXECUTABLE: Final = 126


def named(user: str | User | None) -> str | None:
    """The name of a user of the SDK's."""
    return user.name if isinstance(user, User) else user or None


def as_result(result: ours.ExecResult) -> ExecResult:
    """The SDK's result; where output was cut, standard error says so, since the SDK has no field."""
    cut = [
        f"sandyard: {dropped} bytes of {name} are missing in the middle"
        for name, dropped in (("stdout", result.stdout_dropped), ("stderr", result.stderr_dropped))
        if dropped
    ]
    stderr = _joined(result.stderr, cut) if cut else result.stderr
    return ExecResult(stdout=result.stdout, stderr=stderr, exit_code=result.exit_code)


def refused(error: ours.SandboxError) -> ExecResult:
    """The result of a command that could not run, or that a limit ended."""
    ended = error.result if isinstance(error, ours.ResourceLimitError) else None
    stdout, stderr = (b"", b"") if ended is None else (ended.stdout, ended.stderr)
    code = _NOT_EXECUTABLE if ended is None else ended.exit_code
    return ExecResult(stdout=stdout, stderr=_joined(stderr, [_line(error)]), exit_code=code)


def as_update(update: ours.PtyExecUpdate) -> PtyExecUpdate:
    """The SDK's update."""
    return PtyExecUpdate(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
    )


def refused_update(error: ours.SandboxError, process_id: int | None = None) -> PtyExecUpdate:
    """The update of a process that could not start; or that was typed what can't be typed."""
    code = _NOT_EXECUTABLE if process_id is None else None
    output = f"{_line(error)}\n".encode("utf-8", "replace")
    return PtyExecUpdate(
        process_id=process_id, output=output, exit_code=code, original_token_count=None
    )


def _line(error: ours.SandboxError) -> str:
    return f"sandyard: {error.message}"


def _joined(stream: bytes, lines: list[str]) -> bytes:
    """What a stream had, and lines of ours behind it."""
    gap = b"" if not stream or stream.endswith(b"\n") else b"\n"
    said = "".join(f"{line}\n" for line in lines)
    return stream + gap + said.encode("utf-8", "replace")
