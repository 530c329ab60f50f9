"""Options of clients: what a caller asks of one kind of client, as values that JSON can hold."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from sandyard.errors import ArgumentError, ArgumentTypeError, shown
from sandyard.state import Ports

__all__ = ["BaseSandboxClientOptions", "UnixLocalSandboxClientOptions"]


class BaseSandboxClientOptions(BaseModel):
    """What ``create`` of one kind of client is asked for, besides manifest and snapshot.

    A subclass gives ``type`` a Literal default, the ``backend_id`` of its clients, and is then known to
    ``parse``. Fields are given by name, or by position in the order of the class. Options never change.

    Attributes:
        type: tag of the kind.

    Example:
        >>> class MyOptions(BaseSandboxClientOptions):
        ...     type: Literal["mine"] = "mine"
        ...     region: str = "near"
        >>> BaseSandboxClientOptions.parse({"type": "mine", "region": "far"})
        MyOptions(type='mine', region='far')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str

    _known: ClassVar[dict[str, builtins.type[BaseSandboxClientOptions]]] = {}

    def __init__(self, *values: object, **fields: object) -> None:
        names = [name for name in type(self).model_fields if name != "type"]
        if len(values) > len(names):
            raise ArgumentTypeError(
                f"{type(self).__name__} takes {len(names)} values, {', '.join(names)}, not "
                f"{len(values)}",
                op="create",
                argument="options",
                value=values,
            )
        given = dict(zip(names, values, strict=False))
        for name in given.keys() & fields.keys():
            raise ArgumentTypeError(
                f"{type(self).__name__} is given {name} twice, by position and by name",
                op="create",
                argument=name,
                value=fields[name],
            )
        try:
            super().__init__(**given, **fields)
        except ValidationError as error:
            raise _impossible(type(self), error) from error

    # So that model_validate goes past it, and says itself what is wrong where (see ManifestModel).
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Register a subclass by its tag."""
        super().__pydantic_init_subclass__(**kwargs)
        tag = cls.model_fields["type"].default
        if not isinstance(tag, str) or not tag:
            raise TypeError(f"{cls.__name__} needs a default for its field 'type'")
        other = BaseSandboxClientOptions._known.get(tag)
        if other is not None and _full_name(other) != _full_name(cls):  # equal when reloaded
            raise ArgumentError(
                f"{cls.__name__} has the type {tag!r}, which is taken by {other.__name__}; choose "
                "another",
                op="create",
                argument="type",
                value=tag,
            )
        BaseSandboxClientOptions._known[tag] = cls

    @classmethod
    def registered_types(cls) -> dict[str, builtins.type[BaseSandboxClientOptions]]:
        """Return the kinds of options by their tags."""
        return dict(BaseSandboxClientOptions._known)

    @classmethod
    def parse(cls, payload: object) -> Self:
        """Read options back.

        Args:
            payload: options, which are returned as they are, or a mapping with their ``type`` and
                fields, which is not changed. A class with a tag of its own may be left to name it.

        Raises:
            ArgumentTypeError: it is neither, or of another class than this one.
            ArgumentError: the type is not known, or a field is wrong.
        """
        if isinstance(payload, Mapping):
            tag = payload.get("type", cls.model_fields["type"].default)
            kind = BaseSandboxClientOptions._known.get(tag) if isinstance(tag, str) else None
            if kind is None:
                known = ", ".join(sorted(BaseSandboxClientOptions._known))
                raise ArgumentError(
                    f"options have the type {shown(payload.get('type'))}; known types: {known}",
                    op="create",
                    argument="type",
                    value=payload.get("type"),
                )
            try:
                payload = kind.model_validate(dict(payload))
            except ValidationError as error:
                raise _impossible(kind, error) from error
        if not isinstance(payload, cls):
            raise ArgumentTypeError(
                f"options are {cls.__name__}, a mapping that says them, or None, not "
                f"{shown(payload)}",
                op="create",
                argument="options",
                value=payload,
            )
        return payload

    @model_serializer(mode="wrap")
    def _keep_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Keep the tag whatever the caller excludes: without it nothing can be read back."""
        fields: dict[str, object] = handler(self)
        return {"type": self.type, **fields}


class UnixLocalSandboxClientOptions(BaseSandboxClientOptions):
    """What a ``UnixLocalSandboxClient`` may be asked for.

    Attributes:
        exposed_ports: ports that servers inside may be reached on, each from 1 to 65535, once; one
            number, or several. They are kept in the session's state.
    """

    type: Literal["unix_local"] = "unix_local"
    exposed_ports: Ports = ()

    def __init__(
        self,
        exposed_ports: int | Iterable[int] = (),
        *,
        type: Literal["unix_local"] = "unix_local",  # noqa: A002  # the field's name
    ) -> None:
        super().__init__(exposed_ports=exposed_ports, type=type)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _impossible(kind: type, error: ValidationError) -> ArgumentError:
    """Say which field is wrong, and why."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "options"
    return ArgumentError(
        f"{kind.__name__}: {field}: {first['msg'].removeprefix('Value error, ')}",
        op="create",
        argument=field,
        value=first["input"],
    )
