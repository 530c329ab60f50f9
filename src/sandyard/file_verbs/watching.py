"""The verb that tells of changes as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Self

from sandyard.observing import observed_block
from sandyard.types import User
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace import Workspace

if TYPE_CHECKING:
    from sandyard.workspace.events import FileChange
    from sandyard.workspace.watching import Watcher

__all__ = ["FileWatch", "WatchingVerbs"]


class FileWatch:
    """A watch under way: an async iterator of lists of ``FileChange``.

    It is made by ``session.watch``, and ends with its block.
    """

    def __init__(self, workspace: Workspace, watcher: Watcher) -> None:
        """Take over a watcher's events; use ``session.watch`` instead."""
        self._workspace = workspace
        self._watcher = watcher

    def __aiter__(self) -> Self:
        """Return this object."""
        return self

    async def __anext__(self) -> list[FileChange]:
        """Wait for the next changes: all that are known, one for each path."""
        while self._watcher.descriptor >= 0:
            changes = await self._workspace.changes(self._watcher)
            if changes:
                return changes
            await self._wait_readable()
        raise StopAsyncIteration

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()
        opened = self._watcher.descriptor
        loop.add_reader(opened, _wake, news)
        try:
            await news
        finally:
            loop.remove_reader(opened)


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


class WatchingVerbs(WorkspaceVerbBase):
    """How a session tells of changes in its files."""

    @observed_block("watch")
    @asynccontextmanager
    async def watch(
        self,
        path: str | PurePath = ".",
        *,
        recursive: bool = True,
        user: str | User | None = None,
    ) -> AsyncIterator[FileWatch]:
        """Watch a directory: what is made, changed or removed in it is told while the block lasts.

        Several changes of one path that are told at once are one: a file that was written again and
        again is ``modified``, one that was made and removed is not told. A file that is replaced
        by a rename, as ``write`` does, is ``created``. Where the kernel had to drop events, a
        change of kind ``overflow`` says so: look at what is there then.

        Args:
            path: relative to the workspace, or absolute in it or in a granted directory (default:
                the workspace).
            recursive: False watches this directory alone (default: True). Symlinks are not
                followed, and what the policy denies is not looked into.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Raises:
            WorkspaceReadNotFoundError: there is no such directory.
            ResourceLimitError: the kernel watches no more for this user.
            PolicyDeniedError: the policy denies it.
            InvalidManifestPathError: the path leaves the workspace and what is granted.

        Example:
            >>> async with session.watch("src") as changes:
            ...     async for batch in changes:
            ...         for change in batch:
            ...             print(change.kind, change.path)
        """
        workspace = self._open_workspace("watch", user)
        watcher = await workspace.watch(path, recursive=recursive)
        try:
            yield FileWatch(workspace, watcher)
        finally:
            watcher.close()
