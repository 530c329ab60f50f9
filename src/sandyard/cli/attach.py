"""``sandyard attach``: being at a terminal of a session again; and being at one at all."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandyard.cli.execution import shell_code
from sandyard.cli.pumping import Outlet
from sandyard.cli.reaching import Session, attended, supervised
from sandyard.cli.report import PlainTeller
from sandyard.cli.screen import Screen, ScreenModes, Typing, detach_key, window_size

if TYPE_CHECKING:
    from sandyard.server.remote_terminal import RemoteAttachment, RemoteTerminal

__all__ = ["DetachKey", "attach", "be_at"]

_STDOUT: Final = 1

Terminal = Annotated[
    str,
    typer.Argument(
        metavar="TERMINAL", help="Name or id, as ps lists it (default: the newest that runs)."
    ),
]
DetachKey = Annotated[
    str,
    typer.Option(
        "--detach-key", metavar="KEY", help="What leaves the terminal running; none for no key."
    ),
]


def attach(session: Session, terminal: Terminal = "", key: DetachKey = "ctrl-]") -> int:
    """Be at a terminal of a session again.

    What it has shown is shown, and keys go to it.

    Exit codes: the command's own, as of run; 0 after the detach key, which leaves it running.
    """

    async def work() -> int:
        return await be_at(supervised().session(session).terminal_named(terminal), session, key)

    return attended(work)


async def be_at(terminal: RemoteTerminal, session: str, key: str) -> int:
    """Show a terminal on ours until its command exits or the key is pressed; returns the exit code.

    Raises:
        ArgumentError: ours is no terminal, or there is none of this name.
        SandboxError: the sandbox or the server has ended.
    """
    typing, resized = Typing(detach_key(key)), asyncio.Event()
    modes = ScreenModes()
    screen = Screen(resized.set)
    rows, columns = window_size()
    async with terminal.attach(typing, rows=rows, columns=columns) as there:
        with screen:
            showing = asyncio.ensure_future(_show(there, modes))
            resizing = asyncio.ensure_future(_resize(there, resized))
            leaving = asyncio.ensure_future(typing.detached.wait())
            try:
                await asyncio.wait((showing, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended = showing.done()
                for task in (showing, resizing, leaving):
                    task.cancel()
                await asyncio.wait((showing, resizing, leaving))
                if there.info is None:
                    with suppress(OSError):
                        os.write(_STDOUT, modes.undo() + b"\r\n")
            if ended:
                showing.result()
    if there.info is not None and there.info.exit_code is not None:
        return shell_code(there.info.exit_code)
    again = f"sandyard attach {session} {terminal.which}".rstrip()
    PlainTeller().say(f"detached; to be there again: {again}")
    return 0


async def _show(there: RemoteAttachment, modes: ScreenModes) -> None:
    outlet = Outlet(_STDOUT)
    async for chunk in there:
        modes.feed(chunk)
        await outlet.write(chunk)


async def _resize(there: RemoteAttachment, resized: asyncio.Event) -> None:
    while True:
        await resized.wait()
        resized.clear()
        await there.resize(*window_size())
