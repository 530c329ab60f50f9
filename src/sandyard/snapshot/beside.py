"""Notes: a file beside a history that is written piece by piece, and may be lost at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from sandyard.snapshot.sizes import BUFFER_BYTES

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.snapshot.place import Place

__all__ = ["NoteReader", "NoteWriter"]

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY: Final = "index"


def _name_of(history: str) -> str:
    return f"{history}.index"


class NoteReader:
    """What was noted beside a history. It is a context manager.

    Args:
        place: the store.
        history: which one's.

    Attributes:
        size: bytes of it; 0 if there is nothing, or it can't be read.
    """

    def __init__(self, place: Place, history: str) -> None:
        self._place = place
        self._history = history
        self._file = -1
        self.size = 0

    def read_at(self, size: int, at: int) -> bytes:
        """Read some bytes; fewer, or none, where it ends or can't be read."""
        try:
            return os.pread(self._file, size, at)
        except OSError:
            return b""

    def __enter__(self) -> Self:
        """Open it."""
        try:
            with self._place.opened(_DIRECTORY) as directory:
                self._file = os.open(_name_of(self._history), _READ, dir_fd=directory)
            self.size = os.fstat(self._file).st_size
        except OSError:
            self.size = 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class NoteWriter:
    """Writes what is noted beside a history. It is a context manager; without ``publish`` nothing stays.

    Nothing is raised: what can't be noted is found out anew.

    Args:
        place: the store, whose lock the caller shares.
        history: which one's.
    """

    def __init__(self, place: Place, history: str) -> None:
        self._place = place
        self._history = history
        self._file = -1
        self._name = place.temporary_name()
        self._written = 0
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        """Write some more."""
        if len(data) >= BUFFER_BYTES:  # a copy of it would take as much again
            self._flush()
            self._put(data)
            return
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()

    def publish(self) -> None:
        """Let it take the place of what was noted before."""
        self._flush()
        if self._file < 0:
            return
        try:
            with self._place.opened(_DIRECTORY) as directory:
                self._place.disk.publish(directory, self._name, _name_of(self._history))
                self._name = ""
        except OSError:
            self._close()

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        self._put(data)

    def _put(self, data: bytes | bytearray) -> None:
        if self._file < 0:
            return
        try:
            self._place.disk.write(self._file, data, self._written)
            self._written += len(data)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        """Make the file."""
        try:
            with self._place.opened(_DIRECTORY) as directory:
                self._file = self._place.disk.make(directory, self._name)
        except OSError:
            self._name = ""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and remove it unless it was published."""
        self._close()
        if self._name:
            try:
                with self._place.opened(_DIRECTORY) as directory:
                    self._place.disk.remove(directory, self._name)
            except OSError:
                self._name = ""  # litter, which the next save removes
