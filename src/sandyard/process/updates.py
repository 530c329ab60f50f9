"""Owns what the old API tells of a process that runs on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PtyExecUpdate"]


@dataclass(frozen=True, slots=True)
class PtyExecUpdate:
    """What ``pty_exec_start`` and ``pty_write_stdin`` tell of a process.

    Attributes:
        process_id: its number while it runs; None exactly when ``exit_code`` is not.
        output: what it wrote since the last update, as UTF-8; what was no UTF-8 is replaced.
        exit_code: its exit code, -N where signal N ended it; None while it runs.
        original_token_count: about how many tokens ``output`` had before it was shortened; None where
            it was not.
    """

    process_id: int | None
    output: bytes
    exit_code: int | None
    original_token_count: int | None
