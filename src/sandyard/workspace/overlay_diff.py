"""Tells what was changed in an overlay, in words: bounded, deletions first."""

from __future__ import annotations

import difflib
import os
import stat
from typing import TYPE_CHECKING, Final

from sandyard.changes import Change, ChangedEntry, ChangeKind, Changes
from sandyard.limits import (
    DIFF_ENTRIES,
    DIFF_FILE_BYTES,
    DIFF_FILE_LINES,
    DIFF_TEXT_CHARS,
    DIFF_TOTAL_CHARS,
    DIFF_TOTAL_LINES,
)
from sandyard.workspace.overlay_planted import planted_reader
from sandyard.workspace.overlay_tree import Difference, PlainTree, find_differences, is_same

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from sandyard.workspace.names import Names

__all__ = ["count_entries", "kind_of", "tell_changes"]

_PERMISSIONS: Final = 0o777


def tell_changes(upper: int, base: int, stopped: Event, *, text: bool) -> Changes:
    """Tell what was changed (blocking).

    Args:
        upper: descriptor of what was changed, as the kernel keeps it.
        base: descriptor of the directory beneath.
        stopped: set by whoever wants no more of it.
        text: whether to say what changed in text files.

    Raises:
        OSError: something can't be looked at.
    """
    teller = _Teller(PlainTree(upper), PlainTree(base), text=text)
    entries: list[Change] = []
    deep: list[Names] = []
    complete = True
    for found in find_differences(teller.upper, teller.base, deep, stopped):
        if len(entries) == DIFF_ENTRIES or stopped.is_set():
            complete = False
            break
        entries.append(teller.change(found))
    if deep:
        complete = False
        teller.notes.append(f"{'/'.join(deep[0])}: it lies too deep, and what is in it is not told")
    entries.sort(key=lambda change: (change.kind != "deleted", change.path.split("/")))
    return Changes(entries=tuple(entries), complete=complete, notes=tuple(teller.notes))


def kind_of(upper: PlainTree, base: PlainTree, found: Difference) -> ChangeKind:
    """What kind of change a difference is."""
    now, before = found.now, found.before
    if now is None:
        return "deleted"
    if before is None:
        return "added"
    if stat.S_IFMT(now.st_mode) != stat.S_IFMT(before.st_mode):
        return "type"
    same = is_same(upper, base, found.names, now, before, modes=False)
    return "mode" if same else "modified"


def count_entries(tree: PlainTree, names: Names) -> int:
    """How many entries a directory has, those of its directories included; 0 for anything else."""
    count, pending = 0, [names]
    while pending:
        at = pending.pop()
        for name in tree.listed(at):
            count += 1
            facts = tree.look((*at, name))
            if facts is not None and stat.S_ISDIR(facts.st_mode):
                pending.append((*at, name))
    return count


class _Teller:
    """Puts differences into words, of which there is only so much room."""

    def __init__(self, upper: PlainTree, base: PlainTree, *, text: bool) -> None:
        self.upper = upper
        self.base = base
        self.notes: list[str] = []
        self._room = DIFF_TOTAL_CHARS if text else 0
        self._lines = DIFF_TOTAL_LINES
        self._wanted = text

    def change(self, found: Difference) -> Change:
        """Say what a difference is."""
        facts = found.before if found.now is None else found.now
        assert facts is not None  # noqa: S101  # it is one of the two
        path = "/".join(found.names)
        try:
            kind = kind_of(self.upper, self.base, found)
            text, truncated = self._text(found, path)
            gone = found.before if kind in {"deleted", "type"} else None
            contains = 0
            if gone is not None and stat.S_ISDIR(gone.st_mode):
                contains = count_entries(self.base, found.names)
            tree = self.base if found.now is None else self.upper
            target = tree.target(found.names) if stat.S_ISLNK(facts.st_mode) else None
        except OSError as error:
            self.notes.append(f"{path}: it can't be read: {error.strerror}")
            kind, text, truncated, contains, target = "modified", None, self._wanted, 0, None
        return Change(
            path=path,
            kind=kind,
            entry=_entry(facts),
            mode=facts.st_mode & _PERMISSIONS,
            size=facts.st_size if stat.S_ISREG(facts.st_mode) else 0,
            contains=contains,
            target=target,
            text=text,
            truncated=truncated,
            planted=None if found.now is None else planted_reader(found.names),
        )

    def _text(self, found: Difference, path: str) -> tuple[str | None, bool]:
        """What changed in a text file, and whether that is only a part of it."""
        if not self._wanted:
            return None, False
        sides = [(self.base, found.before), (self.upper, found.now)]
        lines: list[list[str]] = []
        for tree, facts in sides:
            if facts is None:
                lines.append([])
                continue
            if not stat.S_ISREG(facts.st_mode):
                return None, False
            if facts.st_size > DIFF_FILE_BYTES or self._room <= 0:
                return None, True
            read = _read_text(tree, found.names)
            if read is None:
                return None, False
            lines.append(read)
        if not self._may_compare(*map(len, lines)):
            return None, True
        return self._bounded(_unified(lines[0], lines[1], path, found))

    def _may_compare(self, old: int, new: int) -> bool:
        """Tell whether so many lines can be compared soon; what only one side has costs nothing."""
        if not old or not new:
            return True
        if max(old, new) > DIFF_FILE_LINES or old + new > self._lines:
            return False
        self._lines -= old + new
        return True

    def _bounded(self, pieces: Iterator[str]) -> tuple[str | None, bool]:
        kept: list[str] = []
        room = min(DIFF_TEXT_CHARS, self._room)
        for piece in pieces:
            if len(piece) > room:
                return "".join(kept), True
            kept.append(piece)
            room -= len(piece)
            self._room -= len(piece)
        return "".join(kept) or None, False


def _unified(old: list[str], new: list[str], path: str, found: Difference) -> Iterator[str]:
    before = "/dev/null" if found.before is None else f"a/{path}"
    after = "/dev/null" if found.now is None else f"b/{path}"
    for line in difflib.unified_diff(old, new, before, after):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _read_text(tree: PlainTree, names: Names) -> list[str] | None:
    """The lines of a file; None if it is no text."""
    with open(tree.open(names), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        raw = file.read(DIFF_FILE_BYTES)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    parts = text.split("\n")
    lines = [f"{part}\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _entry(facts: os.stat_result) -> ChangedEntry:
    if stat.S_ISDIR(facts.st_mode):
        return "directory"
    if stat.S_ISLNK(facts.st_mode):
        return "symlink"
    return "file" if stat.S_ISREG(facts.st_mode) else "other"
