"""Lists a directory for a wall that must name each of its entries, without following a symlink to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from sandyard.errors import PolicyError
from sandyard.limits import NARROWED_PLACES_MAX
from sandyard.workspace.kernel import open_without_links

__all__ = ["list_siblings"]

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def list_siblings(source: str, below: str) -> Mapping[str, bool]:
    """The names in a directory, and whether each is a symlink; it blocks.

    Args:
        source: a tree of the host that is shown inside.
        below: where in it the directory is; nothing is listed where none is.

    Raises:
        PolicyError: it holds more than can be named, or can't be listed.
    """
    path = os.path.join(source, below) if below else source
    try:
        directory = open_without_links(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return {}
        raise _refusal(path, f"it can't be listed: {error.strerror}") from error
    found: dict[str, bool] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                found[entry.name] = entry.is_symlink()
                if len(found) > NARROWED_PLACES_MAX:
                    raise _refusal(path, f"it holds more than {NARROWED_PLACES_MAX} entries")
    except OSError as error:
        raise _refusal(path, f"it can't be listed: {error.strerror}") from error
    finally:
        os.close(directory)
    return found


def _refusal(path: str, why: str) -> PolicyError:
    return PolicyError(
        f"deny of a narrowing takes a rule of the kernel for each entry of {path}, which leads to what "
        f"is denied, and {why}; deny the whole directory, or move what is denied into one of its own",
        field="deny",
        value=path,
    )
