"""StatIndex: how every file looked when it was saved, so that what looks the same is not read again.

A file is taken for unchanged if its device, inode, mode, names, size, time of modification and time of
change are. Nobody can set the last of these, but what was written in the moment in which a save began
may be written again with the same: such a one is noted as one that looks like nothing.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.archive.trees import DIGEST_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["Known", "StatIndex", "clock_now", "look_of", "looks_in", "settled_look", "unlike"]

_MAGIC: Final = b"SYINDEX1"
_LOOK: Final = struct.Struct("<QQIIQqqH")
"""Device, inode, mode, number of names, size, times of modification and of change, length of name."""

_CHANGE_AT: Final = 40
_NEVER: Final = struct.pack("<q", -1)
"""A time of change that no file has, since its clock is not set to 1969."""

_HEAD: Final = struct.Struct("<IIB32s")
_SECOND: Final = 10**9
_COARSE: Final = 2 * _SECOND
"""What the times of the coarsest file system still in use are rounded to, in ns (FAT)."""


class Known(NamedTuple):
    """What is known of a directory.

    Attributes:
        digest: of its saved entries.
        linked: whether a file in it has other names.
        looks: how each entry looked, sorted by name.
    """

    digest: bytes
    linked: bool
    looks: bytes


class StatIndex:
    """What is known of all directories of a saved tree, by path.

    Args:
        tree: digest of the tree; the index is of use while a store has that.
    """

    def __init__(self, tree: str = "") -> None:
        self.tree = tree
        self.directories: dict[bytes, Known] = {}

    def encode(self) -> bytes:
        """Return it as bytes, with their digest."""
        tree = self.tree.encode()
        parts = [_MAGIC, struct.pack("<H", len(tree)), tree]
        for path, known in self.directories.items():
            parts += (
                _HEAD.pack(len(path), len(known.looks), known.linked, known.digest),
                path,
                known.looks,
            )
        raw = b"".join(parts)
        return raw + hashlib.sha256(raw).digest()

    @classmethod
    def decode(cls, raw: bytes) -> StatIndex:
        """Read it back; bytes that are none give an empty one, by which everything is read."""
        body = memoryview(raw)[:-DIGEST_BYTES]
        right = hashlib.sha256(body).digest() == raw[-DIGEST_BYTES:]
        if not right or bytes(body[: len(_MAGIC)]) != _MAGIC:
            return cls()
        at = len(_MAGIC) + 2
        (length,) = struct.unpack_from("<H", body, at - 2)
        index = cls(bytes(body[at : at + length]).decode())
        at += length
        while at < len(body):
            path_size, looks_size, linked, digest = _HEAD.unpack_from(body, at)
            at += _HEAD.size
            path = bytes(body[at : at + path_size])
            at += path_size
            looks = bytes(body[at : at + looks_size])
            at += looks_size
            index.directories[path] = Known(digest, bool(linked), looks)
        return index


def clock_now() -> int:
    """The clock by which the kernel tells when files change, in ns: it moves in ticks."""
    clock = getattr(time, "CLOCK_REALTIME_COARSE", 5)  # as linux/time.h numbers it
    return time.clock_gettime_ns(clock)


def look_of(name: bytes, facts: os.stat_result) -> bytes:
    """How an entry looks."""
    return (
        _LOOK.pack(
            facts.st_dev,
            facts.st_ino,
            facts.st_mode,
            facts.st_nlink,
            facts.st_size,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            len(name),
        )
        + name
    )


def settled_look(name: bytes, facts: os.stat_result, since: int) -> bytes:
    """How an entry looks, or nothing if it may change once more and look the same.

    Args:
        name: its name.
        facts: how it looked before it was read.
        since: what ``clock_now`` said before.
    """
    look, changed = look_of(name, facts), facts.st_ctime_ns
    slack = 0 if changed % _SECOND else _COARSE
    return look if changed + slack < since else unlike(look)


def unlike(look: bytes) -> bytes:
    """What no entry looks like, in the place of a look."""
    return look[:_CHANGE_AT] + _NEVER + look[_CHANGE_AT + 8 :]


def looks_in(looks: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names in a directory, and how each looked."""
    at = 0
    while at < len(looks):
        size = _LOOK.size + _LOOK.unpack_from(looks, at)[-1]
        look = looks[at : at + size]
        yield look[_LOOK.size :], look
        at += size
