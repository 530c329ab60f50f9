"""Snapshots: the SDK's as ours, and our store as one of the SDK's."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from agents.sandbox import snapshot as sdk
from pydantic import PrivateAttr

import sandyard as ours
from sandyard.finishing import in_thread
from sandyard.integrations.openai_agents.faults import told

if TYPE_CHECKING:
    from agents.sandbox.session import Dependencies

__all__ = ["ForeignSnapshot", "Link", "StoreSnapshot", "StoreSnapshotSpec", "as_ours", "spooled"]

_PIECE: Final = 1024 * 1024
"""Bytes of an archive that are copied at a time."""


class StoreSnapshotSpec(sdk.SnapshotSpec):
    """Asks for our store: ``SandboxRunConfig(snapshot=StoreSnapshotSpec())``.

    Each save costs what changed since the last one, and the history of a session stays.

    Attributes:
        directory: the store's (default: this user's, ``$XDG_STATE_HOME/sandyard/store``).
    """

    type: Literal["sandyard_store"] = "sandyard_store"
    directory: Path | None = None

    def build(self, snapshot_id: str) -> StoreSnapshot:
        """Make the snapshot; the SDK calls it."""
        asked = None if self.directory is None else str(self.directory)
        made = ours.StoreSnapshotSpec(directory=asked).build(snapshot_id)
        return StoreSnapshot(id=snapshot_id, directory=Path(made.directory))


class StoreSnapshot(sdk.SnapshotBase):
    """A workspace in our store. A session of ours saves only what changed; others save archives.

    Attributes:
        directory: the store's, absolute.
    """

    type: Literal["sandyard_store"] = "sandyard_store"
    directory: Path

    def stored(self) -> ours.StoreSnapshot:
        """The same as one of ours."""
        return ours.StoreSnapshot(id=self.id, directory=str(self.directory))

    async def persist(self, data: io.IOBase, *, dependencies: Dependencies | None = None) -> None:
        """Take an archive into the store."""
        with told("stop", self.directory):
            await self.stored().persist(data)

    async def restore(self, *, dependencies: Dependencies | None = None) -> io.IOBase:
        """Give the newest as an archive."""
        with told("start", self.directory):
            return _checked_stream(await self.stored().restore())

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Tell whether there is one."""
        with told("start", self.directory):
            return await self.stored().restorable()


class Link:
    """What a session's ``ForeignSnapshot`` learns after both were made.

    Attributes:
        snapshot: the SDK's snapshot.
        dependencies: gives the session's dependencies, which it may need.
    """

    def __init__(self) -> None:
        self.snapshot: sdk.SnapshotBase | None = None
        self.dependencies: Dependencies | None = None


class ForeignSnapshot(ours.SnapshotBase):
    """A snapshot that only the SDK knows: one of its remote ones, or a program's own class."""

    _link: Link = PrivateAttr(default_factory=Link)

    @classmethod
    def linked(cls, link: Link) -> ForeignSnapshot:
        """Make one that asks what is linked."""
        made = cls(type="openai_agents", id="openai_agents")
        made._link = link
        return made

    def __deepcopy__(self, memo: object = None) -> ForeignSnapshot:
        """The very same: what it leads to may hold connections."""
        return self

    def _target(self) -> sdk.SnapshotBase:
        if self._link.snapshot is None:
            raise ours.SnapshotNotRestorableError(snapshot_id=self.id, path="<openai_agents>")
        return self._link.snapshot

    async def persist(
        self, stream: BinaryIO | io.IOBase, *, dependencies: ours.Dependencies | None = None
    ) -> None:
        """Hand over the archive as a file: such snapshots read where they are called, on the loop."""
        target = self._target()
        archive = await spooled(stream)
        try:
            await target.persist(archive, dependencies=self._link.dependencies)
        except Exception as error:  # whatever it is, nothing was saved
            raise ours.SnapshotPersistError(
                snapshot_id=target.id, path=f"<{target.type}>", cause=error
            ) from error
        finally:
            await in_thread(archive.close)

    async def restore(
        self, *, dependencies: ours.Dependencies | None = None
    ) -> BinaryIO | io.IOBase:
        """Ask for the archive."""
        target = self._target()
        try:
            return await target.restore(dependencies=self._link.dependencies)
        except Exception as error:  # a stranger's code
            raise ours.SnapshotRestoreError(
                snapshot_id=target.id, path=f"<{target.type}>", cause=error
            ) from error

    async def restorable(self, *, dependencies: ours.Dependencies | None = None) -> bool:
        """Ask whether there is one."""
        target = self._target()
        try:
            return await target.restorable(dependencies=self._link.dependencies)
        except Exception as error:  # a stranger's code
            raise ours.SnapshotRestoreError(
                snapshot_id=target.id, path=f"<{target.type}>", cause=error
            ) from error


def as_ours(asked: sdk.SnapshotBase | sdk.SnapshotSpec | None, link: Link) -> ours.SnapshotBase:
    """What our session saves to for a snapshot of the SDK's, or a spec of it without an id.

    Args:
        asked: what the SDK was given.
        link: told to a snapshot that only the SDK knows.
    """
    if asked is None or isinstance(asked, sdk.NoopSnapshot | sdk.NoopSnapshotSpec):
        return ours.NoopSnapshot(id="none")
    if type(asked) is sdk.LocalSnapshot:
        return ours.LocalSnapshot(
            id=asked.id, base_path=os.path.normpath(asked.base_path.absolute())
        )
    if isinstance(asked, StoreSnapshot):
        return asked.stored()
    return ForeignSnapshot.linked(link)


async def spooled(stream: BinaryIO | io.IOBase) -> io.BufferedRandom:
    """A stream's bytes as a file without a name, from its beginning; in a thread, and not in memory.

    Args:
        stream: what can be read in a thread; it stays the caller's.

    Raises:
        sandyard.WorkspaceWriteTypeError: it gives text.
        sandyard.WorkspaceArchiveWriteError: there is no room for the file.
        Exception: what reading raises.
    """
    made: list[io.BufferedRandom] = []

    def copy() -> None:
        with _spooling():
            file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        made.append(file)
        while piece := stream.read(_PIECE):
            if isinstance(piece, str):
                raise ours.WorkspaceWriteTypeError(path="an archive", actual_type="str")
            with _spooling():
                file.write(piece)
        with _spooling():
            file.seek(0)

    def close() -> None:
        for file in made:
            with suppress(OSError):  # what there is no room for is written once more
                file.close()

    try:
        await in_thread(copy)
    except BaseException:  # of a cancelled call, nobody would close it
        await in_thread(close)
        raise
    return made[0]


@contextmanager
def _spooling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ours.WorkspaceArchiveWriteError(
            path="an archive",
            message="an archive could not be kept in the directory for temporary files (TMPDIR): "
            f"{(error.strerror or str(error)).lower()}",
            context={"reason": "temporary_files"},
            cause=error,
        ) from error


def _checked_stream(stream: BinaryIO | io.IOBase) -> io.IOBase:
    assert isinstance(stream, io.IOBase)  # noqa: S101  # the store gives a buffered reader
    return stream
