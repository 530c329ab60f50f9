"""Owns the page that a run of the measurements leaves for readers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Row

__all__ = ["write_page"]

HEAD = """\
# Measurements

What `make bench` measured in one run; `python -m benchmarks --page docs/benchmarks.md` wrote this
page. A ratio compares with what stands in the last column, which ran in the same process, in random
order, between the others. A bar is what we ask of ourselves, and a figure that misses its bar says so.
Other machines give other milliseconds; run it on yours.
"""


def write_page(path: Path, machine: str, measured: Mapping[str, Sequence[Row]]) -> None:
    """Write the figures of a run."""
    parts = [HEAD, f"{time.strftime('%Y-%m-%d')}: {machine}.\n"]
    for name, rows in measured.items():
        parts.append(f"## {name.capitalize()}\n")
        parts.append("| | figure | bar | |\n|---|---|---|---|")
        for row in rows:
            figure = row.figure if row.holds else f"**{row.figure}**, missed"
            parts.append(f"| {_cell(row.what)} | {figure} | {row.wanted} | {_cell(row.detail)} |")
        parts.append("")
    path.write_text("\n".join(parts), encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
