"""Paths that callers give to the files API, taken apart; all of it pure."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    InvalidManifestPathError,
    shown,
)
from sandyard.limits import PATH_COMPONENT_BYTES

if TYPE_CHECKING:
    from sandyard.errors import OpName

__all__ = ["Names", "leads_out", "names_beneath", "split_names"]

Names = tuple[str, ...]
"""A path beneath the root, name by name: no empty ones and no ``.``, but ``..`` may be there, since
only the kernel knows where it leads when a symlink stands before it. ``()`` is the root."""


def split_names(text: str) -> Names:
    """Split a path at its slashes and leave out what means nothing."""
    return tuple(name for name in text.split("/") if name not in {"", "."})


def names_beneath(path: object, inside: str, op: OpName) -> Names:
    """Take a caller's path apart.

    Args:
        path: a str or a pure path, relative to the root, or absolute and beneath ``inside``.
        inside: absolute path of the root, as commands in the sandbox see it.
        op: the operation, for errors.

    Raises:
        ArgumentTypeError: it is of another type.
        ArgumentError: it is empty, a name in it is too long, or no system call could carry it.
        InvalidManifestPathError: it is absolute and not beneath ``inside``.
    """
    if isinstance(path, PurePath):
        path = str(path)
    if not isinstance(path, str):
        raise ArgumentTypeError(
            f"path must be a str or a path, not {shown(path)}",
            op=op,
            argument="path",
            value=path,
        )
    problem = _problem(path)
    if problem:
        raise ArgumentError(f"path {shown(path)} {problem}", op=op, argument="path", value=path)
    names = split_names(path)
    if not path.startswith("/"):
        return names
    root = split_names(inside)
    if names[: len(root)] != root:
        raise InvalidManifestPathError(rel=path, reason="absolute")
    return names[len(root) :]


def _problem(path: str) -> str:
    """Say what no system call could do with this path, or nothing."""
    if not path:
        return "is empty; use '.' for the workspace's root"
    if "\0" in path:
        return "has a NUL character, which no system call can carry; remove it"
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        return "is not text that a file name can hold; give valid Unicode"
    if any(len(name) > PATH_COMPONENT_BYTES for name in raw.split(b"/")):
        return f"has a name of more than {PATH_COMPONENT_BYTES} bytes; shorten it"
    return ""


def leads_out(names: Names, points_to: str) -> bool:
    """Tell whether a symlink may lead out of the tree that it stands in, by its words alone.

    It may go up first, and then only down: what it passes on the way down may be a link as well, and
    going up from there would lead to another place than the words say.
    """
    if points_to.startswith("/"):
        return True
    parts = [name for name in points_to.split("/") if name not in {"", "."}]
    ups = next((at for at, name in enumerate(parts) if name != ".."), len(parts))
    return ups >= len(names) or ".." in parts[ups:]
