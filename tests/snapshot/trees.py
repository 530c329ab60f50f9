"""Trees for tests: made as tar archives, and compared by all that an archive says."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

from sandyard.archive.intake import ByteReader
from sandyard.archive.tar_reading import read_tar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.snapshot.store import SnapshotStore

Facts = dict[bytes, tuple[object, ...]]


def archive_of(files: Mapping[str, bytes], *, mtime: int = 1_700_000_000) -> bytes:
    """A tar archive of some files, and an empty directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        top = tarfile.TarInfo("./")
        top.type, top.mode, top.mtime = tarfile.DIRTYPE, 0o750, mtime
        tar.addfile(top)
        empty = tarfile.TarInfo("./empty")
        empty.type, empty.mode, empty.mtime = tarfile.DIRTYPE, 0o700, mtime
        tar.addfile(empty)
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode, info.mtime = len(data), 0o640, mtime
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def facts_of(archive: bytes) -> Facts:
    """All that an archive says, by name."""
    source = io.BytesIO(archive)
    found: Facts = {}
    for member in read_tar(ByteReader(source.read)):
        hasher = hashlib.sha256()
        for offset, piece in member.pieces():
            hasher.update(b"%d:" % offset if member.sparse is not None else b"")
            hasher.update(piece)
        sparse = None if member.sparse is None else tuple(member.sparse)
        found[member.name] = (
            member.kind,
            member.mode,
            member.mtime,
            member.size,
            member.link,
            sparse,
            tuple(sorted((member.attributes or {}).items())),
            hasher.hexdigest(),
        )
    return found


async def exported(store: SnapshotStore, snapshot: str) -> bytes:
    """A snapshot as an archive."""
    return b"".join([piece async for piece in store.export(snapshot)])


def files_of(store: SnapshotStore) -> dict[str, bytes]:
    """All files of a store, by path."""
    found = {}
    for top, _, names in os.walk(store.directory):
        for name in names:
            path = f"{top}/{name}"
            with open(path, "rb") as file:
                found[path] = file.read()
    return found


def rewrite(path: str, data: bytes) -> None:
    """Put other bytes into a file."""
    with open(path, "wb") as file:
        file.write(data)
