"""Finds files that the kernel would hide from an overlay over their directory, since an attribute says so.

overlayfs takes an empty file with the attribute ``user.overlay.whiteout`` for a deleted one (Linux 6.7).
Whoever may write to a directory can give its files such attributes, a command of an earlier session
included, and an overlay would not show all that is there.
"""

from __future__ import annotations

import errno
import os
import posixpath
from shlex import quote
from threading import Event
from typing import Final

from sandyard.errors import shown
from sandyard.workspace.descent import descend
from sandyard.workspace.names import Names
from sandyard.workspace.ward import Ward

__all__ = ["find_hiding"]

_MARK: Final = "user.overlay.whiteout"
_NO_RULES: Final = Ward()


def find_hiding(path: str, stopped: Event) -> str | None:
    """Why an overlay would not show all of a directory, in words; None if it would. It looks at each file.

    Args:
        path: of the directory, absolute, without a symlink at its end.
        stopped: set by whoever needs no answer any more.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = _find_mark(top, stopped)
        finally:
            os.close(top)
    except OSError as error:
        return f"it can't be looked through: {error.strerror}"
    if found is None:
        return None
    place = posixpath.join(path, *found)
    return (
        f"an attribute, {_MARK}, which somebody has given to {shown(place)}, would hide it; remove that: "
        f"setfattr -x {_MARK} {quote(place)}"
    )


def _find_mark(top: int, stopped: Event) -> Names | None:
    for level in descend(top, _NO_RULES):
        for entry in level.entries:
            if stopped.is_set():
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
            if entry.is_file(follow_symlinks=False) and _is_marked(level.descriptor, entry):
                return (*level.names, entry.name)
    return None


def _is_marked(directory: int, entry: os.DirEntry[str]) -> bool:
    try:
        if entry.stat(follow_symlinks=False).st_size != 0:  # most are
            return False
        os.getxattr(f"/proc/self/fd/{directory}/{entry.name}", _MARK, follow_symlinks=False)
    except OSError:  # it has none, or its file system knows none, or it is gone
        return False
    return True
