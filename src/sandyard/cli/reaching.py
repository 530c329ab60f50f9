"""The way from a verb to the supervisor: its connection, its client, and how a verb on it ends.

What that needs is imported where it is used: ``sandyard run`` must not wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sandyard import SandboxError
from sandyard.cli.execution import refused
from sandyard.cli.report import PlainTeller, printable
from sandyard.cli.stopping import Stopping
from sandyard.finishing import in_thread

if TYPE_CHECKING:
    from sandyard.lifecycle import Processes
    from sandyard.server.connection import Connection
    from sandyard.server.remote import RemoteClient
    from sandyard.server.wording import Message

__all__ = [
    "Freeze",
    "Json",
    "Process",
    "Session",
    "attended",
    "found_client",
    "print_objects",
    "print_table",
    "processes_for",
    "readable_moment",
    "session_names",
    "supervised",
]

_SIGNALLED: Final = 128


def session_names(incomplete: str) -> list[str]:
    """The names of sessions that begin so, for a shell that completes them; it says no errors."""

    async def look() -> list[str]:
        client = await found_client()
        found = () if client is None else await client.sessions()
        return [one.name for one in found if one.name.startswith(incomplete)]

    try:
        return asyncio.run(look())
    except SandboxError:
        return []


Session = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="Its name, its id, or the beginning of its id.",
        show_default=False,
        autocompletion=session_names,
    ),
]
Process = Annotated[
    str,
    typer.Argument(metavar="PROCESS", help="Name or id, as ps lists it.", show_default=False),
]
Freeze = Annotated[
    bool,
    typer.Option("--freeze", help="Hold still what runs meanwhile: all files are of one moment."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead, one object a line.")]


def processes_for(*, freeze: bool) -> Processes:
    """What becomes of what runs in a session, by the word for it."""
    return "freeze" if freeze else "keep"


def supervised() -> RemoteClient:
    """The sessions of this user's supervisor, which is started by the first call."""
    from sandyard.server.remote import RemoteClient  # noqa: PLC0415  # see the file's first lines

    return RemoteClient(_connect)


async def found_client() -> RemoteClient | None:
    """The sessions of the supervisor that runs; None if none does and none was killed.

    Raises:
        ServerError: it can't be asked.
    """
    from sandyard.supervisor.starting import reach_running  # noqa: PLC0415  # likewise

    sock = await in_thread(reach_running)
    if sock is None:
        return None
    sock.close()
    return supervised()


def attended(work: Callable[[], Awaitable[int]]) -> int:
    """Do what a verb does, while we listen to signals; returns the exit code."""
    return asyncio.run(_attended(work))


def print_objects(objects: Sequence[Message]) -> None:
    """Print each as a line of JSON."""
    for one in objects:
        fields = one.model_dump(mode="json", exclude={"type"})
        typer.echo(json.dumps(fields))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows beneath their heads, the columns as wide as they need."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for row in (heads, *lines):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def readable_moment(seconds: float) -> str:
    """A moment, in seconds since 1970, for people where this program runs."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


async def _connect() -> Connection:
    from sandyard.server.connection import Connection  # noqa: PLC0415  # likewise
    from sandyard.supervisor.starting import reach_supervisor  # noqa: PLC0415  # likewise

    sock = await in_thread(reach_supervisor)
    return Connection(*await asyncio.open_unix_connection(sock=sock))


async def _attended(work: Callable[[], Awaitable[int]]) -> int:
    with Stopping() as stopping:
        try:
            return await work()
        except SandboxError as error:
            return PlainTeller().end(refused(error))
        except asyncio.CancelledError:
            if stopping.cause is None:
                raise
            return _SIGNALLED + stopping.cause
