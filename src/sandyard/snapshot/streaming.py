"""TarStream: a snapshot as a stream of a tar archive, made while it is read."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sandyard.snapshot.tarring import tar_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.snapshot.records import Snapshot
    from sandyard.snapshot.store import SnapshotStore

__all__ = ["TarStream"]


class TarStream(io.RawIOBase):
    """A snapshot as an uncompressed tar archive. It shares the store's lock until it is closed.

    Args:
        store: where it is.
        snapshot: which one.

    Raises:
        SnapshotRestoreError: the store can't be read.
    """

    def __init__(self, store: SnapshotStore, snapshot: Snapshot) -> None:
        super().__init__()
        self._stack = ExitStack()
        reader = self._stack.enter_context(store.reading(snapshot.id))
        self._pieces: Iterator[bytes] = tar_pieces(reader.members(snapshot.tree))
        self._left = memoryview(b"")

    def next_piece(self) -> bytes:
        """The next piece; none at the end.

        Raises:
            SnapshotDamagedError: it is not what was saved.
        """
        return next((piece for piece in self._pieces if piece), b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # as its base calls it
        """Take what comes next; 0 at the end.

        Raises:
            SnapshotDamagedError: it is not what was saved.
        """
        if not self._left:
            self._left = memoryview(self.next_piece())
        now = self._left[: len(buffer)]
        buffer[: len(now)] = now
        self._left = self._left[len(now) :]
        return len(now)

    def close(self) -> None:
        """Let go of the store; doing it again does nothing."""
        if not self.closed:
            super().close()
            self._stack.close()
