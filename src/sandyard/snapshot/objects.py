"""Objects: all packs of a store, searched and read as one."""

from __future__ import annotations

import io
import os
import re
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from sandyard.snapshot.beside import NoteReader, NoteWriter
from sandyard.snapshot.packs import (
    SUFFIX,
    DamagedPackError,
    Packed,
    SortedList,
    pieces_of,
    prefix_of,
    read_list,
    salvage,
)
from sandyard.snapshot.sizes import DICT_AFTER, DICT_OBJECTS, FEW_PACKS, OPEN_PACKS, UNTOLD_PACKS
from sandyard.snapshot.summary import SUMMARY, Summary, TornSummaryError, write_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Set
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sandyard.snapshot.place import Place

__all__ = ["Found", "Lists", "MissingObjectError", "Objects"]

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NAME: Final = re.compile("[0-9a-f]{64}" + re.escape(SUFFIX))
"""What packs are called; another one was put there by somebody else."""


class MissingObjectError(Exception):
    """No pack of the store has an object."""


class Found(NamedTuple):
    """Where an object is.

    Attributes:
        pack: the name of its pack.
        packed: its place there.
    """

    pack: str
    packed: Packed


class Lists:
    """What is known of a store's packs; a pack never changes, so that stays true.

    Several threads may use one: what it has is only ever replaced as a whole.

    Args:
        place: the store.

    Attributes:
        known: the lists of packs that were asked for last.
        summary: the summary that was read last; None if there was none.
        measured: packs that are as large as that says.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.known: Mapping[str, SortedList] = {}
        self.summary: Summary | None = None
        self.measured: frozenset[str] = frozenset()


class Objects:
    """All objects of a store, as they are while its lock is shared. It is a context manager.

    Of a pack that the summary speaks of, the list is read once it may have what is looked for. Nothing
    is taken for lost because the summary does not know of it.

    Args:
        packs: descriptor of the directory of packs; it stays the caller's.
        lists: what is known of them.
        whole: True reads all lists, and does without the summary.

    Attributes:
        as_program: acts as this program, whose the packs are, where the caller acts as another.
        lists: those that were read.
        damaged: packs whose end is not what was written, of those whose lists were read.
    """

    def __init__(self, packs: int, lists: Lists, *, whole: bool = False) -> None:
        self.as_program: Callable[[], AbstractContextManager[None]] = nullcontext
        self.lists: dict[str, SortedList] = {}
        self.damaged: set[str] = set()
        self._packs = packs
        self._known = lists
        self._whole = whole
        self._note = NoteReader(lists.place, SUMMARY)
        self._summary: Summary | None = None
        self._told: frozenset[str] = frozenset()
        self._untold: dict[str, SortedList] = {}
        self._by_prefix: dict[int, str] | None = None
        self._searches = 0
        self._few: bool | None = None
        self._open: dict[str, int] = {}

    def has_whole(self, digest: bytes) -> bool:
        """Whether a pack has an object that is not known to be damaged.

        Where the summary does not know of it, it is not looked for any further.

        Raises:
            OSError: a pack can't be read.
        """
        if not self._untold and self._summary is None:
            return False  # as while a store's first snapshot is saved
        for name in self._holders(digest):
            if self.find_in(name, digest) is not None and name not in self.damaged:
                return True
        return False

    def _holders(self, digest: bytes) -> Iterator[str]:
        """Packs that may have an object, as far as that is known without asking each."""
        prefix = prefix_of(digest)
        if self._by_prefix is None and len(self._untold) > FEW_PACKS:
            self._searches += 1
            if self._searches > DICT_AFTER and self._has_few():
                packs = self._untold.items()
                self._by_prefix = {begin: name for name, each in packs for begin in each.prefixes}
        if self._by_prefix is None or prefix in self._by_prefix:
            for name, each in self._untold.items():
                if each.has_prefix(prefix):
                    yield name
        if self._summary is not None:
            try:
                told = [*self._summary.packs_with(digest, self._note.read_at)]
            except TornSummaryError:
                self._tell_nothing()
                yield from self._holders(digest)
            else:
                yield from (name for name in told if name in self._told)

    def _has_few(self) -> bool:
        """Whether the beginnings of all digests fit into one dictionary."""
        if self._few is None:
            self._few = sum(map(len, self._untold.values())) <= DICT_OBJECTS
        return self._few

    def learn(self, name: str) -> None:
        """Take a pack into account that was published since.

        Raises:
            OSError, DamagedPackError: it can't be read.
        """
        damaged = self._open.pop(name, None)
        if damaged is not None:  # the same objects, in whose place it stands now
            os.close(damaged)
            self.damaged.discard(name)
        self.lists[name] = read_list(self._opened(name))
        self._take(self._told, {*self._untold, name})
        self.tell()

    def find_in(self, name: str, digest: bytes) -> Packed | None:
        """Look for an object in a certain pack.

        Raises:
            OSError: the pack can't be read.
        """
        listed = self._list_of(name)
        if listed is None or not listed.has_prefix(prefix_of(digest)):
            return None
        return listed.find(self._opened(name), digest)

    def _list_of(self, name: str) -> SortedList | None:
        """The list of a pack; None if it can't be read now."""
        found = self.lists.get(name, self._known.known.get(name))
        if found is None:
            with suppress(OSError):
                file = self._opened(name)
                try:
                    found = read_list(file)
                except DamagedPackError:
                    self.damaged.add(name)
                    found = salvage(file)
        if found is not None:
            self.lists[name] = found
        return found

    def all_in(self, name: str) -> Iterator[Packed]:
        """All objects of a pack, by their digests.

        Raises:
            OSError: the pack can't be read.
        """
        if len(self.lists[name]):
            yield from self.lists[name].each(self._opened(name))

    def pieces(self, digest: bytes) -> Iterator[bytes]:
        """Read an object, piece by piece.

        Where several packs have it, one with damage in it does no harm as long as another is whole
        and the damage shows in the first piece; a longer object ends with the error.

        Raises:
            MissingObjectError: no pack has it.
            DamagedPackError: its bytes are not what was written.
            OSError: they can't be read.
        """
        damage: DamagedPackError | None = None
        for place in self._places(digest):
            given = False
            try:
                for piece in pieces_of(self._opened(place.pack), place.packed):
                    given = True
                    yield piece
            except DamagedPackError as error:
                if given:
                    raise
                damage = error
            else:
                return
        raise damage or MissingObjectError(digest.hex())

    def _places(self, digest: bytes) -> Iterator[Found]:
        """Where an object is; which looks no further than it is asked."""
        asked: set[str] = set()
        for name in self._holders(digest):
            asked.add(name)
            packed = self.find_in(name, digest)
            if packed is not None:
                yield Found(name, packed)
        for name in sorted(self._told - asked):
            packed = self.find_in(name, digest)
            if packed is not None:
                yield Found(name, packed)

    def whole(self, digest: bytes) -> bytes:
        """Read an object that fits into memory, such as a directory.

        Raises:
            MissingObjectError, DamagedPackError, OSError: as ``pieces``.
        """
        pieces = self.pieces(digest)
        first, more = next(pieces, b""), io.BytesIO()
        for piece in pieces:
            more.write(piece if more.tell() else first + piece)
        return more.getvalue() or first

    def from_pack(self, place: Found) -> Iterator[bytes]:
        """Read an object from a certain pack, piece by piece."""
        return pieces_of(self._opened(place.pack), place.packed)

    def _opened(self, pack: str) -> int:
        held = self._open.pop(pack, None)
        if held is None:
            if len(self._open) >= OPEN_PACKS:
                os.close(self._open.pop(next(iter(self._open))))
            with self.as_program():
                held = os.open(pack, _READ, dir_fd=self._packs)
        self._open[pack] = held  # as the one that was used last
        return held

    # --- the summary ------------------------------------------------------------------------------

    def tell(self) -> None:
        """Write the summary anew where it says too little; the caller shares the lock, to save.

        Nothing is raised: it can be done without.
        """
        packs = {
            name: each
            for name, each in self._untold.items()
            if name not in self.damaged and _NAME.fullmatch(name)
        }
        if len(packs) <= UNTOLD_PACKS:
            return
        try:
            with NoteWriter(self._known.place, SUMMARY) as note:
                write_summary(note.write, self._summary, self._note.read_at, packs)
                note.publish()
        except TornSummaryError:
            self._tell_nothing()
        else:
            self._read_summary(self._told | self._untold.keys())

    def _read_summary(self, names: frozenset[str]) -> None:
        """See which of the packs that are there the summary speaks of, and read the lists of others."""
        known = self._known
        self._note.__exit__(None, None, None)
        self._note = NoteReader(known.place, SUMMARY).__enter__()
        summary = Summary.read(self._note.size, self._note.read_at, known.summary)
        sizes = {} if summary is None else summary.sizes
        told = names & sizes.keys()
        if len(told) < len(sizes) // 2:  # most were removed since
            summary, told = None, frozenset()
        measured = told & known.measured
        told = measured.union(n for n in told - measured if self._size_of(n) == sizes[n])
        known.summary, known.measured = summary, told
        self._summary = summary
        self._take(told, names - told)

    def _size_of(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self._packs, follow_symlinks=False).st_size
        except OSError:
            return -1

    def _tell_nothing(self) -> None:
        """Do without the summary, since it is torn; the next pack of a save has it written anew."""
        self._summary = None
        self._take(frozenset(), self._told | self._untold.keys())

    def _take(self, told: frozenset[str], untold: Set[str]) -> None:
        self._told = told
        lists = ((name, self._list_of(name)) for name in sorted(untold))
        self._untold = {name: each for name, each in lists if each is not None}
        self._by_prefix, self._searches, self._few = None, 0, None

    def __enter__(self) -> Self:
        """Look at what there is.

        Raises:
            OSError: the directory can't be read.
        """
        names = frozenset(name for name in os.listdir(self._packs) if name.endswith(SUFFIX))
        if self._whole:
            self._take(frozenset(), names)
        else:
            self._read_summary(names)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the packs that are open."""
        whole = self.lists.items()
        self._known.known = {name: each for name, each in whole if name not in self.damaged}
        self._note.__exit__(None, None, None)
        while self._open:
            os.close(self._open.popitem()[1])
