"""The command line as a whole: which verbs there are."""

from __future__ import annotations

from typing import Annotated

import typer

from sandyard.cli.doctor import examine
from sandyard.cli.run import run
from sandyard.cli.why import explain

__all__ = ["app"]

app = typer.Typer(
    help="Run commands confined: what they may read, write and reach is said, not hoped.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Options end with the first word of the command, so that its own need no "--" before them.
app.command(name="run", context_settings={"allow_interspersed_args": False})(run)
app.command(name="doctor")(examine)
app.command(name="why")(explain)


@app.callback(invoke_without_command=True)
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
