"""``sandyard shell``: a shell, or another command, on a terminal of a session."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sandyard import SandboxError
from sandyard.cli.attach import DetachKey, be_at
from sandyard.cli.exec import Directory, command_words, given_variables
from sandyard.cli.execution import refused
from sandyard.cli.permissions import Variables
from sandyard.cli.reaching import Session, attended, supervised
from sandyard.cli.report import PlainTeller
from sandyard.cli.run import AsUser
from sandyard.cli.screen import check_terminal, detach_key, window_size

__all__ = ["shell"]

_FIRST_SHELL: Final = ("sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND", help="Instead of a shell.", show_default=False),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="What the terminal is called (default: its id).")
]


def shell(  # one parameter for each option
    session: Session,
    command: Words = None,
    cwd: Directory = None,
    env: Variables = None,
    user: AsUser = None,
    name: Name = None,
    key: DetachKey = "ctrl-]",
) -> int:
    """Be at a new terminal of a session.

    It runs bash where the session has one, else sh; or the command that is given. Ctrl-] leaves it
    running, 'sandyard attach' is there again; so it is when this program is killed or its terminal
    closed.

    Exit codes: the command's own, as of run; 0 after the detach key.
    """
    try:
        variables = given_variables(env)
        detach_key(key)
        words = command_words(command) if command else _FIRST_SHELL
    except SandboxError as error:
        return PlainTeller().end(refused(error))

    async def work() -> int:
        check_terminal()  # before anything is started
        rows, columns = window_size()
        terminal = (
            await supervised()
            .session(session)
            .terminal(
                *words,
                shell=False,
                rows=rows,
                columns=columns,
                user=user,
                cwd=cwd,
                env=variables,
                name=name,
            )
        )
        return await be_at(terminal, session, key)

    return attended(work)
