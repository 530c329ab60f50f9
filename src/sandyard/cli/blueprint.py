"""Manifests as files: JSON, read and checked before anything is made."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from pydantic import ValidationError

from sandyard import ArgumentError, Manifest, ManifestError
from sandyard.manifest.base import manifest_error

__all__ = ["ManifestFile", "read_manifest"]

_OPTION = "--manifest"

ManifestFile = Annotated[
    str | None,
    typer.Option(
        _OPTION,
        metavar="FILE",
        help="Make the workspace of what this manifest (JSON) lists.",
        show_default=False,
    ),
]


def read_manifest(path: str) -> tuple[Manifest, str]:
    """Read a manifest from a JSON file.

    Returns:
        It, and the directory where its relative sources begin: that of the file.

    Raises:
        ArgumentError: the file can't be read.
        ManifestError: it is no JSON, or no manifest; the message names the field.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ArgumentError(
            f"{_OPTION} {path}: {error.strerror}",
            op="create",
            argument=_OPTION,
            value=path,
            cause=error,
        ) from error
    try:
        manifest = Manifest.model_validate(json.loads(data, object_pairs_hook=_fields))
    except ValidationError as error:
        raise _placed(path, manifest_error(error)) from error
    except ManifestError as error:
        raise _placed(path, error) from error
    except (ValueError, RecursionError) as error:  # what JSON and its encoding say of it
        raise ManifestError(f"{_OPTION} {path} is no JSON: {error}", cause=error) from error
    return manifest, os.path.dirname(os.path.realpath(path))


def _placed(path: str, error: ManifestError) -> ManifestError:
    """The error, with the file's name in front."""
    field, entry = (error.context.get(key) for key in ("field", "entry"))
    return ManifestError(
        f"{_OPTION} {path}: {error.message}",
        field=None if field is None else str(field),
        entry=None if entry is None else str(entry),
        cause=error,
    )


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; Python would keep the last of two fields that have one name.

    Raises:
        ManifestError: two have.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ManifestError(f"the field {twice!r} is there twice; keep one", field=twice)
    return found
