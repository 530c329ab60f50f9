"""Looks at the host for explanations: into trees that are shown, and at what a grant would name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from sandyard.confinement.explanation import Found
from sandyard.workspace.kernel import open_without_links

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Look

__all__ = ["find_obstacle", "make_look"]

_HANDLE: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
_NOTHING: Final = Found(exists=False)


def make_look() -> Look:
    """Make a function that looks into shown trees, each place once; it blocks.

    It follows no symlink itself, so what commands put into a tree never leads it out.
    """
    known: dict[str, Found] = {}

    def look(source: str, below: str) -> Found:
        path = os.path.join(source, below) if below else source
        found = known.get(path)
        if found is None:
            found = known[path] = _found_at(path)
        return found

    return look


def find_obstacle(path: str) -> str:
    """Say why the calling user can't grant a path of the host for reading; nothing if it can."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "there is nothing of this name on this machine"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"it can't be looked at: {reason}"
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        return "only files and directories can be granted"
    if not os.access(path, os.R_OK):
        return "the calling user can't read it"
    return ""


def _found_at(path: str) -> Found:
    try:
        handle = open_without_links(path, _HANDLE)
    except (OSError, ValueError):
        return _NOTHING
    try:
        facts = os.fstat(handle)
        if stat.S_ISLNK(facts.st_mode):
            return Found(link=os.readlink("", dir_fd=handle))
        return Found(writable=_is_writable(facts))
    except OSError:
        return _NOTHING
    finally:
        os.close(handle)


def _is_writable(facts: os.stat_result) -> bool:
    """Whether commands could write to it after a grant, which makes the owner appear as ``agent``.

    Root's sandboxes map any owner, those of others only the calling user.
    """
    user = os.geteuid()
    owned = user in (0, facts.st_uid)
    return bool(facts.st_mode & (stat.S_IWUSR if owned else stat.S_IWOTH))
