"""What every part of a manifest shares: strict fields, clear errors, and types named by a tag."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from sandyard.errors import ManifestError, SandboxError, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["SAVED", "ManifestModel", "Tagged", "manifest_error", "plain_text"]

SAVED: Final = {"saved": True}
"""Validation context for what was saved earlier: unknown fields are ignored, since a newer version
may have written them. From a caller they are errors."""

_PROBLEMS_SHOWN: Final = 3
_CONTAINERS: Final = frozenset({"entries", "children"})


class ManifestModel(BaseModel):
    """A value whose constructor raises ``ManifestError`` for whatever is wrong with it."""

    # What was given may be a secret, and the error of pydantic is the cause of ours.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def __init__(self, **fields: object) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise manifest_error(error) from error
        except RecursionError as error:
            raise ManifestError(
                "the manifest is nested too deeply; give paths such as 'a/b/c' as keys instead"
            ) from error

    # pydantic calls a custom constructor also for nested values, without the validation context;
    # this mark (its own, see BaseModel.__init__) says that nested ones may go past it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown(cls, fields: object, info: ValidationInfo) -> object:
        """Drop unknown fields of what was saved earlier."""
        if info.context is not SAVED or not isinstance(fields, Mapping):
            return fields
        return {name: value for name, value in fields.items() if name in cls.model_fields}


class Tagged(ManifestModel):
    """One of a family of types, told apart by ``type``; direct subclasses are families.

    A type of a family gives ``type`` a default and is then known to the family's ``parse``; a class
    that is only there to be inherited from says ``only_base = True`` instead. A family whose values
    may be secrets says ``secretive = True``: errors don't quote them.
    """

    only_base: ClassVar[bool] = False
    secretive: ClassVar[bool] = False
    type: str = ""

    def __init__(self, **fields: object) -> None:
        super().__init__(**fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    _known: ClassVar[dict[str, builtins.type[Tagged]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Make a family of a direct subclass, and register a deeper one with its family."""
        super().__pydantic_init_subclass__(**kwargs)
        if Tagged in cls.__bases__:
            cls._known = {}
            return
        if vars(cls).get("only_base", False):
            return
        tag = cls.model_fields["type"].default
        if not isinstance(tag, str) or not tag:
            raise TypeError(f"{cls.__name__} needs a default for its field 'type'")
        other = cls._known.get(tag)
        if other is not None and _full_name(other) != _full_name(cls):  # equal when reloaded
            raise ManifestError(
                f"{cls.__name__} has the type {tag!r}, which is taken by {other.__name__}; "
                "choose another"
            )
        cls._known[tag] = cls

    @classmethod
    def registered_types(cls) -> dict[str, builtins.type[Tagged]]:
        """Return the family's types by their tags."""
        return dict(cls._known)

    @classmethod
    def parse(cls, payload: object) -> Self:
        """Make the value that a mapping describes; a value of the family is returned as it is.

        Args:
            payload: a value of the family, or a mapping with its ``type`` and fields.

        Raises:
            ManifestError: the type is unknown, or a field is wrong.
        """
        try:
            return cls.parse_within(payload, None)
        except ValidationError as error:
            raise manifest_error(error) from error

    @classmethod
    def parse_within(cls, payload: object, context: object) -> Self:
        """Do what ``parse`` does as a part of a larger validation; errors are left untranslated."""
        if isinstance(payload, cls):
            return payload
        if not isinstance(payload, Mapping):
            given = f"a {type(payload).__name__}" if cls.secretive else shown(payload)
            raise ManifestError(
                f"{given} is neither one of {cls.known_tags()} nor a mapping of its fields"
            )
        tag = payload.get("type")
        kind = cls.find_type(tag) if isinstance(tag, str) else None
        if kind is None or not issubclass(kind, cls):
            raise cls.unknown_type(tag)
        return kind.model_validate(dict(payload), context=context)

    @classmethod
    def find_type(cls, tag: str) -> builtins.type[Tagged] | None:
        """Return the type of a tag, or None."""
        return cls._known.get(tag)

    @classmethod
    def unknown_type(cls, tag: object) -> ManifestError:
        """Give the error for a type that is not known."""
        return ManifestError(
            f"type {shown(tag)} is not known; known types: {cls.known_tags()}", field="type"
        )

    @classmethod
    def known_tags(cls) -> str:
        """List the family's tags for a message."""
        return ", ".join(sorted(cls.registered_types())) or "none"

    @model_serializer(mode="wrap")
    def _keep_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Keep the tag whatever the caller excludes: without it nothing can be read back."""
        fields: dict[str, object] = handler(self)
        return {"type": self.type, **fields}


def _full_name(kind: type[object]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def plain_text(text: str, what: str) -> str:
    """Return ``text`` if the kernel and JSON can both carry it.

    Raises:
        ManifestError: it has a NUL or a lone surrogate.
    """
    if "\0" in text:
        raise ManifestError(
            f"{what} has a NUL character, which no system call can carry; remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"{what} has the lone surrogate {text[error.start]!r}, which is not text that UTF-8 "
            "can carry; give valid Unicode"
        ) from None
    return text


# --- pydantic's errors, said in words ---------------------------------------------------------


def manifest_error(error: ValidationError) -> ManifestError:
    """Translate what pydantic found into one error that names field and entry."""
    problems = error.errors(include_url=False)
    first = problems[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, ManifestError) and len(problems) == 1 and _is_placed(inner):
        return inner
    entry, field = _place(first["loc"])
    said = "; ".join(_sentence(problem) for problem in problems[:_PROBLEMS_SHOWN])
    more = len(problems) - _PROBLEMS_SHOWN
    if more > 0:
        said += f"; and {more} more"
    return ManifestError(said, field=field, entry=entry)


def _is_placed(error: ManifestError) -> bool:
    """Tell whether an error from inside already names the entry or path it is about."""
    return "entry" in error.context or "rel" in error.context


def _place(location: tuple[int | str, ...]) -> tuple[str | None, str | None]:
    """Split pydantic's location into the path of an entry and the field in it."""
    path: list[str] = []
    rest = list(location)
    while len(rest) > 1 and rest[0] in _CONTAINERS:
        path.append(str(rest[1]))
        del rest[:2]
    field = ".".join(str(part) for part in rest)
    return "/".join(path) or None, field or None


def _sentence(problem: ErrorDetails) -> str:
    """Say one problem in words, with its place in front."""
    entry, field = _place(problem["loc"])
    place = f"entry {shown(entry)}: " if entry else ""
    if problem["type"] == "extra_forbidden":
        return f"{place}unknown field {shown(field)}{_hint(field or '')}"
    inner = problem.get("ctx", {}).get("error")
    if isinstance(inner, SandboxError):
        return f"{place}{field}: {inner.message}" if "." in (field or "") else place + inner.message
    said = problem["msg"].removeprefix("Value error, ")
    named = f"{field}: " if field else ""
    # An environment may hold secrets, so its values are never quoted.
    secret = problem["loc"][:1] == ("environment",) or problem["type"] == "missing"
    given = "" if secret else f", not {shown(problem['input'])}"
    return f"{place}{named}{said[:1].lower()}{said[1:]}{given}"


def _hint(name: str) -> str:
    """Suggest the field that was meant."""
    known = {field for kind in _all_models(ManifestModel) for field in kind.model_fields}
    if name.startswith("environment."):
        return '; variables go into environment={"value": {"NAME": "text"}}'
    import difflib  # noqa: PLC0415  # only a slip needs it

    close = difflib.get_close_matches(name.rpartition(".")[2], sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _all_models(kind: type[ManifestModel]) -> list[type[ManifestModel]]:
    """List a class and everything made of it."""
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in _all_models(sub))]
