"""How snapshots are named on the command line: their completion, and what stands for one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from sandyard import SandboxError, SnapshotStore

__all__ = ["Kept", "KeptList", "snapshot_names"]


def snapshot_names(incomplete: str) -> list[str]:
    """Ids, labels and histories that begin so, for a shell that completes them; it says no errors."""
    try:
        found = asyncio.run(SnapshotStore().list())
    except SandboxError:
        return []
    names = (name for one in found for name in (one.id, one.label, one.history) if name)
    return sorted({name for name in names if name.startswith(incomplete)})


_HELP = "Its id or a beginning of it, its label; or the name of a session, for its newest."
Kept = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT", help=_HELP, show_default=False, autocompletion=snapshot_names
    ),
]
KeptList = Annotated[
    list[str],
    typer.Argument(
        metavar="SNAPSHOT", help=_HELP, show_default=False, autocompletion=snapshot_names
    ),
]
