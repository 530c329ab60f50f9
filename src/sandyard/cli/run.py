"""``sandyard run``: one command in a sandbox of its own."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from sandyard import SandboxError
from sandyard.cli.execution import carry_out, refused
from sandyard.cli.order import Order, absolute_path, split_variables
from sandyard.cli.report import JsonTeller, PlainTeller

__all__ = ["run"]

Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...",
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
Read = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Show it this too, read-only; may be repeated."),
]
Write = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Let it write to this too; may be repeated."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=VALUE]", help="Set a variable, or pass yours on; may be repeated."),
]
Network = Annotated[
    Literal["none", "host"], typer.Option(help="Its network: loopback alone, or yours.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="End it and all it started after this time.", show_default=False
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object at the end instead of the output."),
]


def run(  # noqa: PLR0913, PLR0917  # one parameter for each option
    command: Command,
    workspace: Workspace = None,
    copy: Copy = None,
    read: Read = None,
    write: Write = None,
    env: Variables = None,
    net: Network = "none",
    timeout: Timeout = None,
    json: Json = False,
) -> int:
    """Run a command confined, and exit as it does.

    It sees the system's programs, its workspace and what the options name. Without --workspace
    and --copy the workspace is an empty directory. Copies and empty directories are deleted when
    the command has ended.

    Exit codes: the command's own; 128+N if signal N ended it; 124 after a timeout; 125 where
    sandyard itself refuses; 126 and 127 for a program that can't be executed or does not exist.
    """
    teller = JsonTeller() if json else PlainTeller()
    values, names = split_variables(env or ())
    try:
        order = Order(
            command=tuple(command),
            workspace=workspace,
            copy=copy,
            reads=tuple(absolute_path(path, "--read") for path in read or ()),
            writes=tuple(absolute_path(path, "--write") for path in write or ()),
            environment=values,
            inherit=names,
            network=net,
            timeout=timeout,
        )
    except SandboxError as error:
        return teller.end(refused(error))
    return teller.end(asyncio.run(carry_out(order, teller)))
