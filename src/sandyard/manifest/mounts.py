"""Mounts: what a manifest shows in a sandbox without copying it; and who makes remote ones."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import PurePath
from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator, Field

from sandyard.errors import ManifestError, shown
from sandyard.limits import MOUNT_SIZE_BYTES, MOUNT_SIZE_MIN_BYTES, SIZE_MAX_BYTES
from sandyard.manifest.base import plain_text
from sandyard.manifest.entries import Mount
from sandyard.manifest.paths import absolute_path

__all__ = [
    "BindMount",
    "MountProvider",
    "OverlayMount",
    "RemoteMount",
    "TmpfsMount",
]


def _source(value: object) -> str:
    text = absolute_path(value, "source")
    if ".." in str(value).split("/"):
        raise ManifestError(f"source {shown(value)} has a '..'; give the plain path")
    return text


def _size(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ManifestError(f"size is a whole number of bytes, not {shown(value)}", field="size")
    if not MOUNT_SIZE_MIN_BYTES <= value <= SIZE_MAX_BYTES:
        raise ManifestError(
            f"size is from {MOUNT_SIZE_MIN_BYTES} to {SIZE_MAX_BYTES} bytes, not {value}",
            field="size",
        )
    return value


_Source = Annotated[str, BeforeValidator(_source)]
_Size = Annotated[int, BeforeValidator(_size)]


class BindMount(Mount):
    """A directory of the host, shown in the sandbox.

    What is written there is written to the host's directory, as its owner. Setuid bits and device
    nodes in it have no effect. The policy binds it: what ``Policy(deny=…)`` names is refused, and
    what ``Policy(protect=…)`` keeps is kept in it as well.

    Attributes:
        source: the directory, absolute; no part of its path may be a symlink.
        read_only: True (default) lets commands read it only.
    """

    type: Literal["bind_mount"] = "bind_mount"
    source: _Source

    def __init__(
        self,
        *,
        source: str | PurePath,
        read_only: bool = True,
        mount_path: str | PurePath | None = None,
        description: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(
            source=source,
            read_only=read_only,
            mount_path=mount_path,
            description=description,
            **unknown,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def host_directory(self) -> tuple[str, bool] | None:
        """Return the source, and whether commands may change it."""
        return self.source, not self.read_only


class TmpfsMount(Mount):
    """An empty file system in memory, which ends with the sandbox.

    Attributes:
        size: the most that it holds, in bytes (default: 64 MiB); it counts as memory of the session.
        read_only: False (default) lets commands write.
    """

    type: Literal["tmpfs_mount"] = "tmpfs_mount"
    read_only: bool = False
    size: _Size = MOUNT_SIZE_BYTES

    def __init__(
        self,
        *,
        size: int = MOUNT_SIZE_BYTES,
        read_only: bool = False,
        mount_path: str | PurePath | None = None,
        description: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(
            size=size,
            read_only=read_only,
            mount_path=mount_path,
            description=description,
            **unknown,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class OverlayMount(Mount):
    """A directory of the host that commands may change without changing it.

    What they write, replace or delete is kept in memory, and ends with the sandbox. Other directories
    mounted in the source are empty in it. A directory of the source can't be renamed (programs that
    move directories copy them then).

    Attributes:
        source: the directory, absolute and without symlinks; it should not change while it is mounted.
        size: the most that the changes hold, in bytes (default: 64 MiB); they count as memory of the
            session.
        read_only: False (default) lets commands write.
    """

    type: Literal["overlay_mount"] = "overlay_mount"
    read_only: bool = False
    source: _Source
    size: _Size = MOUNT_SIZE_BYTES

    def __init__(
        self,
        *,
        source: str | PurePath,
        size: int = MOUNT_SIZE_BYTES,
        read_only: bool = False,
        mount_path: str | PurePath | None = None,
        description: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(
            source=source,
            size=size,
            read_only=read_only,
            mount_path=mount_path,
            description=description,
            **unknown,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def host_directory(self) -> tuple[str, bool] | None:
        """Return the source, which commands can't change."""
        return self.source, False


# --- what lies elsewhere ------------------------------------------------------------------------


def _plain(value: object) -> object:
    return plain_text(value, f"value {shown(value)}") if isinstance(value, str) else value


_Plain = Annotated[str, BeforeValidator(_plain)]


class RemoteMount(Mount):
    """Something on another machine, which a provider of the caller's makes a directory of.

    Attributes:
        provider: which one, of ``UnixLocalSandboxClient(mount_providers=…)``.
        source: what to show, in the provider's words, such as ``s3://bucket/data``.
        options: further words for the provider. No secrets: they are saved with the session's
            state; a provider has its own.
        read_only: True (default) lets commands read it only.
    """

    type: Literal["remote_mount"] = "remote_mount"
    provider: _Plain
    source: _Plain
    options: dict[str, str] = Field(default_factory=dict)

    def __init__(
        self,
        *,
        provider: str,
        source: str,
        options: Mapping[str, str] | None = None,
        read_only: bool = True,
        mount_path: str | PurePath | None = None,
        description: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__(
            provider=provider,
            source=source,
            options={} if options is None else dict(options),
            read_only=read_only,
            mount_path=mount_path,
            description=description,
            **unknown,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class MountProvider(Protocol):
    """Makes something remote a directory of this machine, for as long as a session shows it.

    It runs with the caller's rights, outside every sandbox, and has its own credentials. The library
    shows the directory as it shows a ``BindMount``, and neither writes to it nor deletes anything of
    it.

    Example:
        >>> class Buckets:
        ...     @asynccontextmanager
        ...     async def mounted(self, entry):
        ...         with TemporaryDirectory() as place:
        ...             await self.attach(entry.source, place)
        ...             try:
        ...                 yield place
        ...             finally:
        ...                 await self.detach(place)
    """

    def mounted(self, entry: RemoteMount) -> AbstractAsyncContextManager[str | PurePath]:
        """Return an async context manager that gives the directory's absolute path.

        It is entered before the directory is shown, and left when the sandbox shows it no more.

        Args:
            entry: what to show.
        """
        ...
