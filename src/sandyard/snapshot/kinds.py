"""The kinds of snapshots: where a session's workspace is kept when the session is stopped.

A snapshot is a value that a session's state carries. It says where the bytes are, and moves them as
streams of tar archives; ``StoreSnapshot`` also lets a session save only what changed.
"""

from __future__ import annotations

import builtins
import io
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, BinaryIO, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from sandyard.errors import ArgumentError, ArgumentTypeError, SnapshotNotRestorableError, shown

if TYPE_CHECKING:
    from sandyard.dependencies import Dependencies

__all__ = [
    "LocalSnapshot",
    "NoopSnapshot",
    "PossiblePath",
    "RemoteSnapshot",
    "SnapshotBase",
    "StoreSnapshot",
    "host_directory",
]

_Self = TypeVar("_Self", bound="SnapshotBase")


def _possible(path: str) -> str:
    """Refuse what no path of this machine can be."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        raw = b"\0"
    if b"\0" in raw:
        raise ValueError(f"{shown(path)} can't be a path")
    return path


PossiblePath = Annotated[str, AfterValidator(_possible)]
"""A path that may come from a saved state: nobody knows who wrote that."""


class SnapshotBase(BaseModel):
    """Where a workspace is kept while nobody uses it. Subclasses say how.

    A subclass whose ``type`` is a Literal with a default is known to ``parse``, and so to saved states.

    Attributes:
        type: tag of the kind.
        id: its name; of a session's, the session's id.
    """

    model_config = ConfigDict(frozen=True)

    type: str
    id: str

    _known: ClassVar[dict[str, builtins.type[SnapshotBase]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Register a subclass whose ``type`` has a default; a later one replaces an earlier."""
        super().__pydantic_init_subclass__(**kwargs)
        tag = cls.model_fields["type"].default
        if isinstance(tag, str):
            SnapshotBase._known[tag] = cls

    @staticmethod
    def parse(payload: object) -> SnapshotBase:
        """Read a snapshot back.

        Args:
            payload: a snapshot, which is returned as it is, or what ``model_dump`` gave.

        Raises:
            ArgumentTypeError: it is neither.
            ArgumentError: its type is not known, or a field is wrong.
        """
        if isinstance(payload, SnapshotBase):
            return payload
        if not isinstance(payload, Mapping):
            raise ArgumentTypeError(
                f"a snapshot is one, or a mapping, not {shown(payload)}",
                op="resume",
                argument="snapshot",
                value=payload,
            )
        kind = SnapshotBase._known.get(str(payload.get("type")))
        if kind is None:
            known = ", ".join(sorted(SnapshotBase._known))
            raise ArgumentError(
                f"a snapshot has the type {shown(payload.get('type'))}; known types: {known}",
                op="resume",
                argument="snapshot",
                value=payload.get("type"),
            )
        try:
            return kind.model_validate(dict(payload))
        except ValidationError as error:
            raise ArgumentError(
                f"a snapshot can't be read: {error.errors(include_url=False)[0]['msg']}",
                op="resume",
                argument="snapshot",
                value=payload,
            ) from error

    @model_serializer(mode="wrap")
    def _keep_tag(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Keep the tag whatever the caller excludes."""
        fields: dict[str, object] = handler(self)
        return {"type": self.type, **fields}

    @abstractmethod
    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: Dependencies | None = None
    ) -> None:
        """Keep a workspace, in the place of what was kept before, which stays if this fails.

        Args:
            stream: a tar archive, read to its end in another thread; it stays the caller's.
            dependencies: what a kind may need, by name.

        Raises:
            SnapshotPersistError: it can't be kept.
        """

    @abstractmethod
    async def restore(self, *, dependencies: Dependencies | None = None) -> BinaryIO | io.IOBase:
        """Give what is kept as a stream of a tar archive, the caller's to close.

        Raises:
            SnapshotNotRestorableError: nothing is kept.
            SnapshotRestoreError: it can't be read.
        """

    @abstractmethod
    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Tell whether something is kept."""


class NoopSnapshot(SnapshotBase):
    """Keeps nothing: what is in the workspace is only there."""

    type: Literal["noop"] = "noop"

    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: Dependencies | None = None
    ) -> None:
        """Ignore the workspace."""

    async def restore(self, *, dependencies: Dependencies | None = None) -> BinaryIO | io.IOBase:
        """Refuse.

        Raises:
            SnapshotNotRestorableError: always.
        """
        raise SnapshotNotRestorableError(snapshot_id=self.id, path="<noop>")

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Nothing is."""
        return False


class LocalSnapshot(SnapshotBase):
    """Keeps one tar archive in a directory: ``<base_path>/<id>.tar``, replaced by each save.

    Attributes:
        base_path: the directory; it is made when something is saved.
    """

    type: Literal["local"] = "local"
    base_path: PossiblePath

    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: Dependencies | None = None
    ) -> None:
        """Write the archive; it takes the place of the one before when all of it is on the disk.

        Raises:
            SnapshotPersistError: it can't be written; the one before is as it was.
            ArgumentError: the id is no file name.
        """
        from sandyard.snapshot import local_file  # noqa: PLC0415  # where one is saved

        await local_file.persist(self.base_path, self.id, stream)

    async def restore(self, *, dependencies: Dependencies | None = None) -> BinaryIO | io.IOBase:
        """Open the archive.

        Raises:
            SnapshotNotRestorableError: there is none.
            SnapshotRestoreError: it can't be read.
        """
        from sandyard.snapshot import local_file  # noqa: PLC0415  # where one is restored

        return await local_file.restore(self.base_path, self.id)

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Tell whether the archive is there."""
        from sandyard.snapshot import local_file  # noqa: PLC0415  # where one is restored

        return await local_file.restorable(self.base_path, self.id)


class RemoteSnapshot(SnapshotBase):
    """Hands the archive to a client of the caller's, for a service elsewhere.

    The client has ``upload(id, stream)``, ``download(id)``, which returns a binary stream, and
    ``exists(id)``; each a plain function, which is called in a thread, or a coroutine function, which
    should read the stream in one.

    Attributes:
        client_dependency_key: the client's name among the dependencies.
    """

    type: Literal["remote"] = "remote"
    client_dependency_key: str

    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: Dependencies | None = None
    ) -> None:
        """Have the client upload the archive.

        Raises:
            SnapshotPersistError: there is no such client, or it failed.
        """
        from sandyard.snapshot import remote_client  # noqa: PLC0415  # where there is one

        await remote_client.upload(self.client_dependency_key, self.id, stream, dependencies)

    async def restore(self, *, dependencies: Dependencies | None = None) -> BinaryIO | io.IOBase:
        """Have the client download the archive.

        Raises:
            SnapshotRestoreError: there is no such client, it failed, or returned no stream.
        """
        from sandyard.snapshot import remote_client  # noqa: PLC0415  # where there is one

        return await remote_client.download(self.client_dependency_key, self.id, dependencies)

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Ask the client.

        Raises:
            SnapshotRestoreError: there is no such client, or it failed.
        """
        from sandyard.snapshot import remote_client  # noqa: PLC0415  # where there is one

        return await remote_client.exists(self.client_dependency_key, self.id, dependencies)


class StoreSnapshot(SnapshotBase):
    """Keeps a history in a ``SnapshotStore``: each save costs what changed, and old ones stay.

    Attributes:
        directory: the store's, absolute.
    """

    type: Literal["store"] = "store"
    directory: PossiblePath

    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: Dependencies | None = None
    ) -> None:
        """Take the archive into the store; a session saves more cheaply, without one.

        Raises:
            SnapshotPersistError: it can't be saved.
        """
        from sandyard.finishing import in_thread  # noqa: PLC0415  # where one is saved
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # likewise

        await in_thread(SnapshotStore(self.directory).take_tar, self.id, stream.read)

    async def restore(self, *, dependencies: Dependencies | None = None) -> BinaryIO | io.IOBase:
        """Give the newest of the history.

        Raises:
            SnapshotNotRestorableError: there is none.
            SnapshotRestoreError: it can't be read.
        """
        from sandyard.finishing import in_thread  # noqa: PLC0415  # where one is restored
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # likewise
        from sandyard.snapshot.streaming import TarStream  # noqa: PLC0415  # likewise

        store = SnapshotStore(self.directory)
        last = await in_thread(store.last_of, self.id)
        if last is None:
            raise SnapshotNotRestorableError(snapshot_id=self.id, path=self.directory)
        return io.BufferedReader(await in_thread(TarStream, store, last))

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Tell whether the history has a snapshot.

        Raises:
            SnapshotRestoreError: the store can't be read.
        """
        from sandyard.finishing import in_thread  # noqa: PLC0415  # where one is restored
        from sandyard.snapshot.store import SnapshotStore  # noqa: PLC0415  # likewise

        return await in_thread(SnapshotStore(self.directory).last_of, self.id) is not None


def host_directory(kept: SnapshotBase) -> tuple[str, str] | None:
    """What a snapshot's directory on this machine is called, and where it is; None without one."""
    if isinstance(kept, StoreSnapshot):
        return "the snapshot store", kept.directory
    if isinstance(kept, LocalSnapshot):
        return "the directory of snapshots", kept.base_path
    return None
