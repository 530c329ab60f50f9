"""``sandyard ps``: what runs in the background of sessions, and on their terminals."""

from __future__ import annotations

import json as json_format
import shlex
from typing import Annotated

import typer

from sandyard import SessionNotFoundError
from sandyard.cli.reaching import Json, attended, found_client, print_table, supervised

__all__ = ["list_processes"]

Which = Annotated[
    str | None,
    typer.Argument(metavar="SESSION", help="Only of this one.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")]


def list_processes(session: Which = None, everything: All = False, json: Json = False) -> int:
    """List background processes and terminals of your sessions."""
    return attended(lambda: _list(session, everything=everything, json=json))


async def _list(session: str | None, *, everything: bool, json: bool) -> int:
    names: list[tuple[str, str]] = []
    if session is not None:
        names = [(session, session)]
    elif (client := await found_client()) is not None:
        names = [(one.id, one.name) for one in await client.sessions()]
    rows = []
    for key, name in names:
        try:
            listed = await supervised().session(key).processes()
        except SessionNotFoundError:
            if session is not None:
                raise
            continue  # it was ended meanwhile
        rows += [(name, one) for one in listed if everything or one.state != "ended"]
    if json:
        for name, one in rows:
            fields = one.model_dump(mode="json", exclude={"type"})
            typer.echo(json_format.dumps({"session": name, **fields}))
    elif rows:
        table = [
            (
                name,
                one.id,
                one.name,
                one.kind,
                one.state if one.exit_code is None else f"{one.state} ({one.exit_code})",
                shlex.join(one.command),
            )
            for name, one in rows
        ]
        print_table(("SESSION", "ID", "NAME", "KIND", "STATE", "COMMAND"), table)
    return 0
