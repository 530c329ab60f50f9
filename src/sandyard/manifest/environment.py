"""Environment variables that commands get from the manifest."""

from __future__ import annotations

import abc
import asyncio
import os
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from sandyard.errors import ManifestError, shown
from sandyard.manifest.base import ManifestModel, Tagged, plain_text

__all__ = ["EnvEntry", "EnvValue", "Environment", "SecretValue", "StrEnvValue"]


class EnvValue(Tagged, abc.ABC):
    """A value that is worked out when a command starts; make your own by subclassing.

    A subclass gives ``type`` a default, under which it is found again when it is read back.
    """

    secretive: ClassVar[bool] = True

    @abc.abstractmethod
    async def resolve(self) -> str:
        """Return the value; it is called for every command."""


def _value_text(value: object) -> object:
    """Check a text that may be a secret: it is never quoted, whatever it is."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ManifestError("the value is no text in UTF-8") from None
    if value is None or isinstance(value, str):
        return value and plain_text(value, "the value")
    raise ManifestError(f"the value must be a str, not a {type(value).__name__}")


ValueText = Annotated[str, BeforeValidator(_value_text)]


class StrEnvValue(EnvValue):
    """A fixed text.

    Attributes:
        value: the text.
    """

    type: Literal["str"] = "str"
    value: ValueText

    async def resolve(self) -> str:
        """Return the text."""
        return self.value


class SecretValue(EnvValue):
    """A text that is shown to commands and kept out of everything else.

    It is in no representation and no saved state; dumping a manifest with it takes
    ``context={"secrets": True}``. What was read back from a saved state has no text, and is refused
    until the caller gives it again.

    Attributes:
        value: the text; None after it was read back from where it was not saved.
        env: variable of this program to take it from when a command starts, instead of ``value``;
            its name is saved, so that a resumed session finds it again.

    Example:
        >>> Manifest(environment={"value": {"API_KEY": SecretValue(env="API_KEY")}})
    """

    type: Literal["secret"] = "secret"
    value: Annotated[str | None, BeforeValidator(_value_text)] = Field(default=None, repr=False)
    env: str | None = None

    def __init__(self, value: str | None = None, *, env: str | None = None) -> None:
        Tagged.__init__(
            self, value=value, env=env
        )  # what type checkers see of super() has no fields

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _has_one_source(self) -> SecretValue:
        if self.value is not None and self.env is not None:
            raise ManifestError("a SecretValue has a value or the name of a variable, not both")
        if self.env is not None:
            _variable_name(self.env)
        return self

    @model_serializer(mode="wrap")
    def _leave_out_value(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, object]:
        """Leave the text out, unless whoever dumps it asks for secrets."""
        fields: dict[str, object] = {"type": self.type, **handler(self)}
        if not (isinstance(info.context, Mapping) and info.context.get("secrets") is True):
            fields.pop("value", None)
        return {name: value for name, value in fields.items() if value is not None}

    async def resolve(self) -> str:
        """Return the text.

        Raises:
            ManifestError: it was not saved, and not given again; or the variable is not set.
        """
        return self.among(os.environ)

    def among(self, variables: Mapping[str, str], name: str | None = None) -> str:
        """Return the text, for a program that has these variables; raises what ``resolve`` does.

        Args:
            variables: of the program.
            name: what the secret is a value of, for the message.
        """
        value = self.value if self.env is None else variables.get(self.env)
        if value is not None:
            return value
        if self.env is not None:
            raise ManifestError(
                f"the variable {shown(self.env)} of this program, which holds a secret, is not set",
                field="environment",
            )
        which = "a SecretValue" if name is None else f"the secret {shown(name)}"
        place = "" if name is None else f".value[{name!r}]"
        raise ManifestError(
            f"{which} has no value: secrets are not saved; give it again, as "
            f"state.manifest.environment{place} = SecretValue(…) before the session is resumed, or "
            "use SecretValue(env=…)",
            field="environment",
        )


def _env_value(value: object, info: ValidationInfo) -> EnvValue:
    if isinstance(value, Mapping) and set(value) == {"value"} and isinstance(value["value"], str):
        return StrEnvValue(value=value["value"])
    return EnvValue.parse_within(value, info.context)


class EnvEntry(ManifestModel):
    """A value with a description.

    Attributes:
        description: what it is, for the model (default: nothing).
        ephemeral: True says that it belongs to no snapshot.
        value: the value.
    """

    description: str | None = None
    ephemeral: bool = False
    value: Annotated[SerializeAsAny[EnvValue], BeforeValidator(_env_value)]


Member = str | EnvValue | EnvEntry


def _member(value: object, info: ValidationInfo) -> Member:
    """Tell apart the forms in which a variable may be given."""
    if isinstance(value, str):
        return plain_text(value, "the value")
    if isinstance(value, EnvValue | EnvEntry):
        return value
    if not isinstance(value, Mapping):
        raise ManifestError(
            f"the value must be a str, an EnvValue or an EnvEntry, not a {type(value).__name__}"
        )
    if "type" in value or (set(value) == {"value"} and isinstance(value["value"], str)):
        return _env_value(value, info)
    return EnvEntry.model_validate(dict(value), context=info.context)


def _variable_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ManifestError(f"a variable's name must be a str of some length, not {shown(name)}")
    if "=" in name:
        raise ManifestError(f"the variable's name {shown(name)} has a '='; names end before it")
    return plain_text(name, f"the variable's name {shown(name)}")


def _variables(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ManifestError(
            f"the environment must be a mapping of names to values, not a {type(value).__name__}"
        )
    return {_variable_name(name): member for name, member in value.items()}


class Environment(ManifestModel):
    """The variables.

    Attributes:
        value: text, an ``EnvValue`` or an ``EnvEntry`` by name. Names have no ``=``.
    """

    value: Annotated[
        dict[
            str,
            Annotated[str | SerializeAsAny[EnvValue] | EnvEntry, BeforeValidator(_member)],
        ],
        BeforeValidator(_variables),
    ] = Field(default_factory=dict)

    def normalized(self) -> dict[str, EnvEntry]:
        """Return every variable in its longest form."""
        return {name: _as_entry(member) for name, member in self.value.items()}

    async def resolve(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Work out all values, those that wait for something at the same time.

        When one fails the others are cancelled, and have ended before its error is raised.

        Args:
            variables: those of the program that secrets are taken from (default: this one's).

        Raises:
            ManifestError: a name or value can't be a variable's.
        """
        found: dict[str, str] = {}
        waiting: dict[str, asyncio.Task[str]] = {}
        for name, member in self.value.items():
            value = member.value if isinstance(member, EnvEntry) else member
            if isinstance(value, StrEnvValue):
                value = value.value
            elif isinstance(value, SecretValue):
                value = value.among(os.environ if variables is None else variables, name)
            if isinstance(value, str):
                found[_variable_name(name)] = value
            else:
                waiting[_variable_name(name)] = asyncio.create_task(value.resolve())
        if waiting:
            values = await _gathered(list(waiting.values()))
            found.update(zip(waiting, values, strict=True))
        return {name: _checked(name, found[name]) for name in self.value}


async def _gathered(tasks: list[asyncio.Task[str]]) -> list[str]:
    """Return all results, or raise the first error once every other task has ended."""
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _as_entry(member: Member) -> EnvEntry:
    if isinstance(member, str):
        member = StrEnvValue(value=member)
    return EnvEntry(value=member) if isinstance(member, EnvValue) else member


def _checked(name: str, value: object) -> str:
    """Check what a caller's ``EnvValue`` returned; the value itself is never quoted."""
    if not isinstance(value, str):
        raise ManifestError(
            f"the variable {shown(name)} resolved to a {type(value).__name__}; return a str",
            field=f"environment.{name}",
        )
    return plain_text(value, f"the value of the variable {shown(name)}")
