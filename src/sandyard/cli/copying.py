"""Owns the way of files between this machine and sessions: an archive, streamed from end to end."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from sandyard import (
    ArgumentError,
    SandboxError,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from sandyard.cli.places import Place
from sandyard.cli.reaching import supervised
from sandyard.finishing import finished, in_thread
from sandyard.types import EntryKind
from sandyard.workspace import Workspace, WorkspaceRoot

if TYPE_CHECKING:
    from sandyard.archive.report import ArchiveReport
    from sandyard.workspace.persist_stream import WorkspaceArchive

__all__ = ["Archive", "is_directory", "no_directory", "packed", "target_of", "unpacked"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Archive(Protocol):
    """A file or a tree as a tar archive, iterated once."""

    @property
    def report(self) -> ArchiveReport | None:
        """What is in it and what could not be; None until its end."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over its bytes."""


async def is_directory(place: Place) -> bool:
    """Tell whether a directory is there, symlinks followed.

    Raises:
        SandboxError: it can't be looked at.
    """
    if place.session is None:
        return await in_thread(os.path.isdir, place.path)
    try:
        entry = await supervised().session(place.session).stat(place.path)
    except WorkspaceReadNotFoundError:
        return False
    return entry.kind is EntryKind.DIRECTORY


async def target_of(destination: Place, name: str) -> tuple[Place, str]:
    """Where a copy goes: the directory that it is made in, and its name there.

    Args:
        destination: as it was given.
        name: last name of the source; empty for what is in a directory, without itself.

    Raises:
        ArgumentError: it has to be a directory, and is none.
        SandboxError: it can't be looked at.
    """
    if await is_directory(destination):
        return destination, name
    if destination.path.endswith("/") or not destination.name:
        raise no_directory(destination)
    above = posixpath.dirname(destination.path.rstrip("/"))
    return Place(destination.session, above or "."), destination.name


def no_directory(destination: Place) -> ArgumentError:
    """The error of a destination that has to be a directory, and is none."""
    return ArgumentError(
        f"{destination} is no directory; it has to be one for this copy",
        op="copy",
        argument="DESTINATION",
        value=str(destination),
    )


@asynccontextmanager
async def packed(source: Place, name: str, *, outer_links: bool) -> AsyncGenerator[Archive]:
    """Hold a file or a tree as an archive for the length of a block.

    Args:
        source: where it is; a symlink is followed here, and not within a tree.
        name: what the archive calls it; empty for what is in a directory, without itself.
        outer_links: False leaves out symlinks of a session that may lead out of the tree.

    Raises:
        SandboxError: it can't be read.
    """
    if source.session is not None:
        files = supervised().session(source.session)
        async with files.packing(source.path, name=name, outer_links=outer_links) as remote:
            yield remote
        return
    inside, last = await in_thread(_split, source.path)
    here = await _opened(inside, source)
    try:
        async with await _pack_here(here, last, name, source) as archive:
            yield archive
    finally:
        await finished(here.close())


async def _pack_here(files: Workspace, last: str, name: str, source: Place) -> WorkspaceArchive:
    try:
        return await files.pack(posixpath.join(files.root.path, last), name)
    except WorkspaceReadNotFoundError as error:
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise _unreadable(source, missing) from error


def _split(path: str) -> tuple[str, str]:
    """A directory of this machine without symlinks, and what is named in it."""
    real = os.path.realpath(path)
    return (real, ".") if os.path.isdir(real) else posixpath.split(real)


async def unpacked(directory: Place, data: AsyncIterator[bytes]) -> None:
    """Unpack an archive into a directory that exists: all of it, or nothing.

    Raises:
        SandboxError: it can't be unpacked, or the archive has failed.
    """
    if directory.session is not None:
        await supervised().session(directory.session).unpack(directory.path, data)
        return
    files = await _opened(await in_thread(os.path.realpath, directory.path), directory)
    try:
        await _unpack_here(files, data)
    finally:
        await finished(files.close())


async def _unpack_here(files: Workspace, data: AsyncIterator[bytes]) -> None:
    from sandyard.server.feeding import FedFile  # noqa: PLC0415  # as in reaching

    fed = FedFile(data, asyncio.get_running_loop())
    work = asyncio.ensure_future(files.unpack(files.root.path, fed))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread waits for bytes, and has to hear of it before it can be waited for.
        fed.stop()
        work.cancel()
        await asyncio.wait((work,))
        raise
    except SandboxError:
        if isinstance(fed.failure, SandboxError):
            raise fed.failure from None  # which is the reason for ours
        raise


async def _opened(path: str, place: Place) -> Workspace:
    """A directory of this machine, as the files API has it."""
    try:
        return await in_thread(_open, path)
    except OSError as error:
        raise _unreadable(place, error) from error


def _open(path: str) -> Workspace:
    return Workspace(WorkspaceRoot.adopt(os.open(path, _DIRECTORY), path))


def _unreadable(place: Place, error: OSError) -> WorkspaceArchiveReadError:
    return WorkspaceArchiveReadError(
        path=place.path, message=f"{place}: {error.strerror}", cause=error, retryable=False
    )
