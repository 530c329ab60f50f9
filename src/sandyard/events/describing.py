"""Which facts of an operation are told, from its arguments and its result; pure."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from io import BufferedReader
from pathlib import PurePath
from typing import Final, NamedTuple

from pydantic import JsonValue

from sandyard.errors import ExecTimeoutError, ExecTransportError, SandboxError
from sandyard.events.limits import TOLD_CHARS, TOLD_ITEMS
from sandyard.process import CommandStream
from sandyard.types import ExecResult, RefusedCall, User

__all__ = [
    "Arguments",
    "Outcome",
    "describe_arguments",
    "describe_error",
    "describe_result",
    "readable",
    "written_output",
]

_TOLD: Final = {
    "command": "command",
    "path": "path",
    "source": "source",
    "destination": "destination",
    "other": "other",
    "pattern": "pattern",
    "subject": "subject",
    "syscall": "syscall",
    "process_id": "process_id",
    "session_id": "process_id",
    "name": "name",
    "user": "user",
    "cwd": "cwd",
    "timeout": "timeout_s",
    "shell": "shell",
    "tty": "tty",
    "port": "server.port",
    "recursive": "recursive",
    "parents": "parents",
    "mode": "mode",
    "offset": "offset",
    "length": "length",
    "processes": "processes",
    "leftovers": "leftovers",
    "patch_format": "patch_format",
    "compression_scheme": "compression_scheme",
}
"""Arguments that are told, and under which name. What is in none of these is not: contents, standard
input and variables of the environment may be secret."""

_LASTING: Final = frozenset({bool, int, float, type(None)})

_CONTENTS: Final = ("content", "data", "chars", "stream")


class Outcome(NamedTuple):
    """How an operation ended."""

    ok: bool
    data: Mapping[str, JsonValue]
    error_code: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_retryable: bool | None = None


def readable(text: str, limit: int = TOLD_CHARS) -> str:
    """Text that JSON can hold, cut to a length: a name on disk may be no text at all."""
    if text.isascii() and len(text) <= limit:
        return text
    kept = text[: limit + 1].encode("utf-8", "backslashreplace").decode("utf-8")
    return kept if len(text) <= limit else f"{kept[:limit]}…"


def describe_arguments(
    verb: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, JsonValue]:
    """The facts of a call that are told, as far as the method takes such arguments."""
    known = _told_parts(verb)
    told = known.defaults.copy()
    for part, value in zip(known.placed, args, strict=False):
        if part is not None:
            part.add(told, value)
    if known.rest is not None:
        place, part = known.rest
        part.add(told, args[place:])
    for name, value in kwargs.items():
        if (part := known.named.get(name)) is not None:
            part.add(told, value)
    return told


class Arguments:
    """What a call was given, described when that is asked for first: an operation does not wait for it.

    What could change until then, or is large, is described at once.
    """

    __slots__ = ("_call", "_told")

    def __init__(
        self, verb: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self._told: dict[str, JsonValue] | None = None
        self._call = verb, args, kwargs
        if len(args) > TOLD_ITEMS or not all(map(_lasts, (*args, *kwargs.values()))):
            self.told()

    def told(self) -> dict[str, JsonValue]:
        """The facts of it that are told; nobody may change them."""
        if self._told is None:
            self._told = describe_arguments(*self._call)
            del self._call
        return self._told


def _lasts(value: object) -> bool:
    """Whether a value is small, and stays what it is."""
    return len(value) <= TOLD_CHARS if type(value) is str else type(value) in _LASTING


def describe_result(op: str, result: object) -> Outcome:
    """The facts of a result that are told."""
    ended = _command_result(result)
    if ended is not None:
        return _command_ended(ended)
    known = {} if isinstance(result, CommandStream) else _value_told(op, result)
    return Outcome(ok=True, data=known)


def written_output(came: object) -> tuple[bytes, bytes] | None:
    """What a command had written until it ended, or failed; None for anything else."""
    late = came if isinstance(came, ExecTimeoutError) else _command_result(came)
    return None if late is None else (late.stdout, late.stderr)


def _value_told(op: str, result: object) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {}
    if isinstance(result, bool):
        data["alive" if op == "running" else "result"] = result
    elif isinstance(result, bytes | bytearray):
        data["bytes"] = len(result)
    elif op == "refused_calls" and isinstance(result, tuple):
        data |= _refused(result)
    elif isinstance(result, list | tuple):
        data["count"] = len(result)
    elif isinstance(result, BufferedReader):
        with suppress(OSError):  # an archive that is made while it is read has no size yet
            data["bytes"] = os.fstat(result.fileno()).st_size
    else:
        for name, key in (
            ("id", "id"),
            ("pid", "pid"),
            ("process_id", "process_id"),
            ("exit_code", "exit_code"),
            ("bytes", "bytes"),
            ("host", "server.address"),
        ):
            value = getattr(result, name, None)
            if isinstance(value, str | int):
                data[key] = _plain(value)
    return data


def describe_error(error: BaseException) -> Outcome:
    """The facts of an error."""
    known = error if isinstance(error, SandboxError) else None
    return Outcome(
        ok=False,
        data={},
        error_code=None if known is None else known.error_code.value,
        error_type=type(error).__name__,
        error_message=readable(str(error)),
        error_retryable=None if known is None else known.retryable,
    )


def _command_result(result: object) -> ExecResult | None:
    """How a command ended; None for anything else, and for a stream whose reader left before that."""
    if isinstance(result, ExecResult):
        return result
    if isinstance(result, CommandStream):
        with suppress(ExecTransportError):
            return result.result
    return None


def _command_ended(result: ExecResult) -> Outcome:
    code = result.exit_code
    data: dict[str, JsonValue] = {"exit_code": code, "process.exit.code": code}
    if result.denials:
        data["denials"] = _sentences(result.denials)
    if result.refused:
        data["refused_calls"] = result.refused
    if result.limit_hits:
        data["limit_hits"] = _sentences(result.limit_hits)
    return Outcome(code == 0, data)


def _refused(calls: Iterable[RefusedCall]) -> dict[str, JsonValue]:
    """What leftovers were refused: how often, and which calls of which programs."""
    known = tuple(calls)
    told: list[JsonValue] = [
        {
            "times": one.times,
            "number": one.number,
            "error": one.error,
            "program": readable(one.program),
        }
        for one in known[:TOLD_ITEMS]
    ]
    return {"refused_calls": sum(one.times for one in known), "calls": told}


def _sentences(values: Iterable[object]) -> list[JsonValue]:
    return [readable(str(value)) for _, value in zip(range(TOLD_ITEMS), values, strict=False)]


class _Told(NamedTuple):
    """An argument of a method that is told.

    Attributes:
        key: what it is told as.
        several: whether it is all that is left of the positional ones.
        contents: whether only its length is told.
    """

    key: str
    several: bool
    contents: bool

    def add(self, told: dict[str, JsonValue], value: object) -> None:
        """Tells a value of it."""
        if not self.contents:
            told[self.key] = _words(value) if self.several else _plain(value)
        elif (length := _length(value)) is not None:
            told[self.key] = length


class _Parts(NamedTuple):
    """What is told of a method's arguments.

    Attributes:
        defaults: what is told of those that are not given.
        placed: the positional ones, in order; None for one that is not told.
        rest: where those begin that are told together, and how; None where there are none.
        named: those that may be given by name.
    """

    defaults: dict[str, JsonValue]
    placed: list[_Told | None]
    rest: tuple[int, _Told] | None
    named: dict[str, _Told]


@lru_cache(
    maxsize=256
)  # as many as there are methods: binding a signature costs more than all else
def _told_parts(verb: Callable[..., object]) -> _Parts:
    found = _Parts({}, [], None, {})
    # The first parameter is the session itself, which is not among the arguments.
    for one in list(inspect.signature(verb).parameters.values())[1:]:
        contents = one.name in _CONTENTS
        several = one.kind is one.VAR_POSITIONAL
        key = "bytes" if contents else _TOLD.get(one.name)
        part = None if key is None else _Told(key, several, contents)
        if several:
            found = found._replace(rest=None if part is None else (len(found.placed), part))
            continue
        if one.kind is not one.KEYWORD_ONLY:
            found.placed.append(part)
        if part is not None:
            found.named[one.name] = part
            if one.default is not one.empty:
                part.add(found.defaults, one.default)
    return found


def _words(command: object) -> JsonValue:
    if not isinstance(command, tuple | list):
        return _plain(command)
    words: list[JsonValue] = [_plain(word) for word in command[:TOLD_ITEMS]]
    return words if len(command) <= TOLD_ITEMS else [*words, "…"]


def _plain(value: object) -> JsonValue:
    """A value as JSON has it; what JSON has no word for is told by its type alone."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return value if value.bit_length() <= 64 else f"<{value.bit_length()}-bit integer>"  # noqa: PLR2004
    if isinstance(value, str | PurePath):
        return readable(str(value))
    if isinstance(value, User):
        return readable(value.name)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value[:TOLD_ITEMS]]
    return f"<{type(value).__name__}>"


def _length(value: object) -> int | None:
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, memoryview):
        return value.nbytes
    return len(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else None
