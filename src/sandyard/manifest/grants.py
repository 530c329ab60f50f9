"""SandboxPathGrant: a path outside the workspace that commands may use too."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from sandyard.errors import ManifestError, shown
from sandyard.manifest.base import ManifestModel
from sandyard.manifest.paths import absolute_path

__all__ = ["SandboxPathGrant"]


def _grant_path(path: object) -> str:
    return absolute_path(path, "path")


def _host_path(path: object) -> str | None:
    if path is None:
        return None
    normal = absolute_path(path, "host_path")
    if ".." in str(path).split("/"):
        raise ManifestError(f"host_path {shown(path)} has a '..'; give the plain path")
    return normal


class SandboxPathGrant(ManifestModel):
    """A path outside the workspace that commands may use too. Grants are immutable values.

    Attributes:
        path: absolute path inside, normalised; never the root of the file system.
        read_only: True lets commands read it only (default: they may write).
        description: what it is, for the model.
        host_path: absolute path on the host if that is another one (default: the same).
    """

    model_config = ConfigDict(frozen=True)

    path: Annotated[str, BeforeValidator(_grant_path)]
    read_only: bool = False
    description: str | None = None
    host_path: Annotated[str | None, BeforeValidator(_host_path)] = None

    @model_serializer(mode="wrap")
    def _leave_out_host_path(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave ``host_path`` out where it is not used."""
        fields: dict[str, object] = handler(self)
        if fields.get("host_path") is None:
            fields.pop("host_path", None)
        return fields
