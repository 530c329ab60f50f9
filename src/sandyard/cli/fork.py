"""``sandyard fork``: another session that stays, from the same point."""

from __future__ import annotations

import typer

from sandyard.cli.create import Name
from sandyard.cli.progress import Progress
from sandyard.cli.reaching import (
    Freeze,
    Json,
    Session,
    attended,
    print_objects,
    processes_for,
    supervised,
)

__all__ = ["fork"]


def fork(session: Session, name: Name = None, freeze: Freeze = False, json: Json = False) -> int:
    """Make another session from the same point, and print its name.

    Its files are a copy of the session's as they are now, under the same path inside; commands go on
    meanwhile, unless --freeze holds them still. Of a session that was made with --layered only what it changed is copied. The fork has
    the session's permissions, and is removed by itself.

    Exit codes: 0; 125 where sandyard refuses.
    """

    async def work() -> int:
        parent, processes = supervised().session(session), processes_for(freeze=freeze)
        with Progress("copying") as progress:
            forking = supervised().fork(parent, name=name, processes=processes)
            made = await progress.during(forking)
        if made.info is not None:
            if json:
                print_objects((made.info,))
            else:
                typer.echo(made.info.name)
        return 0

    return attended(work)
