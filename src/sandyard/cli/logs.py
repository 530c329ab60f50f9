"""``sandyard logs``: what a background process of a session wrote."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard.cli.reaching import Process, Session, attended, supervised
from sandyard.cli.report import PlainTeller

__all__ = ["show_logs"]

_BROKEN_PIPE = 141

Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on as it writes, until it has ended.")
]
Last = Annotated[
    int | None,
    typer.Option("--lines", "-n", metavar="NUMBER", help="Only so many lines from the end."),
]


def show_logs(
    session: Session, process: Process, follow: Follow = False, lines: Last = None
) -> int:
    """Print what a background process wrote.

    Its stdout and stderr go to ours, each to its own. What its log does not have any more is
    counted on stderr.
    """
    return attended(lambda: _show(session, process, lines, follow=follow))


async def _show(session: str, process: str, lines: int | None, *, follow: bool) -> int:
    teller = PlainTeller()
    found = supervised().session(session).process(process)
    try:
        async for chunk in found.logs(last_lines=lines, follow=follow):
            if chunk.missed:
                teller.say(f"{chunk.missed} bytes of {chunk.stream} are missing here")
            else:
                await teller.take(chunk.stream, chunk.data)
    except BrokenPipeError:
        return _BROKEN_PIPE
    return 0
