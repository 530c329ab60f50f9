"""The command line as a whole: which verbs there are."""

from __future__ import annotations

import importlib
from typing import Annotated, Final

import typer

__all__ = ["make_app"]

_HOMES: Final = {
    "run": ("run", "run"),
    "create": ("create", "create"),
    "exec": ("exec", "execute"),
    "shell": ("shell", "shell"),
    "attach": ("attach", "attach"),
    "ls": ("ls", "show_list"),
    "cp": ("cp", "copy_files"),
    "cat": ("cat", "show_files"),
    "diff": ("diff", "show_changes"),
    "apply": ("apply", "apply_changes"),
    "discard": ("discard", "discard_changes"),
    "ps": ("ps", "list_processes"),
    "logs": ("logs", "show_logs"),
    "kill": ("kill", "kill"),
    "rm": ("rm", "remove"),
    "fork": ("fork", "fork"),
    "resume": ("resume", "resume"),
    "snapshot": ("snapshot", "snapshot"),
    "supervisor": ("supervisor", "supervisor"),
    "doctor": ("doctor", "examine"),
    "why": ("why", "explain"),
}
"""Each verb's module and its name there, in the order of the help."""

_COMMAND_FOLLOWS: Final = frozenset({"run", "exec", "shell"})
"""Verbs whose options end with the first word of the command, so that its own need no "--" before."""


def make_app(words: list[str]) -> typer.Typer:
    """The command line for these words: with the one verb that they begin with, or with all.

    A verb's module is loaded only where it can be needed: all of them take as long as a command.
    """
    app = typer.Typer(
        help="Run commands confined: what they may read, write and reach is said, not hoped.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(greet)
    for verb in words[:1] if words[:1] and words[0] in _HOMES else _HOMES:
        _add(app, verb)
    return app


def _add(app: typer.Typer, verb: str) -> None:
    module, name = _HOMES[verb]
    home = importlib.import_module(f"sandyard.cli.{module}")
    found = getattr(home, name)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=verb)
    else:
        settings = {"allow_interspersed_args": False} if verb in _COMMAND_FOLLOWS else None
        app.command(name=verb, context_settings=settings)(found)


def greet(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Say what there is, where no verb is given."""
    if version:
        typer.echo(f"sandyard {_installed_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _installed_version() -> str:
    from importlib import metadata  # noqa: PLC0415  # slow, and needed for this alone

    try:
        return metadata.version("sandyard")
    except metadata.PackageNotFoundError:
        return "(not installed)"
