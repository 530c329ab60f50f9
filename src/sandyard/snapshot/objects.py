"""Objects: all packs of a store, searched and read as one."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

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
from sandyard.snapshot.sizes import DICT_AFTER, DICT_OBJECTS, FEW_PACKS, OPEN_PACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["Found", "Lists", "MissingObjectError", "Objects"]

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


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
    """The lists of packs that were read already; a pack never changes, so they stay true.

    Several threads may use one: an entry is only ever added or dropped whole.
    """

    def __init__(self) -> None:
        self._known: dict[str, SortedList] = {}
        self.damaged: frozenset[str] = frozenset()

    def read(self, packs: int) -> dict[str, SortedList]:
        """Read the lists of the packs in a directory that are not known yet.

        Args:
            packs: the directory's descriptor.
        """
        found: dict[str, SortedList] = {}
        damaged: set[str] = set()
        for name in sorted(os.listdir(packs)):
            if not name.endswith(SUFFIX):
                continue
            known = self._known.get(name)
            if known is None:
                with suppress(OSError):
                    file = os.open(name, _READ, dir_fd=packs)
                    try:
                        known = read_list(file)
                    except DamagedPackError:
                        damaged.add(name)
                        found[name] = salvage(file)
                    finally:
                        os.close(file)
            if known is not None:
                found[name] = known
        self._known = {name: each for name, each in found.items() if name not in damaged}
        self.damaged = frozenset(damaged)
        return found


class Objects:
    """All objects of a store, as they are while its lock is shared. It is a context manager.

    Args:
        packs: descriptor of the directory of packs; it stays the caller's.
        lists: what is known of them.

    Attributes:
        as_program: acts as this program, whose the packs are, where the caller acts as another.
    """

    def __init__(self, packs: int, lists: Lists) -> None:
        self.as_program: Callable[[], AbstractContextManager[None]] = nullcontext
        self._packs = packs
        self.lists = lists.read(packs)
        self.damaged = lists.damaged
        self._by_prefix: dict[int, str] | None = None
        self._searches = 0
        self._few: bool | None = None
        self._open: dict[str, int] = {}

    def has_whole(self, digest: bytes) -> bool:
        """Whether a pack has an object that is not known to be damaged.

        Raises:
            OSError: a pack can't be read.
        """
        if not self.lists:
            return False
        prefix = prefix_of(digest)
        if self._by_prefix is None and len(self.lists) > FEW_PACKS:
            self._searches += 1
            if self._searches > DICT_AFTER and self._has_few():
                packs = (
                    (name, each) for name, each in self.lists.items() if name not in self.damaged
                )
                self._by_prefix = {begin: name for name, each in packs for begin in each.prefixes}
        if self._by_prefix is not None and prefix not in self._by_prefix:
            return False
        for name, each in self.lists.items():
            wanted = each.has_prefix(prefix) and name not in self.damaged
            if wanted and self.find_in(name, digest) is not None:
                return True
        return False

    def _has_few(self) -> bool:
        """Whether the beginnings of all digests fit into one dictionary."""
        if self._few is None:
            self._few = sum(map(len, self.lists.values())) <= DICT_OBJECTS
        return self._few

    def learn(self, name: str) -> None:
        """Take a pack into account that was published since.

        Raises:
            OSError, DamagedPackError: it can't be read.
        """
        self.lists = self.lists | {name: read_list(self._opened(name))}
        self._by_prefix, self._searches, self._few = None, 0, None

    def find_in(self, name: str, digest: bytes) -> Packed | None:
        """Look for an object in a certain pack.

        Raises:
            OSError: the pack can't be read.
        """
        listed = self.lists[name]
        return (
            listed.find(self._opened(name), digest)
            if listed.has_prefix(prefix_of(digest))
            else None
        )

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
        places = [Found(name, packed) for name, packed in self._places(digest)]
        if not places:
            raise MissingObjectError(digest.hex())
        for number, place in enumerate(places, 1):
            given = False
            try:
                for piece in pieces_of(self._opened(place.pack), place.packed):
                    given = True
                    yield piece
            except DamagedPackError:
                if given or number == len(places):
                    raise
            else:
                return

    def _places(self, digest: bytes) -> Iterable[tuple[str, Packed]]:
        prefix = prefix_of(digest)
        for name, each in self.lists.items():
            packed = each.find(self._opened(name), digest) if each.has_prefix(prefix) else None
            if packed is not None:
                yield name, packed

    def whole(self, digest: bytes) -> bytes:
        """Read an object that fits into memory, such as a directory.

        Raises:
            MissingObjectError, DamagedPackError, OSError: as ``pieces``.
        """
        return b"".join(self.pieces(digest))

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

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the packs that are open."""
        while self._open:
            os.close(self._open.popitem()[1])
