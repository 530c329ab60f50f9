"""The words of late mounts and layered trees: pure encoding of what programs of their own make."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

from sandyard.plan import LateMount, Layer

__all__ = ["encode_late", "encode_layers", "encode_removal"]

_HEAD = struct.Struct("=IIIIQQQQQII")
_PART = struct.Struct("=QQII")
_LAYERS = struct.Struct("=IIII")
_LAYER = struct.Struct("=QQ")
_LAYERS_LEASED: Final = 1


class _Kind(IntEnum):
    BIND = 1
    TMPFS = 2
    OVERLAY = 3
    REMOVE = 4


class _Flag(IntFlag):
    WRITABLE = 1
    LEASED = 2
    AS_OWNER = 4


_KINDS: Final = {"bind": _Kind.BIND, "tmpfs": _Kind.TMPFS, "overlay": _Kind.OVERLAY}


def encode_late(late: LateMount, user: tuple[int, int], *, leased: bool) -> bytes:
    """The body of a MOUNT that mounts something in a sandbox.

    Args:
        late: what.
        user: uid and gid of the sandbox, as they are known where its mounts are made: on the host
            where they are leased, else inside.
        leased: whether its identity is leased, so that its mounts are the host's own.
    """
    flags = (
        (_Flag.WRITABLE if late.writable else 0)
        | (_Flag.LEASED if leased else 0)
        | (_Flag.AS_OWNER if late.as_owner else 0)
    )
    sizes = late.size, late.inodes
    count = len(late.parts)
    head = _HEAD.pack(_KINDS[late.kind], flags, *user, *sizes, *late.inode, 0, count, 0)
    parts = (
        _PART.pack(*part.inode, 1 if part.read_only else 0, 0) + _text(part.path)
        for part in late.parts
    )
    return head + _text(late.target) + b"".join(parts)


def encode_removal(target: str, mount: int, user: tuple[int, int], *, leased: bool) -> bytes:
    """The body of a MOUNT that takes out what ``Mounted`` named, if it still stands at ``target``."""
    flags = _Flag.LEASED if leased else 0
    return _HEAD.pack(_Kind.REMOVE, flags, *user, 0, 0, 0, 0, mount, 0, 0) + _text(target)


def encode_layers(layers: tuple[Layer, ...], user: int, *, leased: bool) -> bytes:
    """The body of a LAYERS.

    Args:
        layers: first the one that is changed; none asks for a tree that was made before.
        user: uid and gid of the sandbox, as with ``encode_late``.
        leased: whether its identity is leased.
    """
    head = _LAYERS.pack(_LAYERS_LEASED if leased else 0, user, user, len(layers))
    return head + b"".join(_LAYER.pack(*layer.inode) + _text(layer.path) for layer in layers)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape") + b"\0"
