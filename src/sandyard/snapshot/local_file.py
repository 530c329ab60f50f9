"""One tar archive in a directory: written whole or not at all."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from sandyard.errors import (
    ArgumentError,
    SnapshotNotRestorableError,
    SnapshotPersistError,
    SnapshotRestoreError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.snapshot.disk import Disk

if TYPE_CHECKING:
    import io

    from sandyard.errors import OpName

__all__ = ["persist", "restorable", "restore"]

_ODD: Final = re.compile(r'[/\\:*?"<>|\0\ud800-\udfff]')


def _name_of(id: str, op: OpName) -> str:  # noqa: A002  # what it is called everywhere
    """The file's name; on no system may it be a path.

    Raises:
        ArgumentError: the id is no single path segment.
    """
    if not id or id in {".", ".."} or _ODD.search(id):
        raise ArgumentError(
            f"the snapshot id {shown(id)} is not a file name that every system has",
            op=op,
            argument="id",
            value=id,
        )
    return f"{id}.tar"


async def persist(base: str, id: str, stream: BinaryIO | io.IOBase) -> None:  # noqa: A002
    """Write an archive, in the place of the one before."""
    await in_thread(_persist, base, _name_of(id, "snapshot_persist"), id, stream)


def _persist(base: str, name: str, id: str, stream: BinaryIO | io.IOBase) -> None:  # noqa: A002
    disk, temporary = Disk(), f".{name}.{secrets.token_hex(8)}.tmp"
    directory = -1
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        directory = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        file = disk.make(directory, temporary)
        try:
            _fill(disk, file, stream)
            disk.sync(file)
        finally:
            os.close(file)
        disk.publish(directory, temporary, name)
        disk.sync(directory)
    except OSError as error:
        raise SnapshotPersistError(
            snapshot_id=id, path=posixpath.join(base, name), cause=error
        ) from error
    finally:
        if directory >= 0:
            with suppress(OSError):
                disk.remove(directory, temporary)
            os.close(directory)


def _fill(disk: Disk, file: int, stream: BinaryIO | io.IOBase) -> None:
    at = 0
    while piece := stream.read(COPY_CHUNK_BYTES):
        disk.write(file, piece, at)
        at += len(piece)


async def restore(base: str, id: str) -> BinaryIO:  # noqa: A002
    """Open an archive."""
    path = posixpath.join(base, _name_of(id, "snapshot_restore"))
    try:
        return await in_thread(_opened, path)
    except FileNotFoundError as error:
        raise SnapshotNotRestorableError(snapshot_id=id, path=path, cause=error) from error
    except OSError as error:
        raise SnapshotRestoreError(snapshot_id=id, path=path, cause=error) from error


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")


async def restorable(base: str, id: str) -> bool:  # noqa: A002
    """Tell whether there is an archive."""
    path = posixpath.join(base, _name_of(id, "snapshot_restore"))
    return await in_thread(os.path.isfile, path)
