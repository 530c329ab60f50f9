"""The methods of the contract that one message carries: what each takes and gives, by its own signature."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from types import NoneType
from typing import Final, Literal, get_args, get_origin, get_type_hints

from pydantic import JsonValue

from sandyard.archive import SandboxArchiveLimits
from sandyard.archive.report import ArchiveReport
from sandyard.changes import AppliedChanges, Changes
from sandyard.confinement.explanation import Explanation
from sandyard.contract import BaseSandboxSession
from sandyard.endpoint import ExposedPortEndpoint
from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    OpName,
    UnsupportedOperationError,
    shown,
)
from sandyard.file_verbs.matches import GrepResult
from sandyard.file_verbs.searching import GrepSyntax
from sandyard.patching.operations import Operation
from sandyard.process.updates import PtyExecUpdate
from sandyard.server.values import ShapeError, pack_value, unpack_value
from sandyard.types import Permissions
from sandyard.workspace.copying import Materialized, Skipped
from sandyard.workspace.review import Review
from sandyard.workspace.transfer import Transferred

__all__ = ["VERBS", "VerbShape", "find_shape"]

Gives = Literal["value", "file", "pieces"]
"""How a result comes: as a value; as a file, or piece by piece, on the output channel."""

_FED: Final = "data"
_UNSENT: Final = "progress"


class _Elsewhere:
    """What is not sent as a value: contents, which come on the input channel, and functions."""


_KINDS: Final[dict[str, object]] = {
    "AppliedChanges": AppliedChanges,
    "ArchiveReport": ArchiveReport,
    "ArchiveSourceLike": _Elsewhere,
    "Changes": Changes,
    "Explanation": Explanation,
    "ExposedPortEndpoint": ExposedPortEndpoint,
    "GrepResult": GrepResult,
    "GrepSyntax": GrepSyntax,
    "Hearer": _Elsewhere,
    "Materialized": Materialized,
    "PatchFormat": Literal["v4a", "unified"],
    "Patches": str | tuple[Operation, ...],
    "Permissions": Permissions,
    "PtyExecUpdate": PtyExecUpdate,
    "Review": Review,
    "SandboxArchiveLimits": SandboxArchiveLimits,
    "Skipped": Skipped,
    "Transferred": Transferred,
    "User": str,
}
"""What the names in the contract's signatures mean on the wire: users travel by their names."""


class VerbShape:
    """One method, as it travels.

    Attributes:
        name: of the method.
        op: the operation, for errors.
        fed: whether its ``data`` comes on the input channel.
        gives: how its result comes.
    """

    def __init__(self, verb: Callable[..., object], op: OpName) -> None:
        """Read a method's signature."""
        self.name = verb.__name__
        self.op = op
        self._signature = inspect.signature(verb)
        hints = get_type_hints(verb, localns=_KINDS)
        result = hints.pop("return", NoneType)
        self.fed = _FED in hints
        self._result = result
        self.gives: Gives = "value"
        if result is io.BufferedIOBase:
            self.gives, self._result = "file", ArchiveReport | None
        elif get_origin(result) is AsyncGenerator:
            self.gives, self._result = "pieces", NoneType
        self._kinds = {name: hints[name] for name in hints if name not in {_FED, _UNSENT}}
        self._words = next(
            (
                one.name
                for one in self._signature.parameters.values()
                if one.kind is one.VAR_POSITIONAL
            ),
            None,
        )

    def bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The arguments of a call by their names; those that were left out are not among them.

        Raises:
            TypeError: the method takes no such arguments.
        """
        given = dict(self._signature.bind(None, *args, **kwargs).arguments)
        given.pop("self", None)
        return given

    def pack_arguments(self, given: Mapping[str, object], session: str) -> dict[str, JsonValue]:
        """Arguments as they travel, checked.

        Args:
            given: the arguments by their names, without ``data``.
            session: name of the session's class, for errors.

        Raises:
            ArgumentTypeError: one is of another type than the method takes.
            UnsupportedOperationError: one can't be sent.
        """
        if given.get(_UNSENT) is not None:
            raise UnsupportedOperationError(
                op=self.op, method=self.name, session=session, argument=_UNSENT
            )
        packed: dict[str, JsonValue] = {}
        for name, kind in self._kinds.items():
            if name not in given:
                continue
            value = given[name]
            try:
                packed[name] = pack_value(_listed(kind, value))
                self._unpacked(name, packed[name])
            except ShapeError as error:
                raise self._odd(name, value, error) from None
        return packed

    def unpack_arguments(
        self, told: Mapping[str, JsonValue]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """The arguments that were sent, by place and by name.

        Raises:
            ArgumentError, ArgumentTypeError: the method takes none of this name, or not such a value.
            SandboxError: a value refuses itself.
        """
        given: dict[str, object] = {}
        for name, value in told.items():
            if name not in self._kinds:
                raise ArgumentError(
                    f"{self.name} has no argument {shown(name)}",
                    op=self.op,
                    argument=name,
                    value=value,
                )
            try:
                given[name] = self._unpacked(name, value)
            except ShapeError as error:
                raise self._odd(name, value, error) from None
        words = given.pop(self._words, ()) if self._words is not None else ()
        missing = [
            one.name
            for one in self._signature.parameters.values()
            if one.name in self._kinds
            and one.default is one.empty
            and one.kind is not one.VAR_POSITIONAL
        ]
        for name in missing:
            if name not in given:
                raise ArgumentError(
                    f"{self.name} needs its argument {name}", op=self.op, argument=name, value=None
                )
        return tuple(words) if isinstance(words, tuple) else (), given

    def pack_result(self, result: object) -> JsonValue:
        """A result as it travels."""
        return pack_value(result)

    def unpack_result(self, told: JsonValue) -> object:
        """A result that was sent.

        Raises:
            ShapeError: the method gives no such thing.
        """
        return unpack_value(self._result, told)

    def _unpacked(self, name: str, value: JsonValue) -> object:
        kind = self._kinds[name]
        return unpack_value(tuple[kind, ...] if name == self._words else kind, value)  # type: ignore[valid-type]  # a type that is made here

    def _odd(self, name: str, value: object, error: ShapeError) -> ArgumentTypeError:
        return ArgumentTypeError(f"{name}: {error}", op=self.op, argument=name, value=value)


def _listed(kind: object, value: object) -> object:
    """What is iterated over once, as a list; a text is none."""
    kinds = (kind, *get_args(kind))
    several = any(get_origin(one) is Iterable for one in kinds)
    if several and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    return value


_CONTRACT: Final = BaseSandboxSession

_CARRIED: Final[tuple[tuple[Callable[..., object], OpName], ...]] = (
    # how it lives
    (_CONTRACT.start, "start"),
    (_CONTRACT.stop, "stop"),
    (_CONTRACT.shutdown, "shutdown"),
    (_CONTRACT.running, "running"),
    (_CONTRACT.aclose, "shutdown"),
    (_CONTRACT.resolve_exposed_port, "resolve_exposed_port"),
    (_CONTRACT.wait_for_port, "wait_for_port"),
    # commands
    (_CONTRACT.pty_exec_start, "pty_exec_start"),
    (_CONTRACT.pty_write_stdin, "pty_write_stdin"),
    (_CONTRACT.pty_terminate_all, "pty_terminate_all"),
    (_CONTRACT.why, "why"),
    # files
    (_CONTRACT.read, "read"),
    (_CONTRACT.read_bounded, "read"),
    (_CONTRACT.read_range, "read"),
    (_CONTRACT.read_chunks, "read"),
    (_CONTRACT.write, "write"),
    (_CONTRACT.append, "append"),
    (_CONTRACT.ls, "ls"),
    (_CONTRACT.stat, "stat"),
    (_CONTRACT.exists, "exists"),
    (_CONTRACT.same_file, "same_file"),
    (_CONTRACT.normalize_path, "normalize_path"),
    (_CONTRACT.mkdir, "mkdir"),
    (_CONTRACT.rm, "rm"),
    (_CONTRACT.mv, "mv"),
    (_CONTRACT.copy, "copy"),
    (_CONTRACT.chmod, "chmod"),
    (_CONTRACT.apply_patch, "apply_patch"),
    (_CONTRACT.glob, "glob"),
    (_CONTRACT.grep, "grep"),
    # trees
    (_CONTRACT.persist_workspace, "persist_workspace"),
    (_CONTRACT.register_persist_workspace_skip_path, "persist_workspace"),
    (_CONTRACT.hydrate_workspace, "hydrate_workspace"),
    (_CONTRACT.apply_manifest, "materialize"),
    (_CONTRACT.provision_manifest_accounts, "materialize"),
    (_CONTRACT.extract, "extract"),
    (_CONTRACT.pack, "pack"),
    (_CONTRACT.unpack, "unpack"),
    (_CONTRACT.upload, "upload"),
    (_CONTRACT.download, "download"),
    (_CONTRACT.unmount, "unmount"),
    (_CONTRACT.review, "review"),
    (_CONTRACT.diff, "diff"),
    (_CONTRACT.apply, "apply"),
    (_CONTRACT.discard, "discard"),
)

VERBS: Final[Mapping[str, VerbShape]] = {
    verb.__name__: VerbShape(verb, op) for verb, op in _CARRIED
}
"""The methods that are carried, by their names; nothing else of a session can be asked for so."""


def find_shape(name: str) -> VerbShape:
    """The shape of a method.

    Raises:
        ArgumentError: there is none of this name that is carried.
    """
    shape = VERBS.get(name)
    if shape is None:
        raise ArgumentError(
            f"there is no method {shown(name)} to be asked for",
            op="connect",
            argument="verb",
            value=name,
        )
    return shape
