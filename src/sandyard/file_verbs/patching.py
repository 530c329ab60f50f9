"""The verb that carries out patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from sandyard.errors import ApplyPatchDiffError, ArgumentError
from sandyard.observing import observed
from sandyard.types import User
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace.faults import translated

if TYPE_CHECKING:
    from sandyard.patching import Effort, Operation
    from sandyard.patching.operations import Differ
    from sandyard.workspace import WorkspaceRoot

__all__ = ["PatchFormat", "PatchOperation", "Patches", "PatchingVerbs", "read_patch"]


class PatchOperation(Protocol):
    """What a patch does to one file; a mapping with these keys will do as well.

    Attributes:
        type: ``"create_file"``, ``"update_file"`` or ``"delete_file"``.
        path: the file.
        diff: what is to change; None for a deletion.
    """

    type: str
    path: str
    diff: str | None


class PatchFormat(Protocol):
    """A format of diffs of your own."""

    @staticmethod
    def apply_diff(input: str, diff: str, mode: Literal["default", "create"] = "default") -> str:  # noqa: A002 - the name that such formats have
        """The text of a file after a diff; ``ValueError`` refuses it."""


Patches = (
    str | PatchOperation | Mapping[str, object] | Sequence[PatchOperation | Mapping[str, object]]
)
"""A patch as a text, or as one operation or several."""


class PatchingVerbs(WorkspaceVerbBase):
    """How a session changes files by patches."""

    @observed("apply_patch")
    async def apply_patch(
        self,
        operations: Patches,
        *,
        patch_format: Literal["v4a", "unified"] | PatchFormat = "v4a",
        user: str | User | None = None,
    ) -> str:
        """Carry out a patch on files of the workspace: all of it, or nothing.

        Args:
            operations: one operation or several, as objects or mappings with ``type``
                (``create_file``, ``update_file``, ``delete_file``), ``path``, ``diff`` and, for an
                update, ``move_to``; each sees what those before it did. Or a text: a V4A patch from
                ``*** Begin Patch`` to ``*** End Patch``, or a unified diff of several files.
            patch_format: ``"v4a"`` (default), ``"unified"`` as ``diff -u`` and ``git diff`` write
                it, or an object with ``apply_diff(input, diff, mode)``.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            ``"Done!"``.

        Raises:
            ApplyPatchDiffError: the patch is malformed, or does not fit; with the file and the number
                of the hunk. So is one that creates a file that exists, and one that is so large, or
                finds its places so hard, that it would take minutes.
            ApplyPatchPathError: a path is empty, or leaves the workspace.
            ApplyPatchFileNotFoundError: a file that should change is not there.
            ApplyPatchDecodeError: a file that should change is not UTF-8.
            PolicyDeniedError: the policy keeps a file as it is.
            WorkspaceArchiveWriteError: a file can't be written, or changed meanwhile.

        Example:
            >>> change = {"type": "delete_file", "path": "old.py"}
            >>> await session.apply_patch(
            ...     [change, {"type": "create_file", "path": "b", "diff": "+b"}]
            ... )
            'Done!'
        """
        workspace = self._open_workspace("apply_patch", user)
        check_format(patch_format)
        await workspace.run("apply_patch", partial(_patch, operations, patch_format))
        return "Done!"


def _patch(
    given: Patches, patch_format: Literal["v4a", "unified"] | PatchFormat, root: WorkspaceRoot
) -> None:
    """Parse and carry out a patch, in a thread: a large one takes a while."""
    # Loaded when it is needed, from files that may have become unreadable since.
    with translated("apply_patch", root.inside, root):
        from sandyard.patching import Effort  # noqa: PLC0415  # seldom needed
        from sandyard.workspace.patches import carry_out  # noqa: PLC0415  # seldom needed

        effort = Effort()
        differ = _differ(patch_format, effort)
    carry_out(root, _measured(given, patch_format, effort), differ)


def read_patch(given: Patches, patch_format: object) -> tuple[tuple[Operation, ...], Differ]:
    """Take a patch apart: what it does, one after the other, and what applies its diffs.

    Raises:
        ArgumentError: there is no such format.
        ApplyPatchDiffError: the patch is malformed, or too large.
    """
    check_format(patch_format)
    from sandyard.patching import Effort  # noqa: PLC0415  # seldom needed

    effort = Effort()
    differ = _differ(patch_format, effort)
    return _measured(given, patch_format, effort), differ


def check_format(patch_format: object) -> None:
    """Refuse the name of a format that there is none of.

    Raises:
        ArgumentError: it is one.
    """
    if isinstance(patch_format, str) and patch_format not in {"v4a", "unified"}:
        raise ArgumentError(
            "patch_format is 'v4a', 'unified' or an object with apply_diff",
            op="apply_patch",
            argument="patch_format",
            value=patch_format,
        )


def _measured(given: Patches, patch_format: object, effort: Effort) -> tuple[Operation, ...]:
    """What a patch does, if that is not too much."""
    if isinstance(given, str):
        effort.take_patch(len(given))
    operations = _operations(given, patch_format)
    for operation in operations:
        effort.take_part()
        if not isinstance(given, str):
            effort.take_patch(len(operation.diff))
    return operations


def _operations(given: Patches, patch_format: object) -> tuple[Operation, ...]:
    from sandyard.patching import (  # noqa: PLC0415  # seldom needed
        parse_envelope,
        parse_unified,
        read_operations,
    )

    if not isinstance(given, str):
        return read_operations(given)
    if patch_format == "unified":
        return parse_unified(given)
    if patch_format == "v4a":
        return parse_envelope(given)
    raise ApplyPatchDiffError("a format of your own takes operations, not one text")


def _differ(patch_format: object, effort: Effort) -> Differ:
    from sandyard.patching import apply_diff, apply_hunks  # noqa: PLC0415  # seldom needed

    if patch_format == "unified":
        return partial(apply_hunks, effort=effort)
    if patch_format == "v4a":
        return partial(apply_diff, effort=effort)
    own = getattr(patch_format, "apply_diff", None)
    if not callable(own):
        raise ApplyPatchDiffError("a patch format has an apply_diff(input, diff, mode)")

    def applied(text: str, diff: str, mode: Literal["default", "create"]) -> str:
        done = own(text, diff, mode)
        if not isinstance(done, str):
            raise ApplyPatchDiffError("apply_diff of the patch format returned no text")
        return done

    return applied
