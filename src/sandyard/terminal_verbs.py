"""The terminal verbs of a session: each is checked, then done by the terminals of its sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from sandyard.calls import CommandRequest, Leftovers, prepare_terminal
from sandyard.limits import (
    TERMINAL_COLUMNS,
    TERMINAL_ROWS,
    TERMINAL_SCROLLBACK_BYTES,
    TERMINAL_TYPE,
)
from sandyard.observing import observed
from sandyard.process import CommandCall
from sandyard.types import User
from sandyard.verb_bases import CommandVerbBase

if TYPE_CHECKING:
    from sandyard.narrowing import Narrowing
    from sandyard.process.terminal import Terminal

__all__ = ["TerminalVerbs"]

_PRESETS: Final = {b"TERM": TERMINAL_TYPE.encode()}


class TerminalVerbs(CommandVerbBase):
    """What a session does with terminals."""

    async def _prepared_for_terminal(self, request: CommandRequest) -> CommandCall:
        """The same with TERM, unless the caller, the policy or the manifest sets it."""
        given = self.state.manifest.environment.value, dict(self.policy.environment)
        if not any("TERM" in variables for variables in given):
            request.presets = _PRESETS
        return await self._prepared(request)

    @observed("terminal")
    async def terminal(  # noqa: PLR0913  # what exec takes, and a window
        self,
        *command: str | Path,
        rows: int = TERMINAL_ROWS,
        columns: int = TERMINAL_COLUMNS,
        shell: bool | Sequence[str] = True,
        timeout: float | None = None,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        scrollback: int = TERMINAL_SCROLLBACK_BYTES,
        leftovers: Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> Terminal:
        r"""Start a command on a terminal of its own.

        Returns at once; the command runs until it exits, the terminal is closed or the session ends.
        A program that does not exist is a terminal that has ended with exit code 127, as a shell would
        tell of it.

        Args:
            command: with a shell, one word is the shell's text and several are quoted and joined;
                without, they are the argv.
            rows: lines of its window (default: 24), ``columns`` (80) the characters of a line.
            shell: True (default) for ``sh -c``; a list for another shell; False for none.
            timeout: seconds after which the command and all that it started are ended, its exit code
                is -9, and its output says so; None (default) for the policy's ``wall_time``.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.
            cwd: directory, relative to the workspace or absolute (default: the workspace).
            env: variables for this command; TERM is ``xterm-256color`` unless it is given here, by
                the policy or by the manifest.
            name: what ``terminals()`` lists it as (default: its number).
            scrollback: bytes of its output that are kept to be replayed (default: 1 MiB); the oldest
                are dropped first, and counted.
            leftovers: what becomes of processes that the command leaves running when it exits:
                ``"keep"`` (default) lets them live in the session, without a terminal, ``"end"`` ends
                them.
            narrow: what the command may do less than the session, with all that it starts; None
                (default) for nothing less.

        Raises:
            ExecTransportError: the sandbox ended.
            ConfinementUnavailableError: the session's rung has no terminals, or this machine can't
                hold a command to less.
            PolicyError: ``narrow`` names what the session does not have.
            ResourceLimitError: no room for a process, a terminal or a descriptor.
            ArgumentError, ArgumentTypeError: an argument is impossible, or the name is in use.
            SessionClosedError: the session is not running.

        Example:
            >>> shell = await session.terminal("bash", rows=40, columns=120)
            >>> await shell.write(b"ls\n")
            >>> async with shell.attach() as output:
            ...     async for chunk in output:
            ...         show(chunk)
        """
        from sandyard.process.windows import (  # noqa: PLC0415  # not all use them
            checked_name,
            checked_scrollback,
            checked_window,
        )

        window = checked_window(rows, columns)
        name, scrollback = checked_name(name), checked_scrollback(scrollback)
        self._running_commands()
        self._ladder.check_terminals()
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=None,
            leftovers=leftovers,
            narrow=narrow,
            window=window,
        )
        call = await self._prepared_for_terminal(request)
        terminals = self._running_commands().interactive.terminals
        from sandyard.explaining.shown import screen_teller  # noqa: PLC0415  # not all use them

        teller = screen_teller(self._explainer, call.spawn, narrow)
        terminal = await terminals.open(prepare_terminal(call, name, scrollback, teller))
        about = (str(terminal.id), terminal.name, terminal.command)
        await self._follow("terminal_run", about, terminal.result)
        return terminal

    def terminals(self) -> tuple[Terminal, ...]:
        """List the terminals of the running sandbox, in the order in which they were started.

        Those that have exited are listed, too, the newest 64 of them, so that what they showed can
        still be read.

        Raises:
            SessionClosedError: the session is not running.
        """
        return self._running_commands().interactive.terminals.listed()
