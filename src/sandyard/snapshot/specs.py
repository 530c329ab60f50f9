"""Specs: what a caller asks for, before there is a session whose id a snapshot could have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    TypeAdapter,
    ValidationError,
)

from sandyard.errors import ArgumentError, shown
from sandyard.snapshot.kinds import (
    LocalSnapshot,
    NoopSnapshot,
    PossiblePath,
    RemoteSnapshot,
    SnapshotBase,
    StoreSnapshot,
)

__all__ = [
    "LocalSnapshotSpec",
    "NoopSnapshotSpec",
    "RemoteSnapshotSpec",
    "SnapshotSpec",
    "StoreSnapshotSpec",
    "resolve_snapshot",
]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NoopSnapshotSpec(_Spec):
    """Asks for a ``NoopSnapshot``."""

    type: Literal["noop"] = "noop"

    def build(self, snapshot_id: str) -> NoopSnapshot:
        """Make it."""
        return NoopSnapshot(id=snapshot_id)


class LocalSnapshotSpec(_Spec):
    """Asks for a ``LocalSnapshot``.

    Attributes:
        base_path: the directory; a relative one begins where this program is when the session is made.
    """

    type: Literal["local"] = "local"
    base_path: Annotated[PossiblePath, BeforeValidator(os.fspath)]

    def build(self, snapshot_id: str) -> LocalSnapshot:
        """Make it."""
        # A saved state may be taken up from another directory.
        return LocalSnapshot(id=snapshot_id, base_path=os.path.abspath(self.base_path))


class RemoteSnapshotSpec(_Spec):
    """Asks for a ``RemoteSnapshot``.

    Attributes:
        client_dependency_key: the client's name among the dependencies.
    """

    type: Literal["remote"] = "remote"
    client_dependency_key: str

    def build(self, snapshot_id: str) -> RemoteSnapshot:
        """Make it."""
        return RemoteSnapshot(id=snapshot_id, client_dependency_key=self.client_dependency_key)


class StoreSnapshotSpec(_Spec):
    """Asks for a ``StoreSnapshot``.

    Attributes:
        directory: the store's (default: this user's, ``$XDG_STATE_HOME/sandyard/store``).
    """

    type: Literal["store"] = "store"
    directory: PossiblePath | None = None

    def build(self, snapshot_id: str) -> StoreSnapshot:
        """Make it."""
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # where one is used

        return StoreSnapshot(id=snapshot_id, directory=SnapshotStore(self.directory).directory)


SnapshotSpec = Annotated[
    NoopSnapshotSpec | LocalSnapshotSpec | RemoteSnapshotSpec | StoreSnapshotSpec,
    Discriminator("type"),
]
"""What a caller may ask for."""


def resolve_snapshot(spec: object, snapshot_id: str) -> SnapshotBase:
    """Turn what a caller asked for into a snapshot.

    Args:
        spec: a snapshot, which is returned as it is; a spec, or a mapping that says one; or None for
            a ``NoopSnapshot``.
        snapshot_id: the id of one that is made.

    Raises:
        ArgumentError: it is none of these.
    """
    if spec is None:
        return NoopSnapshot(id=snapshot_id)
    if isinstance(spec, SnapshotBase):
        return spec
    try:
        if isinstance(spec, Mapping):
            adapter: TypeAdapter[SnapshotSpec] = TypeAdapter(SnapshotSpec)
            spec = adapter.validate_python(dict(spec))
    except ValidationError as error:
        raise _unknown(spec) from error
    if isinstance(
        spec, NoopSnapshotSpec | LocalSnapshotSpec | RemoteSnapshotSpec | StoreSnapshotSpec
    ):
        return spec.build(snapshot_id)
    raise _unknown(spec)


def _unknown(asked: object) -> ArgumentError:
    return ArgumentError(
        "snapshot is a snapshot, a spec such as StoreSnapshotSpec(), or None for none, not "
        f"{shown(asked)}",
        op="create",
        argument="snapshot",
        value=asked,
    )
