"""Saver: takes the bytes of one tree into a store, and acknowledges it as a snapshot."""

from __future__ import annotations

import errno
import hashlib
import posixpath
import secrets
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Final, Self

from sandyard.archive.model import ArchiveError
from sandyard.archive.report import ArchiveReport
from sandyard.archive.trees import Node, encode_nodes, entries_in
from sandyard.errors import SnapshotPersistError
from sandyard.snapshot.objects import Lists, MissingObjectError, Objects
from sandyard.snapshot.packs import DamagedPackError, PackWriter
from sandyard.snapshot.records import History, Snapshot, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
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
        self._as_program: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def as_program(self) -> Callable[[], AbstractContextManager[None]]:
        """Acts as this program, whose the store is; whoever calls as somebody else sets it."""
        return self._as_program

    @as_program.setter
    def as_program(self, acting: Callable[[], AbstractContextManager[None]]) -> None:
        self._as_program = self._objects.as_program = acting

    def __enter__(self) -> Self:
        """Share the lock, and look at what is there.

        Raises:
            OSError: the store can't be used.
        """
        with self._stack:
            self._stack.enter_context(self._place.shared())
            self._packs = self._stack.enter_context(self._place.opened("packs"))
            self._objects = self._stack.enter_context(Objects(self._packs, self._lists))
            self._objects.tell()
            self._pack = self._stack.enter_context(ExitStack())
            self.last = self._last()
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

    def _last(self) -> Snapshot | None:
        """The newest snapshot of the history; None also if its record is damaged."""
        try:
            return self._history.last(self._name)
        except OSError as error:
            if error.errno != errno.EUCLEAN:
                raise
            return None

    # --- what a tree is made of -------------------------------------------------------------------

    def put(self, data: bytes | bytearray) -> bytes:
        """Keep some bytes; return their digest."""
        digest = hashlib.sha256(data).digest()
        try:  # no context manager: it is called for each file
            if not self._has(digest):
                self._open_pack().add(digest, data)
        except OSError as error:
            raise self._failed(error) from error
        return digest

    def put_run(self, run: memoryview, objects: list[tuple[bytes, int]]) -> None:
        """Keep what lies one after the other in some memory, which is the caller's again afterwards.

        Args:
            run: the memory.
            objects: digests and sizes.
        """
        with self._errors():
            self._open_pack().add_run(run, objects, self._objects.has_whole)

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
        return digest

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell the store's errors from those of whatever is saved."""
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SnapshotPersistError:
        return SnapshotPersistError(
            snapshot_id=self._name,
            path=self._place.directory,
            cause=error,
            context={"errno": error.errno},
        )

    def directory(self, digest: bytes) -> bytes | None:
        """Read back a directory that was kept before; None if it is lost, so that it is read anew."""
        try:
            return self._objects.whole(digest)
        except (DamagedPackError, MissingObjectError, OSError):
            return None

    def entries_of(self, digest: bytes) -> dict[bytes, bytes] | None:
        """Do the same; return its entries by their names."""
        raw = self.directory(digest)
        try:
            return None if raw is None else entries_in(raw)
        except ArchiveError:
            return None

    def trusts(self, tree: str) -> bool:
        """Whether what was noted of a tree may be believed: it is the last one, and not known to be lost.

        Args:
            tree: its digest, in hexadecimal.
        """
        return self.last is not None and self.last.tree == tree and self._has_tree(tree)

    def _has_tree(self, tree: str) -> bool:
        return self.entries_of(bytes.fromhex(tree)) is not None and not self._objects.damaged

    def recorded(self, path: str) -> Snapshot | None:
        """A snapshot of this store that is not known to be lost, by the path of its record."""
        name = posixpath.basename(posixpath.dirname(path))
        found = self._history.at(name, posixpath.basename(path))
        here = (
            None
            if found is None
            else posixpath.join(self._place.directory, "history", name, file_of(found))
        )
        return found if found is not None and here == path and self._has_tree(found.tree) else None

    def _has(self, digest: bytes) -> bool:
        # What a damaged pack still has may be damaged, too: it is kept once more.
        mine = self._writer is not None and digest in self._writer
        return mine or self._objects.has_whole(digest)

    def _open_pack(self) -> PackWriter:
        writer = self._writer
        if writer is not None and not writer.full:
            return writer
        with self.as_program():
            if writer is not None:
                self._end_pack(writer)
            writer = PackWriter(self._place, self._packs)
            self._writer = self._pack.enter_context(writer)
        return writer

    def _end_pack(self, writer: PackWriter) -> None:
        name = writer.publish()
        self._writer = None
        self._pack.close()
        if name is not None:
            self._objects.learn(name)

    # --- the end ----------------------------------------------------------------------------------

    def finish(
        self,
        top: Node,
        report: ArchiveReport,
        label: str = "",
        tags: tuple[str, ...] = (),
        root: str = "",
    ) -> Snapshot:
        """Acknowledge the tree: when this returns, it survives whatever happens.

        A tree that is the same as the last one of its history, with nothing new to say of it, makes no
        snapshot.

        Args:
            top: the tree's own directory.
            report: what could not be saved.
            label: what it is called.
            tags: further words.
            root: what commands know the tree as; empty for nothing.

        Returns:
            The new snapshot, or the last one.

        Raises:
            SnapshotPersistError: it can't be written; then nothing was saved.
        """
        tree = self.put(encode_nodes([top])).hex()
        with self._errors(), self._place.turn(self._name) as directory:
            last = self._last()  # somebody else's may have come meanwhile
            if last is not None and last.tree == tree and not label and not tags:
                self._settle()
                self._place.disk.sync(directory)  # likewise, of its record
                return last
            told = {name: getattr(report, name) for name in _TOLD}
            snapshot = Snapshot(
                id=secrets.token_hex(8),
                history=self._name,
                number=self._history.last_number(self._name) + 1,
                created=time.time(),
                tree=tree,
                parent=None if last is None else last.id,
                label=label,
                tags=tags,
                root=root,
                **told,
            )
            self._history.write(snapshot, self._settle)
        return snapshot

    def _settle(self) -> None:
        """Have survive what was put."""
        if self._writer is not None:  # also for the same tree: something of it was lost, then
            self._end_pack(self._writer)
        # Also what another program has published, which may have been killed before it did this.
        self._place.disk.sync(self._packs)
