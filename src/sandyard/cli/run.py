"""``sandyard run``: one command in a sandbox of its own."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from sandyard import SandboxError
from sandyard.cli.blueprint import ManifestFile
from sandyard.cli.execution import carry_out, refused
from sandyard.cli.order import Order
from sandyard.cli.permissions import PolicyMaker, policy_options
from sandyard.cli.report import JsonTeller, PlainTeller

__all__ = ["AsUser", "Command", "Json", "Ports", "Quiet", "Timeout", "run"]

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND",
        help="Program and arguments, run as they are; for a shell: sh -c 'TEXT'.",
        show_default=False,
    ),
]
Workspace = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Work in this directory itself.", show_default=False),
]
Copy = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Work in a private copy of this directory.", show_default=False
    ),
]
Try = Annotated[
    bool,
    typer.Option(
        "--try",
        help="Work on an overlay over the directory (default: the present one), which stays as it is, "
        "and tell what was changed.",
    ),
]
Apply = Annotated[
    bool,
    typer.Option(
        "--apply",
        help="With --try: put what was changed into the directory, if the command exits with 0.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="End it and all it started after this time.", show_default=False
    ),
]
Ports = Annotated[
    list[int] | None,
    typer.Option(
        "--port",
        metavar="N",
        min=1,
        max=65535,
        help="Reach what listens inside on port N of localhost on this machine's localhost:N; may be "
        "given more than once.",
        show_default=False,
    ),
]
AsUser = Annotated[
    str | None,
    typer.Option(
        "--user",
        "-u",
        metavar="NAME",
        help="Run it as this user of the manifest's (default: agent).",
        show_default=False,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing of what was refused or reached, but errors."),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object at the end instead of the output."),
]


@policy_options()
def run(  # noqa: PLR0913  # one parameter for each option
    command: Command,
    workspace: Workspace = None,
    copy: Copy = None,
    overlaid: Try = False,
    applies: Apply = False,
    listed: ManifestFile = None,
    *,
    permitted: PolicyMaker,
    port: Ports = None,
    timeout: Timeout = None,
    user: AsUser = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Run a command confined, and exit as it does.

    It sees the system's programs, its workspace and what the options name. Without --workspace
    and --copy the workspace is a directory of its own, empty or as --manifest says. Copies and
    directories of its own are deleted when the command has ended. With --try it works on a directory
    of yours that stays as it is; what it changed is told at the end, and applied with --apply.

    Exit codes: the command's own; 128+N if signal N ended it; 124 after a timeout; 125 where
    sandyard itself refuses; 126 and 127 for a program that can't be executed or does not exist.
    """
    teller = JsonTeller() if json else PlainTeller(quiet=quiet)
    try:
        policy = permitted()
    except SandboxError as error:
        return teller.end(refused(error))
    given = tuple(command), workspace, copy, policy, timeout, listed, user, overlaid, applies
    order = Order(*given, tuple(port or ()))
    return teller.end(asyncio.run(carry_out(order, teller)))
