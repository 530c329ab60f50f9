"""Owns the handle of a background process: what it tells, and what can be asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExecTimeoutError,
    ExposedPortUnavailableError,
)
from sandyard.finishing import finished
from sandyard.limits import LOG_LIMIT_MAX_BYTES, PORT_WAIT_TIMEOUT_S
from sandyard.process.argv import checked_timeout
from sandyard.process.background_input import ProcessInput
from sandyard.process.background_run import ProcessRun, ProcessState
from sandyard.process.logs_layout import STREAMS
from sandyard.process.logs_reading import LogReader, LogStart
from sandyard.process.results import listed_leftovers, resource_usage
from sandyard.process.signalling import checked_signal
from sandyard.types import ExecResult, Leftover, ResourceUsage

if TYPE_CHECKING:
    from sandyard.endpoint import ExposedPortEndpoint

__all__ = ["BackgroundProcess", "LogStatus", "PortWait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatus:
    """How a background process's log stands.

    Attributes:
        stdout_total: bytes that were read of its standard output.
        stderr_total: bytes that were read of its standard error.
        dropped: bytes of both that later ones have taken the place of; a few headers aside, a log
            of its full size holds the rest.
        lost: bytes of both that could not be written.
        failure: why, in the words of the last failure; None while nothing was lost.
    """

    stdout_total: int
    stderr_total: int
    dropped: int
    lost: int
    failure: str | None


class PortWait(Protocol):
    """What ``session.wait_for_port`` is to its processes."""

    def __call__(
        self, port: int, *, timeout: float = ...
    ) -> Coroutine[None, None, ExposedPortEndpoint]:
        """Wait until a server inside takes connections."""


class BackgroundProcess:
    """A command that runs in the background, and all that it starts.

    ``session.start_process`` makes it. It lives until it ends by itself, ``close`` is called, or the
    session ends; it never outlives the session. It can be used as an async context manager, which
    closes it.

    Attributes:
        id: what it is called in its session, such as ``"p1"``.
        name: the name it was given, or its id.
        command: its words; of a shell's text, the shell and its options come first.
        started_at: when it was started (UTC).

    Example:
        >>> server = await session.start_process("python3 -m http.server 8000", name="web")
        >>> async for chunk in server.logs():
        ...     if b"Serving" in chunk.data:
        ...         break
        >>> await server.close()
    """

    def __init__(self, run: ProcessRun, *, label: tuple[str, str], wait_for_port: PortWait) -> None:
        """Speak for a process; use ``session.start_process`` instead."""
        self.id, self.name = label
        self.command = run.call.words
        self.started_at = datetime.now(UTC)
        self._run = run
        self._wait_for_port = wait_for_port

    # --- what it is -------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Its process id inside the sandbox; None if the program could not be run."""
        return self._run.pid

    @property
    def state(self) -> ProcessState:
        """Whether it runs, only what it started does, or nothing of it is left."""
        return self._run.state

    @property
    def exit_code(self) -> int | None:
        """Its exit code, -N if signal N ended it; None while it runs, or if the sandbox went first."""
        return self._run.exit_code

    @property
    def usage(self) -> ResourceUsage | None:
        """What it and the children that it waited for used; None while it runs, or if not known."""
        return None if self._run.exited is None else resource_usage(self._run.exited)

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """What it had left running when its command exited; empty once nothing of it is left."""
        exited = self._run.exited
        return () if exited is None or self.state == "ended" else listed_leftovers(exited)

    @property
    def log_status(self) -> LogStatus:
        """How much it wrote, and what of that its log does not have."""
        log = self._run.log
        layout, error = log.layout, log.error
        words = getattr(error, "strerror", None) or error
        return LogStatus(
            stdout_total=log.taken[0],
            stderr_total=log.taken[1],
            dropped=layout.dropped,
            lost=layout.lost,
            failure=None if error is None else str(words),
        )

    # --- what can be done with it -----------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait until the command has exited; what it left running is not waited for.

        Args:
            timeout: seconds to wait; None (default) waits for as long as it takes. The process is
                left alone in either case.

        Returns:
            What ``exec`` would return, but for the output: that is in the logs, and only counted
            here.

        Raises:
            ExecTimeoutError: it still runs (``context["still_running"]``); or it ran longer than
                ``start_process`` allowed, and was ended.
            ExecTransportError: the sandbox ended first, or the source given as stdin failed.
            ResourceLimitError: it was ended because of one of the session's limits.
        """
        limit = checked_timeout(timeout)
        if not await self._run.wait(limit):
            raise self._still_running(limit)
        return self._run.result()

    async def wait_for_port(
        self, port: int, *, timeout: float = PORT_WAIT_TIMEOUT_S
    ) -> ExposedPortEndpoint:
        """Wait until a server takes connections, as ``session.wait_for_port`` does, or the process ends.

        A server that fails to start is told of at once, and not after the timeout.

        Args:
            port: as ``session.resolve_exposed_port``.
            timeout: seconds to wait (default: 30).

        Returns:
            Where this machine's programs reach it.

        Raises:
            ExposedPortUnavailableError: nothing of the process is left (``context["exit_code"]``), or
                the session was not made with this port.
            ExposedPortTimeoutError: nobody listened in time.
            ArgumentError, ArgumentTypeError: an argument is impossible.
            SessionClosedError: the session is not running, or ended meanwhile.

        Example:
            >>> server = await session.start_process("python3 -m http.server 8000")
            >>> endpoint = await server.wait_for_port(8000)
        """
        waiting = asyncio.ensure_future(self._wait_for_port(port, timeout=timeout))
        ended = asyncio.ensure_future(self._run.over.wait())
        try:
            await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
            ended.cancel()
            await finished(_settled(waiting, ended))
        raise ExposedPortUnavailableError(
            port=port,
            reason="process_ended",
            message=f"process {self.name} ended with exit code {self.exit_code} before anybody listened on "
            f"port {port} of localhost; its logs may say why",
            op="wait_for_port",
            context={"exit_code": self.exit_code},
        )

    async def signal(self, signal: str | int = "TERM", *, tree: bool = False) -> None:
        """Send a signal; nothing happens where nobody is left to get it.

        Args:
            signal: its name, such as ``"TERM"``, ``"SIGTERM"`` or ``"RTMIN+1"``, or its number
                (default: TERM).
            tree: True sends it to each process that descends from the command as well, also when
                the command itself has exited.

        Raises:
            ArgumentError, ArgumentTypeError: there is no such signal.
        """
        await self._run.signal(checked_signal(signal, "process", "signal"), tree=tree)

    @property
    def stdin(self) -> ProcessInput:
        """What it reads, to be written to; it was started with ``stdin=True``.

        Raises:
            ArgumentError: it was not.
        """
        if self._run.input is None:
            raise ArgumentError(
                f"process {self.name} was not given an input that can be written to; start it with "
                "stdin=True",
                op="process",
                argument="stdin",
                value=None,
            )
        return self._run.input

    def logs(
        self,
        *,
        start: Literal["beginning", "now"] = "beginning",
        last_bytes: int | None = None,
        last_lines: int | None = None,
        stream: Literal["both", "stdout", "stderr"] = "both",
        follow: bool = True,
    ) -> LogReader:
        """Read what it wrote, and go on as it writes; iterate the answer.

        The two streams come in the order in which they were read. Logs stay readable when the
        process has ended, until ``remove``, or until the session is closed.

        Args:
            start: ``"beginning"`` (default), or ``"now"`` for what comes after this call.
            last_bytes: begin so many bytes before the end instead.
            last_lines: begin so many lines before the end instead.
            stream: ``"both"`` (default), ``"stdout"`` or ``"stderr"``.
            follow: True (default) ends when nothing of the process is left; False ends with what
                was there at this call.

        Raises:
            ArgumentError, ArgumentTypeError: an argument is impossible.
        """
        begin = _log_start(start, last_bytes, last_lines)
        if stream not in ("both", *STREAMS):
            raise ArgumentError(
                "stream is 'both', 'stdout' or 'stderr'", op="logs", argument="stream", value=stream
            )
        chosen = (0, 1) if stream == "both" else (STREAMS.index(stream),)
        return LogReader(self._run.log, begin, chosen, follow=follow)

    async def close(self) -> None:
        """End it and all that it started; its logs stay. Doing it again does nothing.

        It returns when nothing is left; after five seconds also if something hangs in the kernel,
        and ``state`` tells.
        """
        await self._run.close()

    async def __aenter__(self) -> Self:
        """Hold the process for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it and all that it started."""
        await self.close()

    def __repr__(self) -> str:
        """Show what it is and how it stands."""
        return f"BackgroundProcess({self.id!r}, {self.name!r}, {self.state}, {self.exit_code})"

    # --- inside -----------------------------------------------------------------------------------

    def _still_running(self, limit: float | None) -> ExecTimeoutError:
        error = ExecTimeoutError(
            command=self.command,
            timeout_s=limit,
            message=f"process {self.name} still runs after {limit} s; wait longer, or close it",
            context={"still_running": True},
        )
        error.retryable = True
        return error


async def _settled(*works: Awaitable[object]) -> None:
    await asyncio.gather(*works, return_exceptions=True)


def _log_start(start: object, last_bytes: object, last_lines: object) -> LogStart:
    """Where a reader begins.

    Raises:
        ArgumentError, ArgumentTypeError: that is no place, or there are several.
    """
    if start == "beginning":
        place = LogStart("beginning")
    elif start == "now":
        place = LogStart("now")
    else:
        raise ArgumentError(
            "start is 'beginning' or 'now'", op="logs", argument="start", value=start
        )
    if last_bytes is None and last_lines is None:
        return place
    if start != "beginning" or (last_bytes is not None and last_lines is not None):
        raise ArgumentError(
            "give one of start, last_bytes and last_lines", op="logs", argument="start", value=start
        )
    if last_bytes is not None:
        return LogStart("bytes", _checked_count("last_bytes", last_bytes))
    return LogStart("lines", _checked_count("last_lines", last_lines))


def _checked_count(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            f"{argument} is a whole number", op="logs", argument=argument, value=value
        )
    if not 0 <= value <= LOG_LIMIT_MAX_BYTES:
        raise ArgumentError(
            f"{argument} is from 0 to {LOG_LIMIT_MAX_BYTES}",
            op="logs",
            argument=argument,
            value=value,
        )
    return value
