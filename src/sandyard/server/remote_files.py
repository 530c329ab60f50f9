"""The caller's end of files: those of a session of another process, streamed in both directions."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, Self, cast

from sandyard.archive.report import ArchiveReport
from sandyard.contract import BaseSandboxSession as Contract
from sandyard.contract.files import FileContract
from sandyard.contract.trees import TreeContract
from sandyard.errors import ArgumentError, UnsupportedOperationError
from sandyard.finishing import in_thread
from sandyard.server import messages
from sandyard.server.calling import OutgoingCall, asked, opened_call, senseless
from sandyard.server.carrying import Carrier, carried
from sandyard.server.framing import Frame, FrameError
from sandyard.server.outcomes import Returned, SnapshotInfo
from sandyard.server.values import ShapeError
from sandyard.server.verbs import VERBS

if TYPE_CHECKING:
    from sandyard.file_verbs.patching import Patches, PatchFormat
    from sandyard.lifecycle import Processes
    from sandyard.types import User
    from sandyard.workspace.progress import Hearer
    from sandyard.workspace.transfer import Transferred

__all__ = ["RemoteArchive", "RemoteFiles", "present_directory"]


class RemoteArchive:
    """A file or a tree of a session as a tar archive, to be iterated once.

    An archive that ends without an error is whole.

    Attributes:
        report: what was saved and what could not be; None until the iteration has ended.
    """

    def __init__(self, call: OutgoingCall) -> None:
        """Begin with a call; use ``RemoteFiles.packing`` instead."""
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
        if not isinstance(said, Returned):
            raise senseless(FrameError("an archive without an end"))
        try:
            report = VERBS["pack"].unpack_result(said.value)
        except ShapeError as error:
            raise senseless(FrameError(f"an archive without a report: {error}")) from error
        self.report = cast("ArchiveReport | None", report) or ArchiveReport()
        raise StopAsyncIteration


class RemoteFiles(Carrier, FileContract, TreeContract):
    """The files of a session that another process holds.

    ``read``, ``pack`` and ``persist_workspace`` fetch the whole into a file without a name in this
    machine's directory for temporary files; ``read_chunks`` and ``packing`` keep nothing.
    """

    read = carried(Contract.read)
    read_bounded = carried(Contract.read_bounded)
    read_range = carried(Contract.read_range)
    read_chunks = carried(Contract.read_chunks)
    append = carried(Contract.append)
    ls = carried(Contract.ls)
    stat = carried(Contract.stat)
    exists = carried(Contract.exists)
    same_file = carried(Contract.same_file)
    normalize_path = carried(Contract.normalize_path)
    mkdir = carried(Contract.mkdir)
    rm = carried(Contract.rm)
    mv = carried(Contract.mv)
    copy = carried(Contract.copy)
    chmod = carried(Contract.chmod)
    glob = carried(Contract.glob)
    grep = carried(Contract.grep)
    persist_workspace = carried(Contract.persist_workspace)
    hydrate_workspace = carried(Contract.hydrate_workspace)
    apply_manifest = carried(Contract.apply_manifest)
    provision_manifest_accounts = carried(Contract.provision_manifest_accounts)
    extract = carried(Contract.extract)
    pack = carried(Contract.pack)
    unpack = carried(Contract.unpack)
    unmount = carried(Contract.unmount)
    review = carried(Contract.review)
    diff = carried(Contract.diff)
    apply = carried(Contract.apply)
    discard = carried(Contract.discard)

    async def write(
        self,
        path: str | PurePath,
        data: io.IOBase | bytes | bytearray | memoryview | AsyncIterable[bytes],
        *,
        user: str | User | None = None,
    ) -> None:
        """Write a file whole, or not at all, as ``session.write`` does; also what comes piece by piece."""
        await self.call("write", path=path, data=data, user=user)

    async def apply_patch(
        self,
        operations: Patches,
        *,
        patch_format: Literal["v4a", "unified"] | PatchFormat = "v4a",
        user: str | User | None = None,
    ) -> str:
        """Carry out a patch, as ``session.apply_patch`` does; not one of a format of your own."""
        from sandyard.patching import read_operations  # noqa: PLC0415  # seldom needed

        if not isinstance(patch_format, str):
            raise UnsupportedOperationError(
                op="apply_patch",
                method="apply_patch",
                session=type(self).__name__,
                argument="patch_format",
            )
        given = operations if isinstance(operations, str) else read_operations(operations)
        done = await self.call(
            "apply_patch", operations=given, patch_format=patch_format, user=user
        )
        return cast(str, done)

    async def upload(
        self,
        source: str | PurePath,
        path: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        progress: Hearer | None = None,
    ) -> Transferred:
        """Copy into the workspace, as ``session.upload`` does; the server is of this machine."""
        done = await self.call(
            "upload",
            source=await in_thread(_absolute, source),
            path=path,
            include=include,
            exclude=exclude,
            gitignore=gitignore,
            progress=progress,
        )
        return cast("Transferred", done)

    async def download(
        self,
        path: str | PurePath,
        destination: str | PurePath,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        gitignore: bool = False,
        outer_links: bool = False,
        progress: Hearer | None = None,
    ) -> Transferred:
        """Copy out of the workspace, as ``session.download`` does; the server is of this machine."""
        done = await self.call(
            "download",
            path=path,
            destination=await in_thread(_absolute, destination),
            include=include,
            exclude=exclude,
            gitignore=gitignore,
            outer_links=outer_links,
            progress=progress,
        )
        return cast("Transferred", done)

    async def save_snapshot(
        self, *, label: str = "", tags: Sequence[str] = (), processes: Processes = "keep"
    ) -> SnapshotInfo:
        """Save the files as a snapshot of the user's store, in a history of the session's name.

        Args:
            label: as ``session.save_snapshot`` takes it; the others likewise.
            tags: likewise.
            processes: likewise.

        Raises:
            SnapshotPersistError: it can't be written.
            WorkspaceStopError: what runs can't be held still.
            ArgumentError: a word is none.
        """
        request = messages.SaveSnapshot(
            session=self.which, label=label, tags=tuple(tags), processes=processes
        )
        return await asked(self._connect, request, SnapshotInfo)

    @asynccontextmanager
    async def packing(
        self, path: str | PurePath, *, name: str | None = None, outer_links: bool = True
    ) -> AsyncIterator[RemoteArchive]:
        """Save a file or a tree as a tar archive that is read as it is made, for a block's length.

        Args:
            path: as for ``session.pack``.
            name: likewise.
            outer_links: likewise.
        """
        given = {"path": path, "name": name, "outer_links": outer_links}
        async with opened_call(self._connect, self.request("pack", given)) as call:
            yield RemoteArchive(call)


def _absolute(path: object) -> object:
    """A path from this program's directory, which is not the server's."""
    return os.path.join(present_directory(), path) if isinstance(path, str | PurePath) else path


def present_directory() -> str:
    """This program's working directory.

    Raises:
        ArgumentError: somebody removed it.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise ArgumentError(
            f"this program's working directory can't be told ({error.strerror}); give absolute paths, "
            "and a directory=, or change to another",
            op="connect",
            argument="directory",
            value=None,
        ) from error
