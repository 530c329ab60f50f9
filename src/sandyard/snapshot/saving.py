"""Saver: takes the bytes of one tree into a store, and acknowledges it as a snapshot."""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Final, Self

from sandyard.archive.model import ArchiveError
from sandyard.archive.report import ArchiveReport
from sandyard.archive.trees import Node, decode_nodes, encode_nodes
from sandyard.errors import SnapshotPersistError
from sandyard.snapshot.objects import Lists, MissingObjectError, Objects
from sandyard.snapshot.packs import DamagedPackError, PackWriter
from sandyard.snapshot.records import History, Snapshot
from sandyard.snapshot.sizes import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from sandyard.snapshot.place import Place

__all__ = ["Saver"]

_TOLD: Final = tuple(field.name for field in fields(ArchiveReport))
"""What a record takes over from a report."""


class Saver:
    """Takes one tree into a store. It is a context manager, and shares the store's lock within.

    Left without ``finish``, nothing was saved; packs that were full stay until space is reclaimed.

    Args:
        place: the store, prepared.
        lists: what is known of its packs.
        history: the name of the history that the snapshot will belong to.
    """

    def __init__(self, place: Place, lists: Lists, history: str) -> None:
        self._place = place
        self._lists = lists
        self._name = history
        self._history = History(place)
        self._stack = ExitStack()
        self._writer: PackWriter | None = None
        self._mine: set[bytes] = set()
        self._published = False

    def __enter__(self) -> Self:
        """Share the lock, and look at what is there.

        Raises:
            OSError: the store can't be used.
        """
        with self._stack:
            self._stack.enter_context(self._place.shared())
            self._packs = self._stack.enter_context(self._place.opened("packs"))
            self._objects = self._stack.enter_context(Objects(self._packs, self._lists))
            past = self._history.read(self._name)
            self.last = past[-1] if past else None
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of all; what was not finished is dropped."""
        self._stack.close()

    # --- what a tree is made of -------------------------------------------------------------------

    def put(self, data: bytes) -> bytes:
        """Keep some bytes; return their digest."""
        digest = hashlib.sha256(data).digest()
        with self._errors():
            if not self._has(digest):
                self._open_pack().add(digest, data)
                self._mine.add(digest)
        return digest

    def put_pieces(self, pieces: Iterable[bytes]) -> bytes:
        """Keep bytes that come in pieces; return the digest of them together."""
        hasher = hashlib.sha256()
        with self._errors():
            writer = self._open_pack()
            start = writer.begin()
        for piece in pieces:
            hasher.update(piece)
            with self._errors():
                writer.feed(piece)
        digest = hasher.digest()
        with self._errors():
            wanted = not self._has(digest)
            writer.settle(start, digest, wanted=wanted)
        self._mine.add(digest)
        return digest

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell the store's errors from those of whatever is saved."""
        try:
            yield
        except OSError as error:
            raise SnapshotPersistError(
                snapshot_id=self._name,
                path=self._place.directory,
                cause=error,
                context={"errno": error.errno},
            ) from error

    def nodes_of(self, digest: bytes) -> list[Node]:
        """Read back a directory that was kept before; none if it is lost, so that it is read anew."""
        try:
            return decode_nodes(self._objects.whole(digest))
        except (DamagedPackError, MissingObjectError, ArchiveError, OSError):
            return []

    def _has(self, digest: bytes) -> bool:
        return digest in self._mine or self._objects.find(digest) is not None

    def _open_pack(self) -> PackWriter:
        writer = self._writer
        if writer is not None and writer.size >= PACK_BYTES:
            self._end_pack(writer)
            writer = None
        if writer is None:
            writer = PackWriter(self._place, self._packs)
            self._writer = self._stack.enter_context(writer)
        return writer

    def _end_pack(self, writer: PackWriter) -> None:
        if writer.publish() is not None:
            self._published = True
        self._writer = None

    # --- the end ----------------------------------------------------------------------------------

    def finish(
        self,
        top: Node,
        report: ArchiveReport,
        label: str = "",
        tags: tuple[str, ...] = (),
    ) -> Snapshot:
        """Acknowledge the tree: when this returns, it survives whatever happens.

        A tree that is the same as the last one of its history, with nothing new to say of it, makes no
        snapshot.

        Args:
            top: the tree's own directory.
            report: what could not be saved.
            label: what it is called.
            tags: further words.

        Returns:
            The new snapshot, or the last one.

        Raises:
            SnapshotPersistError: it can't be written; then nothing was saved.
        """
        tree = self.put(encode_nodes([top])).hex()
        last = self.last
        if last is not None and last.tree == tree and not label and not tags:
            return last
        with self._errors():
            if self._writer is not None:
                self._end_pack(self._writer)
            if self._published:
                self._place.disk.sync(self._packs)
            number = self._history.last_number(self._name) + 1
            told = {name: getattr(report, name) for name in _TOLD}
            snapshot = Snapshot(
                id=secrets.token_hex(8),
                history=self._name,
                number=number,
                created=time.time(),
                tree=tree,
                parent=None if last is None else last.id,
                label=label,
                tags=tags,
                **told,
            )
            self._history.write(snapshot)
        return snapshot
