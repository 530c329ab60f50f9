"""Owns the way to the directory of all leases: only through directories that are ours alone."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from contextlib import suppress
from typing import Final

from sandyard.errors import WorkspaceStartError, shown
from sandyard.workspace.kernel import closed_on_error

__all__ = ["SESSIONS", "open_sessions", "unusable"]

SESSIONS: Final = "sessions"
"""What the directory is called, in a state directory."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def open_sessions(state: str, *, make: bool = True) -> int:
    """Open the directory of all leases in a state directory, which must be ours alone.

    Args:
        state: the state directory.
        make: whether to make what is missing.

    Raises:
        WorkspaceStartError: one of the two is a symlink, somebody else's, writable for others, or
            can't be opened or made.
    """
    top = _opened_alone(state, None, make=make)
    try:
        return _opened_alone(SESSIONS, top, make=make)
    finally:
        os.close(top)


def _opened_alone(path: str, parent: int | None, *, make: bool) -> int:
    try:
        try:
            fd = os.open(path, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            if parent is None:
                os.makedirs(posixpath.dirname(path), mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700, dir_fd=parent)
            fd = os.open(path, _DIRECTORY, dir_fd=parent)
        with closed_on_error(fd):
            facts = os.fstat(fd)
    except OSError as error:
        raise unusable(path, error) from error
    whose = "is somebody else's" if facts.st_uid != os.geteuid() else "can be written by others"
    if facts.st_uid != os.geteuid() or facts.st_mode & _OTHERS_WRITE:
        os.close(fd)
        raise _not_alone(path, whose)
    return fd


def _not_alone(path: str, what: str) -> WorkspaceStartError:
    return WorkspaceStartError(
        path=path,
        message=f"the state directory {shown(path)} {what}, so what it says can't be trusted; make "
        "it a directory of yours with mode 0700, or set XDG_STATE_HOME to another place",
        context={"reason": "state_directory"},
        retryable=False,
    )


def unusable(path: str, error: OSError) -> WorkspaceStartError:
    """Say why a state directory, or a lease in it, can't be used."""
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return _not_alone(path, "or a part of it is a symlink or no directory")
    reason, fix = "state_directory", "set XDG_STATE_HOME to a directory that you can write"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        reason, fix = "too_many_open_files", "raise 'ulimit -n'"
    return WorkspaceStartError(
        path=path,
        message=f"a session keeps its lease in the state directory, and {shown(path)} can't be "
        f"used: {error.strerror}; {fix}",
        context={"reason": reason},
        cause=error,
    )
