"""Unified diffs, as ``diff -u`` and ``git diff`` write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sandyard.errors import ApplyPatchDiffError, shown
from sandyard.patching.finding import Effort, Lines
from sandyard.patching.lines import end_near, split_lines
from sandyard.patching.operations import Operation

__all__ = ["apply_hunks", "parse_unified"]

_HEAD: Final = re.compile(r"@@ -(\d{1,10})(?:,(\d{1,10}))? \+(\d{1,10})(?:,(\d{1,10}))? @@")
_NOWHERE: Final = "/dev/null"
_NO_NEWLINE: Final = "\\"


@dataclass(slots=True)
class _Hunk:
    """One hunk: where it should be, and its lines with their signs and ends."""

    start: int
    old: int
    new: int
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def missing(self) -> bool:
        """Whether its head promised more lines."""
        return self.old > 0 or self.new > 0


@dataclass(slots=True)
class _File:
    """What is said about one file."""

    old: str = ""
    new: str = ""
    renamed_from: str = ""
    renamed_to: str = ""
    body: list[str] = field(default_factory=list)


def parse_unified(text: str) -> tuple[Operation, ...]:
    """Take a unified diff of any number of files apart.

    Raises:
        ApplyPatchDiffError: it is malformed, or changes what is no text.
    """
    files: list[_File] = []
    left, behind = (0, 0), False
    for line in text.split("\n"):
        if left != (0, 0) or (files and line.startswith(_NO_NEWLINE)):
            files[-1].body.append(line)
            left = _counted(left, line)
        elif match := _HEAD.match(line):
            if not files or not files[-1].new:
                raise ApplyPatchDiffError("a hunk stands before any '--- ' and '+++ ' lines")
            files[-1].body.append(line)
            left, behind = (int(match[2] or 1), int(match[4] or 1)), True
        else:
            behind = behind and _is_behind(files[-1], line)
            _note(files, line)
    if left != (0, 0):
        raise ApplyPatchDiffError("the last hunk has fewer lines than its head says")
    if not files:
        raise ApplyPatchDiffError("the text is no unified diff: it has no '--- ' and '+++ ' lines")
    return tuple(_operation(each) for each in files)


def _is_behind(file: _File, line: str) -> bool:
    """Tell whether a line may still be meant for the hunk before it.

    Raises:
        ApplyPatchDiffError: it is a change, which would be lost without a word.
    """
    if line.startswith(("--- ", "+++ ")) or line.rstrip("\r") == "-- ":  # a mail's signature
        return False
    if line.startswith(("+", "-")):
        raise ApplyPatchDiffError(
            f"a hunk of {shown(file.new)} has more lines than its head says: {shown(line)}"
        )
    return line.startswith(" ")


def _counted(left: tuple[int, int], line: str) -> tuple[int, int]:
    sign = line[:1] or " "
    if sign == _NO_NEWLINE:
        return left
    if sign not in " +-":
        raise ApplyPatchDiffError(f"Invalid Line: {shown(line)} in a hunk has no sign")
    return max(0, left[0] - (sign != "+")), max(0, left[1] - (sign != "-"))


def _name(said: str) -> str:
    """The path in a ``---`` or ``+++`` line: without a time behind it."""
    return said.split("\t", maxsplit=1)[0].rstrip("\r").strip()


def _note(files: list[_File], line: str) -> None:
    """Take note of a line between hunks; what says nothing about a file is left out."""
    if line.startswith("@@ ") and files and files[-1].new:
        raise ApplyPatchDiffError(f"Invalid Line: {shown(line)} is no head of a hunk")
    word, _, rest = line.partition(" ")
    if line.startswith("diff --git ") or (word == "---" and not (files and not files[-1].old)):
        files.append(_File())
    if not files:
        return
    file = files[-1]
    if word == "---":
        file.old = _name(rest)
    elif word == "+++":
        file.new = _name(rest)
    elif line.startswith("rename from "):
        file.renamed_from = line.removeprefix("rename from ").strip()
    elif line.startswith("rename to "):
        file.renamed_to = line.removeprefix("rename to ").strip()
    elif line.startswith(("GIT binary patch", "Binary files ")):
        raise ApplyPatchDiffError("the diff changes a binary file; write that file instead")


def _operation(file: _File) -> Operation:
    old, new = _paths(file)
    diff = "\n".join(file.body)
    if old == _NOWHERE:
        return Operation("create_file", new, diff)
    if new == _NOWHERE:
        return Operation("delete_file", old, diff)
    if not new:
        raise ApplyPatchDiffError("a file of the diff has no '+++ ' line")
    return Operation("update_file", old, diff, None if old == new else new)


def _paths(file: _File) -> tuple[str, str]:
    if file.renamed_from and file.renamed_to:
        return file.renamed_from, file.renamed_to
    old, new = file.old, file.new
    if old.startswith("a/") or old == _NOWHERE:
        new = new.removeprefix("b/")
    if file.new.startswith("b/") or file.new == _NOWHERE:
        old = old.removeprefix("a/")
    # Without Git's prefixes the old name is often that of a backup, so the new one counts.
    if _NOWHERE not in {old, new} and not file.old.startswith("a/"):
        old = new
    return old, new


def apply_hunks(
    text: str,
    diff: str,
    mode: Literal["default", "create"] = "default",
    *,
    effort: Effort | None = None,
) -> str:
    """Apply the hunks of one file to its text.

    A hunk is looked for where its head says, and then at the nearest other place. Its lines must be
    there exactly, but for carriage returns, which follow the file.

    Args:
        text: of the file; ``""`` where it is created.
        diff: hunks, each with its head; none changes nothing.
        mode: ``"create"`` is the same for a file that is new.
        effort: what the patch may still cost (default: what one patch may).

    Raises:
        ApplyPatchDiffError: it is malformed, does not fit or costs too much; with the number of its
            hunk.
    """
    effort = Effort() if effort is None else effort
    effort.take_text(diff)
    effort.take_text(text)
    lines = split_lines(text)
    searched = Lines([_unix(line) for line in lines], effort)
    result: list[str] = []
    cursor = drift = 0
    for number, hunk in enumerate(_hunks(diff, effort), 1):
        wanted = [said for sign, said in hunk.lines if sign != "+"]
        # A hunk that only adds names the line that it comes after (GNU diffutils, "Detailed Unified").
        expected = hunk.start + drift - (1 if wanted else 0)
        at = min(max(expected, cursor), len(lines))
        found = searched.nearest([_unix(line) for line in wanted], at, cursor) if wanted else at
        if found is None:
            first = wanted[0] if wanted else ""
            raise ApplyPatchDiffError(
                f"hunk {number} does not fit: its lines, the first of which is {shown(first)}, "
                f"are nowhere after line {cursor}; read the file again and send them as they are",
                hunk=number,
            )
        drift += found - expected
        result += lines[cursor:found]
        cursor = found
        for sign, said in hunk.lines:
            if sign == "+":
                result.append(_ended(said, lines, cursor))
                continue
            if sign == " ":
                result.append(lines[cursor])
            cursor += 1
    result += lines[cursor:]
    if mode == "create" and text:
        raise ApplyPatchDiffError("a new file has no text yet")
    ends = [line for line in result[:-1] if not line.endswith("\n")]
    if ends:
        raise ApplyPatchDiffError(
            f"after {shown(ends[0])} the diff says that the file ends, and it goes on"
        )
    return "".join(result)


def _ended(said: str, lines: Sequence[str], at: int) -> str:
    """A new line, with a carriage return if the lines around it in the file have one."""
    if said.endswith("\n") and not said.endswith("\r\n"):
        return said[:-1] + end_near(lines, at)
    return said


def _hunks(diff: str, effort: Effort) -> list[_Hunk]:
    found: list[_Hunk] = []
    for line in diff.split("\n") if diff else []:
        match = _HEAD.match(line)
        if match and not (found and found[-1].missing):
            effort.take_part()
            found.append(_Hunk(int(match[1]), int(match[2] or 1), int(match[4] or 1)))
        elif not found:
            raise ApplyPatchDiffError(f"Invalid Line: {shown(line)} stands before any hunk")
        elif line.startswith(_NO_NEWLINE):
            if found[-1].lines:
                sign, said = found[-1].lines[-1]
                found[-1].lines[-1] = sign, said.removesuffix("\n")
        elif found[-1].missing:
            sign = line[:1] or " "
            found[-1].old -= sign != "+"
            found[-1].new -= sign != "-"
            if sign not in " +-" or min(found[-1].old, found[-1].new) < 0:
                raise ApplyPatchDiffError(
                    f"hunk {len(found)} has other lines than its head says, at {shown(line)}",
                    hunk=len(found),
                )
            found[-1].lines.append((sign, line[1:] + "\n"))
        elif line.strip():
            raise ApplyPatchDiffError(
                f"hunk {len(found)} has more lines than its head says: {shown(line)}",
                hunk=len(found),
            )
    if found and found[-1].missing:
        raise ApplyPatchDiffError(
            f"hunk {len(found)} has fewer lines than its head says", hunk=len(found)
        )
    return found


def _unix(line: str) -> str:
    """A line without a carriage return at its end."""
    return line.replace("\r\n", "\n")
