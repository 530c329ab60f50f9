"""Measures Sandyard beside its peers: ``make bench``, or ``python -m benchmarks [NAME …]``.

``--page FILE`` writes what was measured as a page, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.adapter import adapter_rows
from benchmarks.archives import archive_rows
from benchmarks.commands import command_rows
from benchmarks.ends import ends_rows
from benchmarks.events import event_rows
from benchmarks.files import file_rows
from benchmarks.forks import fork_rows
from benchmarks.heap import heap_rows
from benchmarks.imports import import_rows
from benchmarks.logs import log_rows
from benchmarks.manifests import manifest_rows
from benchmarks.measure import Row
from benchmarks.output import output_rows
from benchmarks.page import write_page
from benchmarks.peers import bubblewrap
from benchmarks.sessions import session_rows
from benchmarks.snapshots import snapshot_rows
from benchmarks.terminals import terminal_rows
from benchmarks.walk import walk_rows

PARTS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "commands": command_rows,
    "sessions": session_rows,
    "events": event_rows,
    "output": output_rows,
    "logs": log_rows,
    "terminals": terminal_rows,
    "walk": walk_rows,
    "files": file_rows,
    "archives": archive_rows,
    "forks": fork_rows,
    "manifests": manifest_rows,
    "snapshots": snapshot_rows,
    "imports": import_rows,
    "heap": heap_rows,
    "ends": ends_rows,
    "adapter": adapter_rows,
}


def main() -> int:
    """Runs the parts that are named, or all; the exit code says whether every bar was met."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to run (all)")
    parser.add_argument("--page", type=Path, help="write the figures as a page of Markdown there")
    given = parser.parse_args()
    machine = _machine()
    print(machine)
    missed = 0
    measured: dict[str, list[Row]] = {}
    for name in given.parts or PARTS:
        measured[name] = asyncio.run(_measured(name))
        for row in measured[name]:
            print(_line(row), flush=True)
            missed += not row.holds
    if given.page is not None:
        write_page(given.page, machine, measured)
    if missed:
        print(f"{missed} of the bars were missed; other work on the machine shows in all figures")
    return 1 if missed else 0


async def _measured(name: str) -> list[Row]:
    return list(await PARTS[name]())


def _line(row: Row) -> str:
    mark = "ok    " if row.holds else "MISSED"
    return f"{mark} {row.what:<54} {row.figure:>10}  (bar {row.wanted})  {row.detail}"


def _machine() -> str:
    with warnings.catch_warnings():  # deprecated from Python 3.12 on, where it says less
        warnings.simplefilter("ignore", DeprecationWarning)
        get = getattr(asyncio, "get_child_watcher", None)
        watcher = type(get()).__name__ if get is not None else "the loop's own"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    peers = "" if bubblewrap("/") else "; bubblewrap is missing"
    return (
        f"Linux {platform.release().partition('-')[0]}, {os.cpu_count()} processors, load {load}, "
        f"CPython {platform.python_version()}, asyncio child watcher: {watcher}, "
        f"uid {os.geteuid()}{peers}"
    )


if __name__ == "__main__":
    sys.exit(main())
