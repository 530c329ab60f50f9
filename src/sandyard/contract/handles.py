"""What the contract hands out that lives on: commands, terminals and processes that run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    from sandyard.process import OutputChunk
    from sandyard.process.logs_reading import LogChunk
    from sandyard.types import ExecResult

__all__ = ["RunningCommand", "RunningProcess", "RunningTerminal"]


class RunningCommand(Protocol):
    """A command whose output is iterated over as it comes."""

    @property
    def result(self) -> ExecResult:
        """How it ended, once the iteration has.

        Raises:
            ExecTransportError: it has not ended yet.
        """

    async def signal(self, number: int = ..., *, tree: bool = ...) -> None:
        """Send a signal to it, with ``tree`` to all that descends from it as well."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> OutputChunk: ...


class RunningTerminal(Protocol):
    """A command on a terminal of its own."""

    async def write(self, data: bytes) -> None:
        """Type something.

        Raises:
            TerminalEndedError: the command has exited.
        """

    async def wait(self) -> int:
        """Wait for its exit, and return the exit code."""

    async def close(self) -> None:
        """End the command, and all that it started."""


class RunningProcess(Protocol):
    """A command that runs in the background."""

    async def wait(self, timeout: float | None = ...) -> ExecResult:
        """Wait for its exit, at most so many seconds."""

    async def signal(self, signal: str | int = ..., *, tree: bool = ...) -> None:
        """Send a signal to it, with ``tree`` to all that descends from it as well."""

    async def close(self) -> None:
        """End it, and all that it started."""

    def logs(
        self,
        *,
        start: Literal["beginning", "now"] = ...,
        last_bytes: int | None = ...,
        last_lines: int | None = ...,
        stream: Literal["both", "stdout", "stderr"] = ...,
        follow: bool = ...,
    ) -> AsyncIterator[LogChunk]:
        """Read what it wrote; with ``follow`` what it writes from now on as well."""
