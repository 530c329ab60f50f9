"""Tells whether what was changed in an overlay is a copy of what lies beneath now, by what overlayfs notes.

It keeps the file's handle (open_by_handle_at(2)), which no other file has, also not one that takes its
name or, later, its inode number.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandyard.workspace.names import Names
    from sandyard.workspace.overlay_tree import PlainTree

__all__ = ["is_another"]

_ORIGIN: Final = "user.overlay.origin"
_MAGIC: Final = 0xFB
_HEAD: Final = 21
"""Bytes before the handle in the attribute: version, magic, length, flags, type, and the file system's
UUID (struct ovl_fb in fs/overlayfs/overlayfs.h)."""

_MAGIC_AT: Final = 1
_TYPE_AT: Final = 4
_HANDLE_BYTES: Final = 128
"""MAX_HANDLE_SZ of linux/exportfs.h."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    """struct file_handle."""

    _fields_ = (
        ("size", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("data", ctypes.c_ubyte * _HANDLE_BYTES),
    )


def is_another(upper: PlainTree, base: PlainTree, names: Names) -> bool:
    """Tell whether something else lies beneath by now than what was changed.

    Args:
        upper: what was changed, as the kernel keeps it.
        base: the directory beneath.
        names: an entry that both have.

    Returns:
        False as well where overlayfs does not tell: that of an ordinary user, and over some file
        systems.
    """
    origin = _origin_of(upper, names)
    if origin is None:
        return False
    handle = _handle_of(base, names)
    return handle is not None and handle != origin


def _origin_of(tree: PlainTree, names: Names) -> tuple[int, bytes] | None:
    try:
        opened = tree.open(names)
    except OSError:  # a symlink, mostly, which has no attributes
        return None
    try:
        said = os.getxattr(opened, _ORIGIN)
    except OSError:
        return None
    finally:
        os.close(opened)
    if len(said) <= _HEAD or said[_MAGIC_AT] != _MAGIC:
        return None
    return said[_TYPE_AT], said[_HEAD:]


def _handle_of(tree: PlainTree, names: Names) -> tuple[int, bytes] | None:
    handle, mount = _Handle(size=_HANDLE_BYTES), ctypes.c_int()
    with tree.above(names) as here:
        name = os.fsencode(names[-1])
        if _libc.name_to_handle_at(here, name, ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
            return None
    return handle.type & 0xFF, bytes(handle.data[: handle.size])
