"""The command line as a whole: which verbs there are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Final

import typer
from typer.core import TyperArgument, TyperCommand

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter  # with older releases they are click's

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


class _Verb(TyperCommand):
    """A verb. Its help calls arguments as we do, whatever the installed release of typer makes of them."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """What follows its name in the line of its usage."""
        pieces = ["[OPTIONS]"]
        for each in self.get_params(ctx):
            if isinstance(each, TyperArgument):
                words = f"{each.metavar}{'' if each.nargs == 1 else '...'}"
                pieces.append(words if each.required else f"[{words}]")
        return pieces

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write its arguments, without the types that they have here, and its options."""
        arguments, options = [], []
        for each in self.get_params(ctx):
            row = each.get_help_record(ctx)
            if isinstance(each, TyperArgument):
                arguments.append((each.metavar or "", each.help or ""))
            elif row is not None:
                options.append(row)
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


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
        for each in found.registered_commands:
            each.cls = _Verb
        app.add_typer(found, name=verb)
    else:
        settings = {"allow_interspersed_args": False} if verb in _COMMAND_FOLLOWS else None
        app.command(name=verb, cls=_Verb, context_settings=settings)(found)


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
