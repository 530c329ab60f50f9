"""``sandyard kill``: a signal for a background process of a session."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard.cli.reaching import Process, Session, attended, supervised

__all__ = ["kill"]

Number = Annotated[
    str, typer.Option("--signal", "-s", metavar="NAME", help="Which signal, by name or number.")
]
Alone = Annotated[
    bool, typer.Option("--alone", help="Only to the command, not to what descends from it.")
]


def kill(session: Session, process: Process, signal: Number = "TERM", alone: Alone = False) -> int:
    """Send a signal to a background process or terminal.

    All that descends from it gets it, too. One that has ended is left alone. Its log stays until
    the session is removed.
    """

    async def work() -> int:
        number = int(signal) if signal.isdecimal() else signal
        await supervised().session(session).process(process).signal(number, tree=not alone)
        return 0

    return attended(work)
