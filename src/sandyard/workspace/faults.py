"""The border of the files API: what the kernel says becomes one typed error, by one table."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import (
    ExecNonZeroError,
    InvalidManifestPathError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError,
    shown,
)
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.errors import OpName
    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["as_command_failed", "translated", "typed_error"]


class _Fault(NamedTuple):
    """What is said about an errno.

    Attributes:
        reason: stable word for the error's context.
        text: what it means and what to change.
        retryable: whether the same call may succeed later; None where that can't be told.
    """

    reason: str
    text: str
    retryable: bool | None = None


_FULL: Final = _Fault("no_space", "the disk or quota is full; free some space")
_DENIED: Final = _Fault(
    "permission_denied", "permission denied; the user of this program may not do that there"
)
_FORBIDDEN: Final = _Fault(
    "permission_denied",
    "the system forbids it: it is marked as immutable (see 'lsattr'), or is somebody else's",
)
_CHANGING: Final = _Fault(
    "changing",
    "somebody changes it, or holds a lease on it, at this very moment; try again",
    retryable=True,
)
_MISSING: Final = _Fault("not_found", "there is no such file or directory")
_MANY: Final = _Fault("too_many_open_files", "too many files are open; raise 'ulimit -n'")

_FAULTS: Final = {
    errno.EISDIR: _Fault("is_a_directory", "it is a directory"),
    errno.ENOTDIR: _Fault("not_a_directory", "a part of the path is not a directory"),
    errno.EEXIST: _Fault("exists", "something of that name exists and is not a directory"),
    errno.ENOTEMPTY: _Fault("not_empty", "the directory is not empty; give recursive=True"),
    errno.EINVAL: _Fault("not_a_regular_file", "it is not a regular file"),
    errno.ENXIO: _Fault("not_a_regular_file", "it is not a regular file"),
    errno.ENAMETOOLONG: _Fault("name_too_long", "a name is too long for the file system"),
    errno.EROFS: _Fault("read_only", "the file system is read-only"),
    errno.EBUSY: _Fault("busy", "something is mounted there; unmount it first"),
    errno.ENOENT: _MISSING,
    errno.EACCES: _DENIED,
    errno.EPERM: _FORBIDDEN,
    errno.EAGAIN: _CHANGING,
    errno.ESTALE: _CHANGING,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: _MANY,
    errno.ENFILE: _MANY,
}

_ESCAPES: Final = frozenset({errno.EXDEV, errno.ELOOP})
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_READS: Final = frozenset({"read", "normalize_path"})


@contextmanager
def translated(op: OpName, path: str, root: WorkspaceRoot) -> Iterator[None]:
    """Turn an OSError of the block into the typed error of an operation on a path.

    Raises:
        SandboxError: the block raised an OSError that is none of ours.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, SandboxError):  # already one of ours
            raise
        raise typed_error(op, path, root, error) from error


def typed_error(op: OpName, path: str, root: WorkspaceRoot, error: OSError) -> SandboxError:
    """Return the error that an operation raises when the kernel says ``error``."""
    if root.gone:
        return WorkspaceRootNotFoundError(path=root.path, cause=error)
    if error.errno in _ESCAPES:
        absolute = path.startswith("/")
        return InvalidManifestPathError(
            rel=path, reason="absolute" if absolute else "escape_root", cause=error
        )
    if op == "ls":
        return as_command_failed(("ls", "-la", "--", path), path, error)
    if op == "read" and error.errno in _NOT_THERE:
        return WorkspaceReadNotFoundError(path=path, cause=error)
    fault = _fault(error)
    reads = op in _READS
    message = f"{shown(path)} could not be {_DONE[op]}: {fault.text}"
    kind = WorkspaceArchiveReadError if reads else WorkspaceArchiveWriteError
    return kind(
        path=path,
        message=message,
        context={"reason": fault.reason},
        cause=error,
        retryable=fault.retryable,
    )


_DONE: Final[dict[OpName, str]] = {
    "read": "read",
    "write": "written",
    "mkdir": "made",
    "rm": "removed",
    "normalize_path": "resolved",
    "materialize": "written",
}


def as_command_failed(command: tuple[str, ...], path: str, error: OSError) -> ExecNonZeroError:
    """Return the error of a file verb that is documented to fail as its command would.

    Args:
        command: the words that are shown.
        path: the path as given.
        error: what the kernel said.
    """
    fault = _fault(error)
    said = f"{command[0]}: {path}: {fault.text}\n".encode("utf-8", "replace")
    result = ExecResult(stdout=b"", stderr=said, exit_code=1)
    failed = ExecNonZeroError(
        result, command=command, context={"reason": fault.reason}, cause=error
    )
    failed.retryable = fault.retryable or False  # a command that fails does so again, mostly
    return failed


def _fault(error: OSError) -> _Fault:
    number = error.errno or 0
    name = errno.errorcode.get(number, "unknown").lower()
    return _FAULTS.get(number) or _Fault(name, os.strerror(number).lower())
