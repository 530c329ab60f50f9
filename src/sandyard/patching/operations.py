"""Operation: what a patch does to one file; and how callers' objects become such values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from sandyard.errors import ApplyPatchDiffError, shown

__all__ = ["Differ", "Operation", "OperationKind", "read_operations"]

OperationKind = Literal["create_file", "update_file", "delete_file"]
Differ = Callable[[str, str, Literal["default", "create"]], str]
"""Applies a diff to a text: ``(input, diff, mode)``; ``create`` makes the text of a new file."""

_KINDS: Final[tuple[OperationKind, ...]] = ("create_file", "update_file", "delete_file")


class Operation(NamedTuple):
    """What a patch does to one file.

    Attributes:
        kind: creates, updates or deletes it.
        path: the file.
        diff: what is to change, in the patch's format; empty for a deletion.
        move_to: where an updated file goes, or None.
    """

    kind: OperationKind
    path: str
    diff: str = ""
    move_to: str | None = None


def read_operations(given: object) -> tuple[Operation, ...]:
    """Take operations out of what a caller gave: one or a list, mappings or objects.

    Raises:
        ApplyPatchDiffError: something in it is no operation.
    """
    many = (
        given if isinstance(given, list | tuple) and not isinstance(given, Operation) else [given]
    )
    return tuple(_read(each) for each in many)


def _read(given: object) -> Operation:
    if isinstance(given, Operation):
        return given
    kind, path = _field(given, "type"), _field(given, "path")
    diff, move_to = _field(given, "diff"), _field(given, "move_to")
    known = next((each for each in _KINDS if each == kind), None)
    if known is None:
        raise ApplyPatchDiffError(
            f"an operation has a type of {', '.join(_KINDS)}, not {shown(kind)}"
        )
    if not isinstance(path, str):
        raise ApplyPatchDiffError(f"the path of an operation is a str, not {shown(path)}")
    if diff is None and known == "delete_file":
        diff = ""
    if not isinstance(diff, str):
        raise ApplyPatchDiffError(
            f"the diff of an operation is a str, not {shown(diff)}", path=path
        )
    if move_to is not None and (not isinstance(move_to, str) or known != "update_file"):
        raise ApplyPatchDiffError("move_to is a path, and for update_file only", path=path)
    return Operation(known, path, diff, move_to)


def _field(given: object, name: str) -> object:
    return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
