"""The verbs of the old API for long-running processes: thin lines over terminals and pipes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandyard.calls import CommandRequest, prepare_terminal
from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import SLOT_YIELD_MAX_S, TERMINAL_COLUMNS, TERMINAL_ROWS
from sandyard.observing import observed
from sandyard.terminal_verbs import TerminalVerbs
from sandyard.types import User

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandyard.errors import OpName
    from sandyard.process.updates import PtyExecUpdate
    from sandyard.types import ExecResult

__all__ = ["PtyVerbs"]


class PtyVerbs(TerminalVerbs):
    """What callers of the old API do with processes that run on; ``terminal`` does more."""

    def supports_pty(self) -> bool:
        """Tell whether there are terminals: on every rung but ``landlock_seccomp``."""
        return self._ladder.has_terminals

    @observed("pty_exec_start")
    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a command, and tell what it has written after a while, or when it exits.

        At most 64 such processes are kept. One more ends the one that was not asked for longest, but
        none of the 8 that were asked last; the output says so.

        Args:
            command: as ``exec`` takes it; ``shell``, ``user`` and ``timeout`` likewise. What runs
                longer than ``timeout`` is ended; its exit code is -9, and its output says so.
            tty: True for a terminal of 24 by 80, to which ``pty_write_stdin`` types; False (default)
                for pipes and an empty input.
            yield_time_s: seconds to wait for the exit, from 0.25 to 30 (default: 10).
            max_output_tokens: what the output is shortened to, a token being four bytes; None
                (default) for no limit.

        Returns:
            The output so far, and either ``process_id`` or, once it has exited, ``exit_code``.

        Raises:
            ExecTransportError, ResourceLimitError, ArgumentError: as ``exec``.
            ConfinementUnavailableError: ``tty``, on a rung that has no terminals.
            SessionClosedError: the session is not running.
        """
        from sandyard.process.slots import start_yield  # noqa: PLC0415  # not all use them

        yield_s, tokens = start_yield(_seconds(yield_time_s)), _tokens(max_output_tokens)
        self._running_commands()
        if tty:
            self._ladder.check_terminals()
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=None,
            env=None,
            stdin=None,
            leftovers="keep",
            window=(TERMINAL_ROWS, TERMINAL_COLUMNS) if tty else None,
        )
        prepare = self._prepared_for_terminal if tty else self._prepared
        call = await prepare(request)
        terminal = prepare_terminal(call, None, 0) if tty else None

        async def follow(number: str, end: Callable[[], Awaitable[ExecResult]]) -> None:
            op: OpName = "terminal_run" if tty else "process_run"
            await self._follow(op, (number, number, call.words), end)

        slots = self._running_commands().interactive.slots
        return await slots.start(call, terminal, yield_s, tokens, follow)

    @observed("pty_write_stdin")
    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type something into a process, and tell what it has written after a while.

        What it does not read at once is typed as it reads, in the order of the calls.

        Args:
            session_id: the ``process_id`` of an earlier update.
            chars: what is typed, control characters included; empty only asks for output.
            yield_time_s: seconds to wait for the exit, from 0.25 to 30 (default: 0.25); at least 5 where
                ``chars`` is empty.
            max_output_tokens: as ``pty_exec_start`` takes it.

        Raises:
            PtySessionNotFoundError: there is no such process, or its exit code was told already.
            PtyStdinUnavailableError: it was started without ``tty`` and reads nothing.
            ExecTransportError: the sandbox ended.
            SessionClosedError: the session is not running.
        """
        from sandyard.process.slots import poll_yield, write_yield  # noqa: PLC0415  # not all use them

        number, data, tokens = _number(session_id), _encoded(chars), _tokens(max_output_tokens)
        seconds = _seconds(yield_time_s)
        yield_s = write_yield(seconds) if data else poll_yield(seconds)
        return await self._running_commands().interactive.slots.write(number, data, yield_s, tokens)

    @observed("pty_terminate_all")
    async def pty_terminate_all(self) -> None:
        """End all processes of ``pty_exec_start``, with all that they started."""
        await self._running_commands().interactive.slots.end_all()


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_nan(value):
        raise ArgumentTypeError(
            "yield_time_s is a number of seconds", op="exec", argument="yield_time_s", value=value
        )
    return float(min(max(value, 0), SLOT_YIELD_MAX_S))  # no float is as large as some numbers


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            "session_id is the process_id of an update",
            op="exec",
            argument="session_id",
            value=value,
        )
    return value


def _tokens(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            "max_output_tokens is a whole number",
            op="exec",
            argument="max_output_tokens",
            value=value,
        )
    return value


def _encoded(chars: object) -> bytes:
    if not isinstance(chars, str):
        raise ArgumentTypeError("chars is a string", op="exec", argument="chars", value=chars)
    try:
        return chars.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"chars holds characters that can't be encoded: {error.reason}",
            op="exec",
            argument="chars",
            value=chars,
            cause=error,
        ) from error
