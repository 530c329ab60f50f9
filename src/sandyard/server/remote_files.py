"""The caller's end of files: those of a session of another process, streamed in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Self

from sandyard.archive.report import ArchiveReport
from sandyard.server import messages
from sandyard.server.calling import Connect, OutgoingCall, asked, opened_call, pumping, senseless
from sandyard.server.framing import Frame, FrameError
from sandyard.server.outcomes import ArchiveInfo, Done, FilesInfo, SnapshotInfo
from sandyard.types import FileEntry

__all__ = ["RemoteArchive", "RemoteFiles"]


class RemoteArchive:
    """A file or a tree of a session as a tar archive, to be iterated once.

    An archive that ends without an error is whole.

    Attributes:
        report: what was saved and what could not be; None until the iteration has ended.
    """

    def __init__(self, call: OutgoingCall) -> None:
        """Begin with a call; use ``RemoteFiles.pack`` instead."""
        self._call = call
        self.report: ArchiveReport | None = None

    def __aiter__(self) -> Self:
        """Iterate over its bytes."""
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next bytes.

        Raises:
            SandboxError: it can't be read on, or the server has gone.
        """
        if self.report is not None:
            raise StopAsyncIteration
        said = await self._call.next()
        if isinstance(said, Frame):
            return said.payload
        if not isinstance(said, ArchiveInfo):
            raise senseless(FrameError("an archive without an end"))
        self.report = said.report()
        raise StopAsyncIteration


class RemoteFiles:
    """The files of a session that a server holds; its methods are those of a session.

    Attributes:
        which: the session's name, its id, or the beginning of that.
    """

    def __init__(self, connect: Connect, which: str) -> None:
        """Name a session; use ``RemoteClient.session`` instead."""
        self._connect = connect
        self.which = which

    async def save_snapshot(self, *, label: str = "", tags: Sequence[str] = ()) -> SnapshotInfo:
        """Save the files as a snapshot of the user's store, in a history of the session's name.

        Raises:
            SnapshotPersistError: it can't be written.
            ArgumentError: a word is none.
        """
        request = messages.SaveSnapshot(session=self.which, label=label, tags=tuple(tags))
        return await asked(self._connect, request, SnapshotInfo)

    async def read(self, path: str | PurePath) -> bytes:
        """Read a file; all of it is held in memory, unlike by ``read_chunks``."""
        return b"".join([chunk async for chunk in self.read_chunks(path)])

    async def read_chunks(self, path: str | PurePath) -> AsyncIterator[bytes]:
        """Read a file piece by piece, as ``session.read_chunks`` does."""
        request = messages.ReadFile(session=self.which, path=str(path))
        async with opened_call(self._connect, request) as call:
            while isinstance(said := await call.next(), Frame):
                yield said.payload
            if not isinstance(said, Done):
                raise senseless(FrameError("a file without an end"))

    async def write(self, path: str | PurePath, data: bytes | AsyncIterable[bytes]) -> None:
        """Write a file whole, or not at all."""
        request = messages.WriteFile(session=self.which, path=str(path))
        async with opened_call(self._connect, request) as call, pumping(call, data):
            await call.result(Done)

    async def stat(self, path: str | PurePath) -> FileEntry:
        """Describe what a path leads to, as ``session.stat`` does.

        Raises:
            WorkspaceReadNotFoundError: nothing is there.
        """
        request = messages.StatFile(session=self.which, path=str(path))
        (entry,) = _entries(await asked(self._connect, request, FilesInfo), 1)
        return entry

    async def ls(self, path: str | PurePath = ".") -> list[FileEntry]:
        """List a directory."""
        request = messages.ListFiles(session=self.which, path=str(path))
        return _entries(await asked(self._connect, request, FilesInfo))

    async def mkdir(self, path: str | PurePath, *, parents: bool = False) -> None:
        """Make a directory."""
        request = messages.MakeDirectory(session=self.which, path=str(path), parents=parents)
        await asked(self._connect, request, Done)

    async def rm(self, path: str | PurePath, *, recursive: bool = False) -> None:
        """Remove a file, a link or, with ``recursive``, a tree."""
        request = messages.RemoveFile(session=self.which, path=str(path), recursive=recursive)
        await asked(self._connect, request, Done)

    @asynccontextmanager
    async def pack(
        self, path: str | PurePath, *, name: str | None = None, outer_links: bool = True
    ) -> AsyncIterator[RemoteArchive]:
        """Save a file or a tree as a tar archive, for the length of a block.

        Args:
            path: as for ``session.pack``.
            name: likewise.
            outer_links: likewise.
        """
        request = messages.Pack(
            session=self.which, path=str(path), name=name, outer_links=outer_links
        )
        async with opened_call(self._connect, request) as call:
            yield RemoteArchive(call)

    async def unpack(self, path: str | PurePath, data: AsyncIterable[bytes]) -> ArchiveReport:
        """Unpack a tar archive into a directory, as ``session.unpack`` does."""
        request = messages.Unpack(session=self.which, path=str(path))
        async with opened_call(self._connect, request) as call, pumping(call, data):
            return (await call.result(ArchiveInfo)).report()


def _entries(listed: FilesInfo, wanted: int | None = None) -> list[FileEntry]:
    if wanted is not None and len(listed.files) != wanted:
        raise senseless(FrameError(f"{len(listed.files)} files for {wanted}"))
    try:
        return [file.entry() for file in listed.files]
    except FrameError as error:
        raise senseless(error) from error
