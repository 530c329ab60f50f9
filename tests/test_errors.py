"""Errors: the tree, what they carry, and that they survive copying and pickling."""

from __future__ import annotations

import copy
import errno
import pickle
import re
from typing import TYPE_CHECKING

import pytest

from sandyard import errors
from sandyard.errors import (
    ApplyPatchDecodeError,
    ApplyPatchDiffError,
    ApplyPatchFileNotFoundError,
    ApplyPatchPathError,
    ApplyRefusedError,
    ArgumentError,
    ArgumentTypeError,
    ConfigurationError,
    ConfinementUnavailableError,
    DependenciesBindingError,
    DependenciesMissingDependencyError,
    ErrorCode,
    EventSinkError,
    ExecNonZeroError,
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortTimeoutError,
    ExposedPortUnavailableError,
    GitCloneError,
    GitMissingInImageError,
    GitSubpathError,
    InvalidCompressionSchemeError,
    InvalidManifestPathError,
    LeaseHeldError,
    LibraryLoadError,
    LocalChecksumError,
    LocalDirReadError,
    LocalFileReadError,
    ManifestError,
    MountConfigError,
    MountFailedError,
    OutputLimitError,
    PolicyDeniedError,
    PolicyError,
    PtySessionNotFoundError,
    PtyStdinUnavailableError,
    ResourceLimitError,
    SandboxError,
    ServerError,
    SessionClosedError,
    SessionNotFoundError,
    SnapshotDamagedError,
    SnapshotNotRestorableError,
    SnapshotPersistError,
    SnapshotRestoreError,
    TerminalEndedError,
    UnsafeTarMemberError,
    UnscriptedCommandError,
    UnsupportedOperationError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceRootNotFoundError,
    WorkspaceStartError,
    WorkspaceStopError,
    WorkspaceWriteTypeError,
    shown,
)
from sandyard.limits import SHOWN_OUTPUT_CHARS, SHOWN_VALUE_CHARS
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from collections.abc import Iterator

CAUSE = OSError(errno.ENOSPC, "No space left on device")
RESULT = ExecResult(stdout=b"half", stderr=b"", exit_code=-9)

EVERY: list[SandboxError] = [
    ArgumentError("no", op="read", argument="path", value="x"),
    ArgumentTypeError("no", op="read", argument="path", value=3),
    ConfigurationError("no", ErrorCode.SANDBOX_CONFIG_INVALID, "create", {"of": "a program"}),
    UnsafeTarMemberError(member="../x", reason="parent traversal", cause=CAUSE),
    DependenciesBindingError("no", key="cache"),
    DependenciesMissingDependencyError("no", key="cache"),
    ApplyRefusedError("no", reason="conflict", paths=("a",)),
    EventSinkError("no", sink="file", cause=CAUSE),
    LibraryLoadError(op="grep", cause=CAUSE),
    InvalidCompressionSchemeError(path="a.rar", scheme="rar", cause=CAUSE),
    LeaseHeldError(path="/tmp/x"),
    SnapshotPersistError(snapshot_id="a", path="/tmp/x", cause=CAUSE),
    SnapshotRestoreError(snapshot_id="a", path="/tmp/x", cause=CAUSE),
    SnapshotDamagedError(snapshot_id="a", path="/tmp/x"),
    SnapshotNotRestorableError(snapshot_id="a", path="/tmp/x"),
    PolicyError("no", field="network", value="all"),
    ManifestError("no", field="root", entry="a/b"),
    InvalidManifestPathError(rel="../x", reason="escape_root", cause=CAUSE),
    ConfinementUnavailableError("net", dimension="network", cause_text="old kernel", fix="update"),
    SessionClosedError(op="exec", state="closed"),
    SessionNotFoundError(which="web", reason="gone"),
    UnscriptedCommandError(command=["git", "push"], answers=("'git pull'",)),
    UnsupportedOperationError(op="watch", method="watch", session="RemoteSession"),
    ServerError("gone", reason="lost", cause=CAUSE),
    ResourceLimitError("too much", limit="memory", value=5, unit="bytes"),
    OutputLimitError("too many", limit="output", value=5, unit="entries", op="ls"),
    WorkspaceStartError(path="/w", cause=CAUSE),
    WorkspaceStopError(path="/w", cause=CAUSE),
    WorkspaceRootNotFoundError(path="/w"),
    ExecNonZeroError(ExecResult(stdout=b"", stderr=b"bad", exit_code=1), command=["false"]),
    ExecTimeoutError(command=["sleep", "9"], timeout_s=1.5, stdout=b"o", stderr=b"e"),
    ExecTransportError(command=["true"], cause=CAUSE, retryable=True),
    ExposedPortUnavailableError(port=80, exposed_ports=(8000,)),
    ExposedPortTimeoutError(port=80, exposed_ports=(80,), reason="not_listening", cause=CAUSE),
    TerminalEndedError(name="t1", exit_code=1, written=5),
    PtySessionNotFoundError(session_id=7),
    PtyStdinUnavailableError(session_id=7),
    WorkspaceReadNotFoundError(path="a.txt", cause=CAUSE),
    WorkspaceArchiveReadError(path="a", context={"reason": "is_a_directory"}, cause=CAUSE),
    WorkspaceArchiveWriteError(path="a", cause=CAUSE),
    WorkspaceWriteTypeError(path="a", actual_type="StringIO"),
    PolicyDeniedError(
        path="a", op="rm", message="no", reason="held", rule_path="/w/a", grant="Policy(protect=())"
    ),
    ApplyPatchPathError(path="../a", reason="escape_root", cause=CAUSE),
    ApplyPatchDiffError("no", path="a", hunk=2),
    ApplyPatchFileNotFoundError(path="a", cause=CAUSE),
    ApplyPatchDecodeError(path="a"),
    LocalFileReadError(src="a", cause=CAUSE),
    LocalDirReadError(src="a", context={"child": "b"}),
    LocalChecksumError(src="a.tar"),
    GitMissingInImageError(repo="a/b"),
    GitCloneError(url="https://h/a/b", ref="v1", stderr="no such ref", repo="a/b"),
    GitSubpathError(repo="a/b", subpath="c", reason="missing"),
    MountConfigError("a", op="mount", path="b", context={"reason": "not_empty"}),
    MountFailedError("a", op="unmount", path="b", cause=CAUSE, retryable=True),
]


def _leaves(kind: type[SandboxError]) -> Iterator[type[SandboxError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _leaves(sub)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],  # noqa: S301
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_carry_everything(error: SandboxError, again: object) -> None:
    assert callable(again)
    twin = again(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args) == (str(error), error.args)
    for name, value in vars(error).items():
        other = getattr(twin, name)
        assert other == value or repr(other) == repr(value), name
    assert type(twin.__cause__) is type(error.__cause__)
    assert getattr(twin, "errno", None) == getattr(error, "errno", None)


def test_every_class_has_an_example_and_a_line_in_the_tree() -> None:
    concrete = {type(error) for error in EVERY}
    tree = errors.__doc__ or ""
    for kind in {*concrete, *_leaves(SandboxError)}:
        if kind.__name__.startswith("_"):
            continue
        assert re.search(rf"[─ ]{kind.__name__}\b", tree), kind.__name__
        assert kind in concrete or kind.__subclasses__(), f"{kind.__name__} has no example"


@pytest.mark.parametrize(
    ("error", "retryable", "context"),
    [
        (GitMissingInImageError(), False, {"repo": None, "ref": None}),
        (GitCloneError(url="u", ref="r"), None, {"url": "u", "ref": "r"}),
        (MountConfigError(message="m"), False, {}),
        (MountConfigError("m", path="a"), False, {"path": "a"}),
        (WorkspaceRootNotFoundError(path="/w"), False, {"path": "/w"}),
        (
            ExposedPortUnavailableError(port=1, exposed_ports=(2,), reason="not_configured"),
            False,
            {"port": 1, "exposed_ports": [2], "reason": "not_configured"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_known_by_little(
    error: SandboxError, retryable: bool | None, context: dict[str, object]
) -> None:
    assert error.retryable is retryable
    assert context.items() <= error.context.items()
    assert "None" not in str(error)


def test_codes_are_all_in_use() -> None:
    assert {error.error_code for error in EVERY} == set(ErrorCode)


@pytest.mark.parametrize(
    ("name", "builtins"),
    [
        ("ArgumentError", (ValueError,)),
        ("ArgumentTypeError", (TypeError, ValueError)),
        ("PolicyError", (ValueError,)),
        ("ManifestError", (ValueError,)),
        ("InvalidManifestPathError", (ValueError,)),
        ("SessionClosedError", (RuntimeError,)),
        ("DependenciesBindingError", (RuntimeError,)),
        ("UnscriptedCommandError", (AssertionError,)),
        ("UnsupportedOperationError", (NotImplementedError,)),
        ("EventSinkError", (RuntimeError,)),
        ("LibraryLoadError", (ImportError,)),
        ("ExecTimeoutError", (TimeoutError,)),
        ("ExposedPortTimeoutError", (TimeoutError,)),
        ("WorkspaceReadNotFoundError", (FileNotFoundError,)),
        ("WorkspaceWriteTypeError", (TypeError,)),
        ("PolicyDeniedError", (PermissionError,)),
        ("ApplyPatchFileNotFoundError", (FileNotFoundError,)),
        ("ApplyPatchDecodeError", (ValueError,)),
    ],
)
def test_errors_are_also_the_builtins_they_replace(
    name: str, builtins: tuple[type[Exception], ...]
) -> None:
    for builtin in builtins:
        assert issubclass(getattr(errors, name), builtin)


def test_message_code_and_cause() -> None:
    error = WorkspaceReadNotFoundError(path="a.txt", cause=CAUSE)
    assert error.message == str(error) == "there is no file 'a.txt' in the workspace"
    assert (error.code, error.op, error.retryable) == ("workspace_read_not_found", "read", False)
    assert (error.errno, error.filename) == (errno.ENOENT, "a.txt")
    assert error.__cause__ is error.cause is CAUSE
    assert error.context == {"path": "a.txt"}


def test_context_keys() -> None:
    assert InvalidManifestPathError(rel="../x", reason="escape_root").context == {
        "rel": "../x",
        "reason": "escape_root",
    }
    assert ManifestError("no", field="root").context == {"field": "root"}
    refused = ConfinementUnavailableError("a", dimension="read", cause_text="b", fix="c")
    assert str(refused) == "a: b. To fix it: c"
    assert refused.context == {"dimension": "read", "cause_text": "b", "fix": "c"}
    limit = ResourceLimitError("m", limit="memory", value=5, unit="bytes", context={"pid": 1})
    assert limit.context == {"limit": "memory", "value": 5, "unit": "bytes", "pid": 1}


def test_retryable_comes_from_the_cause() -> None:
    inner = ExecTransportError(command=["x"], retryable=True)
    assert WorkspaceStartError(path="/w", cause=inner).retryable is True
    assert WorkspaceStartError(path="/w", cause=inner, retryable=False).retryable is False
    assert WorkspaceStartError(path="/w").retryable is None


def test_timeout_keeps_the_partial_output() -> None:
    error = ExecTimeoutError(command=["x"], timeout_s=2, result=RESULT)
    assert (error.stdout, error.stderr, error.result) == (b"half", b"", RESULT)
    assert "2 s" in str(error)
    assert "timeout" in str(error)


@pytest.mark.parametrize(
    ("out", "err", "message"),
    [
        (b"o", b"e", "stdout: o\nstderr: e"),
        (b"o", b"", "o"),
        (b"", b"e", "e"),
        (b"", b"", "command exited with code 3"),
        (b"\xff", b"", "\ufffd"),
    ],
)
def test_non_zero_says_what_the_command_said(out: bytes, err: bytes, message: str) -> None:
    error = ExecNonZeroError(ExecResult(stdout=out, stderr=err, exit_code=3), command=("a", "b"))
    assert str(error) == message
    assert error.context["command"] == error.command == ("a", "b")
    assert error.context["command_str"] == "a b"
    assert (error.exit_code, error.stdout, error.stderr) == (3, out, err)


def test_messages_are_bounded() -> None:
    loud = ExecResult(stdout=b"x" * 1_000_000, stderr=b"y" * 1_000_000, exit_code=1)
    error = ExecNonZeroError(loud, command=["x"])
    assert len(str(error)) < 3 * SHOWN_OUTPUT_CHARS
    assert error.stdout == loud.stdout


class _Hostile:
    def __repr__(self) -> str:
        raise ValueError("no repr for you")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        b"x" * 10**6,
        10**5000,
        [["x" * 1000] * 1000] * 1000,
        {"k" * 5000: "v" * 5000},
        _Hostile(),
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_shown_is_short_and_never_fails(value: object) -> None:
    assert 0 < len(shown(value)) <= 2 * SHOWN_VALUE_CHARS + 1


@pytest.mark.parametrize(
    ("cause", "end"),
    [
        (OSError(errno.EACCES, "Permission denied"), ": Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "/w"), ": Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "w"), ": Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "."), ": Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "/v"), ": Permission denied: '/v'"),
        (OSError(errno.EXDEV, "No", "/v", None, "/w"), ": No: '/v' -> '/w'"),
        (OSError("odd"), ": odd"),
        (ValueError(), ": ValueError"),
    ],
)
def test_cause_is_named_without_number_and_once(cause: Exception, end: str) -> None:
    assert WorkspaceStartError(path="/w", cause=cause).message.endswith(
        f"could not be started{end}"
    )
    assert LocalDirReadError(src="/w", cause=cause).message.endswith(f"could not be read{end}")
