"""What is told of a command: its output as it comes, or one JSON object; and a line for errors."""

from __future__ import annotations

import ast
import base64
import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol

from sandyard import Changes, ExecResult, ExecTimeoutError, SandboxError
from sandyard.cli.pumping import Outlet
from sandyard.limits import OUTPUT_LIMIT_BYTES
from sandyard.policy import DIMENSIONS
from sandyard.process.capture import Capture, Captured
from sandyard.resources import EnforcedLimit

__all__ = [
    "JsonTeller",
    "Outcome",
    "PlainTeller",
    "Teller",
    "change_lines",
    "error_fields",
    "option_for",
    "printable",
]

StreamName = Literal["stdout", "stderr"]

_STDOUT, _STDERR = 1, 2
_BROKEN_PIPE = 141


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an order ended.

    Attributes:
        exit_code: what we exit with.
        result: what is known of the command, or None where it did not run to an end.
        error: why it did not, or None.
        advice: what else may have been meant, or None.
    """

    exit_code: int
    result: ExecResult | None = None
    error: SandboxError | None = None
    advice: str | None = None


class Teller(Protocol):
    """Who is told what a command writes, and how it ended."""

    async def take(self, stream: StreamName, data: bytes) -> None:
        """Take some output, and wait where nobody reads it."""

    def say(self, text: str) -> None:
        """Say something of our own, on standard error."""

    def note(self, confinement: Mapping[str, str] | None) -> None:
        """Take in what holds for the command: ``ConfinementReport.document()``."""

    def limited(self, limits: Iterable[EnforcedLimit]) -> None:
        """Take in what holds its limits."""

    def changed(self, changes: Changes, *, applied: bool) -> None:
        """Take in what was changed in an overlay, and whether it was applied."""

    def end(self, outcome: Outcome) -> int:
        """Tell how it ended; returns the exit code."""


class PlainTeller:
    """Passes output on as it comes, and says nothing more unless something is wrong.

    Args:
        quiet: True leaves out what was refused and which limits were reached; errors are told.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._outlets = {"stdout": Outlet(_STDOUT), "stderr": Outlet(_STDERR)}

    async def take(self, stream: StreamName, data: bytes) -> None:
        """Write it to the stream of the same name."""
        await self._outlets[stream].write(data)

    def say(self, text: str) -> None:
        """Write a line to standard error."""
        _say(text)

    def note(self, confinement: Mapping[str, str] | None) -> None:
        """Write a line where it is less than the whole wall."""
        if confinement is None or confinement["rung"] == "full":
            return
        lost = [name for name in DIMENSIONS if confinement[name].partition(":")[0] != "enforced"]
        words = f"; in part or not at all: {', '.join(lost)}" if lost else ""
        _say(f"confined on the rung {confinement['rung']}{words}; 'sandyard doctor' says why")

    def limited(self, limits: Iterable[EnforcedLimit]) -> None:
        """Write a line where each process alone is held to what should bound them together."""
        for one in () if self._quiet else limits:
            if one.scope == "process" and one.strength == "partial":
                _say(f"limit {one.limit} ({one.value:.0f} {one.unit}), by {one.by}: {one.why}")

    def changed(self, changes: Changes, *, applied: bool) -> None:
        """Write a line for each, deletions first, and one about all."""
        for line in change_lines(changes):
            _say(line)
        self.explain(changes)
        one = len(changes.entries) == 1 and changes.complete
        more = "" if changes.complete else " and more"
        number = "1 change" if one else f"{len(changes.entries)}{more} changes"
        if not changes.entries:
            _say("nothing was changed")
        elif applied:
            _say(f"{number}, applied")
        else:
            _say(f"{number}, not applied; --apply does, if the command exits with 0")

    def explain(self, changes: Changes) -> None:
        """Write a line for each change that programs outside would run, and for what is not known."""
        for change in changes.entries:
            if change.planted is not None:
                _say(printable(f"{change.path} would be run or obeyed outside: {change.planted}"))
        for note in changes.notes:
            _say(printable(note))

    def end(self, outcome: Outcome) -> int:
        """Write a line about an error, one for each denial and for each limit that was reached."""
        if outcome.result is not None and not self._quiet:
            for hit in outcome.result.limit_hits:
                _say(f"limit {hit.limit} ({hit.value:g} {hit.unit}): {hit.detail}")
            for denial in outcome.result.denials:
                option = option_for(denial.grant)
                _say(str(denial if option is None else dataclasses.replace(denial, grant=option)))
        if outcome.error is not None:
            _say(f"{_words(outcome.error)} [{outcome.error.code}]")
        if outcome.advice is not None and not self._quiet:
            _say(outcome.advice)
        return outcome.exit_code


class JsonTeller:
    """Keeps output, bounded, and prints one JSON object at the end."""

    def __init__(self) -> None:
        self._confinement: Mapping[str, str] | None = None
        self._changes: dict[str, object] | None = None
        self._kept = {"stdout": Capture(OUTPUT_LIMIT_BYTES), "stderr": Capture(OUTPUT_LIMIT_BYTES)}

    async def take(self, stream: StreamName, data: bytes) -> None:
        """Keep it: the head and the tail of much."""
        self._kept[stream].feed(data)

    def say(self, text: str) -> None:
        """Write a line to standard error."""
        _say(text)

    def note(self, confinement: Mapping[str, str] | None) -> None:
        """Keep it."""
        self._confinement = confinement

    def limited(self, limits: Iterable[EnforcedLimit]) -> None:
        """Leave it out: the object says what holds, and which limits were reached."""

    def changed(self, changes: Changes, *, applied: bool) -> None:
        """Keep it."""
        self._changes = asdict(changes) | {"applied": applied}

    def end(self, outcome: Outcome) -> int:
        """Print the object."""
        streams = {name: capture.result() for name, capture in self._kept.items()}
        try:
            fields = _report(outcome, streams, self._confinement)
            if self._changes is not None:
                fields["changes"] = self._changes
            _write_all(_STDOUT, json.dumps(fields, default=str).encode() + b"\n")
        except BrokenPipeError:
            return _BROKEN_PIPE
        return outcome.exit_code


def change_lines(changes: Changes) -> list[str]:
    """A line for each change, as a terminal shows it: a letter for its kind, and the path."""
    lines = [printable(str(change)) for change in changes.entries]
    return lines if changes.complete else [*lines, "… and more"]


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: names in a session are its commands' choice."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def option_for(grant: str | None) -> str | None:
    """The option of the command line that says what a grant says; None where there is none."""
    if grant is None:
        return None
    field, _, value = grant.removeprefix("Policy(").removesuffix(")").partition("=")
    if field == "protect":
        return "--no-protect"  # and --protect for each name that is to stay
    if field == "limits":
        return f"--limit {value.removeprefix('ResourceLimits(').removesuffix(')')}"
    option = _OPTIONS.get(field)
    if option is None:
        return None
    named = ast.literal_eval(value)
    words = (named,) if isinstance(named, str) else named
    return " ".join(f"{option} {shlex.quote(word)}" for word in words if word.isprintable()) or None


_OPTIONS: Final = {
    "reads": "--read",
    "writes": "--write",
    "network": "--net",
    "devices": "--device",
    "syscalls": "--syscalls",
}


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # there is nobody else to tell
        _write_all(_STDERR, f"sandyard: {text}\n".encode(errors="surrogateescape"))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _words(error: SandboxError) -> str:
    if isinstance(error, ExecTimeoutError) and error.timeout_s is not None:
        return f"timed out after {error.timeout_s:g} s; the command and all it started were ended"
    # A message of a program's has lines, and ours is one.
    return "; ".join(map(printable, filter(None, map(str.strip, error.message.splitlines()))))


def _report(
    outcome: Outcome, streams: dict[str, Captured], confinement: Mapping[str, str] | None
) -> dict[str, object]:
    result, error = outcome.result, outcome.error
    usage = None if result is None else result.usage
    fields: dict[str, object] = {
        "exit_code": outcome.exit_code,
        "signal": None if result is None or result.exit_code >= 0 else -result.exit_code,
        "duration_s": None if result is None else round(result.duration_s, 6),
    }
    for name, kept in streams.items():
        fields |= _stream_fields(name, kept)
    fields |= {
        "usage": None if usage is None else asdict(usage),
        "denials": [] if result is None else [asdict(denial) for denial in result.denials],
        "limit_hits": [] if result is None else [asdict(hit) for hit in result.limit_hits],
        "leftovers": [] if result is None else [asdict(left) for left in result.leftovers],
        "confinement": confinement,
        "error": None if error is None else error_fields(error),
    }
    return fields


def _stream_fields(name: str, kept: Captured) -> dict[str, object]:
    text: str | None = None
    binary: str | None = None
    try:
        text = kept.data.decode()
    except UnicodeDecodeError:
        binary = base64.b64encode(kept.data).decode()
    return {
        name: text,
        f"{name}_base64": binary,
        f"{name}_total": kept.total,
        f"{name}_dropped": kept.dropped,
    }


def error_fields(error: SandboxError) -> dict[str, object]:
    """An error as JSON has it."""
    return {
        "code": error.code,
        "message": error.message,
        "op": error.op,
        "retryable": error.retryable,
        "context": error.context,
    }
