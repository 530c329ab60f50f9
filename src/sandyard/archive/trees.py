"""Saved trees: what one directory holds, as a value and as bytes that are the same for the same files.

Contents are named by the SHA-256 of their bytes, and so is each directory. Who saves files and who
keeps bytes both know this file, and not each other.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sandyard.archive.model import ArchiveError, Extent, Kind
from sandyard.limits import ARCHIVE_EXTENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = [
    "DIGEST_BYTES",
    "Intake",
    "Node",
    "decode_entry",
    "decode_nodes",
    "each_entry",
    "encode_file",
    "encode_node",
    "encode_nodes",
    "entries_in",
    "join_entries",
    "kind_of",
]

DIGEST_BYTES: Final = 32
_MAGIC: Final = b"SYTREE1\n"
_CORRUPT: Final = "corrupt directory of a snapshot"
_KINDS: Final = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARD_LINK)
_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}
_FILE: Final = _NUMBERS[Kind.FILE]
_HEAD: Final = struct.Struct("<BBHHIqQ")
"""Kind, flags, mode, length of the name and of the link, time, size."""

_SIZES: Final = struct.Struct("<xB2xHI16x")
"""Of these, flags and both lengths."""

_EXTENT: Final = struct.Struct("<QQ")
_COUNT: Final = struct.Struct("<I")
_ATTRIBUTE: Final = struct.Struct("<HI")
_HAS_DIGEST: Final = 1
_HAS_EXTENTS: Final = 2
_HAS_ATTRIBUTES: Final = 4
_HAS_OWNER: Final = 8
_OWNER: Final = struct.Struct("<H")
_HAS_FAR_TIME: Final = 16
_FAR: Final = struct.Struct("<i")
"""What a time before 1677 or after 2262 has beyond 64 bits, as a command may set it."""

_TIME_BITS: Final = 63


class Node(NamedTuple):
    """One entry of a directory.

    Attributes:
        name: its name there.
        kind: what it is.
        mode: permissions.
        mtime: modification time in ns since 1970.
        size: bytes of a file, holes included.
        digest: of a file's data without its holes, or of a directory's own bytes; empty for others.
        link: where a symlink points; of a further name, the path of the first from the top.
        attributes: extended attributes by name, sorted; None for none.
        sparse: where a file's data stands; None if it has no holes.
        owner: whose it is: names of a user and a group, with a colon between; of the workspace's own
            user, the name is empty. Nothing where both are.
    """

    name: bytes
    kind: Kind
    mode: int
    mtime: int
    size: int = 0
    digest: bytes = b""
    link: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] | None = None
    sparse: tuple[Extent, ...] | None = None
    owner: bytes = b""


class Intake(Protocol):
    """Takes the bytes of a tree that is being saved, and names them.

    Attributes:
        as_program: acts as this program; whoever calls as somebody else sets it. It is entered only
            where something is opened: a switch for each file would cost more than the file does.
    """

    as_program: Callable[[], AbstractContextManager[None]]

    def put(self, data: bytes | bytearray) -> bytes:
        """Keep some bytes; return their digest."""

    def put_run(self, run: memoryview, objects: list[tuple[bytes, int]]) -> None:
        """Keep what lies one after the other in some memory, which is the caller's again afterwards.

        Args:
            run: the memory.
            objects: digests and sizes.
        """

    def put_pieces(self, pieces: Iterable[bytes]) -> bytes:
        """Keep bytes that come in pieces; return the digest of them together."""

    def directory(self, digest: bytes) -> bytes | None:
        """Read back a directory that was kept before; None if it is lost."""

    def entries_of(self, digest: bytes) -> dict[bytes, bytes] | None:
        """Do the same, as ``entries_in`` gives it."""


def encode_node(node: Node) -> bytes:
    """Write an entry of a directory."""
    flags = _HAS_DIGEST if node.digest else 0
    flags |= 0 if node.sparse is None else _HAS_EXTENTS
    flags |= 0 if node.attributes is None else _HAS_ATTRIBUTES
    flags |= _HAS_OWNER if node.owner else 0
    mtime, beyond = node.mtime, 0
    if mtime.bit_length() > _TIME_BITS:
        mtime, beyond = _split(mtime)
        flags |= _HAS_FAR_TIME
    numbers = (len(node.name), len(node.link), mtime, node.size)
    head = _HEAD.pack(_NUMBERS[node.kind], flags, node.mode, *numbers)
    entry = head + node.name + node.link + node.digest
    if flags <= _HAS_DIGEST:  # few have more
        return entry
    parts = [entry]
    if node.sparse is not None:
        parts.append(_COUNT.pack(len(node.sparse)))
        parts += (_EXTENT.pack(*extent) for extent in node.sparse)
    if node.attributes is not None:
        parts.append(_COUNT.pack(len(node.attributes)))
        for name, value in node.attributes:
            parts += (_ATTRIBUTE.pack(len(name), len(value)), name, value)
    if node.owner:
        parts += (_OWNER.pack(len(node.owner)), node.owner)
    if flags & _HAS_FAR_TIME:
        parts.append(_FAR.pack(beyond))
    return b"".join(parts)


def encode_file(name: bytes, mode: int, mtime: int, size: int, digest: bytes) -> bytes:
    """Write an entry of a file of which nothing else is told, as ``encode_node`` does."""
    flags = _HAS_DIGEST if digest else 0
    try:
        return _HEAD.pack(_FILE, flags, mode, len(name), 0, mtime, size) + name + digest
    except struct.error:  # a time that is far away
        return encode_node(Node(name, Kind.FILE, mode, mtime, size, digest))


def _split(time: int) -> tuple[int, int]:
    """The lower 64 bits of a time, as a signed number, and what is beyond."""
    lower = ((time + (1 << _TIME_BITS)) & ((2 << _TIME_BITS) - 1)) - (1 << _TIME_BITS)
    return lower, (time - lower) >> (_TIME_BITS + 1)


def encode_nodes(nodes: Iterable[Node]) -> bytes:
    """Write a directory, its entries sorted by name."""
    return join_entries(map(encode_node, nodes))


def join_entries(entries: Iterable[bytes]) -> bytes:
    """Write a directory of entries that are written already, sorted by name."""
    return b"".join((_MAGIC, *entries))


def entries_in(raw: bytes | bytearray) -> dict[bytes, bytes]:
    """The entries of a directory by their names, as they are written: far cheaper than nodes.

    Raises:
        ArchiveError: the bytes are none.
    """
    whole, found = bytes(raw), dict[bytes, bytes]()
    if not whole.startswith(_MAGIC):
        raise ArchiveError(_CORRUPT)
    at, end, sizes_at = len(_MAGIC), len(whole), _SIZES.unpack_from
    try:
        while at < end:  # as below; it is done for each directory in which something was changed
            flags, name_size, link_size = sizes_at(whole, at)
            if flags > _HAS_DIGEST:
                return dict(each_entry(whole))
            name_end = at + _HEAD.size + name_size
            stop = name_end + link_size + (DIGEST_BYTES if flags else 0)
            found[whole[name_end - name_size : name_end]] = whole[at:stop]
            at = stop
    except struct.error as error:
        raise ArchiveError(_CORRUPT) from error
    if at > end:
        raise ArchiveError(_CORRUPT)
    return found


def each_entry(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names in a directory, and what is written of each, one by one.

    Raises:
        ArchiveError: the bytes are none.
    """
    if not raw.startswith(_MAGIC):
        raise ArchiveError(_CORRUPT)
    at, end = len(_MAGIC), len(raw)
    try:
        while at < end:
            _, flags, _, name_size, link_size, _, size = _HEAD.unpack_from(raw, at)
            name_at = at + _HEAD.size
            name_end = name_at + name_size
            stop = name_end + link_size + (DIGEST_BYTES if flags & _HAS_DIGEST else 0)
            if flags > _HAS_DIGEST:
                rest = _Bytes(raw, stop)
                _rest_of(rest, flags, size)
                stop = rest.at
            if stop > end:
                raise ArchiveError(_CORRUPT)
            yield raw[name_at:name_end], raw[at:stop]
            at = stop
    except (struct.error, IndexError) as error:
        raise ArchiveError(_CORRUPT) from error


def decode_entry(entry: bytes) -> Node:
    """Read an entry of a directory back.

    Raises:
        ArchiveError: the bytes are none, or more than one.
    """
    (node,) = decode_nodes(_MAGIC + entry)
    return node


def kind_of(entry: bytes) -> Kind:
    """What an entry of a directory is."""
    return _KINDS[entry[0]]


def decode_nodes(raw: bytes) -> list[Node]:
    """Read a directory back.

    Raises:
        ArchiveError: the bytes are none.
    """
    if not raw.startswith(_MAGIC):
        raise ArchiveError(_CORRUPT)
    try:
        return list(_nodes(raw, len(_MAGIC)))
    except (struct.error, IndexError) as error:
        raise ArchiveError(_CORRUPT) from error


class _Bytes:
    """Bytes that are read from the front."""

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw = raw
        self.at = at

    def take(self, size: int) -> bytes:
        piece = self.raw[self.at : self.at + size]
        if len(piece) != size:
            raise ArchiveError(_CORRUPT)
        self.at += size
        return piece

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.take(form.size))


def _nodes(raw: bytes, at: int) -> Iterator[Node]:
    end = len(raw)
    before = b""
    while at < end:
        kind, flags, mode, name_size, link_size, mtime, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        name_end = at + name_size
        link_end = name_end + link_size
        digest_end = link_end + (DIGEST_BYTES if flags & _HAS_DIGEST else 0)
        if digest_end > end:
            raise ArchiveError(_CORRUPT)
        name, link, digest = raw[at:name_end], raw[name_end:link_end], raw[link_end:digest_end]
        if (name <= before and before) or b"/" in name or name in {b"", b".."}:
            raise ArchiveError(_CORRUPT)
        before, at = name, digest_end
        node = Node(name, _KINDS[kind], mode, mtime, size, digest, link)
        if flags > _HAS_DIGEST:  # few have more
            rest = _Bytes(raw, at)
            sparse, attributes, owner, beyond = _rest_of(rest, flags, size)
            node = node._replace(sparse=sparse, attributes=attributes, owner=owner)
            if beyond:
                node = node._replace(mtime=mtime + (beyond << (_TIME_BITS + 1)))
            at = rest.at
        yield node


def _rest_of(
    raw: _Bytes, flags: int, size: int
) -> tuple[tuple[Extent, ...] | None, tuple[tuple[bytes, bytes], ...] | None, bytes, int]:
    """What few entries have: extents, attributes, an owner, a time far away."""
    return (
        _extents(raw, size) if flags & _HAS_EXTENTS else None,
        _attributes(raw) if flags & _HAS_ATTRIBUTES else None,
        raw.take(*raw.numbers(_OWNER)) if flags & _HAS_OWNER else b"",
        raw.numbers(_FAR)[0] if flags & _HAS_FAR_TIME else 0,
    )


def _extents(raw: _Bytes, size: int) -> tuple[Extent, ...]:
    (count,) = raw.numbers(_COUNT)
    if count > ARCHIVE_EXTENTS:
        raise ArchiveError(_CORRUPT)
    extents: list[Extent] = []
    end = 0
    for _ in range(count):
        offset, length = raw.numbers(_EXTENT)
        if offset < end or offset + length > size:
            raise ArchiveError(_CORRUPT)
        extents.append((offset, length))
        end = offset + length
    return tuple(extents)


def _attributes(raw: _Bytes) -> tuple[tuple[bytes, bytes], ...]:
    (count,) = raw.numbers(_COUNT)
    found: list[tuple[bytes, bytes]] = []
    for _ in range(count):
        name_size, value_size = raw.numbers(_ATTRIBUTE)
        found.append((raw.take(name_size), raw.take(value_size)))
    return tuple(found)
