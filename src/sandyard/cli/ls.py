"""``sandyard ls``: the sessions that stay, or the files of one."""

from __future__ import annotations

import dataclasses
import json as json_format
from datetime import UTC, datetime
from typing import Annotated

import typer

from sandyard.cli.reaching import (
    Json,
    attended,
    found_client,
    print_objects,
    print_table,
    supervised,
)

__all__ = ["list_sessions"]

Where = Annotated[
    str | None,
    typer.Argument(metavar="[SESSION]", help="List files of this one.", show_default=False),
]
Path = Annotated[
    str, typer.Argument(metavar="[PATH]", help="Which directory of it (default: the workspace).")
]


def list_sessions(session: Where = None, path: Path = ".", json: Json = False) -> int:
    """List your sessions; or the files of a session's workspace.

    A session is ended where its sandbox has gone by itself: only 'sandyard rm' is left for it.
    """
    if session is not None:
        return attended(lambda: _list_files(session, path, json=json))
    return attended(lambda: _list_all(json=json))


async def _list_all(*, json: bool) -> int:
    client = await found_client()
    sessions = () if client is None else await client.sessions()
    if json:
        print_objects(sessions)
    elif sessions:
        rows = [
            (
                one.name,
                one.id[:12],
                one.state,
                str(one.processes),
                datetime.fromtimestamp(one.created, UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
                one.workspace + (" (private)" if one.private else ""),
            )
            for one in sessions
        ]
        print_table(("NAME", "ID", "STATE", "RUNNING", "CREATED", "WORKSPACE"), rows)
    return 0


async def _list_files(session: str, path: str, *, json: bool) -> int:
    entries = await supervised().session(session).ls(path)
    if json:
        for entry in entries:
            fields = dataclasses.asdict(entry) | {"permissions": str(entry.permissions)}
            typer.echo(json_format.dumps(fields))
        return 0
    if entries:
        rows = [
            (str(e.permissions), e.owner, str(e.size), e.path.rpartition("/")[2]) for e in entries
        ]
        print_table(("MODE", "OWNER", "SIZE", "NAME"), rows)
    return 0
