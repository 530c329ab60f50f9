"""How calls end: results and errors as they travel, and back."""

from __future__ import annotations

import errno
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from sandyard import errors
from sandyard.errors import ErrorCode, ExecFailureError, ExecTimeoutError, SandboxError, shown
from sandyard.server.framing import FrameError
from sandyard.server.messages import Credit, Missed, Started
from sandyard.server.wording import Message, Text
from sandyard.snapshot.records import Snapshot
from sandyard.types import (
    Denial,
    ExecResult,
    Leftover,
    LimitHit,
    ResourceUsage,
)

__all__ = [
    "Done",
    "Endpoint",
    "Failed",
    "FromServer",
    "ProcessInfo",
    "ProcessesInfo",
    "Result",
    "Returned",
    "ServerInfo",
    "SessionInfo",
    "SessionsInfo",
    "SnapshotInfo",
    "error_of",
    "failure_of",
    "parse_from_server",
]


class ServerInfo(Message):
    """How a server is.

    Attributes:
        pid: its process.
        version: version of its package.
        sessions: how many it holds.
        started: when it began, in seconds since 1970.
    """

    type: Literal["server"] = "server"
    pid: int
    version: str
    sessions: int
    started: float


class SessionInfo(Message):
    """A session that is held.

    Attributes:
        id: its id: 32 hexadecimal digits.
        name: what it is called; the first 12 digits of its id, unless it was given a name.
        state: ``created`` before its first start; ``running``; ``ended`` where its sandbox has gone, as when the machine ran out of
            memory. Of a session that is no more: ``removed``, or ``lost`` with a server that was
            killed.
        workspace: its directory; empty where it was lost.
        private: True if that is deleted with the session.
        created: when it was made, in seconds since 1970; None where it was lost.
        removed: when it was removed; None of all others.
        processes: how many background processes and terminals it has that have not ended.
        confinement: what holds in it: ``ConfinementReport.document()``.
        forked: how its files came, if it was made of another session or a snapshot: ``Forked.way``.
        basis: what it runs on: ``plain``, a directory; ``copy``, one that another session's files, or what a
            snapshot holds, were copied into; ``overlay``, a directory that stays as it is while changes
            are kept apart; or ``layers``.
    """

    type: Literal["session"] = "session"
    id: str
    name: str
    state: Literal["created", "running", "ended", "removed", "lost"]
    workspace: Text = ""
    private: bool = True
    created: float | None = None
    removed: float | None = None
    processes: int = 0
    confinement: dict[str, str] | None = None
    forked: Text | None = None
    basis: Literal["plain", "copy", "overlay", "layers"] = "plain"


class SessionsInfo(Message):
    """Sessions, oldest first."""

    type: Literal["sessions"] = "sessions"
    sessions: tuple[SessionInfo, ...]


class SnapshotInfo(Message):
    """A snapshot of this user's store; ``Snapshot`` says what its fields mean."""

    type: Literal["snapshot"] = "snapshot"
    id: str
    history: str
    number: int
    created: float
    label: str
    tags: tuple[str, ...]
    root: Text
    files: int
    directories: int
    size: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> SnapshotInfo:
        """One as it travels."""
        told = {name: getattr(snapshot, name) for name in cls.model_fields if name != "type"}
        return cls.model_validate(told)


class ProcessInfo(Message):
    """A background process, or a terminal.

    Attributes:
        kind: which of the two.
        id: what it is found by in its session: ``p1`` and ``t1``.
        name: what it is called.
        command: its words.
        state: ``running``, ``leftovers`` if only what it started does, or ``ended``.
        pid: its process inside; None where that is not known.
        exit_code: None while it runs; -N where signal N ended it.
    """

    type: Literal["process"] = "process"
    kind: Literal["process", "terminal"]
    id: str
    name: str
    command: tuple[Text, ...]
    state: str
    pid: int | None = None
    exit_code: int | None = None


class ProcessesInfo(Message):
    """What runs in the background of a session, and on its terminals."""

    type: Literal["processes"] = "processes"
    processes: tuple[ProcessInfo, ...]


class Endpoint(Message):
    """Where a port of a session is reached."""

    type: Literal["endpoint"] = "endpoint"
    host: str
    port: int


class Returned(Message):
    """What a method gave, as ``values`` packs it.

    Attributes:
        value: the result; None where it came before, as JSON on the output channel.
        before: whether it did.
    """

    type: Literal["returned"] = "returned"
    value: JsonValue = None
    before: bool = False


class Result(Message):
    """An ``ExecResult`` without its output, which came before it."""

    type: Literal["result"] = "result"
    exit_code: int
    stderr: Text = ""
    stdout_total: int = 0
    stderr_total: int = 0
    duration_s: float = 0.0
    usage: ResourceUsage | None = None
    leftovers: tuple[Leftover, ...] = ()
    limit_hits: tuple[LimitHit, ...] = ()
    denials: tuple[Denial, ...] = ()

    @classmethod
    def of(cls, result: ExecResult) -> Result:
        """One as it travels: what it has of stderr are words about a program that could not run."""
        return cls(
            exit_code=result.exit_code,
            stderr=result.stderr.decode("utf-8", "surrogateescape"),
            stdout_total=result.stdout_total,
            stderr_total=result.stderr_total,
            duration_s=result.duration_s,
            usage=result.usage,
            leftovers=result.leftovers,
            limit_hits=result.limit_hits,
            denials=result.denials,
        )

    def whole(
        self, stdout: bytes = b"", dropped: tuple[int, int] = (0, 0), stderr: bytes = b""
    ) -> ExecResult:
        """The result, with the output that came before it."""
        return ExecResult(
            stdout=stdout,
            stderr=stderr + self.stderr.encode("utf-8", "surrogateescape"),
            exit_code=self.exit_code,
            stdout_dropped=dropped[0],
            stderr_dropped=dropped[1],
            stdout_total=self.stdout_total,
            stderr_total=self.stderr_total,
            duration_s=self.duration_s,
            usage=self.usage,
            leftovers=self.leftovers,
            limit_hits=self.limit_hits,
            denials=self.denials,
        )


class Done(Message):
    """It is done, and there is nothing to say of it."""

    type: Literal["done"] = "done"
    changed: bool = True


class Failed(Message):
    """It was not done: a ``SandboxError``.

    Attributes:
        code: the error's code; context, op and retryable are the error's.
        result: what is known of a command that was ended.
    """

    type: Literal["error"] = "error"
    code: str
    message: str
    op: str
    context: dict[str, JsonValue] = Field(default_factory=dict)
    retryable: bool | None = None
    result: Result | None = None


FromServer = (
    Started | Credit | Missed | ServerInfo | SessionInfo | SessionsInfo | ProcessInfo
    | ProcessesInfo | SnapshotInfo | Endpoint | Returned | Result | Done | Failed
)  # fmt: skip
"""What a server may say after its hello."""

_FROM_SERVER: Final = TypeAdapter[FromServer](Annotated[FromServer, Field(discriminator="type")])


def parse_from_server(payload: bytes) -> FromServer:
    """Read what a server says.

    Raises:
        FrameError: it is no message of a server's.
    """
    try:
        return _FROM_SERVER.validate_json(payload)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise FrameError(f"this is no message of a server's: {said}") from None


def failure_of(error: SandboxError) -> Failed:
    """An error as it travels; what JSON can't hold of its context is quoted."""
    result = getattr(error, "result", None)
    return Failed(
        code=error.code,
        message=_unicode(error.message),
        op=error.op,
        context={str(key): _json(value) for key, value in error.context.items()},
        retryable=error.retryable,
        result=Result.of(result) if isinstance(result, ExecResult) else None,
    )


def error_of(failed: Failed) -> SandboxError:
    """The error that a message tells of: of the same class, where this version has it."""
    kind = _CLASSES.get(failed.code, errors.SandboxRuntimeError)
    error = kind.__new__(kind, failed.message)
    SandboxError.__init__(
        error,
        failed.message,
        _known_code(failed.code),
        _known_op(failed.op),
        failed.context,
        None,
        failed.retryable,
    )
    _add_facts(error, failed)
    return error


def _add_facts(error: SandboxError, failed: Failed) -> None:
    """Give an error the attributes that its class has besides."""
    if isinstance(error, OSError):
        denied = isinstance(error, PermissionError)
        error.errno = errno.EACCES if denied else errno.ENOENT
        error.filename = str(failed.context.get("path", ""))
    if isinstance(error, errors.TerminalEndedError):
        code, written = (failed.context.get(key) for key in ("exit_code", "written"))
        error.exit_code = code if isinstance(code, int) else None
        error.written = written if isinstance(written, int) else 0
    if isinstance(error, ExecFailureError):
        words = failed.context.get("command")
        error.command = tuple(str(word) for word in words) if isinstance(words, list) else ()
    if isinstance(error, ExecTimeoutError):
        limit = failed.context.get("timeout_s")
        error.timeout_s = float(limit) if isinstance(limit, int | float) else None
        error.result = None if failed.result is None else failed.result.whole()
        error.stdout, error.stderr = b"", b""
    if isinstance(error, errors.ResourceLimitError):
        error.result = None if failed.result is None else failed.result.whole()
    if isinstance(error, errors.ExecNonZeroError):
        code, out, err = (failed.context.get(key) for key in ("exit_code", "stdout", "stderr"))
        error.exit_code = code if isinstance(code, int) else 1
        error.stdout, error.stderr = str(out or "").encode(), str(err or "").encode()

    _add_choices(error, failed)


def _add_choices(error: SandboxError, failed: Failed) -> None:
    """The same for errors that name a reason and what it is about."""
    reason = failed.context.get("reason")
    if isinstance(error, errors.ApplyRefusedError):
        paths = failed.context.get("paths")
        error.reason = "planted" if reason == "planted" else "conflict"
        error.paths = tuple(map(str, paths)) if isinstance(paths, list) else ()
    if isinstance(error, errors.ExposedPortUnavailableError):
        port, ports = (failed.context.get(key) for key in ("port", "exposed_ports"))
        error.port = port if isinstance(port, int) else 0
        listed = ports if isinstance(ports, list) else []
        error.exposed_ports = tuple(one for one in listed if isinstance(one, int))
        error.reason = str(reason)
    if isinstance(error, errors.PtySessionNotFoundError):
        number = failed.context.get("session_id")
        error.session_id = number if isinstance(number, int) else 0


def _json(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    return _unicode(shown(value))


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _known_code(code: str) -> ErrorCode:
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.SERVER_ERROR


def _known_op(op: str) -> errors.OpName:
    return next((known for known in _OPS if known == op), "connect")


_CLASSES: Final[dict[str, type[SandboxError]]] = {
    ErrorCode.ARGUMENT_INVALID: errors.ArgumentError,
    ErrorCode.ARGUMENT_TYPE: errors.ArgumentTypeError,
    ErrorCode.POLICY_INVALID: errors.PolicyError,
    ErrorCode.MANIFEST_INVALID: errors.ManifestError,
    ErrorCode.INVALID_MANIFEST_PATH: errors.InvalidManifestPathError,
    ErrorCode.CONFINEMENT_UNAVAILABLE: errors.ConfinementUnavailableError,
    ErrorCode.SESSION_CLOSED: errors.SessionClosedError,
    ErrorCode.SESSION_NOT_FOUND: errors.SessionNotFoundError,
    ErrorCode.SERVER_ERROR: errors.ServerError,
    ErrorCode.UNSUPPORTED_OPERATION: errors.UnsupportedOperationError,
    ErrorCode.EXPOSED_PORT_UNAVAILABLE: errors.ExposedPortUnavailableError,
    ErrorCode.EXPOSED_PORT_TIMEOUT: errors.ExposedPortTimeoutError,
    ErrorCode.APPLY_REFUSED: errors.ApplyRefusedError,
    ErrorCode.RESOURCE_LIMIT: errors.ResourceLimitError,
    ErrorCode.OUTPUT_LIMIT: errors.OutputLimitError,
    ErrorCode.EXEC_NONZERO: errors.ExecNonZeroError,
    ErrorCode.EXEC_TIMEOUT: errors.ExecTimeoutError,
    ErrorCode.EXEC_TRANSPORT_ERROR: errors.ExecTransportError,
    ErrorCode.TERMINAL_ENDED: errors.TerminalEndedError,
    ErrorCode.PTY_SESSION_NOT_FOUND: errors.PtySessionNotFoundError,
    ErrorCode.PTY_STDIN_UNAVAILABLE: errors.PtyStdinUnavailableError,
    ErrorCode.WORKSPACE_READ_NOT_FOUND: errors.WorkspaceReadNotFoundError,
    ErrorCode.WORKSPACE_ARCHIVE_READ_ERROR: errors.WorkspaceArchiveReadError,
    ErrorCode.WORKSPACE_ARCHIVE_WRITE_ERROR: errors.WorkspaceArchiveWriteError,
    ErrorCode.WORKSPACE_WRITE_TYPE_ERROR: errors.WorkspaceWriteTypeError,
    ErrorCode.POLICY_DENIED: errors.PolicyDeniedError,
    ErrorCode.INVALID_COMPRESSION_SCHEME: errors.InvalidCompressionSchemeError,
    ErrorCode.APPLY_PATCH_INVALID_PATH: errors.ApplyPatchPathError,
    ErrorCode.APPLY_PATCH_INVALID_DIFF: errors.ApplyPatchDiffError,
    ErrorCode.APPLY_PATCH_FILE_NOT_FOUND: errors.ApplyPatchFileNotFoundError,
    ErrorCode.APPLY_PATCH_DECODE_ERROR: errors.ApplyPatchDecodeError,
    ErrorCode.WORKSPACE_START_ERROR: errors.WorkspaceStartError,
    ErrorCode.WORKSPACE_STOP_ERROR: errors.WorkspaceStopError,
    ErrorCode.WORKSPACE_ROOT_NOT_FOUND: errors.WorkspaceRootNotFoundError,
    ErrorCode.SNAPSHOT_PERSIST_ERROR: errors.SnapshotPersistError,
    ErrorCode.SNAPSHOT_RESTORE_ERROR: errors.SnapshotRestoreError,
    ErrorCode.SNAPSHOT_NOT_RESTORABLE: errors.SnapshotNotRestorableError,
    ErrorCode.SNAPSHOT_DAMAGED: errors.SnapshotDamagedError,
    ErrorCode.LOCAL_FILE_READ_ERROR: errors.LocalFileReadError,
    ErrorCode.LOCAL_DIR_READ_ERROR: errors.LocalDirReadError,
    ErrorCode.UNSAFE_TAR_MEMBER: errors.UnsafeTarMemberError,
    ErrorCode.DEPENDENCIES_INVALID: errors.DependenciesBindingError,
    ErrorCode.DEPENDENCY_MISSING: errors.DependenciesMissingDependencyError,
    ErrorCode.EVENT_SINK_FAILED: errors.EventSinkError,
    ErrorCode.LIBRARY_LOAD_FAILED: errors.LibraryLoadError,
    ErrorCode.LEASE_HELD: errors.LeaseHeldError,
    ErrorCode.UNSCRIPTED_COMMAND: errors.UnscriptedCommandError,
    ErrorCode.LOCAL_CHECKSUM_ERROR: errors.LocalChecksumError,
    ErrorCode.GIT_MISSING_IN_IMAGE: errors.GitMissingInImageError,
    ErrorCode.GIT_CLONE_ERROR: errors.GitCloneError,
    ErrorCode.GIT_SUBPATH_ERROR: errors.GitSubpathError,
    ErrorCode.MOUNT_CONFIG_INVALID: errors.MountConfigError,
    ErrorCode.MOUNT_FAILED: errors.MountFailedError,
}
"""The class of each code; the class is made without its constructor, whose arguments did not travel."""

_OPS: Final[tuple[errors.OpName, ...]] = get_args(errors.OpName)
