"""``sandyard diff``: what a session that stays has changed in the directory that it is an overlay over."""

from __future__ import annotations

import dataclasses
import json as json_format
import sys
from typing import Annotated, Final

import typer

from sandyard import Changes
from sandyard.cli.reaching import Json, Session, attended, supervised
from sandyard.cli.report import PlainTeller, change_lines, printable

__all__ = ["show_changes"]

_DIFFERENT: Final = 1

Texts = Annotated[
    bool, typer.Option("--text", "-t", help="Tell also what changed in text files, as diffs.")
]


def show_changes(session: Session, text: Texts = False, json: Json = False) -> int:
    """Tell what a session made with --try has changed.

    D is deleted, A added, M modified, P has other permissions alone, T became something else.

    Exit codes: 0 if nothing was changed, 1 if something was, 125 where sandyard refuses.
    """

    async def work() -> int:
        changes = await supervised().session(session).diff(text=text)
        if json:
            typer.echo(json_format.dumps(dataclasses.asdict(changes)))
        else:
            _tell(changes)
        return _DIFFERENT if changes.entries or not changes.complete else 0

    return attended(work)


def _tell(changes: Changes) -> None:
    # Whoever reads our output into a file or a program wants what the files say, and names as they are.
    shown = sys.stdout.isatty()
    for line in change_lines(changes):
        typer.echo(line)
    for change in changes.entries:
        if change.text is not None:
            told = "\n".join(map(_tabbed, change.text.split("\n"))) if shown else change.text
            typer.echo(told.encode(errors="surrogateescape"), nl=not told.endswith("\n"))
        if change.truncated:
            PlainTeller().say(printable(f"{change.path}: the diff is cut, or left out: it is long"))
    PlainTeller().explain(changes)


def _tabbed(line: str) -> str:
    return "\t".join(map(printable, line.split("\t")))
