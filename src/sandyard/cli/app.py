"""The command line as a whole: which verbs there are."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from sandyard.cli.attach import attach
from sandyard.cli.cat import show_files
from sandyard.cli.cp import copy_files
from sandyard.cli.create import create
from sandyard.cli.doctor import examine
from sandyard.cli.exec import execute
from sandyard.cli.kill import kill
from sandyard.cli.logs import show_logs
from sandyard.cli.ls import show_list
from sandyard.cli.ps import list_processes
from sandyard.cli.rm import remove
from sandyard.cli.run import run
from sandyard.cli.shell import shell
from sandyard.cli.supervisor import supervisor
from sandyard.cli.why import explain

__all__ = ["app"]

app = typer.Typer(
    help="Run commands confined: what they may read, write and reach is said, not hoped.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Options end with the first word of the command, so that its own need no "--" before them.
_COMMAND_FOLLOWS: Final = {"allow_interspersed_args": False}
app.command(name="run", context_settings=_COMMAND_FOLLOWS)(run)
app.command(name="create")(create)
app.command(name="exec", context_settings=_COMMAND_FOLLOWS)(execute)
app.command(name="shell", context_settings=_COMMAND_FOLLOWS)(shell)
app.command(name="attach")(attach)
app.command(name="ls")(show_list)
app.command(name="cp")(copy_files)
app.command(name="cat")(show_files)
app.command(name="ps")(list_processes)
app.command(name="logs")(show_logs)
app.command(name="kill")(kill)
app.command(name="rm")(remove)
app.add_typer(supervisor, name="supervisor")
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
