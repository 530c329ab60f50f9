"""How far work on many files is: counted in threads, told on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sandyard.archive.model import Kind
from sandyard.archive.report import ArchiveReport, Tally

__all__ = ["HeardTally", "Hearer", "Progress", "ProgressRelay", "Tracker", "tracked"]


class Progress(NamedTuple):
    """How far it is.

    Attributes:
        path: what was finished last: a file, link or entry; of a snapshot, nothing.
        files: files and symlinks written so far; of a snapshot, saved or restored.
        size: bytes of them.
        entries: entries of the manifest, or whole transfers, that are done.
        total: how many there are to do.
    """

    path: str
    files: int
    size: int
    entries: int
    total: int


Hearer = Callable[[Progress], object]
"""What is told how far work is."""


class Tracker:
    """Counts, from any thread.

    Args:
        tell: called with each new state, in the thread that caused it.
    """

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # protects the state, and the order in which it is told
        self._now = Progress("", 0, 0, 0, 0)

    def begin(self, total: int) -> None:
        """Note how many entries there are to do."""
        with self._lock:
            self._now = Progress("", 0, 0, 0, total)

    def take(self, now: Progress) -> None:
        """Note what somebody else has counted."""
        with self._lock:
            self._now = now
            self._tell(now)

    def wrote(self, path: str, size: int, files: int = 1) -> None:
        """Note a file or symlink, or several that have so many bytes together."""
        with self._lock:
            now = self._now
            self._now = now._replace(path=path, files=now.files + files, size=now.size + size)
            self._tell(self._now)

    def reached(self, files: int, size: int) -> None:
        """Note that so many are there in the end, noted one by one or not."""
        with self._lock:
            if (files, size) != (self._now.files, self._now.size):
                self._now = self._now._replace(path="", files=files, size=size)
                self._tell(self._now)

    def finished(self, path: str) -> None:
        """Note an entry, with all that is in it."""
        with self._lock:
            self._now = self._now._replace(path=path, entries=self._now.entries + 1)
            self._tell(self._now)


class ProgressRelay:
    """Calls a function on an event loop with the newest state; those in between are passed over.

    It holds one state and has at most one call waiting, however fast the work is.

    Args:
        loop: the loop that the function is called on.
        hears: the function. An error in it goes to the loop's exception handler.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, hears: Hearer) -> None:
        self._loop = loop
        self._hears = hears
        self._lock = threading.Lock()  # protects the two below
        self._newest: Progress | None = None
        self._waiting = False

    def tell(self, progress: Progress) -> None:
        """Take a state, from any thread."""
        with self._lock:
            self._newest = progress
            if self._waiting:
                return
            self._waiting = True
        with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody listens
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        with self._lock:
            newest, self._newest, self._waiting = self._newest, None, False
        if newest is not None:
            self._hears(newest)


def tracked(progress: Hearer | None) -> Tracker | None:
    """What counts for a caller that wants to hear of it, on the loop that runs here."""
    if progress is None:
        return None
    return Tracker(ProgressRelay(asyncio.get_running_loop(), progress).tell)


class HeardTally(Tally):
    """Counts towards a report, and tells how far that is, from the beginning.

    What was known of a workspace on layers is told with the report alone: some of it may be counted
    anew.

    Args:
        tracker: what tells it (default: nothing does).
    """

    def __init__(self, tracker: Tracker | None = None) -> None:
        super().__init__()
        self._tracker = tracker
        if tracker is not None:
            tracker.begin(0)

    def count(self, kind: Kind, size: int = 0) -> None:
        """Count something that is there."""
        super().count(kind, size)
        if self._tracker is not None and kind is not Kind.DIRECTORY:
            self._tracker.wrote("", size)

    def count_many(self, files: int, symlinks: int, size: int) -> None:
        """Count so many that are there."""
        super().count_many(files, symlinks, size)
        if self._tracker is not None:
            self._tracker.wrote("", size, files + symlinks)

    def report(self) -> ArchiveReport:
        """What there is, which is told."""
        report = super().report()
        if self._tracker is not None:
            self._tracker.reached(report.files + report.symlinks + report.hard_links, report.size)
        return report
