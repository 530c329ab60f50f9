"""Lines that are looked for in a text, at a cost that is bounded whatever the text and the patch are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from sandyard.errors import ApplyPatchDiffError
from sandyard.limits import PATCH_LINES, PATCH_PARTS, PATCH_STEPS, PATCH_TEXT_CHARS

__all__ = ["Effort", "Lines"]

_LINE: Final = 8
_CANDIDATE: Final = 8
"""What it costs to take a line apart and put it back, and to look at one place where lines may stand,
in lines that are compared."""


class Effort:
    """What one patch may cost; each of its files takes from the same."""

    def __init__(self) -> None:
        """Begin with all of it."""
        self._chars = PATCH_TEXT_CHARS
        self._parts = PATCH_PARTS
        self._steps = PATCH_STEPS

    def take_patch(self, chars: int) -> None:
        """Count the text of the patch.

        Raises:
            ApplyPatchDiffError: it is too long.
        """
        self._chars -= chars
        if self._chars < 0:
            raise ApplyPatchDiffError(
                f"a patch has at most {PATCH_TEXT_CHARS} characters; send it in parts, or write "
                "the files"
            )

    def take_part(self) -> None:
        """Count an operation, or a hunk.

        Raises:
            ApplyPatchDiffError: there are too many.
        """
        self._parts -= 1
        if self._parts < 0:
            raise ApplyPatchDiffError(
                f"a patch has at most {PATCH_PARTS} operations and hunks; send it in parts"
            )

    def take_text(self, text: str) -> None:
        """Count a text that is about to be split into lines.

        Raises:
            ApplyPatchDiffError: it has too many, or the files of the patch together have.
        """
        count = text.count("\n") + 1
        if count > PATCH_LINES:
            raise ApplyPatchDiffError(
                f"a patched file has at most {PATCH_LINES} lines, and this one has {count}; write "
                "it as a whole"
            )
        self.search(count * _LINE)

    def search(self, steps: int) -> None:
        """Count lines that are looked at.

        Raises:
            ApplyPatchDiffError: it takes too long to find where the hunks belong.
        """
        self._steps -= steps
        if self._steps < 0:
            raise ApplyPatchDiffError(
                f"it takes more than {PATCH_STEPS} comparisons of lines to find where the hunks "
                "belong; send the patch in parts, with lines around the changes that stand in few "
                "places"
            )


class Lines:
    """The lines of a text, by their places.

    Args:
        lines: the lines.
        effort: pays for every search.
    """

    def __init__(self, lines: Sequence[str], effort: Effort) -> None:
        effort.search(len(lines))
        self._lines = lines
        self._effort = effort
        self._places: dict[str, list[int]] = {}
        for at, line in enumerate(lines):
            self._places.setdefault(line, []).append(at)

    def first(self, wanted: Sequence[str], start: int) -> int | None:
        """The first place at or after ``start`` where lines stand."""
        if not wanted:
            return start if start <= len(self._lines) else None
        offset, places = self._rarest(wanted)
        begin = bisect_left(places, start + offset)
        for place in islice(places, begin, None):
            if self._stands(wanted, place - offset):
                return place - offset
        return None

    def nearest(self, wanted: Sequence[str], expected: int, least: int) -> int | None:
        """The place nearest to ``expected`` where lines stand, not before ``least``.

        Of two that are as near the later one.
        """
        offset, places = self._rarest(wanted)
        for place in _outward(places, expected + offset):
            at = place - offset
            if at >= least and self._stands(wanted, at):
                return at
        return None

    def _rarest(self, wanted: Sequence[str]) -> tuple[int, Sequence[int]]:
        """The line of some that stands in the fewest places: its number, and the places."""
        self._effort.search(len(wanted))
        none: Sequence[int] = ()
        found = [self._places.get(line, none) for line in wanted]
        offset = min(range(len(found)), key=lambda number: len(found[number]))
        return offset, found[offset]

    def _stands(self, wanted: Sequence[str], at: int) -> bool:
        self._effort.search(_CANDIDATE + len(wanted))
        return at >= 0 and list(self._lines[at : at + len(wanted)]) == list(wanted)


def _outward(places: Sequence[int], middle: int) -> Iterator[int]:
    """Places in ascending order, from the nearest to the farthest."""
    above = bisect_left(places, middle)
    below = above - 1
    while below >= 0 or above < len(places):
        if below < 0 or (above < len(places) and places[above] - middle <= middle - places[below]):
            yield places[above]
            above += 1
        else:
            yield places[below]
            below -= 1
