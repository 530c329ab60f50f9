"""Calls to a caller's client of a service that keeps archives."""

from __future__ import annotations

import inspect
import io
from typing import TYPE_CHECKING, BinaryIO

from sandyard.errors import (
    SandboxError,
    SnapshotNotRestorableError,
    SnapshotPersistError,
    SnapshotRestoreError,
    shown,
)
from sandyard.finishing import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandyard.dependencies import Dependencies

__all__ = ["download", "exists", "upload"]


async def upload(
    key: str,
    id: str,  # noqa: A002  # what it is called everywhere
    stream: BinaryIO | io.IOBase,
    dependencies: Dependencies | None,
) -> None:
    """Have the client take an archive."""
    await _call(SnapshotPersistError, key, "upload", dependencies, id, stream)


async def download(
    key: str,
    id: str,  # noqa: A002
    dependencies: Dependencies | None,
) -> BinaryIO | io.IOBase:
    """Have the client give an archive."""
    found = await _call(SnapshotRestoreError, key, "download", dependencies, id)
    if not isinstance(found, io.IOBase):
        if found is None:
            raise SnapshotNotRestorableError(snapshot_id=id, path=f"<remote:{key}>")
        cause = TypeError(f"download() returned {type(found).__name__}, not a binary stream")
        raise SnapshotRestoreError(snapshot_id=id, path=f"<remote:{key}>", cause=cause)
    return found


async def exists(key: str, id: str, dependencies: Dependencies | None) -> bool:  # noqa: A002
    """Ask the client whether it has an archive."""
    return bool(await _call(SnapshotRestoreError, key, "exists", dependencies, id))


async def _call(
    kind: type[SnapshotPersistError | SnapshotRestoreError],
    key: str,
    name: str,
    dependencies: Dependencies | None,
    id: str,  # noqa: A002
    *rest: object,
) -> object:
    """Call a function of the client's, in a thread unless it is a coroutine function."""
    client = None if dependencies is None else await dependencies.get(key)
    function: Callable[..., object] | None = getattr(client, name, None)
    if function is None or not callable(function):
        raise kind(
            snapshot_id=id,
            path=f"<remote:{key}>",
            message=f"no dependency {shown(key)} has {name}(); bind an object with upload, download "
            "and exists to it in the client's dependencies",
            retryable=False,
        )
    try:
        if inspect.iscoroutinefunction(function):
            return await function(id, *rest)
        found = await in_thread(function, id, *rest)
        return await found if inspect.isawaitable(found) else found
    except SandboxError:
        raise
    except Exception as error:  # whatever a caller's client may raise
        raise kind(snapshot_id=id, path=f"<remote:{key}>", cause=error) from error
