"""A session of the supervisor's in the dress of the contract: what it can't do is not offered."""

from __future__ import annotations

import io
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

from sandyard import (
    BaseSandboxSession,
    ExecResult,
    FileEntry,
    UnixLocalSandboxSessionState,
    UnsupportedOperationError,
    WorkspaceReadNotFoundError,
)
from sandyard.errors import OpName
from sandyard.server.remote import RemoteClient, RemoteProcess, RemoteSession, RemoteStream

__all__ = ["HeldSession", "make_held_session"]


def lacking(method: str, op: OpName, argument: str | None = None) -> UnsupportedOperationError:
    return UnsupportedOperationError(op=op, method=method, session="HeldSession", argument=argument)


class HeldSession(BaseSandboxSession):
    """A session that another process holds from its start to its deletion."""

    def __init__(self, client: RemoteClient) -> None:
        self.state = UnixLocalSandboxSessionState()
        self._client = client
        self._remote: RemoteSession | None = None

    @property
    def remote(self) -> RemoteSession:
        """The session, once it was started; its server refuses what comes after its end."""
        if self._remote is None:
            raise lacking("exec", "exec", "before the start")
        return self._remote

    async def start(self, *, progress: object = None) -> None:
        if self._remote is None:
            self._remote = await self._client.create()

    async def stop(self) -> None:
        raise lacking("stop", "stop")

    async def shutdown(self) -> None:
        raise lacking("shutdown", "shutdown")

    async def running(self) -> bool:
        return self._remote is not None

    async def aclose(self) -> None:
        await self.run_pre_stop_hooks()
        if self._remote is not None:
            await self._client.delete(self._remote)
            self._remote = None

    async def exec(self, *command: str | Path, **options: Any) -> ExecResult:  # noqa: ANN401  # passed on
        for argument in ("leftovers", "narrow"):
            if options.pop(argument, None) is not None:
                raise lacking("exec", "exec", argument)
        self._check_input(options)
        return await self.remote.exec(*command, **options)

    def _check_input(self, options: dict[str, Any]) -> None:
        if isinstance(options.get("stdin"), io.IOBase):
            raise lacking("exec", "exec", "a file as stdin")

    def stream(
        self,
        *command: str | Path,
        **options: Any,  # noqa: ANN401  # passed on
    ) -> AbstractAsyncContextManager[RemoteStream]:
        return self.remote.stream(*command, **options)

    async def start_process(self, *command: str | Path, **options: Any) -> RemoteProcess:  # noqa: ANN401  # passed on
        return await self.remote.start_process(*command, **options)

    async def read(self, path: str | PurePath, *, user: object = None) -> io.BufferedIOBase:
        return io.BytesIO(await self.remote.read(path))

    def read_chunks(self, path: str | PurePath, **options: Any) -> AsyncGenerator[bytes, None]:  # noqa: ANN401  # passed on
        raise lacking("read_chunks", "read", ", ".join(options))

    async def write(self, path: str | PurePath, data: Any, *, user: object = None) -> None:  # noqa: ANN401
        if not isinstance(data, bytes):
            raise lacking("write", "write", "other data than bytes")
        await self.remote.write(path, data)

    async def stat(self, path: str | PurePath, **options: Any) -> FileEntry:  # noqa: ANN401  # passed on
        if not options.get("follow_symlinks", True):
            raise lacking("stat", "stat", "follow_symlinks")
        return await self.remote.stat(path)

    async def ls(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> list[FileEntry]:
        if recursive:
            raise lacking("ls", "ls", "recursive")
        return await self.remote.ls(path)

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: object = None
    ) -> None:
        await self.remote.mkdir(path, parents=parents)

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> None:
        await self.remote.rm(path, recursive=recursive)

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        """The absolute form of a path without links; the server refuses what leads out."""
        with suppress(WorkspaceReadNotFoundError):
            await self.remote.stat(path)
        root = (await self.remote.exec("pwd", shell=False)).stdout.decode().strip()
        return Path(posixpath.normpath(posixpath.join(root, path)))

    async def persist_workspace(self) -> io.BufferedIOBase:
        raise lacking("persist_workspace", "persist_workspace")

    async def hydrate_workspace(self, data: object, *, archive_limits: object = None) -> None:
        raise lacking("hydrate_workspace", "hydrate_workspace")


@asynccontextmanager
async def make_held_session(client: RemoteClient) -> AsyncIterator[HeldSession]:
    """A new session of the supervisor's; leaving the block deletes it."""
    session = HeldSession(client)
    try:
        yield session
    finally:
        await session.aclose()
