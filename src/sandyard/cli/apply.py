"""``sandyard apply``: what a session that stays has changed, into the directory beneath."""

from __future__ import annotations

import asyncio
import dataclasses
import json as json_format
import os
import shlex
from typing import Annotated, Final

import typer

from sandyard import AppliedChanges, ApplyRefusedError, SandboxError
from sandyard.cli.execution import refused
from sandyard.cli.reaching import Json, Session, attended, found_client, supervised
from sandyard.cli.report import PlainTeller, error_fields, printable

__all__ = ["apply_changes"]

_PARTLY: Final = 1
_TOLD: Final = 20
"""Paths of a refusal that are told; --json tells all."""

_WORDS: Final = {"conflict": "changed outside", "planted": "run or obeyed outside, or leads out"}


def changed_paths(context: typer.Context, incomplete: str) -> list[str]:
    """What was changed and begins so, for a shell that completes it; it says no errors."""

    async def look() -> list[str]:
        client = await found_client()
        if client is None:
            return []
        changes = await client.session(str(context.params.get("session"))).diff(text=False)
        found = (one.path for one in changes.entries)
        return [path for path in found if path.startswith(incomplete) and path.isprintable()]

    try:
        return asyncio.run(look())
    except SandboxError:
        return []


Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH",
        help="What to apply, relative to the workspace; of a directory all that was changed in it "
        "(default: everything).",
        show_default=False,
        autocompletion=changed_paths,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Apply also what was changed outside since the session began."
    ),
]


def apply_changes(
    session: Session, paths: Paths = None, overwrite: Overwrite = False, json: Json = False
) -> int:
    """Apply what a session made with --try has changed.

    All that was chosen is applied to the directory beneath, or nothing; what was applied is printed.
    What was changed outside meanwhile is refused, and so is what programs outside would run or obey,
    such as Git hooks, unless it is named. The session goes on.

    Exit codes: 0; 1 where sockets, FIFOs or devices were left out; 125 where sandyard refuses, and
    nothing was applied.
    """

    async def work() -> int:
        held = supervised().session(session)
        try:
            done = await held.apply(paths or None, overwrite=overwrite)
        except ApplyRefusedError as error:
            if json:
                typer.echo(json_format.dumps(_nothing(error), default=str))
                return refused(error).exit_code
            return _tell_refusal(session, error)
        if json:
            typer.echo(json_format.dumps(dataclasses.asdict(done) | {"error": None}))
        else:
            _tell(done)
        return _PARTLY if done.skipped else 0

    return attended(work)


def _nothing(error: ApplyRefusedError) -> dict[str, object]:
    return dataclasses.asdict(AppliedChanges(applied=())) | {"error": error_fields(error)}


def _tell(done: AppliedChanges) -> None:
    for path in done.applied:
        typer.echo(printable(path))
    teller = PlainTeller()
    for path in done.lowered:
        teller.say(
            printable(f"{path}: applied without its set-user-id, set-group-id or sticky bit")
        )
    for path in done.skipped:
        teller.say(printable(f"{path}: left out: a socket, a FIFO or a device"))
    if not done.applied and not done.skipped:
        teller.say("nothing was changed")


def _tell_refusal(session: str, error: ApplyRefusedError) -> int:
    """Say what is refused, and how to have it all the same; returns the exit code."""
    teller = PlainTeller()
    for path in error.paths[:_TOLD]:
        teller.say(printable(f"{path}: {_WORDS[error.reason]}"))
    if len(error.paths) > _TOLD:
        teller.say(f"and {len(error.paths) - _TOLD} more")
    code = teller.end(refused(error))
    if error.reason == "conflict":
        if not any(map(os.path.isabs, error.paths)):  # that is the directory itself, which has gone
            teller.say("--overwrite applies them all the same")
    elif all(map(str.isprintable, error.paths)):
        named = shlex.join((session, ".", *error.paths[:_TOLD]))
        teller.say(f"everything, with those: sandyard apply {named}")
    return code
