"""What a server does for those who are at a terminal: what it shows goes out, what is typed comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from sandyard.errors import ArgumentError, TerminalEndedError, shown
from sandyard.process.terminal import Terminal
from sandyard.server.call import CallInput, ServerCall
from sandyard.server.messages import Missed, ReadTerminal, Started
from sandyard.server.outcomes import Done, ProcessInfo
from sandyard.server.wording import Message
from sandyard.session import UnixLocalSandboxSession

__all__ = [
    "attend_terminal",
    "chosen_terminal",
    "found_terminal",
    "show_terminal",
    "terminal_info",
    "terminal_infos",
    "type_on",
]


def terminal_info(terminal: Terminal) -> ProcessInfo:
    """A terminal as it travels."""
    return ProcessInfo(
        kind="terminal",
        id=f"t{terminal.id}",
        name=_name(terminal),
        command=terminal.command,
        state="running" if terminal.exit_code is None and not terminal.failure else "ended",
        exit_code=terminal.exit_code,
    )


def terminal_infos(session: UnixLocalSandboxSession) -> Iterator[ProcessInfo]:
    """The terminals of a session; none where its sandbox has gone."""
    return (terminal_info(one) for one in session.terminals())


def found_terminal(session: UnixLocalSandboxSession, which: str) -> Terminal | None:
    """A terminal by its id or name; None if there is none.

    Raises:
        SessionClosedError: the session does not run.
    """
    for terminal in reversed(session.terminals()):
        if which in (f"t{terminal.id}", _name(terminal)):
            return terminal
    return None


def chosen_terminal(session: UnixLocalSandboxSession, which: str) -> Terminal:
    """A terminal by its id or name; the newest that runs where none is named.

    Raises:
        ArgumentError: there is none.
        SessionClosedError: the session does not run.
    """
    running = [one for one in session.terminals() if one.exit_code is None]
    found = found_terminal(session, which) if which else next(reversed(running), None)
    if found is None:
        names = ", ".join(_name(one) for one in running)
        said = f"there is no terminal {shown(which)}" if which else "no terminal runs"
        raise ArgumentError(
            f"{said} in this session; there are: {names or 'none'}",
            op="attach",
            argument="terminal",
            value=which,
        )
    return found


async def attend_terminal(terminal: Terminal, request: ReadTerminal, call: ServerCall) -> Message:
    """Let a caller be at a terminal; returns once its command has exited.

    Raises:
        ConnectionError: the caller has hung up; the terminal stays.
        SandboxError: the sandbox has ended, or the window's size is impossible.
    """
    async with terminal.attach(replay=request.replay) as output:
        if request.rows is not None and request.columns is not None:
            terminal.resize(request.rows, request.columns)
        call.on_resize = terminal.resize
        call.on_signal = lambda number, tree: terminal.signal(
            number, to="tree" if tree else "command"
        )
        await call.say(Started())
        if request.input:
            await call.input.open()
        if output.dropped and request.replay:
            await call.say(Missed(stream="stdout", bytes=output.dropped))
        typing = asyncio.ensure_future(_type(terminal, call.input))
        try:
            async for chunk in output:
                await call.put("stdout", chunk)
        finally:
            typing.cancel()
            await asyncio.wait((typing,))
    if terminal.failure is not None:
        raise terminal.failure
    return terminal_info(terminal)


async def show_terminal(terminal: Terminal, call: ServerCall, *, follow: bool) -> Message:
    """Send what a terminal has shown, and with ``follow`` what it shows until its command exits."""
    await call.say(Started())
    if not follow:
        kept = terminal.scrollback()
        if kept.dropped:
            await call.say(Missed(stream="stdout", bytes=kept.dropped))
        await call.put("stdout", kept.data)
        return terminal_info(terminal)
    async with terminal.attach() as output:
        if output.dropped:
            await call.say(Missed(stream="stdout", bytes=output.dropped))
        async for chunk in output:
            await call.put("stdout", chunk)
    return terminal_info(terminal)


async def type_on(terminal: Terminal, call: ServerCall) -> Message:
    """Type what a caller sends, to its end.

    Raises:
        TerminalEndedError: the command has exited.
        ConnectionError: the caller has gone.
    """
    await call.input.open()
    async for data in call.input:
        await terminal.write(data)
    return Done()


async def _type(terminal: Terminal, source: CallInput) -> None:
    """Type what comes; nobody hears of the rest once the command has exited or the caller gone."""
    with suppress(TerminalEndedError, ConnectionError):
        async for data in source:
            await terminal.write(data)


def _name(terminal: Terminal) -> str:
    own = str(terminal.id)
    return f"t{terminal.id}" if terminal.name == own else terminal.name
