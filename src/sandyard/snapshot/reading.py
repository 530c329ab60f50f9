"""TreeReader: gives what was saved back, as the members of an archive, and never wrong bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.archive.trees import decode_nodes
from sandyard.errors import SnapshotDamagedError, SnapshotRestoreError, shown
from sandyard.snapshot.objects import Lists, MissingObjectError, Objects
from sandyard.snapshot.packs import DamagedPackError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sandyard.archive.model import Extent, Piece
    from sandyard.archive.trees import Node
    from sandyard.snapshot.place import Place

__all__ = ["TreeReader"]


class TreeReader:
    """Reads trees from a store. It is a context manager, and shares the store's lock within.

    Args:
        place: the store.
        lists: what is known of its packs.
        id: which snapshot is read, for errors.
    """

    def __init__(self, place: Place, lists: Lists, id: str) -> None:  # noqa: A002  # its name
        self._place = place
        self._id = id
        self._lists = lists
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Share the lock.

        Raises:
            OSError: the store can't be used.
        """
        with self._stack:
            self._stack.enter_context(self._place.shared())
            packs = self._stack.enter_context(self._place.opened("packs"))
            self.objects = self._stack.enter_context(Objects(packs, self._lists))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the lock."""
        self._stack.close()

    @property
    def as_program(self) -> Callable[[], AbstractContextManager[None]]:
        """Acts as this program, whose the store is; whoever reads as somebody else sets it."""
        return self.objects.as_program

    @as_program.setter
    def as_program(self, acting: Callable[[], AbstractContextManager[None]]) -> None:
        self.objects.as_program = acting

    def nodes(self, digest: bytes, path: bytes = b"") -> list[Node]:
        """The entries of a directory.

        Raises:
            SnapshotDamagedError: it is not what was saved.
            SnapshotRestoreError: it can't be read.
        """
        with self._errors(path):
            return decode_nodes(self.objects.whole(digest))

    def walk(self, tree: str) -> Iterator[tuple[bytes, Node]]:
        """All of a tree, each directory before what is in it, sorted by name; the top is ``b"."``.

        Raises:
            SnapshotDamagedError: it is not what was saved.
            SnapshotRestoreError: it can't be read.
        """
        (top,) = self.nodes(bytes.fromhex(tree))
        yield b".", top
        way = [iter(self.nodes(top.digest))]
        path: list[bytes] = []
        while way:
            node = next(way[-1], None)
            if node is None:
                way.pop()
                if path:
                    path.pop()
                continue
            here = b"/".join((*path, node.name))
            yield here, node
            if node.kind is Kind.DIRECTORY:
                path.append(node.name)
                way.append(iter(self.nodes(node.digest, here)))

    def members(self, tree: str) -> Iterator[Member]:
        """All of a tree as members of an archive; the content of each is read when it is asked for.

        Raises:
            SnapshotDamagedError: it is not what was saved.
            SnapshotRestoreError: it can't be read.
        """
        for path, node in self.walk(tree):
            yield self._member(path, node)

    def _member(self, path: bytes, node: Node) -> Member:
        name = b"./" if path == b"." else b"./" + path
        member = Member(name, node.kind, size=node.size, mode=node.mode, mtime=node.mtime)
        member.link, member.owner = node.link, node.owner
        member.attributes = None if node.attributes is None else dict(node.attributes)
        member.sparse = None if node.sparse is None else list(node.sparse)
        if node.kind is Kind.DIRECTORY and path != b".":
            member.name += b"/"
        if node.kind is Kind.FILE and node.digest:
            member.pieces = lambda: self._content(path, node)
        return member

    def _content(self, path: bytes, node: Node) -> Iterator[Piece]:
        extents = ((0, node.size),) if node.sparse is None else node.sparse
        places = _places(extents)
        offset, room = next(places, (0, 0))
        with self._errors(path):
            for piece in self.objects.pieces(node.digest):
                left = memoryview(piece)
                while left:
                    while not room:
                        offset, room = _following(places)
                    now = left[:room]
                    yield offset, now
                    offset, room, left = offset + len(now), room - len(now), left[len(now) :]
            if room or next(places, None) is not None:
                raise DamagedPackError("content is missing")

    @contextmanager
    def _errors(self, path: bytes) -> Iterator[None]:
        """Say which snapshot, and what of it, can't be read."""
        try:
            yield
        except (ArchiveError, DamagedPackError, MissingObjectError) as error:
            why = f"it lost {error}" if isinstance(error, MissingObjectError) else str(error)
            name = os.fsdecode(path) or "."
            raise SnapshotDamagedError(
                snapshot_id=self._id,
                path=self._place.directory,
                message=f"snapshot {shown(self._id)} in {shown(self._place.directory)} is damaged at "
                f"{shown(name)}: {why}; verify tells what else is, and older snapshots may be whole",
                context={"member": name, "reason": why},
                cause=error,
            ) from error
        except OSError as error:
            raise SnapshotRestoreError(
                snapshot_id=self._id, path=self._place.directory, cause=error
            ) from error


def _places(extents: tuple[Extent, ...]) -> Iterator[Extent]:
    return (extent for extent in extents if extent[1])


def _following(places: Iterator[Extent]) -> Extent:
    found = next(places, None)
    if found is None:
        raise DamagedPackError("there is too much content")
    return found
