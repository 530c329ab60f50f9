"""``sandyard exec``: one command in a session that stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sandyard import ArgumentError, SandboxError
from sandyard.cli.execution import outcome_of, pass_through, refused
from sandyard.cli.order import split_variables
from sandyard.cli.permissions import Variables
from sandyard.cli.pumping import Inlet
from sandyard.cli.reaching import Session, attended, supervised
from sandyard.cli.report import JsonTeller, PlainTeller, Teller
from sandyard.cli.run import AsUser, Command, Json, Quiet, Timeout

if TYPE_CHECKING:
    from sandyard.server.remote import RemoteStream

__all__ = ["Directory", "command_words", "execute", "given_variables"]

Directory = Annotated[
    str | None,
    typer.Option("--cwd", metavar="DIR", help="Its directory, inside (default: the workspace)."),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach", "-d", help="Let it run in the background, and print its name; see logs and ps."
    ),
]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="What it is called, with --detach.")]


def execute(  # noqa: PLR0913, PLR0917  # one parameter for each option
    session: Session,
    command: Command,
    cwd: Directory = None,
    env: Variables = None,
    timeout: Timeout = None,
    user: AsUser = None,
    detach: Detach = False,
    name: Name = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Run a command in a session, and exit as it does.

    Its stdin, stdout and stderr are yours, signals go to it, and it ends with this program; what it
    leaves in the background lives on in the session.

    Exit codes: as of run; 125 also where there is no such session.
    """
    teller = JsonTeller() if json else PlainTeller(quiet=quiet)
    try:
        words = command_words(command)
        variables = given_variables(env)
        if name is not None and not detach:
            raise ArgumentError(
                "--name is for --detach: other commands end with this program",
                op="exec",
                argument="--name",
                value=name,
            )
    except SandboxError as error:
        return teller.end(refused(error))
    place = supervised().session(session)

    async def start() -> int:
        process = await place.start_process(
            *words, shell=False, name=name, timeout=timeout, user=user, cwd=cwd, env=variables
        )
        typer.echo(process.info.name if process.info else process.which)
        return 0

    if detach:
        return attended(start)
    stream = place.stream(
        *words, shell=False, timeout=timeout, user=user, cwd=cwd, env=variables, stdin=Inlet(0)
    )
    running = _noted(stream, teller) if json else stream  # in words, create has told it
    outcome = outcome_of(
        words, lambda stopping: pass_through(running, words, timeout, teller, stopping)
    )
    return teller.end(asyncio.run(outcome))


@asynccontextmanager
async def _noted(
    stream: AbstractAsyncContextManager[RemoteStream], teller: Teller
) -> AsyncGenerator[RemoteStream]:
    """Tell what holds for a command once it runs."""
    async with stream as running:
        teller.note(running.confinement)
        yield running


def command_words(command: list[str]) -> tuple[str, ...]:
    """The command's words, without the "--" that may stand between them and the session.

    Raises:
        ArgumentError: they begin with an option.
    """
    if command[0] != "--" and command[0].startswith("-"):
        raise ArgumentError(
            f"{command[0]} stands after the session, where the command begins; options stand before "
            f"the session, and a program of that name after --",
            op="exec",
            argument="COMMAND",
            value=command[0],
        )
    return tuple(command[1:] if command[0] == "--" and len(command) > 1 else command)


def given_variables(given: list[str] | None) -> dict[str, str]:
    """The variables of ``--env``, ours where only a name is given."""
    values, names = split_variables(given or ())
    return dict(values) | {name: os.environ[name] for name in names if name in os.environ}
