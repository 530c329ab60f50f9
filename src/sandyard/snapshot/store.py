"""SnapshotStore: saved workspaces on this machine, each kept once however often it is saved."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

from sandyard.archive.model import ArchiveError
from sandyard.archive.report import Tally
from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    SnapshotNotRestorableError,
    SnapshotPersistError,
    SnapshotRestoreError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.snapshot.beside import NoteReader, NoteWriter
from sandyard.snapshot.objects import Lists
from sandyard.snapshot.place import Place
from sandyard.snapshot.reading import TreeReader
from sandyard.snapshot.records import History, Snapshot, check_name, check_words, file_of
from sandyard.snapshot.saving import Saver
from sandyard.snapshot.sizes import LOCK_WAIT_S
from sandyard.snapshot.upkeep import (
    Reclaimed,
    StoreHealth,
    check_rules,
    expired,
    reclaim,
    verify_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandyard.snapshot.comparing import SnapshotDiff
    from sandyard.snapshot.disk import Disk

__all__ = ["SnapshotStore", "store_directory"]

_T = TypeVar("_T")
_STORE: Final = "store"


def store_directory(environ: Mapping[str, str]) -> str:
    """Where this user's store is unless another is named: in the state directory."""
    from sandyard.platform import state_directory  # noqa: PLC0415  # where one is asked for

    return os.path.join(state_directory(environ), _STORE)


class Readable(Protocol):
    """A binary stream, as far as it is needed."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


class SnapshotStore:
    """Keeps saved workspaces on this machine, and all their histories.

    The same content is stored once, whoever saved it. What was acknowledged survives the end of any
    program, a full disk and a loss of power. Several programs may use one store at once. Its methods
    don't block the event loop.

    Args:
        directory: where it is, absolute (default: ``$XDG_STATE_HOME/sandyard/store``). It is made by
            the first save, for this user alone.

    Raises:
        ArgumentError: the directory is relative.

    Example:
        >>> store = SnapshotStore()
        >>> for snapshot in await store.list():
        ...     print(snapshot.id, snapshot.label, snapshot.size)
        >>> (await store.verify()).ok
        True
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *, disk: Disk | None = None
    ) -> None:
        if directory is None:
            directory = store_directory(os.environ)
        path = directory if isinstance(directory, str) else _path_of(directory)
        if not path.startswith("/") or not _is_possible(path):
            raise ArgumentError(
                f"directory {shown(path)} is not absolute, or can't be a path",
                op="snapshot_persist",
                argument="directory",
                value=directory,
            )
        self._place = Place(os.path.normpath(path), disk)
        self._lists = Lists(self._place)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Another process opens it anew."""
        return type(self), (self.directory,)

    @property
    def directory(self) -> str:
        """Where it is."""
        return self._place.directory

    # --- saving and reading, in a thread of the caller's --------------------------------------------

    @contextmanager
    def saving(self, history: str) -> Iterator[Saver]:
        """Take a tree into a history; for threads.

        Raises:
            SnapshotPersistError: it can't be saved; what was saved before is as it was.
        """
        check_name(history, "snapshot_persist")
        with self._persist_errors(history):
            self._place.prepare()
            self._place.sweep(history)
            with Saver(self._place, self._lists, history) as saver:
                yield saver

    @contextmanager
    def reading(self, id: str) -> Iterator[TreeReader]:  # noqa: A002  # what it is called everywhere
        """Read trees; for threads.

        Args:
            id: what is read, for errors.

        Raises:
            SnapshotRestoreError: it can't be read.
            SnapshotDamagedError: it is not what was saved.
        """
        with self._restore_errors(id):
            self._place.check()
            with TreeReader(self._place, self._lists, id) as reader:
                yield reader

    def last_of(self, history: str) -> Snapshot | None:
        """The newest snapshot of a history, or None; for threads.

        Raises:
            SnapshotRestoreError: it can't be read; no older one is given in its place.
        """
        with self._restore_errors(history):
            return History(self._place).last(check_name(history, "snapshot_restore"))

    def record_path(self, snapshot: Snapshot) -> str:
        """Path of a file that is there for as long as a snapshot of this store is."""
        return os.path.join(self.directory, "history", snapshot.history, file_of(snapshot))

    def noted(self, history: str) -> NoteReader:
        """What somebody noted beside a history, as a context manager; for threads."""
        return NoteReader(self._place, history)

    def noting(self, history: str) -> NoteWriter:
        """Note something beside a history; it may be lost at any time; for threads that are saving."""
        return NoteWriter(self._place, history)

    # --- what there is ------------------------------------------------------------------------------

    async def list(self, history: str | None = None) -> tuple[Snapshot, ...]:
        """All snapshots, or those of one history, oldest first.

        Raises:
            ArgumentError: the name is none of a history.
            SnapshotRestoreError: the store can't be read.
        """
        return await in_thread(self._list, history)

    def _list(self, history: str | None) -> tuple[Snapshot, ...]:
        if history is not None:
            check_name(history, "snapshot_restore")
        with self._restore_errors(history or ""):
            known = History(self._place)
            if history is not None:
                return tuple(known.read(history))  # by number: a clock may have gone back
            order = sorted(known.all(), key=lambda each: (each.created, each.history, each.number))
            return tuple(order)

    async def get(self, id: str) -> Snapshot:  # noqa: A002  # what it is called everywhere
        """One snapshot, by its id or a beginning of it that no other has.

        Raises:
            SnapshotNotRestorableError: there is none.
            ArgumentError: several begin so.
        """
        return await in_thread(self.find, id)

    def find(self, id: str) -> Snapshot:  # noqa: A002
        """Do what ``get`` does; for threads."""
        if not isinstance(id, str):
            raise ArgumentTypeError(
                "the id of a snapshot is text", op="snapshot_restore", argument="id", value=id
            )
        with self._restore_errors(id):
            try:
                found = History(self._place).find(id)
            except LookupError as error:
                raise ArgumentError(
                    f"several snapshots begin with {shown(id)}: {error}; give more of the id",
                    op="snapshot_restore",
                    argument="id",
                    value=id,
                ) from error
        if found is None:
            raise SnapshotNotRestorableError(snapshot_id=id, path=self.directory)
        return found

    async def resolve(self, ref: str) -> Snapshot:
        """One snapshot, by its id or a beginning of it, by its label, or by its history's name.

        Of several with that label, and of a history, the newest is meant.

        Raises:
            SnapshotNotRestorableError: there is none.
            ArgumentError: several ids begin so.
            SnapshotRestoreError: the store can't be read.
        """
        return await in_thread(self._resolved, ref)

    def _resolved(self, ref: str) -> Snapshot:
        try:
            return self.find(ref)
        except SnapshotNotRestorableError:
            found = [each for each in self._list(None) if ref and ref in {each.label, each.history}]
            if not found:
                raise
            return found[-1]

    async def diff(self, old: str, new: str) -> SnapshotDiff:
        """What is different between two snapshots, by their ids.

        Raises:
            SnapshotNotRestorableError: there is no such snapshot.
            SnapshotRestoreError: one can't be read.
        """
        from sandyard.snapshot.comparing import compare_trees  # noqa: PLC0415  # asked for by few

        def work() -> SnapshotDiff:
            before, after = self.find(old), self.find(new)
            with self.reading(new) as reader:
                return compare_trees(reader, before.tree, after.tree)

        return await in_thread(work)

    async def label(
        self,
        id: str,  # noqa: A002
        label: str | None = None,
        tags: Iterable[str] | None = None,
    ) -> Snapshot:
        """Give a snapshot another label, or other tags; what has either is never pruned.

        Args:
            id: the snapshot's.
            label: one line; empty takes it away (default: leave it).
            tags: words; none takes them away (default: leave them).

        Raises:
            SnapshotNotRestorableError: there is no such snapshot.
            SnapshotPersistError: it can't be written.
            ArgumentError: a word is none.
        """

        def work() -> Snapshot:
            with self._persist_errors(id), self._place.shared():
                known = self.find(id)
                words = known.tags if tags is None else tags
                name, checked = check_words(known.label if label is None else label, words)
                changed = dataclasses.replace(known, label=name, tags=checked)
                History(self._place).write(changed)
                return changed

        return await in_thread(work)

    # --- upkeep -------------------------------------------------------------------------------------

    async def verify(self) -> StoreHealth:
        """Read all that is saved, and compare it with what was written.

        Raises:
            SnapshotRestoreError: the store can't be read at all.
        """

        def work() -> StoreHealth:
            with self._restore_errors(""):
                if not self._place.exists:
                    return StoreHealth(snapshots=0, objects=0, size=0)
                self._place.check()
                return verify_store(self._place, self._lists)

        return await in_thread(work)

    async def remove(self, *ids: str) -> Reclaimed:
        """Remove snapshots, labelled ones too, and what only they needed.

        Raises:
            SnapshotNotRestorableError: there is no such snapshot; then none is removed.
            SnapshotPersistError: they can't be removed.
        """

        def work() -> Reclaimed:
            found = [self.find(each) for each in ids]
            return self._reclaim(found, compress=False)

        return await in_thread(work)

    async def prune(
        self,
        *,
        history: str | None = None,
        max_age: float | None = None,
        max_count: int | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Reclaimed:
        """Remove old snapshots, and what only they needed; with no argument, only what nobody needs.

        The newest snapshot of each history stays, and so does what has a label or tags.

        Args:
            history: the only one that is looked at (default: all).
            max_age: seconds; older ones go.
            max_count: of each history, the newest so many stay.
            max_bytes: of each history, the newest stay whose files take at most so many bytes
                together, what several have counted once for each.
            dry_run: True removes nothing, and answers in ``removed`` which snapshots would go.

        Raises:
            SnapshotPersistError: something can't be removed, or is damaged so that what it needs can't
                be told.
            ArgumentError: a number is negative.
        """
        check_rules(max_age=max_age, max_count=max_count, max_bytes=max_bytes)
        if history is not None:
            check_name(history, "delete")

        def work() -> Reclaimed:
            if not self._place.exists:
                return Reclaimed()
            names = History(self._place).names() if history is None else [history]
            goers: list[Snapshot] = []
            for name in names:
                known = History(self._place).read(name)
                goers += expired(known, time.time(), max_age, max_count, max_bytes)
            if dry_run:
                return Reclaimed(removed=tuple(each.id for each in goers))
            return self._reclaim(goers, compress=False)

        return await in_thread(work)

    async def compact(self) -> Reclaimed:
        """Compress what is saved, and join small packs; nothing else changes.

        Saves and restores go on meanwhile.

        Raises:
            SnapshotPersistError: something can't be written or read; then nothing was removed.
        """
        return await in_thread(partial(self._reclaim, [], compress=True))

    def _reclaim(self, goers: Sequence[Snapshot], *, compress: bool) -> Reclaimed:
        with self._persist_errors(""):
            if not self._place.exists:
                return Reclaimed()
            self._place.check()
            history = History(self._place)
            for snapshot in goers:
                history.remove(snapshot)
            done = reclaim(self._place, self._lists, compress=compress, wait=LOCK_WAIT_S)
            return dataclasses.replace(done, removed=tuple(each.id for each in goers))

    # --- tar ------------------------------------------------------------------------------------------

    async def export(self, id: str) -> AsyncIterator[bytes]:  # noqa: A002
        """Give a snapshot as a plain tar archive, piece by piece.

        Args:
            id: the snapshot's.

        Raises:
            SnapshotNotRestorableError: there is no such snapshot.
            SnapshotDamagedError: it is not what was saved; the archive has no end then.

        Example:
            >>> with open("saved.tar", "wb") as file:
            ...     async for piece in store.export(snapshot.id):
            ...         file.write(piece)
        """
        from sandyard.snapshot.streaming import TarStream  # noqa: PLC0415  # asked for by few

        stream = await in_thread(TarStream, self, await self.get(id))
        try:
            while piece := await in_thread(stream.next_piece):
                yield piece
        finally:
            await in_thread(stream.close)

    async def add_tar(
        self,
        history: str,
        source: Readable,
        *,
        label: str = "",
        tags: Iterable[str] = (),
    ) -> Snapshot:
        """Take a tar archive, compressed or not, as a new snapshot of a history.

        Args:
            history: its name; it is made if it is missing.
            source: a binary stream, read to the archive's end in another thread.
            label: what the snapshot is called.
            tags: further words.

        Raises:
            SnapshotPersistError: it is refused, with the ``reason``, or can't be read or written; then
                nothing was saved.
            ArgumentError: the name or a word is none.
            ArgumentTypeError: the source is no binary stream.
        """
        from sandyard.snapshot.tarring import reader_of  # noqa: PLC0415  # asked for by few

        words = check_words(label, tags)
        read = reader_of(source, check_name(history, "snapshot_persist"), self.directory)
        return await in_thread(self.take_tar, history, read, *words)

    def take_tar(
        self,
        history: str,
        read: Callable[[int], bytes],
        label: str = "",
        tags: tuple[str, ...] = (),
    ) -> Snapshot:
        """Do what ``add_tar`` does; for threads."""
        from sandyard.snapshot.tarring import tree_from_tar  # noqa: PLC0415  # asked for by few

        tally = Tally()
        with self.saving(history) as saver:
            top = tree_from_tar(read, saver, tally)
            return saver.finish(top, tally.report(), label, tags)

    # --- errors -----------------------------------------------------------------------------------------

    @contextmanager
    def _persist_errors(self, id: str) -> Iterator[None]:  # noqa: A002
        try:
            yield
        except OSError as error:
            raise SnapshotPersistError(
                snapshot_id=id, path=self.directory, cause=error, context={"errno": error.errno}
            ) from error
        except ArchiveError as error:
            raise SnapshotPersistError(
                snapshot_id=id,
                path=self.directory,
                cause=error,
                context={"reason": error.reason, "member": error.member},
                retryable=False,
            ) from error

    @contextmanager
    def _restore_errors(self, id: str) -> Iterator[None]:  # noqa: A002
        try:
            yield
        except FileNotFoundError as error:
            raise SnapshotNotRestorableError(
                snapshot_id=id, path=self.directory, cause=error
            ) from error
        except OSError as error:
            raise SnapshotRestoreError(
                snapshot_id=id, path=self.directory, cause=error, context={"errno": error.errno}
            ) from error


def _path_of(directory: object) -> str:
    path = os.fspath(directory) if isinstance(directory, os.PathLike) else directory
    if not isinstance(path, str):
        raise ArgumentTypeError(
            f"directory is a path, as a str or os.PathLike of one, not {shown(directory)}",
            op="snapshot_persist",
            argument="directory",
            value=directory,
        )
    return path


def _is_possible(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return False
