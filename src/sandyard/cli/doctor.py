"""``sandyard doctor``: what this machine can hold and what not, and what to do about it."""

from __future__ import annotations

import asyncio
import json as json_format
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Final

import typer

from sandyard.cli.stopping import Stopping
from sandyard.confinement.doctor_values import DoctorCanary, DoctorReport, DoctorRow

__all__ = ["examine"]

_SIGNALLED: Final = 128
_BROKEN_PIPE: Final = 141

_NARROWEST: Final = 60
_WIDEST: Final = 100
"""Columns that text is broken at: people read no longer lines, and 80 where nothing is known."""

_KEY_WIDTH: Final = 21
"""Columns for a name and what separates it from its text."""

_COLOURS: Final = {
    "ok": "32", "held": "32", "partial": "33", "uncontrolled": "33", "unknown": "33",
    "missing": "31", "broken": "31",
}  # fmt: skip

_RUNGS: Final = {
    "full": "full: namespaces, mounts, seccomp, and Landlock where the kernel has it",
    "full_without_proc": "full without a fresh /proc",
    "landlock_seccomp": "Landlock and seccomp, without namespaces",
    "none": "none",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def examine(json: Json = False) -> int:
    """Say what this machine can hold, and how to get the rest.

    It is found out by trying. A throw-away session with the default policy is started, and programs
    in it try to get out; the same attempts are made outside, to see that they would work. It needs
    no privilege, and leaves nothing behind.

    Exit codes: 0 if the default policy can be held here, 1 if not.
    """
    told: list[tuple[DoctorReport | None, int]] = []
    try:
        asyncio.run(_examine(told))
    except RuntimeError:  # the end of a loop takes a thread, and there may be none left
        if not told:
            raise
    ((report, code),) = told
    if report is None:
        return code
    lines = [json_format.dumps(asdict(report))] if json else _Printer().lines(report)
    try:
        typer.echo("\n".join(lines))
    except BrokenPipeError:
        return _BROKEN_PIPE
    return code


async def _examine(told: list[tuple[DoctorReport | None, int]]) -> None:
    """Append the report, or None, and the exit code."""
    from sandyard.checkup import doctor  # noqa: PLC0415  # no other verb needs what it needs

    with Stopping() as stopping:
        try:
            report = await doctor()
        except asyncio.CancelledError:
            if stopping.cause is None:
                raise
            told.append((None, _SIGNALLED + stopping.cause))
            return
    told.append((report, 0 if report.holds else 1))


class _Printer:
    """A report as lines of text."""

    def __init__(self) -> None:
        columns = shutil.get_terminal_size((80, 24)).columns
        self._width = min(max(columns, _NARROWEST), _WIDEST)
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def lines(self, report: DoctorReport) -> Iterator[str]:
        """The whole report."""
        yield f"sandyard {report.version}"
        yield from self._text(report.machine)
        for group, rows in groupby(report.rows, lambda row: row.group):
            yield ""
            yield group
            for row in rows:
                yield from self._row(row)
        if report.canaries:
            yield ""
            yield "Attempts to get out of a session with the default policy"
            for canary in report.canaries:
                yield from self._canary(canary)
        yield ""
        yield from self._summary(report)

    def _row(self, row: DoctorRow) -> Iterator[str]:
        text = f"{row.purpose}: {row.found}" if row.found else row.purpose
        yield from self._entry(f"{row.state:<8}", row.key, text)
        if row.cause:
            yield from self._labelled("cause", row.cause)
        if row.fix:
            yield from self._labelled("fix", row.fix)
        yield from self._commands(row.commands)

    def _canary(self, canary: DoctorCanary) -> Iterator[str]:
        yield from self._entry(f"{canary.state:<12}", canary.key, canary.purpose)
        if canary.state in ("broken", "unknown"):
            yield from self._labelled("inside", canary.inside)
        elif canary.state == "uncontrolled":
            yield from self._labelled("outside", canary.outside)

    def _summary(self, report: DoctorReport) -> Iterator[str]:
        yield from self._text(f"Rung that this machine allows: {_RUNGS[report.rung]}.")
        if report.lacks is not None:
            yield from self._text("What keeps it from a higher one:")
            yield from self._labelled("cause", report.lacks)
            yield from self._labelled("fix", report.raises or "")
            if report.holds:
                yield from self._commands(report.commands)
        if report.holds:
            yield self._paint("ok", "The default policy holds here.")
            open_ones = [c.key for c in report.canaries if c.state != "held"]
            if open_ones:
                yield from self._text(f"Not shown by an attempt: {', '.join(open_ones)}.")
            return
        yield self._paint("missing", "The default policy does not hold here.")
        if report.cause:
            yield from self._labelled("cause", report.cause)
        if report.fix:
            yield from self._labelled("fix", report.fix)
        yield from self._commands(report.commands)

    def _entry(self, state: str, key: str, text: str) -> Iterator[str]:
        indent = " " * (len(state) + _KEY_WIDTH + 2)
        body = textwrap.wrap(
            text, self._width - len(indent), break_long_words=True, break_on_hyphens=False
        )
        first, *rest = body or [""]
        yield f"  {self._paint(state.strip(), state)}{key:<{_KEY_WIDTH}}{first}"
        yield from (indent + line for line in rest)

    def _labelled(self, label: str, text: str) -> Iterator[str]:
        indent = " " * 11
        wrapped = textwrap.wrap(
            text, self._width - len(indent), break_long_words=False, break_on_hyphens=False
        )
        for number, line in enumerate(wrapped):
            yield f"    {label + ':' if number == 0 else '':<7}{line}"

    def _commands(self, commands: tuple[str, ...]) -> Iterator[str]:
        # Never broken: they are to be copied.
        yield from (f"           {line}" for line in commands)

    def _text(self, text: str) -> list[str]:
        return textwrap.wrap(text, self._width, break_long_words=False, break_on_hyphens=False)

    def _paint(self, state: str, text: str) -> str:
        return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m" if self._colours else text
