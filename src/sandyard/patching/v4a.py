"""The V4A format: hunks that are found by their context, in a diff or in a whole envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sandyard.errors import ApplyPatchDiffError, shown
from sandyard.patching.finding import Effort, Lines
from sandyard.patching.lines import bare, end_near, join_lines, split_lines
from sandyard.patching.operations import Operation

__all__ = ["apply_diff", "parse_envelope"]

_BEGIN: Final = "*** Begin Patch"
_END: Final = "*** End Patch"
_END_OF_FILE: Final = "*** End of File"
_ADD: Final = "*** Add File: "
_UPDATE: Final = "*** Update File: "
_DELETE: Final = "*** Delete File: "
_MOVE: Final = "*** Move to: "

_Likeness = Callable[[str], str]
_LIKENESSES: Final[tuple[_Likeness, ...]] = (str, str.rstrip, str.strip)
"""How context is compared, one after another: as it is, without what ends a line, without what
indents it."""


@dataclass(slots=True)
class _Hunk:
    """One change.

    Attributes:
        anchors: lines that stand before it, in this order.
        lines: each its sign (blank, ``-`` or ``+``) and its text.
        at_end: whether it is the end of the file.
    """

    anchors: list[str] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    at_end: bool = False


def apply_diff(
    text: str,
    diff: str,
    mode: Literal["default", "create"] = "default",
    *,
    effort: Effort | None = None,
) -> str:
    """Apply a diff to a text.

    Lines that are not changed keep their ends; new ones end as those around them do.

    Args:
        text: of the file; ignored where it is created.
        diff: hunks, or for a new file lines that begin with ``+``.
        mode: ``"create"`` makes a new file's text, without a newline at its end.
        effort: what the patch may still cost (default: what one patch may).

    Raises:
        ApplyPatchDiffError: it is malformed, does not fit the text, or costs too much; with the
            number of its hunk.
    """
    effort = Effort() if effort is None else effort
    effort.take_text(diff)
    if mode == "create":
        return _created(diff)
    effort.take_text(text)
    lines = split_lines(text)
    searched = _Searched([bare(line) for line in lines], effort)
    result: list[str] = []
    cursor = 0
    for number, hunk in enumerate(_parsed(diff, effort), 1):
        start = searched.find(hunk, cursor, number)
        result += lines[cursor:start]
        cursor = start
        for sign, said in hunk.lines:
            if sign == "+":
                result.append(said + end_near(lines, cursor))
                continue
            if sign == " ":
                result.append(lines[cursor])
            cursor += 1
    result += lines[cursor:]
    return join_lines(result, like=lines)


def _created(diff: str) -> str:
    lines = _plain(diff)
    for line in lines:
        if not line.startswith("+"):
            raise ApplyPatchDiffError(
                f"Invalid Line: every line of a new file begins with '+', not {shown(line)}"
            )
    return "\n".join(line[1:] for line in lines)


def _plain(diff: str) -> list[str]:
    """The lines of a diff, without the ends that they came with."""
    lines = [line.removesuffix("\r") for line in diff.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return lines


def _parsed(diff: str, effort: Effort) -> list[_Hunk]:
    """Take a diff apart.

    Raises:
        ApplyPatchDiffError: a line has no sign, or there are too many hunks or anchors.
    """
    hunks: list[_Hunk] = []
    open_hunk = False
    for line in _plain(diff):
        if line.startswith("@@"):
            effort.take_part()
            # One with nothing in it yet stacks: its anchors are looked for one after another.
            if not open_hunk or hunks[-1].lines:
                hunks.append(_Hunk())
                open_hunk = True
            if line[2:].strip():
                hunks[-1].anchors.append(line[2:].removeprefix(" "))
        elif line == _END_OF_FILE:
            if not hunks:
                raise ApplyPatchDiffError(
                    "Invalid Line: the end of the file comes before any change"
                )
            hunks[-1].at_end, open_hunk = True, False
        else:
            if not open_hunk:
                hunks.append(_Hunk())
                open_hunk = True
            if line and line[0] not in " +-":
                raise ApplyPatchDiffError(
                    f"Invalid Line: {shown(line)} in hunk {len(hunks)} begins with none of ' ', '+', '-'",
                    hunk=len(hunks),
                )
            hunks[-1].lines.append((line[0], line[1:]) if line else (" ", ""))
    changed = [hunk for hunk in hunks if any(sign != " " for sign, _ in hunk.lines)]
    if not changed:
        raise ApplyPatchDiffError("the diff changes nothing: no line in it begins with '+' or '-'")
    return [hunk for hunk in hunks if hunk.lines]


class _Searched:
    """A text in which hunks are looked for.

    Args:
        lines: its lines, without their ends.
        effort: pays for every search.
    """

    def __init__(self, lines: list[str], effort: Effort) -> None:
        self._lines = lines
        self._effort = effort
        self._alike: dict[_Likeness, Lines] = {}

    def find(self, hunk: _Hunk, cursor: int, number: int) -> int:
        """Where a hunk's own lines begin.

        Raises:
            ApplyPatchDiffError: they are nowhere after what was changed before.
        """
        for anchor in hunk.anchors:
            at = self._search([anchor], cursor)
            if at is not None:
                cursor = at + 1
            elif len(hunk.anchors) > 1:
                raise ApplyPatchDiffError(
                    f"Invalid Anchor: no line {shown(anchor)} after line {cursor} for hunk {number}",
                    hunk=number,
                )
        context = [said for sign, said in hunk.lines if sign != "+"]
        if hunk.at_end:
            at = self._search(context, max(cursor, len(self._lines) - len(context)))
            if at is not None:
                return at
        at = self._search(context, cursor)
        if at is None:
            what = "Invalid EOF Context" if hunk.at_end else "Invalid Context"
            raise ApplyPatchDiffError(
                f"{what}: the lines of hunk {number} are nowhere after line {cursor}; the first is "
                f"{shown(context[0])}; read the file again and send the lines as they are",
                hunk=number,
            )
        return at

    def _search(self, context: Sequence[str], start: int) -> int | None:
        """The first place at or after ``start`` where lines stand, however exactly."""
        for like in _LIKENESSES:
            if like not in self._alike:
                self._alike[like] = Lines([like(line) for line in self._lines], self._effort)
            at = self._alike[like].first([like(line) for line in context], start)
            if at is not None:
                return at
        return None


# --- envelopes --------------------------------------------------------------------------------


def parse_envelope(text: str) -> tuple[Operation, ...]:
    """Take a whole patch apart, from ``*** Begin Patch`` to ``*** End Patch``.

    Raises:
        ApplyPatchDiffError: it is malformed.
    """
    lines = text.strip("\n").split("\n")
    if lines[0].strip() != _BEGIN or lines[-1].strip() != _END:
        raise ApplyPatchDiffError(f"a patch begins with '{_BEGIN}' and ends with '{_END}'")
    found: list[tuple[Operation, list[str]]] = []
    for line in lines[1:-1]:
        head = _headed(line.removesuffix("\r"))
        if head is not None:
            found.append((head, []))
        elif not found:
            raise ApplyPatchDiffError(f"Invalid Line: {shown(line)} stands before any file")
        elif line.startswith(_MOVE) and not found[-1][1]:
            operation = found[-1][0]._replace(move_to=line.removeprefix(_MOVE).strip())
            found[-1] = operation, []
        else:
            found[-1][1].append(line)
    if not found:
        raise ApplyPatchDiffError("the patch names no file")
    return tuple(operation._replace(diff="\n".join(body)) for operation, body in found)


def _headed(line: str) -> Operation | None:
    if line.startswith(_ADD):
        return Operation("create_file", line.removeprefix(_ADD).strip())
    if line.startswith(_UPDATE):
        return Operation("update_file", line.removeprefix(_UPDATE).strip())
    if line.startswith(_DELETE):
        return Operation("delete_file", line.removeprefix(_DELETE).strip())
    return None
