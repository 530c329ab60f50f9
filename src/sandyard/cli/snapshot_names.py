"""How snapshots are named on the command line: their completion, and what stands for one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from typer.models import ArgumentInfo

from sandyard import SandboxError, SnapshotStore

__all__ = ["Kept", "KeptList", "KeptNew", "KeptOld", "snapshot_names"]


def snapshot_names(incomplete: str) -> list[str]:
    """Ids, labels and histories that begin so, for a shell that completes them; it says no errors."""
    try:
        found = asyncio.run(SnapshotStore().list())
    except SandboxError:
        return []
    names = (name for one in found for name in (one.id, one.label, one.history) if name)
    return sorted({name for name in names if name.startswith(incomplete)})


_HELP = "Its id or a beginning of it, its label; or the name of a session, for its newest."


def _argument(metavar: str, help: str = _HELP) -> ArgumentInfo:  # noqa: A002  # as typer has it
    found: ArgumentInfo = typer.Argument(
        metavar=metavar, help=help, show_default=False, autocompletion=snapshot_names
    )
    return found


Kept = Annotated[str, _argument("SNAPSHOT")]
KeptOld = Annotated[str, _argument("OLD", f"The one that is looked back to. {_HELP}")]
KeptNew = Annotated[
    str, _argument("NEW", "The one of which is told what is different, named likewise.")
]
KeptList = Annotated[list[str], _argument("SNAPSHOT")]
