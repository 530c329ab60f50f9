"""The border of the files API: what the kernel says becomes one typed error, by one table."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import (
    ExecNonZeroError,
    InvalidManifestPathError,
    PolicyDeniedError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError,
    shown,
)
from sandyard.types import ExecResult
from sandyard.workspace.acting import is_asked
from sandyard.workspace.ward import ClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.errors import OpName
    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["StatedError", "as_command_failed", "fault_of", "translated", "typed_error"]


class StatedError(OSError):
    """A refusal of ours where the kernel's own would not say enough.

    Args:
        number: the errno that is the nearest.
        reason: stable word for the error's context.
        text: what it means and what to change.
    """

    def __init__(self, number: int, reason: str, text: str) -> None:
        super().__init__(number, text)
        self.fault = Fault(reason, text)


class Fault(NamedTuple):
    """What is said about an errno.

    Attributes:
        reason: stable word for the error's context.
        text: what it means and what to change.
        retryable: whether the same call may succeed later; None where that can't be told.
    """

    reason: str
    text: str
    retryable: bool | None = None


_FULL: Final = Fault("no_space", "the disk or quota is full; free some space")
_DENIED: Final = Fault(
    "permission_denied", "permission denied; the user of this program may not do that there"
)
_NOT_ASKED: Final = Fault(
    "permission_denied", "permission denied; the user that was given may not do that there"
)
_FORBIDDEN: Final = Fault(
    "permission_denied",
    "the system forbids it: it is marked as immutable (see 'lsattr'), or is somebody else's, or an "
    "overlay can't show it, since it has an attribute user.overlay.metacopy (see 'getfattr')",
)
_CHANGING: Final = Fault(
    "changing",
    "somebody changes it, or holds a lease on it, at this very moment; try again",
    retryable=True,
)
_MISSING: Final = Fault("not_found", "there is no such file or directory")
_MANY: Final = Fault("too_many_open_files", "too many files are open; raise 'ulimit -n'")

_FAULTS: Final = {
    errno.EISDIR: Fault("is_a_directory", "it is a directory"),
    errno.ENOTDIR: Fault("not_a_directory", "a part of the path is not a directory"),
    errno.EEXIST: Fault("exists", "something of that name exists and is not a directory"),
    errno.ENOTEMPTY: Fault("not_empty", "the directory is not empty; give recursive=True"),
    errno.EINVAL: Fault("not_a_regular_file", "it is not a regular file"),
    errno.ENXIO: Fault("not_a_regular_file", "it is not a regular file"),
    errno.ENAMETOOLONG: Fault("name_too_long", "a name is too long for the file system"),
    errno.EROFS: Fault("read_only", "the file system is read-only"),
    errno.EBUSY: Fault("busy", "something is mounted there; unmount it first"),
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
_READS: Final = frozenset({
    "read", "normalize_path", "persist_workspace", "pack", "stat", "exists", "glob", "grep", "watch",
    "download", "diff",
})  # fmt: skip
_FINDS: Final = frozenset({"read", "stat", "watch", "glob", "grep", "pack", "download"})
"""What tells a missing file by an error of its own."""

_COMMANDS: Final[dict[OpName, tuple[str, ...]]] = {
    "ls": ("ls", "-la", "--"),
    "mv": ("mv", "-fT", "--"),
    "same_file": ("test", "-ef", "--"),
}
"""What is documented to fail as a command would."""


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
    if isinstance(error, ClosedError):
        return _denied(op, path, error)
    if root.gone:
        return WorkspaceRootNotFoundError(path=root.path, cause=error)
    if error.errno in _ESCAPES and not isinstance(error, StatedError):
        absolute = path.startswith("/")
        return InvalidManifestPathError(
            rel=path, reason="absolute" if absolute else "escape_root", cause=error
        )
    command = _COMMANDS.get(op)
    if command is not None:
        return as_command_failed((*command, path), path, error)
    if op in _FINDS and error.errno in _NOT_THERE:
        return WorkspaceReadNotFoundError(path=path, cause=error)
    fault = fault_of(error)
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
    "diff": "compared",
    "apply": "changed",
    "write": "written",
    "mkdir": "made",
    "rm": "removed",
    "normalize_path": "resolved",
    "materialize": "written",
    "append": "appended to",
    "chmod": "given another mode",
    "copy": "copied",
    "exists": "looked up",
    "grep": "searched",
    "glob": "looked through",
    "ls": "listed",
    "mv": "moved",
    "same_file": "compared",
    "stat": "looked at",
    "watch": "watched",
    "upload": "written",
    "download": "downloaded",
    "apply_patch": "patched",
    "extract": "unpacked",
    "hydrate_workspace": "restored",
    "persist_workspace": "saved",
    "fork": "copied",
    "pack": "saved",
    "unpack": "unpacked into",
}


def _denied(op: OpName, path: str, error: ClosedError) -> PolicyDeniedError:
    """Say which rule forbids something, and what would allow it."""
    rule = error.rule
    subject = shown(rule.path)
    match rule.kind:
        case "deny":
            reason, why = "denied", f"Policy(deny=…) closes {subject}"
            grant = "leave it out of Policy(deny=…)"
        case "protect":
            reason, why = "protected", f"Policy(protect=…) keeps {subject} as it was at the start"
            grant = "Policy(protect=()), or name there what is to be kept"
        case "mount":
            reason, why = "mounted", f"{subject} is mounted in the sandbox, where commands reach it"
            grant = f"session.unmount({rule.path!r}); or work there with session.exec"
        case "hold":
            reason, why = "held", f"Policy(protect=…) holds {subject} in its place"
            grant = "Policy(protect=()), or name there what is to be kept"
        case "read" if not error.entry:
            reason, why = "read_only_extra_path_grant", f"{subject} is granted for reading only"
            grant = f"Policy(writes=({rule.path!r},))"
        case _:
            reason, why = "granted", f"{subject} is granted itself, and stays in its place"
            grant = "grant the directory that holds it"
    return PolicyDeniedError(
        path=path,
        op=op,
        message=f"{shown(path)} could not be {_DONE[op]}: {why}; to allow it: {grant}",
        reason=reason,
        rule_path=rule.path,
        grant=grant,
    )


def as_command_failed(command: tuple[str, ...], path: str, error: OSError) -> ExecNonZeroError:
    """Return the error of a file verb that is documented to fail as its command would.

    Args:
        command: the words that are shown.
        path: the path as given.
        error: what the kernel said.
    """
    fault = fault_of(error)
    said = f"{command[0]}: {path}: {fault.text}\n".encode("utf-8", "replace")
    result = ExecResult(stdout=b"", stderr=said, exit_code=1)
    failed = ExecNonZeroError(
        result, command=command, context={"reason": fault.reason}, cause=error
    )
    failed.retryable = fault.retryable or False  # a command that fails does so again, mostly
    return failed


def fault_of(error: OSError) -> Fault:
    """What is said about an error of the kernel's, or of ours."""
    if isinstance(error, StatedError):
        return error.fault
    number = error.errno or 0
    if number == errno.EACCES and is_asked():
        return _NOT_ASKED
    name = errno.errorcode.get(number, "unknown").lower()
    return _FAULTS.get(number) or Fault(name, os.strerror(number).lower())
