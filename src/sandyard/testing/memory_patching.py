"""Patches carried out on files in memory: all of one, or nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sandyard.errors import (
    ApplyPatchDecodeError,
    ApplyPatchDiffError,
    ApplyPatchFileNotFoundError,
    ApplyPatchPathError,
    InvalidManifestPathError,
    WorkspaceReadNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandyard.patching.operations import Differ, Operation
    from sandyard.testing.memory import MemoryFiles

__all__ = ["carry_out"]


def carry_out(files: MemoryFiles, operations: Iterable[Operation], differ: Differ) -> None:
    """Carry out a patch; if any of it can't be done, nothing is.

    Raises:
        SandboxError: as ``apply_patch`` of a session.
    """

    def work() -> None:
        for operation in operations:
            _carry_out_one(files, operation, differ)

    files.at_once(work)


def _carry_out_one(files: MemoryFiles, operation: Operation, differ: Differ) -> None:
    path = operation.path
    _check_path(files, path)
    node = files.node(path, "apply_patch")
    if operation.kind == "create_file":
        if node is not None:
            raise ApplyPatchDiffError("it exists already; update it instead", path=path)
        files.put(path, _applied(differ, "", operation, "create"), op="apply_patch")
        return
    if node is None:
        raise ApplyPatchFileNotFoundError(path=path)
    old = _text(files, path)
    if operation.kind == "delete_file":
        files.remove(path, recursive=False)
        return
    new, target = _applied(differ, old, operation, "default"), operation.move_to or path
    _check_path(files, target)
    if files.names(target, "apply_patch") != files.names(path, "apply_patch"):
        files.remove(path, recursive=False)
    files.put(target, new, op="apply_patch")
    files.set_mode(target, node.mode, op="apply_patch")


def _check_path(files: MemoryFiles, path: str) -> None:
    if not path.strip():
        raise ApplyPatchPathError(path=path, reason="empty")
    try:
        names = files.names(path, "apply_patch")
    except InvalidManifestPathError as error:
        reason: Literal["absolute", "escape_root"] = (
            "absolute" if path.startswith("/") else "escape_root"
        )
        raise ApplyPatchPathError(path=path, reason=reason, cause=error) from error
    if not names:
        raise ApplyPatchPathError(path=path, reason="empty")


def _text(files: MemoryFiles, path: str) -> str:
    try:
        return files.content(path).decode()
    except WorkspaceReadNotFoundError as error:
        raise ApplyPatchFileNotFoundError(path=path, cause=error) from error
    except UnicodeDecodeError as error:
        raise ApplyPatchDecodeError(path=path, cause=error) from error


def _applied(
    differ: Differ, text: str, operation: Operation, mode: Literal["default", "create"]
) -> bytes:
    try:
        return differ(text, operation.diff, mode).encode()
    except ApplyPatchDiffError as error:
        if "path" in error.context:
            raise
        raise ApplyPatchDiffError(
            error.said, path=operation.path, hunk=error.hunk, cause=error
        ) from error
    except ValueError as error:  # a caller's own format refuses
        raise ApplyPatchDiffError(str(error), path=operation.path, cause=error) from error
