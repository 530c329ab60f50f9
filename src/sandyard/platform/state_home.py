"""Where this user's state lies: what must be found again by other programs of the same user."""

from __future__ import annotations

import os
import posixpath
import stat
import tempfile
from collections.abc import Mapping
from typing import Final

__all__ = ["state_directory"]

_NAME: Final = "sandyard"
_BENEATH_HOME: Final = (".local", "state", _NAME)
"""The default of XDG_STATE_HOME (XDG Base Directory Specification 0.8), and our name in it."""


def state_directory(environ: Mapping[str, str]) -> str:
    """Name the directory for this user's state; nothing is made, and it need not exist.

    It is ``$XDG_STATE_HOME/sandyard``. Without that variable, or if it is relative, it lies in
    ``~/.local/state``; where HOME is missing, somebody else's (as under ``sudo``) or read-only, it
    is ``sandyard-UID`` in the directory for temporary files. Blocks on the file system.

    Raises:
        OSError: HOME can't be used, and there is no directory for temporary files either.
    """
    chosen = environ.get("XDG_STATE_HOME", "")
    if _is_usable(chosen):
        return posixpath.join(posixpath.normpath(chosen), _NAME)
    home = environ.get("HOME", "")
    if _is_usable(home) and _is_own(home):
        path = posixpath.join(posixpath.normpath(home), *_BENEATH_HOME)
        if _can_be_made(path):
            return path
    place = os.path.realpath(tempfile.gettempdir())
    return posixpath.join(place, f"{_NAME}-{os.geteuid()}")


def _is_usable(path: str) -> bool:
    # A relative one is to be ignored, says the specification.
    return path.startswith("/") and "\0" not in path


def _is_own(home: str) -> bool:
    """Whether a home is ours: root's files in a user's home would be in that user's way."""
    try:
        facts = os.stat(home)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


def _can_be_made(path: str) -> bool:
    """Whether a directory is there (whatever it is: using it says so), or could be made."""
    if os.path.lexists(path):
        return True
    above = posixpath.dirname(path)
    while not os.path.lexists(above):
        above = posixpath.dirname(above)
    effective = os.access in os.supports_effective_ids
    return os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK, effective_ids=effective)
