"""What overlayfs reads in a layer besides files: attributes of its own, and marks of what is gone."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from sandyard.workspace.extract_tree import Directories

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandyard.archive.naming import Path

__all__ = ["Beneath", "escaped_attributes", "is_kernels", "is_opaque", "lasting_attributes"]

_KERNELS: Final = b"user.overlay."
_OPAQUE: Final = b"user.overlay.opaque"
_ESCAPED: Final = b"user.overlay.overlay."
"""How overlayfs begins the names of a workspace's own attributes that begin like its."""

_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_kernels(name: bytes) -> bool:
    """Whether an attribute of a layer is overlayfs's own."""
    return name.startswith(_KERNELS) and not name.startswith(_ESCAPED)


def lasting_attributes(attributes: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Attributes of an overlay's changes that mean the same in a copy of them.

    overlayfs keeps some that tell where a file was copied up from.
    """
    return {
        name: value
        for name, value in attributes.items()
        if not is_kernels(name) or name.startswith(_OPAQUE)
    }


def escaped_attributes(attributes: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Attributes of a workspace as a layer has them, so that overlayfs obeys none of them."""
    return {
        _ESCAPED + name[len(_KERNELS) :] if name.startswith(_KERNELS) else name: value
        for name, value in attributes.items()
    }


def is_opaque(attributes: Mapping[bytes, bytes] | None) -> bool:
    """Whether a directory of changes lets nothing show that lies beneath it."""
    return attributes is not None and attributes.get(_OPAQUE) == b"y"


class Beneath:
    """What lies beneath changes.

    Args:
        trees: paths of the layers.
    """

    def __init__(self, trees: Iterable[str]) -> None:
        self._trees = tuple(trees)

    def has(self, path: Path) -> bool:
        """Whether a layer has something of this path; it might be hidden by another one.

        Raises:
            OSError: that can't be told.
        """
        return any(_is_in(tree, path) for tree in self._trees)


def _is_in(tree: str, path: Path) -> bool:
    top = os.open(tree, _DIRECTORY)
    try:
        with Directories(top) as directories:
            os.stat(path[-1], dir_fd=directories.at(path[:-1]), follow_symlinks=False)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        if error.errno in _CLOSED:  # in a directory that is there
            return True
        raise
    finally:
        os.close(top)
    return True
