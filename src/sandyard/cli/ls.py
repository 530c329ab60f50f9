"""``sandyard ls``: the sessions that stay, or the files of one."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandyard import SandboxError
from sandyard.cli.completing import place_words
from sandyard.cli.execution import refused
from sandyard.cli.places import session_place
from sandyard.cli.reaching import (
    Json,
    attended,
    found_client,
    print_objects,
    print_table,
    readable_moment,
    supervised,
)
from sandyard.cli.report import PlainTeller
from sandyard.types import EntryKind, FileEntry

if TYPE_CHECKING:
    from sandyard.server.outcomes import SessionInfo

__all__ = ["show_list"]

_KINDS: Final = {
    "overlay": "an overlay: changes are kept apart",
    "layers": "inside; private layers",
}

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="SESSION:PATH",
        help="A directory of a session; SESSION alone is its workspace.",
        show_default=False,
        autocompletion=place_words,
    ),
]
Gone = Annotated[
    bool, typer.Option("--all", "-a", help="List also sessions that are no more, lately.")
]


def show_list(where: Where = None, gone: Gone = False, json: Json = False) -> int:
    """List your sessions; or the files in a directory of one.

    A session is ended where its sandbox has gone by itself: only its files are left, until 'sandyard
    rm'. With --all, those that were removed are listed, and those lost with a killed supervisor.
    """
    if where is None:
        return attended(lambda: _list_all(gone=gone, json=json))
    try:
        place = session_place(where, "ls")
    except SandboxError as error:
        return PlainTeller().end(refused(error))
    return attended(lambda: _list_files(place.session or "", place.path, json=json))


async def _list_all(*, gone: bool, json: bool) -> int:
    client = await found_client()
    sessions = () if client is None else await client.sessions(gone=gone)
    if json:
        print_objects(sessions)
    elif sessions:
        rows = [
            (
                one.name,
                one.id[:12],
                one.state,
                str(one.processes),
                "" if one.created is None else readable_moment(one.created),
                _directory(one),
            )
            for one in sessions
        ]
        print_table(("NAME", "ID", "STATE", "RUNNING", "CREATED", "WORKSPACE"), rows)
    return 0


def _directory(one: SessionInfo) -> str:
    """Where its files are, as it sees them: a copy has the path of what it was made from."""
    path = one.workspace.rstrip("/")
    if path and one.basis in _KINDS:
        return f"{path} ({_KINDS[one.basis]})"
    if not one.private or not path:
        return path
    return f"{path} ({'inside; a private copy' if one.forked else 'private'})"


async def _list_files(session: str, path: str, *, json: bool) -> int:
    entries = await supervised().session(session).ls(path)
    if json:
        for entry in entries:
            fields = dataclasses.asdict(entry) | {"permissions": str(entry.permissions)}
            typer.echo(json_format.dumps(fields))
        return 0
    if entries:
        rows = [
            (_mode(one), one.owner, str(one.size), one.path.rpartition("/")[2]) for one in entries
        ]
        print_table(("MODE", "OWNER", "SIZE", "NAME"), rows)
    return 0


def _mode(entry: FileEntry) -> str:
    letter = "l" if entry.kind is EntryKind.SYMLINK else str(entry.permissions)[0]
    return letter + str(entry.permissions)[1:]
