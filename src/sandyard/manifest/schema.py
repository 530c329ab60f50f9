"""The JSON schema of a manifest, for editors and for programs in other languages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic.json_schema import models_json_schema

from sandyard.manifest.entries import BaseEntry
from sandyard.manifest.environment import EnvValue
from sandyard.manifest.model import FORMER_FIELDS

if TYPE_CHECKING:
    from sandyard.manifest.base import Tagged
    from sandyard.manifest.model import Manifest

__all__ = ["manifest_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PLACE: Final = "#/$defs/"

Schema = dict[str, object]

_FORMER: Final[Schema] = {
    "deprecated": True,
    "description": "Of manifests of the OpenAI Agents SDK: taken, and not kept.",
    "items": {"type": "string"},
    "type": "array",
}


def manifest_schema(kind: type[Manifest]) -> Schema:
    """Describe what ``kind`` accepts as JSON, every registered type of entry and value included.

    Args:
        kind: the class of manifests.
    """
    families: tuple[type[Tagged], ...] = (BaseEntry, EnvValue)
    members = [member for family in families for member in family.registered_types().values()]
    of_model, whole = models_json_schema(
        [(kind, "validation"), *((member, "validation") for member in members)]
    )
    definitions: dict[str, Schema] = whole["$defs"]
    names = {model: str(part["$ref"]).removeprefix(_PLACE) for (model, _), part in of_model.items()}
    for family in families:
        tags = {tag: names[member] for tag, member in family.registered_types().items()}
        for tag, name in tags.items():
            _demand_tag(definitions[name], tag)
        definitions[family.__name__] = _one_of(family, tags)
    top = definitions.pop(names[kind])
    properties = top["properties"]
    if isinstance(properties, dict):
        properties |= dict.fromkeys(FORMER_FIELDS, _FORMER)
    return {"$schema": _DIALECT, **top, "$defs": dict(sorted(definitions.items()))}


def _demand_tag(definition: Schema, tag: str) -> None:
    """Make the type a required constant: without it a reader can't tell what it has."""
    properties, required = definition["properties"], definition.get("required", [])
    if isinstance(properties, dict) and isinstance(required, list):
        properties["type"] = {"const": tag, "type": "string"}
        definition["required"] = ["type", *required]


def _one_of(family: type[Tagged], tags: dict[str, str]) -> Schema:
    """Any type of a family, told apart by its tag."""
    places = {tag: f"{_PLACE}{name}" for tag, name in sorted(tags.items())}
    return {
        "description": (family.__doc__ or "").partition("\n")[0],
        "discriminator": {"mapping": places, "propertyName": "type"},
        "oneOf": [{"$ref": place} for place in places.values()],
    }
