"""Our errors as the SDK's own, so that its tools and its callers know them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from agents.sandbox import errors as sdk
from agents.sandbox.types import ExecResult

import sandyard as ours

__all__ = ["STDIN_UNAVAILABLE", "Doing", "sdk_error", "told"]

Doing = Literal["exec", "read", "write", "start", "stop", "shutdown", "create"]
"""What was being done, in one of the SDK's words."""

STDIN_UNAVAILABLE: Final = "stdin is not available for this process"
"""The text by which the SDK's ``write_stdin`` tool knows this error: it has no class of its own."""

Made = sdk.SandboxError | RuntimeError
Subject = str | Path | Sequence[str | Path]


@contextmanager
def told(doing: Doing, subject: Subject) -> Iterator[None]:
    """Raise our errors as the SDK's.

    Args:
        doing: what is being done.
        subject: the path that it is about, or the words of the command.
    """
    try:
        yield
    except ours.SandboxError as error:
        raise sdk_error(error, doing, subject) from error


def sdk_error(error: ours.SandboxError, doing: Doing, subject: Subject) -> Made:
    """The SDK's error that says what one of ours says, with its message, facts and cause.

    Args:
        error: ours.
        doing: as ``told``.
        subject: as ``told``.
    """
    make = next((make for kind, make in _KINDS if isinstance(error, kind)), None)
    made = make(error) if make is not None else _fallback(error, doing, subject)
    if isinstance(made, sdk.SandboxError):
        made.message, made.args = error.message, (error.message,)
        made.context = {**made.context, **error.context, "sandyard_code": error.code}
        made.cause, made.retryable = error, error.retryable
    return made


def _path(error: ours.SandboxError) -> Path:
    return Path(str(error.context.get("path", error.context.get("src", "."))))


def _fact(error: ours.SandboxError, name: str) -> str:
    return str(error.context.get(name, ""))


def _pathless(subject: Subject) -> Path:
    return Path(subject) if isinstance(subject, str | Path) else Path(".")


def _words(subject: Subject) -> Sequence[str | Path]:
    return (subject,) if isinstance(subject, str | Path) else subject


def _fallback(error: ours.SandboxError, doing: Doing, subject: Subject) -> sdk.SandboxError:
    """The error of what was being done, for what the SDK has no name for."""
    if doing == "exec":
        return sdk.ExecTransportError(command=_words(subject))
    if doing == "read":
        return sdk.WorkspaceArchiveReadError(path=_pathless(subject), context=_reason(error))
    if doing == "write":
        return sdk.WorkspaceArchiveWriteError(path=_pathless(subject), context=_reason(error))
    if doing == "start":
        return sdk.WorkspaceStartError(path=_pathless(subject))
    if doing in {"stop", "shutdown"}:
        return sdk.WorkspaceStopError(path=_pathless(subject))
    return sdk.ConfigurationError(
        message=error.message,
        error_code=sdk.ErrorCode.SANDBOX_CONFIG_INVALID,
        op="start",
        context={},
    )


def _reason(error: ours.SandboxError) -> dict[str, object]:
    return {"reason": error.code}


def _exec_nonzero(error: ours.SandboxError) -> sdk.SandboxError:
    assert isinstance(error, ours.ExecNonZeroError)  # noqa: S101  # the table says so
    result = ExecResult(stdout=error.stdout, stderr=error.stderr, exit_code=error.exit_code)
    return sdk.ExecNonZeroError(result, command=error.command)


def _exec_timeout(error: ours.SandboxError) -> sdk.SandboxError:
    assert isinstance(error, ours.ExecTimeoutError)  # noqa: S101  # likewise
    written = {"stdout": error.stdout, "stderr": error.stderr}
    return sdk.ExecTimeoutError(
        command=error.command,
        timeout_s=error.timeout_s,
        context={name: text.decode("utf-8", "replace") for name, text in written.items()},
    )


def _exec_transport(error: ours.SandboxError) -> sdk.SandboxError:
    assert isinstance(error, ours.ExecTransportError)  # noqa: S101  # likewise
    return sdk.ExecTransportError(command=error.command)


def _lost_terminal(error: ours.SandboxError) -> sdk.SandboxError:
    number = error.context.get("session_id")
    return sdk.PtySessionNotFoundError(session_id=number if isinstance(number, int) else -1)


def _bad_path(error: ours.SandboxError) -> sdk.SandboxError:
    absolute = error.context.get("reason") == "absolute"
    return sdk.InvalidManifestPathError(
        rel=_fact(error, "rel"), reason="absolute" if absolute else "escape_root"
    )


def _bad_patch_path(error: ours.SandboxError) -> sdk.SandboxError:
    reason = error.context.get("reason")
    return sdk.ApplyPatchPathError(
        path=_fact(error, "path"),
        reason=reason if reason in {"absolute", "empty"} else "escape_root",
    )


def _bad_subpath(error: ours.SandboxError) -> sdk.SandboxError:
    reason = error.context.get("reason")
    return sdk.GitSubpathError(
        repo=_fact(error, "repo"),
        subpath=_fact(error, "subpath"),
        reason=reason if reason in {"absolute", "parent_traversal"} else "empty",
    )


def _lost_port(error: ours.SandboxError) -> sdk.SandboxError:
    port, exposed = error.context.get("port"), error.context.get("exposed_ports")
    return sdk.ExposedPortUnavailableError(
        port=port if isinstance(port, int) else 0,
        exposed_ports=exposed if isinstance(exposed, list | tuple) else (),
        reason=_fact(error, "reason"),
    )


_Make = Callable[[ours.SandboxError], Made]

# The first that fits, so a class stands before its base. What is in none of them is told as the
# error of what was being done; a refusal by policy is one of these on purpose.
_KINDS: Final[tuple[tuple[type[ours.SandboxError], _Make], ...]] = (
    (ours.ExecNonZeroError, _exec_nonzero),
    (ours.ExecTimeoutError, _exec_timeout),
    (ours.ExecTransportError, _exec_transport),
    (ours.PtySessionNotFoundError, _lost_terminal),
    (ours.PtyStdinUnavailableError, lambda _: RuntimeError(STDIN_UNAVAILABLE)),
    (ours.ExposedPortUnavailableError, _lost_port),
    (ours.InvalidManifestPathError, _bad_path),
    (
        ours.InvalidCompressionSchemeError,
        lambda error: sdk.InvalidCompressionSchemeError(
            path=_path(error), scheme=_fact(error, "scheme")
        ),
    ),
    (ours.ApplyPatchPathError, _bad_patch_path),
    (
        ours.ApplyPatchDiffError,
        lambda error: sdk.ApplyPatchDiffError(message=error.message, path=_fact(error, "path")),
    ),
    (
        ours.ApplyPatchFileNotFoundError,
        lambda error: sdk.ApplyPatchFileNotFoundError(path=_path(error)),
    ),
    (ours.ApplyPatchDecodeError, lambda error: sdk.ApplyPatchDecodeError(path=_path(error))),
    (
        ours.WorkspaceReadNotFoundError,
        lambda error: sdk.WorkspaceReadNotFoundError(path=_path(error)),
    ),
    (
        ours.WorkspaceWriteTypeError,
        lambda error: sdk.WorkspaceWriteTypeError(
            path=_path(error), actual_type=_fact(error, "actual_type")
        ),
    ),
    (
        ours.WorkspaceRootNotFoundError,
        lambda error: sdk.WorkspaceRootNotFoundError(path=_path(error)),
    ),
    (ours.WorkspaceStartError, lambda error: sdk.WorkspaceStartError(path=_path(error))),
    (ours.WorkspaceStopError, lambda error: sdk.WorkspaceStopError(path=_path(error))),
    (ours.LocalFileReadError, lambda error: sdk.LocalFileReadError(src=_path(error))),
    (ours.LocalDirReadError, lambda error: sdk.LocalDirReadError(src=_path(error))),
    (ours.LocalChecksumError, lambda error: sdk.LocalChecksumError(src=_path(error))),
    (ours.GitMissingInImageError, lambda _: sdk.GitMissingInImageError()),
    (
        ours.GitCloneError,
        lambda error: sdk.GitCloneError(url=_fact(error, "url"), ref=_fact(error, "ref")),
    ),
    (ours.GitSubpathError, _bad_subpath),
    (ours.MountConfigError, lambda error: sdk.MountConfigError(message=error.message)),
    (ours.MountFailedError, lambda _: sdk.MountCommandError(command="mount", stderr=None)),
    (
        ours.SnapshotNotRestorableError,
        lambda error: sdk.SnapshotNotRestorableError(
            snapshot_id=_fact(error, "snapshot_id"), path=_path(error)
        ),
    ),
    (
        ours.SnapshotRestoreError,
        lambda error: sdk.SnapshotRestoreError(
            snapshot_id=_fact(error, "snapshot_id"), path=_path(error)
        ),
    ),
    (
        ours.SnapshotPersistError,
        lambda error: sdk.SnapshotPersistError(
            snapshot_id=_fact(error, "snapshot_id"), path=_path(error)
        ),
    ),
)
