"""``sandyard rm``: the end of sessions that stay."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard import ArgumentError, SandboxError
from sandyard.cli.execution import refused
from sandyard.cli.reaching import attended, found_client, session_names, supervised
from sandyard.cli.report import PlainTeller

__all__ = ["remove"]

Sessions = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SESSION",
        help="Names or ids.",
        show_default=False,
        autocompletion=session_names,
    ),
]
All = Annotated[bool, typer.Option("--all", help="All of your sessions.")]


def remove(sessions: Sessions = None, everything: All = False) -> int:
    """End sessions, and delete their private workspaces.

    All that runs in them ends. A directory that was given by --workspace stays. Exit codes: 0; 125
    if one was not removed.
    """
    teller = PlainTeller()
    if everything is bool(sessions):
        wrong = ArgumentError(
            "name the sessions to be removed, or say --all",
            op="delete",
            argument="SESSION",
            value=sessions,
        )
        return teller.end(refused(wrong))
    return attended(lambda: _remove(sessions or (), teller))


async def _remove(named: list[str] | tuple[str, ...], teller: PlainTeller) -> int:
    which = list(named)
    if not which:
        client = await found_client()
        which = [] if client is None else [one.id for one in await client.sessions()]
    code = 0
    for one in which:
        try:
            await supervised().delete(supervised().session(one))
        except SandboxError as error:  # the others are removed all the same
            code = teller.end(refused(error))
    return code
