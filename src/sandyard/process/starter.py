"""Owns nothing: what commands need of whoever brings them into the world, an init or a spawner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sandyard.process.wire import SignalTarget

if TYPE_CHECKING:
    from sandyard.plan import Spawn
    from sandyard.process.capture import Capture
    from sandyard.process.job import CapturedJob, Job, TerminalJob, UnownedRefusals

__all__ = ["Capturing", "Starter"]


class Capturing(Protocol):
    """Tells what a command wrote along with its exit; ``InitProcess`` says what each method does."""

    async def spawn_captured(
        self,
        spawn: Spawn,
        captures: tuple[Capture, Capture],
        fds: list[int],
        timeout_s: float | None = None,
    ) -> CapturedJob:
        """Starts a command of which the output comes with its exit."""

    async def ask_pipes(self, job: CapturedJob) -> None:
        """Asks for the pipes of one that goes on for longer."""


class Starter(Protocol):
    """Starts commands and ends them; ``InitProcess`` says what each method does.

    Attributes:
        owner: uid and gid of its commands on the host, or None where that is the caller itself.
        unowned: what processes were refused whose command had exited.
    """

    owner: tuple[int, int] | None
    unowned: UnownedRefusals

    @property
    def capturing(self) -> Capturing | None:
        """What tells the output of a command along with its exit; None where nobody does."""

    @property
    def alive(self) -> bool:
        """Whether it can start commands."""

    async def spawn(
        self,
        spawn: Spawn,
        fds: list[int],
        fd_mask: int,
        *,
        report: bool = False,
        timeout_s: float | None = None,
    ) -> Job:
        """Starts a command on descriptors."""

    async def spawn_terminal(self, spawn: Spawn) -> TerminalJob:
        """Starts a command on a terminal."""

    async def signal(
        self, job: Job, number: int, target: SignalTarget = SignalTarget.COMMAND
    ) -> None:
        """Sends a signal."""

    async def kill(self, job: Job, *, force: bool = False) -> None:
        """Ends a command and all that it started, as far as that is known."""

    def leftovers(self) -> list[Job]:
        """Commands that have exited, and of which something is left."""
