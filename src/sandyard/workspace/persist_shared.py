"""A workspace, saved by two programs: one walks, keeps and tells, and both read."""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from sandyard.archive.trees import encode_file, encode_node
from sandyard.workspace.acting import is_asked
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.persist_tree import TreeSaving
from sandyard.workspace.reader import Reader, ReaderLostError
from sandyard.workspace.reader_program import NAMES, SLOT_BYTES

if TYPE_CHECKING:
    from sandyard.archive.trees import Node
    from sandyard.workspace.extract_tree import Directories
    from sandyard.workspace.persist_frame import Entry, Frame, Gap
    from sandyard.workspace.reader import Answer, Result
    from sandyard.workspace.stat_index import Look

__all__ = ["SharedSaving"]

_FILES_FIRST: Final = 1_000
_BYTES_FIRST: Final = 32 * 1024 * 1024
"""New files, or bytes of them, from which on a second program is started: in the 25 ms until it reads, some
700 files are read here."""

_FILES_ASKED: Final = 512
_REQUESTS: Final = 32
"""Files that the second program has to read at most, and requests that name them; each takes a descriptor
until it is done. At the end of a save it is waited for."""

_PERMISSIONS: Final = 0o777
_MODE = 2
"""Where this stands in how a file looks."""


def _has_processors() -> bool:
    """Whether two programs are faster than one."""
    try:
        return len(os.sched_getaffinity(0)) > 1
    except AttributeError:  # another Unix
        return False


class _Request:
    """Files of one directory that were asked for.

    Args:
        frame: the directory.
        gap: where they go.
        entries: they.

    Attributes:
        saved: what is saved of those of which that is known.
        done: how many these are.
    """

    __slots__ = ("done", "entries", "frame", "gap", "saved")

    def __init__(self, frame: Frame, gap: Gap, entries: list[Entry]) -> None:
        self.frame = frame
        self.gap = gap
        self.entries = entries
        self.saved = bytearray()
        self.done = 0


class SharedSaving(TreeSaving):
    """Saves what is in a directory as a tree; where much of it is new, a second program reads along.

    What that one says comes later: a directory is left with gaps then, and is done when they are filled.
    Whatever is more than bytes of a file, or can't be read, is read here, and told of here alone. So is
    all of it where there is no second program, and the rest once that is lost.

    Attributes:
        shared: whether a second program was asked; then notes do not come in the order of the walk.
    """

    def run(self) -> Node:
        """Save all of it; see ``TreeSaving.run``."""
        self._reader: Reader | None = None
        self.shared = False
        self._wanted = not self.names and not is_asked() and _has_processors()
        self._new_files = self._new_bytes = 0
        self._run: list[Entry] = []
        self._requests: deque[_Request] = deque()
        self._asked = 0
        self._is_ready = False
        with ExitStack() as self._stack:
            return super().run()

    def _walk(self, tree: Directories) -> Node:
        self._tree = tree
        return super()._walk(tree)

    # --- directories ------------------------------------------------------------------------------

    def _next_directory(self, tree: Directories, frame: Frame) -> Entry | None:
        if frame.same or not self._wanted:
            return super()._next_directory(tree, frame)
        while (entry := frame.next()) is not None:
            _, (name, look) = entry
            if stat.S_ISDIR(look[_MODE]) and name not in frame.left_out:
                self._share(frame)
                return entry
            if self._may_share(frame, name, look):
                self._run.append(entry)
                if len(self._run) == NAMES:
                    self._share(frame)
            else:
                self._share(frame)
                self._save_entry(tree, frame, entry)
        self._share(frame)
        return None

    def _leave(self, tree: Directories, frame: Frame) -> bytes:
        if frame.gaps and frame.path:
            return b""  # ``_take`` knows what to do
        self._wait_for(frame)
        return super()._leave(tree, frame)

    def _take(self, frame: Frame, below: Frame, digest: bytes) -> None:
        if digest:
            super()._take(frame, below, digest)
        elif frame.same:
            self._wait_for(below)
            super()._take(frame, below, super()._leave(self._tree, below))
        else:
            self._check_below(frame, below)
            below.above = frame, frame.leave_gap()

    def _finish(self, frame: Frame) -> None:
        """Save a directory that was left, and those above it, if nothing is missing any more."""
        while frame.above is not None and not frame.gaps:
            above, gap = frame.above
            digest = super()._leave(self._tree, frame)
            above.fill(gap, encode_node(frame.node._replace(digest=digest)))
            frame = above

    # --- files ------------------------------------------------------------------------------------

    def _may_share(self, frame: Frame, name: bytes, look: Look) -> bool:
        """Whether the second program may read an entry, if there is one."""
        _, _, mode, links, size, _, _ = look
        if (
            not stat.S_ISREG(mode)
            or links > 1
            or name in frame.left_out
            or (frame.old and self._known_entries(frame).get(name, look) is not None)
        ):
            return False
        if self._reader is not None:
            return size <= SLOT_BYTES
        self._new_files += 1
        self._new_bytes += size
        if self._wanted and (self._new_files >= _FILES_FIRST or self._new_bytes >= _BYTES_FIRST):
            self._start()
        return False

    def _start(self) -> None:
        try:
            with self._intake.as_program():
                self._reader = self._stack.enter_context(Reader(self._owner, self._stopped))
            self.shared = True
        except ReaderLostError:
            self._wanted = False

    def _share(self, frame: Frame) -> None:
        """Have the files that were gathered read, by whoever has time for it."""
        if not self._run:
            return
        if self._stopped.is_set():
            raise Abandoned
        run, self._run = self._run, []
        self._hear()
        if not self._ask(frame, run):
            for entry in run:
                self._save_entry(self._tree, frame, entry)

    def _ask(self, frame: Frame, run: list[Entry]) -> bool:
        if self._reader is None or not self._is_ready:
            return False
        if len(self._requests) >= _REQUESTS or self._asked >= _FILES_ASKED:
            return False
        try:
            names = [name for _, (name, _) in run]
            if not self._reader.ask(self._tree.at(frame.path), names):
                return False
        except ReaderLostError:
            self._lose()
            return False
        self._requests.append(_Request(frame, frame.leave_gap(), run))
        self._asked += len(run)
        return True

    # --- answers ----------------------------------------------------------------------------------

    def _wait_for(self, frame: Frame) -> None:
        """Wait until nothing is missing of a directory."""
        while frame.gaps:
            self._hear(wait=True)

    def _hear(self, *, wait: bool = False) -> None:
        """Take the answers that came."""
        if self._reader is None:
            return
        try:
            while self._requests or not self._is_ready:
                answer = self._reader.answer(wait=wait)
                if answer is None:
                    return
                self._is_ready = True
                self._take_answer(answer)
                wait = False
        except ReaderLostError:
            self._lose()

    def _take_answer(self, answer: Answer) -> None:
        results, contents = answer
        objects = [(digest, size) for read, _, _, size, digest in results if read and size]
        if objects:
            self._intake.put_run(contents, objects)
        at = 0
        while at < len(results):
            request = self._requests[0]
            at += self._take_results(request, results[at : at + len(request.entries)])
            self._count_off(request)

    def _take_results(self, request: _Request, results: list[Result]) -> int:
        """Save files of a request as far as it is known of them, and return how many these were."""
        frame, saved = request.frame, request.saved
        files = total = count = 0
        for entry, result in zip(request.entries[request.done :], results, strict=False):
            count += 1
            read, mode, mtime, size, digest = result
            place, (name, look) = entry
            if read:
                saved += encode_file(
                    name, mode & _PERMISSIONS, mtime, size, digest if size else b""
                )
                files, total = files + 1, total + size
                if not self._is_settled(look):
                    frame.unsettled.append(place)
            else:
                saved += self._saved_entry(self._tree, frame, entry) or b""
        self._tally.count_many(files, 0, total)
        request.done += count
        return count

    def _count_off(self, request: _Request) -> None:
        """Go on with what a request was about if all of it is saved."""
        if request.done == len(request.entries):
            self._requests.popleft()
            self._asked -= request.done
            request.frame.fill(request.gap, request.saved)
            self._finish(request.frame)

    def _lose(self) -> None:
        """Do without the second program, and read here what it was asked for."""
        self._reader, self._wanted = None, False
        while self._requests:
            request = self._requests[0]
            entry = request.entries[request.done]
            request.saved += self._saved_entry(self._tree, request.frame, entry) or b""
            request.done += 1
            self._count_off(request)
