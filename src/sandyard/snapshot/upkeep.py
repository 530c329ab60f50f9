"""Upkeep: what nobody needs any more is removed, and what is there is checked.

Marking and writing go on beside saves and restores. Only the removal of files holds the store alone,
after a second look at what was saved meanwhile.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandyard.archive.model import ArchiveError, Kind
from sandyard.archive.trees import decode_nodes
from sandyard.errors import ArgumentError
from sandyard.snapshot.objects import Found, Lists, MissingObjectError, Objects
from sandyard.snapshot.packs import DamagedPackError, PackWriter
from sandyard.snapshot.records import History
from sandyard.snapshot.sizes import DEAD_SHARE, PACK_OBJECTS, SMALL_PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandyard.snapshot.place import Place
    from sandyard.snapshot.records import Snapshot

__all__ = [
    "Damage",
    "Reclaimed",
    "StoreHealth",
    "check_rules",
    "expired",
    "reclaim",
    "verify_store",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """What ``prune`` or ``compact`` did.

    Attributes:
        removed: ids of the snapshots that were removed; with ``dry_run`` of those that would be.
        packs: packs that were removed.
        size: bytes on disk that became free; less than 0 if the store grew for now.
        deferred: True if somebody saved or restored all the while, so that nothing was freed; the next
            call does it.
    """

    removed: tuple[str, ...] = ()
    packs: int = 0
    size: int = 0
    deferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something in a store that is not what was written.

    Attributes:
        path: which file of the store, or which path of a snapshot.
        snapshot: id of the snapshot that can't be restored because of it; None if it harms none.
        reason: what is wrong.
    """

    path: str
    reason: str
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """What ``verify`` found.

    Attributes:
        snapshots: how many can be restored as they were saved.
        objects: how many contents and directories were read and compared.
        size: bytes of them.
        damage: everything that is not what was written.
    """

    snapshots: int
    objects: int
    size: int
    damage: tuple[Damage, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage


# --- verifying ------------------------------------------------------------------------------------


class _Checker:
    """Reads every object that snapshots need once, and remembers what is wrong with it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._said: dict[bytes, str] = {}
        self.size = 0
        self.broken: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """Objects that were read."""
        return len(self._said)

    def check(self, snapshot: Snapshot) -> None:
        """Read all of a snapshot; what is wrong is in ``broken``."""
        self.broken = []
        todo = [("", bytes.fromhex(snapshot.tree))]
        while todo:
            path, digest = todo.pop()
            raw = self._read(path, digest)
            if raw is None:
                continue
            try:
                nodes = decode_nodes(raw)
            except ArchiveError as error:
                self.broken.append((path, error.reason))
                continue
            for node in nodes:
                name = os.fsdecode(node.name)
                here = name if path in {"", "."} else f"{path}/{name}"
                if node.kind is Kind.DIRECTORY:
                    todo.append((here, node.digest))
                elif node.digest:
                    self._compare(here, node.digest)

    def _read(self, path: str, digest: bytes) -> bytes | None:
        try:
            raw = self._objects.whole(digest)
        except (DamagedPackError, MissingObjectError, OSError) as error:
            self._said[digest] = str(error)
            self.broken.append((path, _reason(error)))
            return None
        if digest not in self._said:
            self._said[digest] = ""
            self.size += len(raw)
        return raw

    def _compare(self, path: str, digest: bytes) -> None:
        said = self._said.get(digest)
        if said is None:
            said = ""
            try:
                for piece in self._objects.pieces(digest):
                    self.size += len(piece)
            except (DamagedPackError, MissingObjectError, OSError) as error:
                said = _reason(error)
            self._said[digest] = said
        if said:
            self.broken.append((path, said))


def _reason(error: Exception) -> str:
    if isinstance(error, MissingObjectError):
        return f"it is lost ({error})"
    return str(error)


def verify_store(place: Place, lists: Lists) -> StoreHealth:
    """Read all that snapshots need, and compare it with its digests.

    Raises:
        OSError: the store can't be read.
    """
    damage: list[Damage] = []
    good = 0
    with ExitStack() as stack:
        stack.enter_context(place.shared())
        packs = stack.enter_context(place.opened("packs"))
        objects = stack.enter_context(Objects(packs, lists, whole=True))
        history, checker = History(place), _Checker(objects)
        for snapshot in history.all():
            checker.check(snapshot)
            good += not checker.broken
            damage += (
                Damage(path=path or ".", reason=reason, snapshot=snapshot.id)
                for path, reason in checker.broken
            )
        damage += (Damage(path=path, reason="the record is damaged") for path in history.broken)
        damage += (
            Damage(path=f"packs/{name}", reason="its end is damaged; what it holds is still found")
            for name in sorted(objects.damaged)
        )
        return StoreHealth(
            snapshots=good, objects=checker.count, size=checker.size, damage=tuple(damage)
        )


# --- reclaiming -----------------------------------------------------------------------------------


class _Marks:
    """What snapshots need; grown as more of them are looked at."""

    def __init__(self) -> None:
        self.live: set[bytes] = set()
        self._trees: set[str] = set()

    def add(self, objects: Objects, snapshots: Iterable[Snapshot]) -> None:
        """Mark what some snapshots need.

        Raises:
            OSError: EIO if a directory of one is damaged: what lies beneath can't be told, so that
                nothing may be removed.
        """
        for snapshot in snapshots:
            if snapshot.tree in self._trees:
                continue
            self._trees.add(snapshot.tree)
            todo = [bytes.fromhex(snapshot.tree)]
            while todo:
                digest = todo.pop()
                if digest in self.live:
                    continue
                self.live.add(digest)
                for node in _entries(objects, digest):
                    if node.kind is Kind.DIRECTORY:
                        todo.append(node.digest)
                    elif node.digest:
                        self.live.add(node.digest)


def _entries(objects: Objects, digest: bytes) -> Iterable[_Node]:
    try:
        return decode_nodes(objects.whole(digest))
    except (DamagedPackError, MissingObjectError, ArchiveError) as error:
        raise OSError(
            errno.EIO, f"a directory of a snapshot is damaged ({error}), so nothing is removed"
        ) from error


if TYPE_CHECKING:
    from sandyard.archive.trees import Node as _Node


def reclaim(place: Place, lists: Lists, *, compress: bool, wait: float) -> Reclaimed:
    """Remove what no snapshot needs; with ``compress``, write all else anew, smaller.

    Args:
        place: the store.
        lists: what is known of its packs.
        compress: True compresses, and joins small packs.
        wait: seconds to wait for whoever saves or restores.

    Raises:
        OSError: something can't be read or written; then nothing was removed.
    """
    with place.upkeep(), place.opened("packs") as packs:
        with place.shared():
            before = _size_of(packs)
            plan = _Plan(place, packs, lists)
            plan.write(compress=compress)
        try:
            with place.alone(wait):
                count = plan.remove()
                place.remove_temporary()
                _drop_empty(place)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return Reclaimed(deferred=True, size=before - _size_of(packs))
        return Reclaimed(packs=count, size=before - _size_of(packs))


class _Plan:
    """One reclaiming: which packs go, and what of them is written anew before."""

    def __init__(self, place: Place, packs: int, lists: Lists) -> None:
        self._place = place
        self._packs = packs
        self._lists = lists
        self._marks = _Marks()
        self._moved: set[bytes] = set()
        self._goers: list[str] = []

    def write(self, *, compress: bool) -> None:
        """Choose packs, and write anew what of them is needed."""
        with Objects(self._packs, self._lists, whole=True) as objects:
            self._marks.add(objects, _all_of(self._place))
            self._goers = _choose(objects, self._marks.live, compress=compress)
            # Each is read on the way, so nothing is given up for a copy that turns out to be damaged.
            movers = [
                Found(name, packed)
                for name in self._goers
                for packed in sorted(objects.all_in(name), key=lambda packed: packed.at)
                if packed.digest in self._marks.live
            ]
            self._copy(objects, movers, compress=compress)

    def _copy(self, objects: Objects, movers: list[Found], *, compress: bool) -> None:
        left = movers[::-1]
        while left:
            moved: set[bytes] = set()
            with PackWriter(self._place, self._packs, compressed=compress) as writer:
                while left and not writer.full:
                    found = left.pop()
                    digest = found.packed.digest
                    if digest in self._moved or digest in moved:
                        continue
                    if self._stays(objects, digest):
                        moved.add(digest)
                        continue
                    try:
                        writer.copy(found.packed, objects.from_pack(found))
                    except DamagedPackError:
                        continue  # its pack stays, since not all of it was moved
                    moved.add(digest)
                name = writer.publish()
            if name in self._goers:  # the same objects: it has taken the place of a damaged one
                self._goers.remove(name)
            self._moved |= moved
        if self._moved:
            self._place.disk.sync(self._packs)

    def _stays(self, objects: Objects, digest: bytes) -> bool:
        """Whether a pack that does not go has an object, too, and has it whole."""
        for name in objects.lists:
            packed = None if name in self._goers else objects.find_in(name, digest)
            if packed is None:
                continue
            with suppress(DamagedPackError, OSError):
                for _ in objects.from_pack(Found(name, packed)):
                    pass
                return True
        return False

    def remove(self) -> int:
        """Remove the packs that go; whoever calls this holds the store alone.

        Returns:
            How many went.
        """
        count = 0
        with Objects(self._packs, self._lists, whole=True) as objects:
            # What was saved since may need what nobody needed before.
            self._marks.add(objects, _all_of(self._place))
            for name in self._goers:
                if name not in objects.lists:
                    continue
                if all(
                    each.digest in self._moved or each.digest not in self._marks.live
                    for each in objects.all_in(name)
                ):
                    self._place.disk.remove(self._packs, name)
                    count += 1
        self._place.disk.sync(self._packs)
        return count


def _all_of(place: Place) -> list[Snapshot]:
    """Every snapshot of a store.

    Raises:
        OSError: EIO if a record is damaged: what it needs can't be told.
    """
    history = History(place)
    found = list(history.all())
    if history.broken:
        raise OSError(
            errno.EIO,
            f"the record {history.broken[0]} is damaged, so what it needs can't be told and nothing is "
            "removed; remove that file if its snapshot may be lost",
        )
    return found


def _choose(objects: Objects, live: set[bytes], *, compress: bool) -> list[str]:
    """The packs that are to go.

    What several have counts for the first of them only, so that the others are found to be empty.
    """
    held: set[bytes] = set()
    goers: list[str] = []
    small: list[str] = []
    for name in sorted(objects.lists, key=lambda name: (name in objects.damaged, name)):
        total = needed = 0
        untried = False
        for each in objects.all_in(name):
            total += each.stored
            untried |= each.untried
            if each.digest in live and each.digest not in held:
                needed += each.stored
                held.add(each.digest)
        dead = not needed or total - needed > DEAD_SHARE * total
        if name in objects.damaged or dead or (compress and untried):
            goers.append(name)
        elif total < SMALL_PACK_BYTES and len(objects.lists[name]) < PACK_OBJECTS // 2:
            small.append(name)
    return goers + small if compress and len(small) > 1 else goers


def _size_of(packs: int) -> int:
    total = 0
    for name in os.listdir(packs):
        with suppress(FileNotFoundError):
            total += os.stat(name, dir_fd=packs, follow_symlinks=False).st_size
    return total


def _drop_empty(place: Place) -> None:
    """Remove histories that have no snapshot."""
    with place.opened("history") as top:
        for name in os.listdir(top):
            with suppress(OSError):
                os.rmdir(name, dir_fd=top)


# --- retention ------------------------------------------------------------------------------------


def check_rules(**rules: float | None) -> None:
    """Refuse what is no bound.

    Raises:
        ArgumentError: a number is negative.
    """
    for argument, value in rules.items():
        given: object = value
        if given is not None and not (isinstance(given, int | float) and given >= 0):
            raise ArgumentError(
                f"{argument} is a number, 0 or more", op="delete", argument=argument, value=given
            )


def expired(
    known: list[Snapshot],
    now: float,
    max_age: float | None,
    max_count: int | None,
    max_bytes: int | None,
) -> list[Snapshot]:
    """Of one history, oldest first, what goes by the rules of ``SnapshotStore.prune``."""
    goers: list[Snapshot] = []
    size = 0
    for place, each in enumerate(reversed(known)):
        size += each.size
        old = max_age is not None and now - each.created > max_age
        many = max_count is not None and place >= max_count
        large = max_bytes is not None and size > max_bytes
        if place and not each.kept and (old or many or large):
            goers.append(each)
    return goers
