"""What grep finds, and how its output becomes values: in pieces, and in bounded memory."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from sandyard.limits import GREP_LINE_BYTES, PATH_TOTAL_BYTES

__all__ = ["GrepMatch", "GrepResult", "MatchReader"]


class GrepMatch(NamedTuple):
    """One line that matches.

    Attributes:
        path: of the file, absolute, as commands see it.
        line: its number, from 1.
        text: the line without its end; of a longer one the first 2,000 bytes. What is not UTF-8 in
            it is replaced.
        cut: whether the line is longer.
    """

    path: str
    line: int
    text: str
    cut: bool = False


class GrepResult(NamedTuple):
    """What a search found.

    Attributes:
        matches: as grep found them: the lines of one file in order, the files in none.
        truncated: whether there are more.
        complete: False if some files could not be read, such as those that the policy denies.
    """

    matches: tuple[GrepMatch, ...]
    truncated: bool = False
    complete: bool = True


_LONGEST: Final = PATH_TOTAL_BYTES + GREP_LINE_BYTES + 64
"""Bytes of one record that are kept: a path, a number, and a line."""


class MatchReader:
    """Reads ``grep -nZ``: for each line a path, NUL, a number, a colon and the text.

    Attributes:
        found: matches so far.
    """

    def __init__(self) -> None:
        self._record = bytearray()
        self._dropped = False
        self._named = False
        self.found: list[GrepMatch] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the output."""
        while data:
            # A path may hold line feeds; behind its NUL the first one ends the record.
            if not self._named:
                path, nul, data = data.partition(b"\0")
                self._keep(path)
                if nul:
                    self._named = True
                    self._record += nul
                continue
            text, end, data = data.partition(b"\n")
            self._keep(text)
            if end:
                self._finish()

    def _keep(self, data: bytes) -> None:
        room = max(0, _LONGEST - len(self._record))
        self._record += data[:room]
        self._dropped = self._dropped or len(data) > room

    def _finish(self) -> None:
        path, _, rest = bytes(self._record).partition(b"\0")
        self._named = False
        number, colon, text = rest.partition(b":")
        if colon and number.isdigit():
            cut = self._dropped or len(text) > GREP_LINE_BYTES
            shown = text[:GREP_LINE_BYTES].removesuffix(b"\r").decode("utf-8", "replace")
            self.found.append(GrepMatch(os.fsdecode(path), int(number), shown, cut))
        self._record.clear()
        self._dropped = False
