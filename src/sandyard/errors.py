"""What can go wrong, and whose fault it is.

Every error of the library is a ``SandboxError``. Names in brackets are builtins that the class also
is, so that ``except FileNotFoundError`` and the like keep working.

    SandboxError
    ├── ConfigurationError                  the caller asked for something impossible
    │   ├── ArgumentError                   [ValueError]  one argument of one call
    │   │   └── ArgumentTypeError           [TypeError]
    │   ├── ApplyPatchError                 a patch can't be carried out; nothing was changed
    │   │   ├── ApplyPatchPathError
    │   │   └── ApplyPatchDiffError
    │   ├── InvalidCompressionSchemeError   [ValueError]  no such kind of archive
    │   ├── DependenciesError               [RuntimeError]  what a client gives its sessions
    │   │   ├── DependenciesBindingError
    │   │   └── DependenciesMissingDependencyError
    │   ├── PolicyError                     [ValueError]  what a command may touch
    │   ├── ManifestError                   [ValueError]  what should exist before work starts
    │   │   └── InvalidManifestPathError    a path is absolute or leaves the workspace
    │   ├── UnsafeTarMemberError            [ValueError]  a helper refuses an archive's member
    │   ├── SessionNotFoundError            [LookupError]  no session has this id or name
    │   ├── UnscriptedCommandError          [AssertionError]  a test's script does not know it
    │   └── UnsupportedOperationError       [NotImplementedError]  not with this kind of session
    ├── SandboxRuntimeError                 the machine or the sandbox could not do it
    │   ├── ConfinementUnavailableError     this machine can't enforce the policy
    │   ├── ExposedPortUnavailableError     a port can't be reached from this machine
    │   │   └── ExposedPortTimeoutError     [TimeoutError]  nobody listened there in time
    │   ├── EventSinkError                  [RuntimeError]  a sink did not take an event
    │   ├── LibraryLoadError                [ImportError]  a part of this library can't be loaded
    │   ├── SessionClosedError              [RuntimeError]  the session is not running
    │   ├── ResourceLimitError              a limit was reached
    │   │   └── OutputLimitError            there is more to tell than one call may
    │   ├── ApplyRefusedError               what was changed in an overlay can't be put beneath
    │   ├── TerminalEndedError              its command has exited
    │   ├── PtySessionNotFoundError         no process has this id
    │   ├── PtyStdinUnavailableError        [RuntimeError]  it has no terminal
    │   ├── ServerError                     whoever holds the sessions can't be asked
    │   ├── WorkspaceStartError
    │   │   └── LeaseHeldError              another session uses it now
    │   ├── WorkspaceStopError
    │   ├── WorkspaceRootNotFoundError
    │   ├── ExecFailureError
    │   │   ├── ExecNonZeroError            the command said no
    │   │   ├── ExecTimeoutError            [TimeoutError]  with what it had written
    │   │   └── ExecTransportError          the sandbox could not run it
    │   └── WorkspaceIOError
    │       ├── WorkspaceReadNotFoundError  [FileNotFoundError]
    │       ├── WorkspaceArchiveReadError
    │       ├── WorkspaceArchiveWriteError
    │       │   └── PolicyDeniedError       [PermissionError]  the policy forbids it; also a read error
    │       ├── WorkspaceWriteTypeError     [TypeError]
    │       ├── ApplyPatchFileNotFoundError [FileNotFoundError]
    │       └── ApplyPatchDecodeError       [ValueError]
    ├── SnapshotError                       a saved workspace
    │   ├── SnapshotPersistError            it could not be saved; what was saved before is there
    │   ├── SnapshotRestoreError            it could not be read back
    │   │   └── SnapshotDamagedError        its bytes are not those that were saved
    │   └── SnapshotNotRestorableError      nothing was saved under this name
    └── ArtifactError                       something to be copied in could not be
        ├── LocalArtifactError
        │   ├── LocalFileReadError
        │   ├── LocalDirReadError
        │   └── LocalChecksumError          its content is another than the manifest says
        ├── GitArtifactError
        │   ├── GitMissingInImageError      there is no git inside
        │   ├── GitCloneError
        │   └── GitSubpathError             the repository has no such directory
        └── MountArtifactError              something could not be mounted, or taken out again
            ├── MountConfigError            [ValueError]  what was asked for can't be mounted
            └── MountFailedError            the kernel or a provider refused

Errors can be copied, pickled and sent to another process; their causes go with them.
"""

from __future__ import annotations

import errno
import reprlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from sandyard.limits import SHOWN_OUTPUT_CHARS, SHOWN_VALUE_CHARS

if TYPE_CHECKING:
    from pathlib import PurePath

    from sandyard.types import ExecResult

__all__ = [
    "ApplyPatchDecodeError",
    "ApplyPatchDiffError",
    "ApplyPatchError",
    "ApplyPatchFileNotFoundError",
    "ApplyPatchPathError",
    "ApplyRefusedError",
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "ConfigurationError",
    "ConfinementUnavailableError",
    "DependenciesBindingError",
    "DependenciesError",
    "DependenciesMissingDependencyError",
    "ErrorCode",
    "EventSinkError",
    "ExecFailureError",
    "ExecNonZeroError",
    "ExecTimeoutError",
    "ExecTransportError",
    "ExposedPortTimeoutError",
    "ExposedPortUnavailableError",
    "GitArtifactError",
    "GitCloneError",
    "GitMissingInImageError",
    "GitSubpathError",
    "InvalidCompressionSchemeError",
    "InvalidManifestPathError",
    "LeaseHeldError",
    "LibraryLoadError",
    "LocalArtifactError",
    "LocalChecksumError",
    "LocalDirReadError",
    "LocalFileReadError",
    "ManifestError",
    "MountArtifactError",
    "MountConfigError",
    "MountFailedError",
    "OpName",
    "OutputLimitError",
    "PolicyDeniedError",
    "PolicyError",
    "PtySessionNotFoundError",
    "PtyStdinUnavailableError",
    "ResourceLimitError",
    "SandboxError",
    "SandboxRuntimeError",
    "ServerError",
    "SessionClosedError",
    "SessionNotFoundError",
    "SnapshotDamagedError",
    "SnapshotError",
    "SnapshotNotRestorableError",
    "SnapshotPersistError",
    "SnapshotRestoreError",
    "TerminalEndedError",
    "UnsafeTarMemberError",
    "UnscriptedCommandError",
    "UnsupportedOperationError",
    "WorkspaceArchiveReadError",
    "WorkspaceArchiveWriteError",
    "WorkspaceIOError",
    "WorkspaceReadNotFoundError",
    "WorkspaceRootNotFoundError",
    "WorkspaceStartError",
    "WorkspaceStopError",
    "WorkspaceWriteTypeError",
    "shown",
]

Context = Mapping[str, object]
"""Facts about an error for programs; a constructor's own keys come first, the caller's win."""

OpName = Literal[
    "start",
    "stop",
    "exec",
    "read",
    "write",
    "shutdown",
    "running",
    "persist_workspace",
    "hydrate_workspace",
    "resolve_exposed_port",
    "materialize",
    "snapshot_persist",
    "snapshot_restore",
    "apply_patch",
    "create",
    "resume",
    "fork",
    "delete",
    "ls",
    "rm",
    "mkdir",
    "extract",
    "normalize_path",
    "append",
    "chmod",
    "copy",
    "exists",
    "glob",
    "grep",
    "mv",
    "pack",
    "same_file",
    "stat",
    "unpack",
    "watch",
    "upload",
    "download",
    "review",
    "terminal",
    "why",
    "start_process",
    "process",
    "logs",
    "connect",
    "list",
    "attach",
    "events",
    "pty_exec_start",
    "pty_write_stdin",
    "pty_terminate_all",
    "dependencies",
    "mount",
    "unmount",
    "diff",
    "apply",
    "discard",
    "wait_for_port",
    "util",
    "process_run",
    "terminal_run",
    "refused_calls",
]
"""The operation in which an error happened."""


class ErrorCode(StrEnum):
    """Stable, machine-readable names of what went wrong."""

    ARGUMENT_INVALID = "argument_invalid"
    ARGUMENT_TYPE = "argument_type"
    SANDBOX_CONFIG_INVALID = "sandbox_config_invalid"
    POLICY_INVALID = "policy_invalid"
    MANIFEST_INVALID = "manifest_invalid"
    INVALID_MANIFEST_PATH = "invalid_manifest_path"
    INVALID_COMPRESSION_SCHEME = "invalid_compression_scheme"
    UNSAFE_TAR_MEMBER = "unsafe_tar_member"
    DEPENDENCIES_INVALID = "dependencies_invalid"
    DEPENDENCY_MISSING = "dependency_missing"
    CONFINEMENT_UNAVAILABLE = "confinement_unavailable"
    EVENT_SINK_FAILED = "event_sink_failed"
    LIBRARY_LOAD_FAILED = "library_load_failed"
    SESSION_CLOSED = "session_closed"
    SESSION_NOT_FOUND = "session_not_found"
    UNSCRIPTED_COMMAND = "unscripted_command"
    UNSUPPORTED_OPERATION = "unsupported_operation"
    SERVER_ERROR = "server_error"
    RESOURCE_LIMIT = "resource_limit"
    OUTPUT_LIMIT = "output_limit"
    EXEC_NONZERO = "exec_nonzero"
    EXEC_TIMEOUT = "exec_timeout"
    EXEC_TRANSPORT_ERROR = "exec_transport_error"
    EXPOSED_PORT_UNAVAILABLE = "exposed_port_unavailable"
    EXPOSED_PORT_TIMEOUT = "exposed_port_timeout"
    APPLY_REFUSED = "apply_refused"
    TERMINAL_ENDED = "terminal_ended"
    PTY_SESSION_NOT_FOUND = "pty_session_not_found"
    PTY_STDIN_UNAVAILABLE = "pty_stdin_unavailable"
    WORKSPACE_READ_NOT_FOUND = "workspace_read_not_found"
    WORKSPACE_ARCHIVE_READ_ERROR = "workspace_archive_read_error"
    WORKSPACE_ARCHIVE_WRITE_ERROR = "workspace_archive_write_error"
    WORKSPACE_WRITE_TYPE_ERROR = "workspace_write_type_error"
    POLICY_DENIED = "policy_denied"
    APPLY_PATCH_INVALID_PATH = "apply_patch_invalid_path"
    APPLY_PATCH_INVALID_DIFF = "apply_patch_invalid_diff"
    APPLY_PATCH_FILE_NOT_FOUND = "apply_patch_file_not_found"
    APPLY_PATCH_DECODE_ERROR = "apply_patch_decode_error"
    WORKSPACE_START_ERROR = "workspace_start_error"
    WORKSPACE_STOP_ERROR = "workspace_stop_error"
    WORKSPACE_ROOT_NOT_FOUND = "workspace_root_not_found"
    LOCAL_FILE_READ_ERROR = "local_file_read_error"
    LOCAL_DIR_READ_ERROR = "local_dir_read_error"
    LOCAL_CHECKSUM_ERROR = "local_checksum_error"
    GIT_MISSING_IN_IMAGE = "git_missing_in_image"
    GIT_CLONE_ERROR = "git_clone_error"
    GIT_SUBPATH_ERROR = "git_subpath_error"
    LEASE_HELD = "lease_held"
    SNAPSHOT_PERSIST_ERROR = "snapshot_persist_error"
    SNAPSHOT_RESTORE_ERROR = "snapshot_restore_error"
    SNAPSHOT_DAMAGED = "snapshot_damaged"
    SNAPSHOT_NOT_RESTORABLE = "snapshot_not_restorable"
    MOUNT_CONFIG_INVALID = "mount_config_invalid"
    MOUNT_FAILED = "mount_failed"


# --- how values are quoted --------------------------------------------------------------------


class _Quoter(reprlib.Repr):
    """A repr that is short whatever it is given, and never fails."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN_VALUE_CHARS
        self.maxlevel = 3

    def repr_bytes(self, x: bytes, level: int) -> str:
        """Cut before quoting: the default would quote all of it first."""
        if len(x) <= self.maxstring:
            return repr(x)
        return f"{x[: self.maxstring]!r}…({len(x)} bytes)"

    def repr_int(self, x: int, level: int) -> str:
        """Name the size of a giant: the interpreter refuses to print more than 4,300 digits."""
        return repr(x) if x.bit_length() <= SHOWN_VALUE_CHARS else f"<{x.bit_length()}-bit integer>"


def shown(value: object) -> str:
    """Quote a value for a message: its repr, cut to a readable length.

    Args:
        value: anything at all, a caller's hostile object included.
    """
    text = _Quoter().repr(value)
    longest = 2 * SHOWN_VALUE_CHARS  # what quoting and nesting may add
    return text if len(text) <= longest else f"{text[:longest]}…"


def _cut(text: str) -> str:
    """Keep the beginning and the end of a long text."""
    if len(text) <= SHOWN_OUTPUT_CHARS:
        return text
    half = SHOWN_OUTPUT_CHARS // 2
    dropped = len(text) - 2 * half
    return f"{text[:half]}\n… {dropped} characters left out …\n{text[-half:]}"


# --- the root ---------------------------------------------------------------------------------


class SandboxError(Exception):
    """Anything this library raises on purpose.

    Attributes:
        message: what happened, which rule or limit it was, and what to change.
        error_code: stable name of the error.
        op: operation in which it happened.
        context: facts for programs.
        cause: the error behind it, also its ``__cause__``.
        retryable: whether the same call may succeed later; None where that can't be told. An
            unset value is taken from a cause that has one.
    """

    def __init__(
        self,
        message: str,
        error_code: ErrorCode,
        op: OpName,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code
        self.op = op
        self.context: dict[str, object] = dict(context or {})
        self.cause = cause
        inherited = cause.retryable if isinstance(cause, SandboxError) else None
        self.retryable: bool | None = inherited if retryable is None else retryable
        if cause is not None:
            self.__cause__ = cause

    @property
    def code(self) -> str:
        """The error code as a plain string."""
        return self.error_code.value

    def __str__(self) -> str:
        """Show the message (an OSError would put its own text together)."""
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle by value, past the keyword-only constructors of the subclasses."""
        facts = dict(vars(self))
        if isinstance(self, OSError):  # these two live outside of __dict__
            facts |= {"errno": self.errno, "filename": self.filename}
        return _restore, (type(self), self.args, facts)


def _restore(kind: type[SandboxError], args: tuple[object, ...], facts: Context) -> SandboxError:
    """Rebuild a copied or unpickled error."""
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in facts.items():
        setattr(error, name, value)
    error.__cause__ = error.cause
    return error


class ConfigurationError(SandboxError):
    """The caller asked for something impossible; the same call never succeeds.

    One of your own that none of its classes fits has the code ``SANDBOX_CONFIG_INVALID``.
    """


class SandboxRuntimeError(SandboxError):
    """The machine or the sandbox could not do what was asked."""


class ArtifactError(SandboxError):
    """Something that a manifest copies into the workspace could not be copied."""


# --- configuration ----------------------------------------------------------------------------


class ArgumentError(ConfigurationError, ValueError):
    """One argument of one call has an impossible value.

    Args:
        message: what is wrong with it and what would be right.
        op: the operation that was called.
        argument: name of the argument.
        value: what was given; its quoted form goes into the context.
    """

    _code = ErrorCode.ARGUMENT_INVALID

    def __init__(
        self,
        message: str,
        *,
        op: OpName,
        argument: str,
        value: object,
        cause: BaseException | None = None,
    ) -> None:
        facts = {"argument": argument, "value": shown(value)}
        super().__init__(message, self._code, op, facts, cause, retryable=False)


class ArgumentTypeError(ArgumentError, TypeError):
    """One argument of one call has the wrong type. It takes what ``ArgumentError`` takes."""

    _code = ErrorCode.ARGUMENT_TYPE


class InvalidCompressionSchemeError(ConfigurationError, ValueError):
    """There is no such kind of archive.

    Args:
        path: where the archive was to stand.
        scheme: what was asked for.
    """

    def __init__(
        self,
        *,
        path: str | PurePath,
        scheme: object,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        facts = {"path": str(path), "scheme": scheme, **(context or {})}
        super().__init__(
            f"compression_scheme {shown(scheme)} for {shown(str(path))} is none that is known; give "
            "'tar' or 'zip', or None to go by the content",
            ErrorCode.INVALID_COMPRESSION_SCHEME,
            "write",
            facts,
            cause,
            retryable=False,
        )


class UnsafeTarMemberError(ConfigurationError, ValueError):
    """A member of a tar archive is refused by ``validate_tarfile`` and its kind.

    Args:
        member: its name, or ``<tar>`` where the archive itself can't be read.
        reason: a stable phrase, such as ``parent traversal``, followed by a path where it ends in a
            colon.
    """

    def __init__(
        self,
        *,
        member: str,
        reason: str,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        facts = {"member": member, "reason": reason, **(context or {})}
        super().__init__(
            f"the archive's member {shown(member)} is refused: {reason}",
            ErrorCode.UNSAFE_TAR_MEMBER,
            "extract",
            facts,
            cause,
            retryable=False,
        )
        self.member = member
        self.reason = reason


class DependenciesError(ConfigurationError, RuntimeError):
    """What a client gives its sessions can't be bound or found.

    Args:
        message: what happened.
        key: the dependency's name.
    """

    _code = ErrorCode.DEPENDENCIES_INVALID

    def __init__(self, message: str, *, key: object) -> None:
        facts = {"key": shown(key)}
        super().__init__(message, self._code, "dependencies", facts, retryable=False)


class DependenciesBindingError(DependenciesError):
    """A name is bound already, was bound anew while it was made, or all is closed."""


class DependenciesMissingDependencyError(DependenciesError):
    """Nothing is bound to a name that is required."""

    _code = ErrorCode.DEPENDENCY_MISSING


class PolicyError(ConfigurationError, ValueError):
    """A policy says something impossible or contradicts itself.

    Args:
        message: what is wrong and what would be right.
        field: the policy's field.
        value: what was given; its quoted form goes into the context.
    """

    def __init__(
        self, message: str, *, field: str, value: object, cause: BaseException | None = None
    ) -> None:
        facts = {"field": field, "value": shown(value)}
        super().__init__(message, ErrorCode.POLICY_INVALID, "create", facts, cause, retryable=False)


class ManifestError(ConfigurationError, ValueError):
    """A manifest says something impossible.

    Args:
        message: what is wrong and what would be right.
        field: the manifest's or entry's field, or None.
        entry: path of the entry, or None where it is none's.
    """

    _code = ErrorCode.MANIFEST_INVALID

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        entry: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        named = {"field": field, "entry": entry}
        facts: dict[str, object] = {key: said for key, said in named.items() if said is not None}
        facts |= dict(context or {})
        super().__init__(message, self._code, "materialize", facts, cause, retryable=False)


class InvalidManifestPathError(ManifestError):
    """A path is absolute where it may not be, or leaves the workspace.

    It is raised for every path, in a manifest or in a call.

    Args:
        rel: the path as given.
        reason: ``absolute`` if it was given as an absolute path, else ``escape_root``.
        context: further facts.
    """

    _code = ErrorCode.INVALID_MANIFEST_PATH

    def __init__(
        self,
        *,
        rel: str | PurePath,
        reason: Literal["absolute", "escape_root"],
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        absolute = reason == "absolute"
        what = "is not inside the workspace" if absolute else "leaves the workspace"
        super().__init__(
            f"path {shown(str(rel))} {what}; give a path beneath the workspace's root, "
            "and no symlink that points out of it",
            context={"rel": str(rel), "reason": reason, **(context or {})},
            cause=cause,
        )


class SessionNotFoundError(ConfigurationError, LookupError):
    """No session that is held has this id or name.

    Args:
        which: the id, the beginning of one, or the name that was given.
        message: what to say instead of the default text.
        reason: ``unknown``; ``ambiguous`` for a beginning that several ids have; ``removed``; or
            ``gone`` with a supervisor that was killed.
    """

    def __init__(
        self,
        *,
        which: str,
        op: OpName = "connect",
        message: str | None = None,
        reason: Literal["unknown", "ambiguous", "removed", "gone"] = "unknown",
        cause: BaseException | None = None,
    ) -> None:
        text = message or f"there is no session {shown(which)}; sandyard ls lists those there are"
        facts = {"session": which, "reason": reason}
        super().__init__(text, ErrorCode.SESSION_NOT_FOUND, op, facts, cause, retryable=False)


class UnscriptedCommandError(ConfigurationError, AssertionError):
    """A scripted session was asked for a command that its script has no answer to.

    Args:
        command: its words.
        answers: what the script has answers to, in words.
    """

    def __init__(self, *, command: Sequence[str | PurePath], answers: tuple[str, ...]) -> None:
        words = tuple(str(word) for word in command)
        said = shown(words[0] if len(words) == 1 else words)
        known = "; ".join(answers) or "nothing yet"
        super().__init__(
            f"the script has no answer to {said}; give it one with session.answer({said}, …). It "
            f"answers: {known}",
            ErrorCode.UNSCRIPTED_COMMAND,
            "exec",
            {"command": words, "answers": answers},
            retryable=False,
        )


class UnsupportedOperationError(ConfigurationError, NotImplementedError):
    """This kind of session does not do that, or not with such an argument.

    Args:
        op: the operation.
        method: the method that was called.
        session: name of the session's class.
        argument: the argument that it can't honour; None if it is the whole method.
    """

    def __init__(
        self,
        *,
        op: OpName,
        method: str,
        session: str,
        argument: str | None = None,
        context: Context | None = None,
    ) -> None:
        what = f"{method}()" if argument is None else f"{argument}= of {method}()"
        facts = {"method": method, "session": session, "argument": argument, **(context or {})}
        super().__init__(
            f"{session} has no {what}; use another method, or a session that has it, such as those "
            "of UnixLocalSandboxClient",
            ErrorCode.UNSUPPORTED_OPERATION,
            op,
            facts,
            retryable=False,
        )


# --- the sandbox ------------------------------------------------------------------------------


class ConfinementUnavailableError(SandboxRuntimeError):
    """The machine can't do a part of what was asked for behind a wall, so nothing was started.

    Args:
        message: what was refused, as one clause; cause and fix are appended to it.
        dimension: the part: read, write, network, processes, ipc, syscalls or resources; or
            terminals, mounts or ports, where a session can run, but on a rung that has none.
        cause_text: why the machine can't.
        fix: what to change.
    """

    def __init__(
        self,
        message: str,
        *,
        dimension: str,
        cause_text: str,
        fix: str,
        cause: BaseException | None = None,
    ) -> None:
        text = f"{message}: {cause_text}. To fix it: {fix}"
        facts = {"dimension": dimension, "cause_text": cause_text, "fix": fix}
        super().__init__(
            text, ErrorCode.CONFINEMENT_UNAVAILABLE, "start", facts, cause, retryable=False
        )


class ExposedPortUnavailableError(SandboxRuntimeError):
    """A port of a session can't be reached from this machine.

    Args:
        port: which.
        exposed_ports: those that the session was made with.
        reason: ``not_configured`` for one that is none of them; of a start ``taken`` for one that
            another program or session listens on, ``privileged`` for one that this user may not
            listen on, ``refused`` for what else the kernel says; ``not_listening``;
            ``process_ended`` where the server was gone before it listened; ``backend_unavailable`` for a
            kind of session that reaches none.
        message: what to say instead of the default text.
        op: the operation that was called.
    """

    _code = ErrorCode.EXPOSED_PORT_UNAVAILABLE

    def __init__(
        self,
        *,
        port: int,
        exposed_ports: Sequence[int] = (),
        reason: str = "not_configured",
        message: str | None = None,
        op: OpName = "resolve_exposed_port",
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        listed = tuple(exposed_ports)
        facts = {"port": port, "exposed_ports": [*listed], "reason": reason, **(context or {})}
        made_with = f"with {shown(listed)}" if listed else "without any"
        text = message or (
            f"port {shown(port)} can't be reached ({reason}): the session was made {made_with}"
        )
        if message is None and reason == "not_configured":
            text += (
                "; name it when you make one, as "
                "client.create(options=UnixLocalSandboxClientOptions(8000))"
            )
        lasting = False if reason == "not_configured" else retryable
        super().__init__(text, self._code, op, facts, cause, lasting)
        self.port = port
        self.exposed_ports = listed
        self.reason = reason


class ExposedPortTimeoutError(ExposedPortUnavailableError, TimeoutError):
    """Nobody inside listened on a port in time. It takes what ``ExposedPortUnavailableError`` takes."""

    _code = ErrorCode.EXPOSED_PORT_TIMEOUT


class EventSinkError(SandboxRuntimeError, RuntimeError):
    """A sink did not take an event, and is marked to fail operations (``on_error="raise"``).

    What the operation itself did is done.

    Args:
        message: what the sink said.
        sink: its name.
    """

    def __init__(self, message: str, *, sink: str, cause: BaseException | None = None) -> None:
        super().__init__(message, ErrorCode.EVENT_SINK_FAILED, "events", {"sink": sink}, cause)


class LibraryLoadError(SandboxRuntimeError, ImportError):
    """A part of this library can't be loaded: the program is short of descriptors, or files are gone.

    Rarely used parts are loaded when they are asked for. Nothing was done; once the cause is gone the
    same call works.

    Args:
        op: the operation that asked for it.
        cause: what the interpreter said.
    """

    def __init__(self, *, op: OpName, cause: BaseException) -> None:
        short = isinstance(cause, OSError) and cause.errno in {errno.EMFILE, errno.ENFILE}
        text = shown(str(cause) or type(cause).__name__)
        super().__init__(
            f"a part of the library can't be loaded: {text}; give the program more file descriptors "
            "(ulimit -n) where it has none left, else look whether its installation is whole",
            ErrorCode.LIBRARY_LOAD_FAILED,
            op,
            {"reason": "too_many_open_files" if short else "not_loadable"},
            cause,
            retryable=True,
        )


class SessionClosedError(SandboxRuntimeError, RuntimeError):
    """The session is not in a state in which the operation is possible.

    Args:
        op: the operation that was called.
        state: what the session is (for example ``new``, ``closed``).
        message: what to say instead of the default text.
    """

    def __init__(
        self,
        *,
        op: OpName,
        state: str,
        message: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        remedy = "use it inside 'async with session', or call start() first"
        if state == "closed":
            remedy = (
                "unless it was deleted, client.resume(session.state) makes one that goes on there"
            )
        text = message or f"{op} needs a running session, and this one is {state}; {remedy}"
        facts = {"op": op, "state": state}
        super().__init__(text, ErrorCode.SESSION_CLOSED, op, facts, cause, retryable=False)


class ServerError(SandboxRuntimeError):
    """Whoever holds the sessions can't be reached, can't be trusted, or is not understood.

    Args:
        message: what happened, and what to do about it.
        reason: ``unreachable``, ``lost`` for one that went away under a call, ``version`` for one
            of another version, ``foreign`` for another user's, ``protocol`` for what makes no sense.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Literal["unreachable", "lost", "version", "foreign", "protocol"],
        op: OpName = "connect",
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        facts = {"reason": reason, **(context or {})}
        super().__init__(message, ErrorCode.SERVER_ERROR, op, facts, cause, retryable)


class ResourceLimitError(SandboxRuntimeError):
    """A limit was reached.

    Args:
        message: what reached it, and which setting raises it.
        limit: name of the limit.
        value: the limit itself.
        unit: unit of ``value``.
        op: the operation that reached it (default: exec).
        result: everything that is known of the command that was ended for it, or None.
    """

    _code = ErrorCode.RESOURCE_LIMIT

    def __init__(  # noqa: PLR0913 - one keyword for each fact about a hit
        self,
        message: str,
        *,
        limit: str,
        value: float,
        unit: str,
        op: OpName = "exec",
        result: ExecResult | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        facts = {"limit": limit, "value": value, "unit": unit, **(context or {})}
        super().__init__(message, self._code, op, facts, cause, retryable)
        self.result = result


class OutputLimitError(ResourceLimitError):
    """There is more to tell than one call may: ask for less.

    What commands write is never too much: it is cut, and what is missing is counted.
    """

    _code = ErrorCode.OUTPUT_LIMIT


class _PathError(SandboxRuntimeError):
    """The constructor that errors about one path share.

    Args:
        path: the path as given.
        message: what to say instead of the default text, which names the cause.
        context: further facts, such as ``reason``.
        cause: the error behind it.
        retryable: whether the same call may succeed later.
    """

    _code: ErrorCode
    _op: OpName
    _says: str
    _retryable: bool | None = None

    def __init__(
        self,
        *,
        path: str | PurePath,
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        text = message or self._says.format(shown(str(path))) + _because(cause, str(path))
        facts = {"path": str(path), **(context or {})}
        later = self._retryable if retryable is None else retryable
        super().__init__(text, self._code, self._op, facts, cause, later)


def _because(cause: BaseException | None, path: str = "") -> str:
    """Name the cause at the end of a message, and its path where that is another than the message's."""
    if cause is None:
        return ""
    said = str(cause)
    if isinstance(cause, OSError) and cause.strerror:
        own = cause.filename in {None, "."} or f"/{path}".endswith(f"/{cause.filename}")
        said = cause.strerror if own else said.partition("] ")[2] or said
    return f": {_cut(said) or type(cause).__name__}"


class WorkspaceStartError(_PathError):
    """The workspace could not be made ready; ``path`` is its root."""

    _code = ErrorCode.WORKSPACE_START_ERROR
    _op: OpName = "start"
    _says = "the workspace {} could not be started"


class LeaseHeldError(WorkspaceStartError):
    """Another session uses the workspace ``path``, or has this session's id; nothing was changed."""

    _code = ErrorCode.LEASE_HELD
    _says = "the workspace {} is in use by another session; close that one first"


class WorkspaceStopError(_PathError):
    """The workspace could not be saved or stopped; ``path`` is its root."""

    _code = ErrorCode.WORKSPACE_STOP_ERROR
    _op: OpName = "stop"
    _says = "the workspace {} could not be stopped"


class WorkspaceRootNotFoundError(_PathError):
    """The workspace's root directory, ``path``, is gone."""

    _code = ErrorCode.WORKSPACE_ROOT_NOT_FOUND
    _retryable = False
    _op: OpName = "exec"
    _says = (
        "the workspace {} no longer exists; somebody removed or replaced its directory: "
        "create a new session"
    )


# --- commands ---------------------------------------------------------------------------------


class ExecFailureError(SandboxRuntimeError):
    """A command did not do what was wanted.

    Attributes:
        command: its words.
    """

    def __init__(
        self,
        message: str,
        *,
        error_code: ErrorCode,
        command: Sequence[str | PurePath],
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        words = tuple(str(word) for word in command)
        facts = {"command": words, "command_str": " ".join(words), **(context or {})}
        super().__init__(message, error_code, "exec", facts, cause, retryable)
        self.command = words


class ExecNonZeroError(ExecFailureError):
    """A command ended with another exit code than 0.

    Args:
        exec_result: what it did; its stdout, stderr and exit_code become attributes.
        command: its words.
    """

    def __init__(
        self,
        exec_result: ExecResult,
        *,
        command: Sequence[str | PurePath],
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        self.exit_code = exec_result.exit_code
        self.stdout = exec_result.stdout
        self.stderr = exec_result.stderr
        out, err = (text.decode("utf-8", "replace") for text in (self.stdout, self.stderr))
        if out and err:
            message = f"stdout: {_cut(out)}\nstderr: {_cut(err)}"
        else:
            message = _cut(out or err) or f"command exited with code {self.exit_code}"
        facts = {"exit_code": self.exit_code, "stdout": out, "stderr": err, **(context or {})}
        super().__init__(
            message,
            error_code=ErrorCode.EXEC_NONZERO,
            command=command,
            context=facts,
            cause=cause,
            retryable=False,
        )


class ExecTimeoutError(ExecFailureError, TimeoutError):
    """A command ran longer than it was allowed; it and all that it started were ended.

    Args:
        command: its words.
        timeout_s: seconds it was allowed.
        stdout: what it had written so far.
        stderr: likewise.
        result: everything that is known of it; where given, it provides stdout and stderr.
        message: what to say instead of the default text.
    """

    def __init__(
        self,
        *,
        command: Sequence[str | PurePath],
        timeout_s: float | None,
        stdout: bytes = b"",
        stderr: bytes = b"",
        result: ExecResult | None = None,
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        allowed = "its time" if timeout_s is None else f"{timeout_s:g} s"
        words = shown(" ".join(str(word) for word in command))
        super().__init__(
            message
            or f"the command took longer than {allowed} and was ended: {words}; what it had written "
            "is in this error's stdout and stderr; give exec a larger timeout to let it run on",
            error_code=ErrorCode.EXEC_TIMEOUT,
            command=command,
            context={"timeout_s": timeout_s, **(context or {})},
            cause=cause,
            retryable=False,
        )
        self.timeout_s = timeout_s
        self.result = result
        self.stdout = stdout if result is None else result.stdout
        self.stderr = stderr if result is None else result.stderr


class ExecTransportError(ExecFailureError):
    """The sandbox could not run a command; the command itself is not at fault.

    Args:
        command: its words.
        message: what to say instead of the default text.
    """

    def __init__(
        self,
        *,
        command: Sequence[str | PurePath],
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(
            message or f"the sandbox could not run the command{_because(cause)}",
            error_code=ErrorCode.EXEC_TRANSPORT_ERROR,
            command=command,
            context=context,
            cause=cause,
            retryable=retryable,
        )


# --- terminals --------------------------------------------------------------------------------


class ApplyRefusedError(SandboxRuntimeError):
    """What was changed in an overlay was not put into the directory beneath, where nothing changed.

    Args:
        why: what is the matter with the paths.
        reason: ``"conflict"`` (changed outside meanwhile) or ``"planted"`` (to be named).
        paths: which, relative to the workspace.

    Attributes:
        reason: the same.
        paths: the same.
    """

    def __init__(
        self,
        why: str,
        *,
        reason: Literal["conflict", "planted"],
        paths: tuple[str, ...],
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        named = ", ".join(shown(path) for path in paths[:_SHOWN_PATHS])
        more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
        super().__init__(
            f"nothing was applied: {named}{more}: {why}",
            ErrorCode.APPLY_REFUSED,
            "apply",
            {"reason": reason, "paths": paths, **(context or {})},
            cause,
            retryable=False,
        )
        self.reason = reason
        self.paths = paths


_SHOWN_PATHS = 5
"""Paths that a message names; all are in ``paths``."""


class TerminalEndedError(SandboxRuntimeError):
    """The command of a terminal has exited, so that nobody reads what is typed.

    Args:
        name: the terminal's name.
        exit_code: its exit code, or None if that is not known yet.
        written: bytes that it had taken before.
    """

    def __init__(
        self,
        *,
        name: str,
        exit_code: int | None,
        written: int = 0,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        told = "has ended" if exit_code is None else f"has exited with {exit_code}"
        super().__init__(
            f"the command of terminal {shown(name)} {told}, and reads nothing any more; what it showed "
            "is in scrollback(), and session.terminal starts another",
            ErrorCode.TERMINAL_ENDED,
            "terminal",
            {"name": name, "exit_code": exit_code, "written": written, **(context or {})},
            cause,
            retryable=False,
        )
        self.exit_code = exit_code
        self.written = written


class PtySessionNotFoundError(SandboxRuntimeError):
    """No process of ``pty_exec_start`` has this id: it never had, or the exit code was told.

    Args:
        session_id: the id as given.
        message: what to say instead of the default text.
    """

    def __init__(
        self,
        *,
        session_id: int,
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(
            message
            or f"there is no process {shown(session_id)} here: an id is valid until its exit code was told",
            ErrorCode.PTY_SESSION_NOT_FOUND,
            "exec",
            {"session_id": session_id, **(context or {})},
            cause,
            retryable=False,
        )
        self.session_id = session_id


class PtyStdinUnavailableError(SandboxRuntimeError, RuntimeError):
    """A process that was started without a terminal can't be typed to; its stdin is empty.

    Args:
        session_id: its id.
    """

    def __init__(
        self,
        *,
        session_id: int,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(
            "stdin is not available for this process",  # callers compare it
            ErrorCode.PTY_STDIN_UNAVAILABLE,
            "exec",
            {"session_id": session_id, "fix": "start it with tty=True", **(context or {})},
            cause,
            retryable=False,
        )


# --- files ------------------------------------------------------------------------------------


class WorkspaceIOError(SandboxRuntimeError):
    """A file operation in the workspace failed."""


class WorkspaceReadNotFoundError(_PathError, WorkspaceIOError, FileNotFoundError):
    """There is no file ``path`` in the workspace (``errno`` and ``filename`` are set)."""

    _code = ErrorCode.WORKSPACE_READ_NOT_FOUND
    _op: OpName = "read"
    _says = "there is no file {} in the workspace"

    def __init__(
        self,
        *,
        path: str | PurePath,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        text = self._says.format(shown(str(path)))
        super().__init__(path=path, message=text, context=context, cause=cause, retryable=False)
        self.errno = errno.ENOENT
        self.filename = str(path)


class WorkspaceArchiveReadError(_PathError, WorkspaceIOError):
    """``path`` in the workspace, or an archive of it, could not be read."""

    _code = ErrorCode.WORKSPACE_ARCHIVE_READ_ERROR
    _op: OpName = "read"
    _says = "{} could not be read"


class WorkspaceArchiveWriteError(_PathError, WorkspaceIOError):
    """``path`` in the workspace could not be written, made or removed."""

    _code = ErrorCode.WORKSPACE_ARCHIVE_WRITE_ERROR
    _op: OpName = "write"
    _says = "{} could not be written"


class PolicyDeniedError(WorkspaceArchiveWriteError, WorkspaceArchiveReadError, PermissionError):
    """The policy forbids a file operation, as it forbids commands the same; nothing was changed.

    It is what both reading and writing may raise, so that whoever handles those handles this.

    Args:
        path: the path as given.
        op: the operation.
        message: what was refused, by which rule, and what to change.
        reason: ``denied``, ``protected``, ``held``, ``granted`` (a grant's own place can't change) or
            ``read_only_extra_path_grant``.
        rule_path: what the rule is about, as commands know it.
        grant: what to write to allow it.
    """

    _code = ErrorCode.POLICY_DENIED

    def __init__(
        self,
        *,
        path: str | PurePath,
        op: OpName,
        message: str,
        reason: str,
        rule_path: str,
        grant: str,
    ) -> None:
        facts = {"reason": reason, "rule_path": rule_path, "grant": grant}
        if reason == "read_only_extra_path_grant":
            facts["grant_path"] = rule_path
        super().__init__(path=path, message=message, context=facts, retryable=False)
        self.op = op
        self.errno = errno.EACCES
        self.filename = str(path)


class WorkspaceWriteTypeError(_PathError, WorkspaceIOError, TypeError):
    """What should be written is not a stream of bytes; nothing was touched.

    Args:
        path: the path as given.
        actual_type: name of the type that was given, or of what its ``read`` returned.
    """

    _code = ErrorCode.WORKSPACE_WRITE_TYPE_ERROR
    _op: OpName = "write"

    def __init__(
        self,
        *,
        path: str | PurePath,
        actual_type: str,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        text = (
            f"writing {shown(str(path))} needs bytes or a binary stream, not {actual_type}; "
            "encode text first, or open the source with mode 'rb'"
        )
        facts = {"actual_type": actual_type, **(context or {})}
        super().__init__(path=path, message=text, context=facts, cause=cause, retryable=False)


# --- patches ----------------------------------------------------------------------------------


class ApplyPatchError(ConfigurationError):
    """A patch can't be carried out as it is; nothing was changed."""


class ApplyPatchPathError(ApplyPatchError):
    """A path in a patch is empty, or leaves the workspace.

    Args:
        path: as given.
        reason: ``absolute``, ``escape_root`` or ``empty``.
    """

    def __init__(
        self,
        *,
        path: str | PurePath,
        reason: Literal["absolute", "escape_root", "empty"],
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        what = "is empty" if reason == "empty" else "leaves the workspace"
        super().__init__(
            f"the path {shown(str(path))} in the patch {what}; name a file beneath the workspace",
            ErrorCode.APPLY_PATCH_INVALID_PATH,
            "apply_patch",
            {"path": str(path), "reason": reason, **(context or {})},
            cause,
            retryable=False,
        )


class ApplyPatchDiffError(ApplyPatchError):
    """A diff is malformed, or does not fit its file.

    Args:
        message: what is wrong with it.
        path: the file, where it is known.
        hunk: number of the hunk, from 1, where it is one's fault.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PurePath | None = None,
        hunk: int | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        facts: dict[str, object] = {} if path is None else {"path": str(path)}
        if hunk is not None:
            facts["hunk"] = hunk
        text = message if path is None else f"{shown(str(path))}: {message}"
        super().__init__(
            text,
            ErrorCode.APPLY_PATCH_INVALID_DIFF,
            "apply_patch",
            facts | dict(context or {}),
            cause,
            retryable=False,
        )
        self.said = message
        self.hunk = hunk


class ApplyPatchFileNotFoundError(_PathError, WorkspaceIOError, FileNotFoundError):
    """A patch updates or deletes a file that does not exist; nothing was changed."""

    _code = ErrorCode.APPLY_PATCH_FILE_NOT_FOUND
    _op: OpName = "apply_patch"
    _says = "the patch changes {}, and there is no such file; create it instead"

    def __init__(
        self,
        *,
        path: str | PurePath,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        text = self._says.format(shown(str(path)))
        super().__init__(path=path, message=text, context=context, cause=cause, retryable=False)
        self.errno = errno.ENOENT
        self.filename = str(path)


class ApplyPatchDecodeError(_PathError, WorkspaceIOError, ValueError):
    """A patch changes a file that is not UTF-8 text; nothing was changed."""

    _code = ErrorCode.APPLY_PATCH_DECODE_ERROR
    _op: OpName = "apply_patch"
    _says = "the patch changes {}, which is not UTF-8 text; write that file instead"

    def __init__(
        self,
        *,
        path: str | PurePath,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        text = self._says.format(shown(str(path)))
        super().__init__(path=path, message=text, context=context, cause=cause, retryable=False)


# --- snapshots --------------------------------------------------------------------------------


class SnapshotError(SandboxError):
    """A saved workspace could not be written, read or found.

    Args:
        snapshot_id: its name.
        path: where it lies, or should.
        message: what to say instead of the default text, which names the cause.
        context: further facts, such as ``reason``.
        cause: the error behind it.
        retryable: whether the same call may succeed later.
    """

    _code: ErrorCode
    _op: OpName
    _says: str
    _retryable: bool | None = None

    def __init__(
        self,
        *,
        snapshot_id: str,
        path: str | PurePath,
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        said = self._says.format(shown(snapshot_id), shown(str(path)))
        text = message or said + _because(cause, str(path))
        facts = {"snapshot_id": snapshot_id, "path": str(path), **(context or {})}
        again = self._retryable if retryable is None else retryable
        super().__init__(text, self._code, self._op, facts, cause, again)


class SnapshotPersistError(SnapshotError):
    """A workspace could not be saved; every snapshot that was saved before is as it was."""

    _code = ErrorCode.SNAPSHOT_PERSIST_ERROR
    _op: OpName = "snapshot_persist"
    _says = "snapshot {} could not be saved to {}; what was saved before is as it was"


class SnapshotRestoreError(SnapshotError):
    """A snapshot could not be read back."""

    _code = ErrorCode.SNAPSHOT_RESTORE_ERROR
    _op: OpName = "snapshot_restore"
    _says = "snapshot {} could not be read from {}"


class SnapshotDamagedError(SnapshotRestoreError):
    """The bytes of a snapshot are not those that were saved; none of them is handed out."""

    _code = ErrorCode.SNAPSHOT_DAMAGED
    _says = "snapshot {} in {} is damaged"
    _retryable = False


class SnapshotNotRestorableError(SnapshotError):
    """Nothing was saved under this name."""

    _code = ErrorCode.SNAPSHOT_NOT_RESTORABLE
    _op: OpName = "snapshot_restore"
    _says = "there is no snapshot {} in {}"
    _retryable = False


# --- what is copied in ------------------------------------------------------------------------


class LocalArtifactError(ArtifactError):
    """Something of the host could not be copied into the workspace.

    Args:
        src: the source as given.
        message: what to say instead of the default text, which names the cause.
        context: further facts, such as ``reason`` and ``child``.
    """

    _code: ErrorCode
    _says: str

    def __init__(
        self,
        *,
        src: str | PurePath,
        message: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        said = f"the {self._says} {shown(str(src))} could not be read"
        text = message or said + _because(cause, str(src))
        facts = {"src": str(src), **(context or {})}
        super().__init__(text, self._code, "materialize", facts, cause, retryable=False)


class LocalFileReadError(LocalArtifactError):
    """A file of the host could not be copied into the workspace."""

    _code = ErrorCode.LOCAL_FILE_READ_ERROR
    _says = "local file"


class LocalDirReadError(LocalArtifactError):
    """A directory of the host could not be copied into the workspace."""

    _code = ErrorCode.LOCAL_DIR_READ_ERROR
    _says = "local directory"


class LocalChecksumError(LocalArtifactError):
    """A file of the host has another content than the manifest says; nothing was made of it."""

    _code = ErrorCode.LOCAL_CHECKSUM_ERROR
    _says = "checksum of the local file"


class GitArtifactError(ArtifactError):
    """A Git repository could not be copied into the workspace."""


def _colon(said: str | None) -> str:
    """What somebody said, at the end of a message."""
    return f": {_cut(said.strip())}" if said else ""


class GitMissingInImageError(GitArtifactError):
    """There is no git among the programs that commands see.

    Args:
        repo: the repository as given; None where that is not known.
        ref: the branch, tag or commit as given.
    """

    def __init__(
        self,
        *,
        repo: str | None = None,
        ref: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        which = "a repository" if repo is None else f"the repository {shown(repo)}"
        text = f"{which} can't be cloned: there is no git; install it"
        facts = {"repo": repo, "ref": ref, **(context or {})}
        code = ErrorCode.GIT_MISSING_IN_IMAGE
        super().__init__(text, code, "materialize", facts, cause, retryable=False)


class GitCloneError(GitArtifactError):
    """Git could not clone a repository; nothing of it is in the workspace.

    Args:
        url: what Git was given.
        ref: the branch, tag or commit as given.
        stderr: what Git said, or what else kept it from cloning.
        repo: the repository as given; None where that is not known.
        subpath: the directory of it that was wanted.
    """

    def __init__(
        self,
        *,
        url: str,
        ref: str | None,
        stderr: str | None = None,
        repo: str | None = None,
        subpath: str | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        which = f" at {shown(ref)}" if ref else ""
        text = f"the repository {shown(url)}{which} could not be cloned{_colon(stderr)}"
        facts: dict[str, object] = {
            "url": url,
            "ref": ref,
            "stderr": stderr,
            "repo": repo,
            "subpath": subpath,
            **(context or {}),
        }
        super().__init__(text, ErrorCode.GIT_CLONE_ERROR, "materialize", facts, cause)


class GitSubpathError(GitArtifactError):
    """The part of a repository that was wanted is no directory in it.

    Args:
        repo: the repository as given.
        subpath: the directory of it that was wanted.
        reason: ``empty``, ``absolute``, ``windows_path``, ``parent_traversal``, ``not_found`` or
            ``symlink_not_supported``.
    """

    def __init__(
        self,
        *,
        repo: str,
        subpath: str,
        reason: str,
        context: Context | None = None,
        cause: BaseException | None = None,
    ) -> None:
        said = _SUBPATH_SAYS.get(reason, reason)
        text = f"the subpath {shown(subpath)} of the repository {shown(repo)} {said}"
        facts = {"repo": repo, "subpath": subpath, "reason": reason, **(context or {})}
        code = ErrorCode.GIT_SUBPATH_ERROR
        super().__init__(text, code, "materialize", facts, cause, retryable=False)


_SUBPATH_SAYS = {
    "empty": "is blank; leave it out for all of it",
    "absolute": "is absolute; write it relative to the repository",
    "windows_path": "is a path of Windows; write it with slashes",
    "parent_traversal": "has '..'; write it from the top of the repository",
    "not_found": "is not there, or is no directory",
    "symlink_not_supported": "leads through a symlink; name the directory itself",
}


class MountArtifactError(ArtifactError):
    """Something could not be mounted in a session, or taken out again.

    Args:
        message: what, why, and what to change.
        op: the operation.
        path: where it was to stand, or stands; None where that is not known.
        context: further facts, such as ``reason``.
        cause: the error behind it.
        retryable: whether the same call may succeed later.
    """

    _code: ErrorCode
    _retryable: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        op: OpName = "materialize",
        path: str | PurePath | None = None,
        context: Context | None = None,
        cause: BaseException | None = None,
        retryable: bool | None = None,
    ) -> None:
        place: dict[str, object] = {} if path is None else {"path": str(path)}
        later = self._retryable if retryable is None else retryable
        super().__init__(message, self._code, op, {**place, **(context or {})}, cause, later)


class MountConfigError(MountArtifactError, ValueError):
    """What was asked for can't be mounted there; nothing was mounted."""

    _code = ErrorCode.MOUNT_CONFIG_INVALID
    _retryable = False


class MountFailedError(MountArtifactError):
    """The kernel, or the provider of a remote mount, refused.

    Its context has the ``step`` and ``errno`` of the kernel's refusal.
    """

    _code = ErrorCode.MOUNT_FAILED
