"""SessionState: what survives a restart of the host program, as a JSON document."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from sandyard.errors import ArgumentError, ArgumentTypeError, ManifestError, shown
from sandyard.manifest import SAVED, Manifest
from sandyard.manifest.paths import ROOT_KEY, entry_key
from sandyard.snapshot.kinds import NoopSnapshot, PossiblePath, SnapshotBase

__all__ = ["Ports", "SandboxSessionState", "UnixLocalSandboxSessionState", "skipped_path"]

_PORTS: Final = range(1, 65_536)


def _ports(value: object) -> tuple[int, ...]:
    """Take one port or several; the same port twice is one, and order is kept."""
    given = (value,) if isinstance(value, int) else value
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"exposed_ports must be a port or several, not {shown(value)}")
    ports: dict[int, None] = {}
    for port in given:
        if isinstance(port, bool) or not isinstance(port, int) or port not in _PORTS:
            raise ValueError(
                f"exposed_ports has {shown(port)}; a port is a number from 1 to {_PORTS[-1]}"
            )
        ports[port] = None
    return tuple(ports)


def skipped_path(path: object) -> str:
    """A path that is left out of what is saved, in its normal form.

    Raises:
        InvalidManifestPathError: it is absolute, or has ``..``.
        ManifestError: it is the workspace itself, or none.
    """
    key = entry_key(path)
    if key == ROOT_KEY:
        raise ManifestError(f"{shown(path)} is the workspace itself; name what is to be left out")
    return key


def _skipped_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(skipped_path, paths)))


Ports = Annotated[tuple[int, ...], BeforeValidator(_ports)]
"""Ports that servers inside may be reached on."""


class SandboxSessionState(BaseModel):
    """What is needed to resume a session; subclasses add what their backend needs.

    Unknown fields are ignored: another version may have written them.

    Attributes:
        type: tag of the backend.
        session_id: identity of the session (default: a new one).
        manifest: what its workspace is made of; ``manifest.root`` is the path inside.
        snapshot: where the workspace is kept while nobody uses it.
        exposed_ports: ports that servers inside may be reached on, each from 1 to 65535.
        workspace_root_ready: True once the workspace has been made ready.
        persist_skip_paths: what ``register_persist_workspace_skip_path`` leaves out of what is saved,
            relative to the workspace.
    """

    type: str
    session_id: UUID = Field(default_factory=uuid4)
    manifest: Manifest = Field(default_factory=Manifest)
    snapshot: Annotated[SerializeAsAny[SnapshotBase], BeforeValidator(SnapshotBase.parse)] = Field(
        default_factory=lambda: NoopSnapshot(id="none")
    )
    exposed_ports: Ports = ()
    workspace_root_ready: bool = False
    persist_skip_paths: Annotated[tuple[str, ...], AfterValidator(_skipped_paths)] = ()

    _known: ClassVar[dict[str, builtins.type[SandboxSessionState]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Register a subclass whose ``type`` has a default; a later one replaces an earlier."""
        super().__pydantic_init_subclass__(**kwargs)
        tag = cls.model_fields["type"].default
        if isinstance(tag, str):
            SandboxSessionState._known[tag] = cls

    @staticmethod
    def parse(payload: object) -> SandboxSessionState:
        """Read a state back.

        Args:
            payload: a state of some backend, which is returned as it is; a state of this bare
                class, which is copied into its backend's; or what ``model_dump(mode="json")`` gave.
                It is not changed.

        Raises:
            ArgumentTypeError: the payload is neither.
            ArgumentError: its type is not known, or a field is wrong.
        """
        if type(payload) is SandboxSessionState:
            bare = payload.model_copy(deep=True)
            payload = {name: getattr(bare, name) for name in SandboxSessionState.model_fields}
        if isinstance(payload, SandboxSessionState):
            return payload
        if not isinstance(payload, Mapping):
            raise ArgumentTypeError(
                f"a saved state is a state or a mapping, not {shown(payload)}",
                op="resume",
                argument="payload",
                value=payload,
            )
        tag = payload.get("type")
        kind = SandboxSessionState._known.get(tag) if isinstance(tag, str) else None
        if kind is None:
            known = ", ".join(sorted(SandboxSessionState._known))
            raise ArgumentError(
                f"the saved state has the type {shown(tag)}; known types: {known}",
                op="resume",
                argument="type",
                value=tag,
            )
        try:
            return kind.model_validate(dict(payload), context=SAVED)
        except ValidationError as error:
            raise _unreadable(error) from error

    @model_serializer(mode="wrap")
    def _keep_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Keep the tag whatever the caller excludes: without it nothing can be read back."""
        fields: dict[str, object] = handler(self)
        return {"type": self.type, **fields}


def _unreadable(error: ValidationError) -> ArgumentError:
    """Say which field of a saved state is wrong, and why."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    inner = first.get("ctx", {}).get("error")
    said = inner.message if isinstance(inner, ManifestError) else first["msg"]
    return ArgumentError(
        f"the saved state can't be read: {field}: {said.removeprefix('Value error, ')}",
        op="resume",
        argument=field,
        value=None if field.startswith("manifest") else first["input"],
    )


class UnixLocalSandboxSessionState(SandboxSessionState):
    """The state of a session on this machine.

    Attributes:
        workspace_root_owned: True if the workspace is a directory that the library made; only such
            a one is ever deleted.
        workspace_overlay: True if commands work on an overlay over the workspace's directory, which
            is not changed; what is changed lies beside the session's lease.
        workspace_layered: True if it lies upon layers in the state directory, and on no directory of
            the host's; ``manifest.root`` is then only what commands know it as.
        workspace_root_path: where that directory lies, if commands know it under another path than
            its own: that of the session that it was forked from. None for all others.
        confinement: what held at the last start: the rung, why it was no higher one, and how well
            each dimension held, in words. None before the first start. It is told and never
            obeyed.
        seal: by which this user's library knows that it wrote where the workspace is, and where it is
            kept; without one, whoever resumes the state says both again.
    """

    type: Literal["unix_local"] = "unix_local"
    workspace_root_owned: bool = False
    workspace_overlay: bool = False
    workspace_layered: bool = False
    workspace_root_path: PossiblePath | None = None
    confinement: dict[str, str] | None = None
    seal: str = ""

    @property
    def kept_apart(self) -> bool:
        """Whether the workspace, or what is changed of it, is the library's to keep and to delete."""
        return self.workspace_root_owned or self.workspace_overlay or self.workspace_layered

    @property
    def host_root(self) -> str:
        """Where the workspace lies on the host; of one on layers, what commands know it as."""
        return self.workspace_root_path or self.manifest.root
