"""Snapshots as plain tar archives, out of a store and into it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final

from sandyard.archive.bounds import UNLIMITED, ArchiveMeter
from sandyard.archive.intake import ByteReader, expanded
from sandyard.archive.model import ArchiveError, Kind
from sandyard.archive.naming import NameRules, check_target
from sandyard.archive.report import Tally
from sandyard.archive.tar_fields import BLOCK
from sandyard.archive.tar_reading import is_tar, read_tar
from sandyard.archive.tar_writing import END, headers_of, padding
from sandyard.archive.trees import Node, encode_nodes
from sandyard.errors import ArgumentTypeError, SnapshotPersistError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sandyard.archive.model import Member, Read
    from sandyard.archive.naming import Path
    from sandyard.archive.trees import Intake

__all__ = ["reader_of", "tar_pieces", "tree_from_tar"]

_PERMISSIONS: Final = 0o777
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_SMALL: Final = 256 * 1024
"""Bytes up to which a member's content is held in memory."""


def tar_pieces(members: Iterable[Member]) -> Iterator[bytes]:
    """Write members as an uncompressed tar archive, piece by piece.

    Raises:
        ArchiveError: a content is damaged; the archive has no end then.
    """
    for member in members:
        yield headers_of(member)
        stored = 0
        for _, piece in member.pieces():
            stored += len(piece)
            yield bytes(piece)
        yield padding(stored)
    yield END


def tree_from_tar(read: Read, intake: Intake, tally: Tally) -> Node:
    """Take a tar archive, compressed or not, as a tree.

    Args:
        read: gives the archive.
        intake: takes contents and directories.
        tally: counts, and hears of what is not kept.

    Returns:
        The tree's own directory.

    Raises:
        ArchiveError: it is refused.
    """
    meter = ArchiveMeter(UNLIMITED)
    content = expanded(ByteReader(read), meter)
    if not is_tar(content.peek(BLOCK)):
        raise ArchiveError("the content is no archive of a known format")
    growing = _Growing(intake, tally)
    for member in read_tar(content):
        growing.add(member)
    content.drain()
    return growing.finish()


def reader_of(source: object, name: str, directory: str) -> Callable[[int], bytes]:
    """What reads a stream of a caller's, whatever that is.

    Args:
        source: the stream.
        name: of the history that it is for, and ``directory`` of the store, for errors.

    Returns:
        A function that raises ArgumentTypeError for what is not bytes, and SnapshotPersistError where
        the stream can't be read.

    Raises:
        ArgumentTypeError: it is no stream.
    """
    read = getattr(source, "read", None)
    if not callable(read):
        raise _no_stream(source)

    def checked(size: int) -> bytes:
        try:
            piece = read(size)
        except (OSError, ValueError) as error:  # of a file that is closed, a ValueError
            raise SnapshotPersistError(
                snapshot_id=name,
                path=directory,
                message=f"nothing was saved for {shown(name)}, because its source could not be read: "
                f"{error}",
                context={"reason": "source_unreadable"},
                cause=error,
            ) from error
        if not isinstance(piece, bytes | bytearray | memoryview):
            if isinstance(piece, Coroutine):
                piece.close()
            raise _no_stream(piece)
        return bytes(piece)

    return checked


def _no_stream(value: object) -> ArgumentTypeError:
    return ArgumentTypeError(
        "the source is a binary stream, whose read(size) returns bytes, and awaits nothing",
        op="snapshot_persist",
        argument="source",
        value=value,
    )


class _Branch:
    """A directory of a tree that grows."""

    def __init__(self) -> None:
        self.look = Node(b"", Kind.DIRECTORY, _DIRECTORY_MODE, 0)
        self.entries: dict[bytes, Node | _Branch] = {}


class _Growing:
    """Puts members where they belong; only what they are is held, not their content."""

    def __init__(self, intake: Intake, tally: Tally) -> None:
        self._intake = intake
        self._tally = tally
        self._rules = NameRules(UNLIMITED, portable=False)
        self._top = _Branch()
        self._links: dict[Path, Path] = {}

    def add(self, member: Member) -> None:
        """Take one member.

        Raises:
            ArchiveError: it may not be made.
        """
        path = self._rules.path_of(member.name)
        mode = member.mode
        if mode is not None:
            self._tally.note_special(b"/".join(path), mode)
            mode &= _PERMISSIONS
        if member.kind is Kind.DIRECTORY:
            self._add_directory(member, path, mode)
            return
        if not path:
            raise ArchiveError(f"archive root {member.kind.value}", member=member.name)
        branch = self._branch(path[:-1], member)
        if path[-1] in branch.entries:
            name = b"/".join(path).decode("utf-8", "backslashreplace")
            raise ArchiveError(f"duplicate archive path: {name}", member=member.name)
        branch.entries[path[-1]] = self._node(member, path, mode)

    def _add_directory(self, member: Member, path: Path, mode: int | None) -> None:
        branch = self._branch(path, member)
        branch.look = Node(
            b"",
            Kind.DIRECTORY,
            _DIRECTORY_MODE if mode is None else mode,
            member.mtime or 0,
            attributes=self._attributes(member, path),
        )
        if path:
            self._tally.count(Kind.DIRECTORY)

    def _branch(self, path: Path, member: Member) -> _Branch:
        here = self._top
        for name in path:
            deeper = here.entries.setdefault(name, _Branch())
            if not isinstance(deeper, _Branch):
                raise ArchiveError(
                    "archive path descends through non-directory", member=member.name
                )
            here = deeper
        return here

    def _node(self, member: Member, path: Path, mode: int | None) -> Node:
        mode = _FILE_MODE if mode is None else mode
        known = (path[-1], member.kind, mode, member.mtime or 0)
        self._tally.count(member.kind, member.size if member.kind is Kind.FILE else 0)
        if member.kind is Kind.SYMLINK:
            check_target(member.name, member.link, inside=False)
            return Node(*known, link=member.link)
        if member.kind is Kind.HARD_LINK:
            target = self._rules.path_of(member.link)
            if not isinstance(self._find(target), Node):
                raise ArchiveError(
                    "hard link to what is no earlier file of the archive", member=member.name
                )
            self._links[path] = self._links.get(target, target)
            return Node(*known, link=b"/".join(target))
        return Node(
            *known,
            size=member.size,
            digest=self._content(member),
            attributes=self._attributes(member, path),
            sparse=None if member.sparse is None else tuple(member.sparse),
        )

    def _find(self, path: Path) -> Node | _Branch | None:
        here: Node | _Branch | None = self._top
        for name in path:
            if not isinstance(here, _Branch):
                return None
            here = here.entries.get(name)
        return here

    def _content(self, member: Member) -> bytes:
        stored = member.size
        if member.sparse is not None:
            stored = sum(length for _, length in member.sparse)
        if not stored:
            return b""
        pieces = (bytes(piece) for _, piece in member.pieces())
        if stored <= _SMALL:
            return self._intake.put(b"".join(pieces))
        return self._intake.put_pieces(pieces)

    def _attributes(self, member: Member, path: Path) -> tuple[tuple[bytes, bytes], ...] | None:
        kept = []
        for name in sorted(member.attributes or ()):
            if name.startswith(b"user."):
                kept.append((name, (member.attributes or {})[name]))
            else:
                text = name.decode("utf-8", "backslashreplace")
                self._tally.note("dropped", b"/".join(path), f"xattr {text}")
        return tuple(kept) or None

    def finish(self) -> Node:
        """Keep all directories, deepest first."""
        self._lead_links()
        return self._kept(self._top, b".")

    def _lead_links(self) -> None:
        """Let the first of several names, in the order of a walk, be the file, and others its links."""
        groups: dict[Path, list[Path]] = {}
        for path, file in self._links.items():
            groups.setdefault(file, [file]).append(path)
        for file, paths in groups.items():
            first = min(paths)
            known = self._find(file)
            if isinstance(known, _Branch) or known is None:
                continue
            for path in paths:
                node = known._replace(name=path[-1])
                if path != first and known.kind is Kind.FILE:
                    node = Node(path[-1], Kind.HARD_LINK, known.mode, known.mtime)
                    node = node._replace(link=b"/".join(first))
                above = self._find(path[:-1])
                if isinstance(above, _Branch):
                    above.entries[path[-1]] = node

    def _kept(self, top: _Branch, name: bytes) -> Node:
        done: dict[int, Node] = {}
        way: list[tuple[_Branch, bytes]] = [(top, name)]
        order: list[tuple[_Branch, bytes]] = []
        while way:
            branch, own = way.pop()
            order.append((branch, own))
            way += (
                (each, key) for key, each in branch.entries.items() if isinstance(each, _Branch)
            )
        for branch, own in reversed(order):
            nodes = [
                done[id(branch.entries[key])]
                if isinstance(branch.entries[key], _Branch)
                else branch.entries[key]
                for key in sorted(branch.entries)
            ]
            digest = self._intake.put(encode_nodes(_as_nodes(nodes)))
            done[id(branch)] = branch.look._replace(name=own, digest=digest)
        return done[id(top)]


def _as_nodes(nodes: Iterable[Node | _Branch]) -> list[Node]:
    return [node for node in nodes if isinstance(node, Node)]
