"""Values as JSON and back: what a method takes and gives, by the types that its signature names (pure)."""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Final, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, JsonValue, ValidationError

from sandyard.errors import shown
from sandyard.server.limits import VALUE_BITS, VALUE_DEPTH
from sandyard.types import User

__all__ = ["ShapeError", "pack_value", "unpack_value"]

_BYTES: Final = "bytes"
_NUMBER: Final = "number"
_ODD_NUMBERS: Final = ("inf", "-inf", "nan")


class ShapeError(ValueError):
    """A value is not of the type that it should be of, or of one that can't travel."""


def pack_value(value: object, depth: int = 0) -> JsonValue:
    """A value as JSON.

    Text that is no Unicode, bytes, and numbers that JSON lacks travel as objects with one key, which
    nothing else is that is sent here.

    Args:
        value: the value.
        depth: how deep in another value it lies.

    Raises:
        ShapeError: it is of no kind that can travel.
    """
    if depth > VALUE_DEPTH:
        raise ShapeError("it is nested too deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return pack_value(value.value)
    if isinstance(value, int):
        if value.bit_length() > VALUE_BITS:
            raise ShapeError(f"{shown(value)} is too large to be sent")
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {_NUMBER: str(float(value))}
    if isinstance(value, str):
        return _packed_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: base64.b64encode(value).decode()}
    return _packed_parts(value, depth + 1)


def _packed_parts(value: object, depth: int) -> JsonValue:
    if isinstance(value, PurePath):
        return _packed_text(str(value))
    if isinstance(value, User):
        return value.name
    if isinstance(value, BaseModel):
        return pack_value(value.model_dump(), depth)
    if is_dataclass(value) and not isinstance(value, type):
        told = (one.name for one in fields(value) if one.init)
        return {name: pack_value(getattr(value, name), depth) for name in told}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ShapeError("the keys of a mapping are text")
        return {key: pack_value(one, depth) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [pack_value(one, depth) for one in value]
    raise ShapeError(f"{shown(value)} can't be sent to another process")


def _packed_text(value: str) -> JsonValue:
    try:
        value.encode()
    except UnicodeEncodeError:
        try:
            return {_BYTES: base64.b64encode(os.fsencode(value)).decode()}
        except UnicodeEncodeError:
            raise ShapeError(f"{shown(value)} stands for no bytes") from None
    return value


def unpack_value(kind: object, value: JsonValue, depth: int = 0) -> object:
    """The value of a type that JSON tells of.

    Args:
        kind: a type, as ``typing.get_type_hints`` gives it.
        value: what came.
        depth: how deep in another value it lies.

    Raises:
        ShapeError: it is no value of that type.
        SandboxError: it is, and refuses itself.
    """
    if depth > VALUE_DEPTH:
        raise ShapeError("it is nested too deep")
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _first_fitting(get_args(kind), value, depth)
    if origin is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
        raise ShapeError(f"it is none of {', '.join(map(repr, get_args(kind)))}")
    if origin is not None:
        return _several(origin, get_args(kind), value, depth)
    return _single(cast("type", kind), value, depth)


def _first_fitting(kinds: tuple[object, ...], value: JsonValue, depth: int) -> object:
    for kind in kinds:
        try:
            return unpack_value(kind, value, depth + 1)
        except ShapeError:
            continue
    raise ShapeError(f"{shown(value)} is of no type that it may be of")


def _several(origin: object, kinds: tuple[object, ...], value: JsonValue, depth: int) -> object:
    """Lists, tuples and mappings."""
    if origin is dict or origin is Mapping:
        if not isinstance(value, dict):
            raise ShapeError("it is no mapping")
        return {key: unpack_value(kinds[1], one, depth + 1) for key, one in value.items()}
    if not isinstance(value, list):
        raise ShapeError("it is no list")
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise ShapeError(f"it has {len(value)} parts, not {len(kinds)}")
        pairs = zip(kinds, value, strict=True)
        return tuple(unpack_value(kind, one, depth + 1) for kind, one in pairs)
    found = [unpack_value(kinds[0], one, depth + 1) for one in value]
    return found if origin is list else tuple(found)


def _single(kind: type, value: JsonValue, depth: int) -> object:
    if kind in _PLAIN:
        return _plain(kind, value)
    if issubclass(kind, Enum | PurePath):
        return _made_of_text(kind, value)
    if issubclass(kind, BaseModel):
        return _model(kind, value)
    if is_dataclass(kind):
        return _record(kind, value, depth)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = _hints(kind)
        if not isinstance(value, list) or len(value) != len(hints):
            raise ShapeError(f"it is no {kind.__name__}")
        pairs = zip(hints.values(), value, strict=True)
        make = cast("Callable[..., object]", kind)
        return make(*[unpack_value(one, part, depth + 1) for one, part in pairs])
    raise ShapeError(f"a {kind.__name__} can't be sent")


_PLAIN: Final = (NoneType, bool, int, float, str, bytes)


def _plain(kind: type, value: JsonValue) -> object:
    if kind is str:
        return _text(value)
    if kind is bytes:
        return _data(value)
    if kind is float and isinstance(value, dict):
        number = value.get(_NUMBER)
        if len(value) == 1 and isinstance(number, str) and number in _ODD_NUMBERS:
            return float(number)
    wanted = {float: (int, float), int: (int,), bool: (bool,), NoneType: (NoneType,)}[kind]
    if not isinstance(value, wanted):
        raise ShapeError(f"{shown(value)} is no {kind.__name__}")
    return value


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    return os.fsdecode(_data(value))


def _data(value: JsonValue) -> bytes:
    told = value.get(_BYTES) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(told, str):
        raise ShapeError(f"{shown(value)} is neither text nor bytes")
    try:
        return base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        raise ShapeError("this is no base64") from None


def _made_of_text(kind: type[Enum | PurePath], value: JsonValue) -> object:
    try:
        return kind(_text(value))
    except ValueError:
        raise ShapeError(f"{shown(value)} is no {kind.__name__}") from None


def _model(kind: type[BaseModel], value: JsonValue) -> BaseModel:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ShapeError(f"it is no {kind.__name__}: {said}") from None


def _record(kind: type, value: JsonValue, depth: int) -> object:
    hints = _hints(kind)
    if not isinstance(value, dict) or not value.keys() <= hints.keys():
        raise ShapeError(f"it is no {kind.__name__}")
    try:
        return kind(**{key: unpack_value(hints[key], one, depth + 1) for key, one in value.items()})
    except TypeError:
        raise ShapeError(f"it is no whole {kind.__name__}") from None


@cache
def _hints(kind: type) -> dict[str, object]:
    return dict(get_type_hints(kind))
