"""``sandyard supervisor``: the process that holds your sessions."""

from __future__ import annotations

from typing import Final

import typer

from sandyard import ServerError
from sandyard.cli.reaching import Json, attended, found_client, print_objects, readable_moment
from sandyard.finishing import in_thread

__all__ = ["supervisor"]

_NONE: Final = 1

supervisor = typer.Typer(help="The process that holds your sessions in the background.")


@supervisor.command()
def status(json: Json = False) -> int:
    """Say whether it runs, and since when. Exit codes: 0 if it runs, 1 if not."""

    async def work() -> int:
        client = await found_client()
        if client is None:
            typer.echo(
                "{}" if json else "no supervisor runs; the next 'sandyard create' starts one"
            )
            return _NONE
        info = await client.status()
        if json:
            print_objects((info,))
        else:
            sessions = "1 session" if info.sessions == 1 else f"{info.sessions} sessions"
            since = readable_moment(info.started)
            typer.echo(f"process {info.pid}, sandyard {info.version}, {sessions}, since {since}")
        return 0

    return attended(work)


@supervisor.command()
def stop() -> int:
    """End all your sessions and the process.

    Its version does not matter; private workspaces go, too.
    """
    from sandyard.supervisor.starting import await_end  # noqa: PLC0415  # as in reaching

    async def work() -> int:
        client = await found_client()
        if client is not None:
            await client.shut()
            if not await in_thread(await_end):
                raise ServerError(
                    "the supervisor still ends its sessions", reason="unreachable", retryable=True
                )
        return 0

    return attended(work)
