"""Owns the smallest session there can be: what the contract demands and nothing else, in memory."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any

from sandyard import (
    BaseSandboxSession,
    ExecResult,
    FileEntry,
    SandboxSessionState,
    WorkspaceReadNotFoundError,
)


class MemorySession(BaseSandboxSession):
    """A session whose commands are told what they do, and that writes down what is asked of it."""

    def __init__(self, state: SandboxSessionState) -> None:
        self.state = state
        self.told: list[str] = []
        self.failures: dict[str, Exception] = {}
        self._files: dict[str, bytes] = {}

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what in self.failures:
            raise self.failures[what]

    async def start(self, *, progress: object = None) -> None:
        self._tell("start")

    async def stop(self) -> None:
        self._tell("stop")

    async def shutdown(self) -> None:
        self._tell("shutdown")

    async def running(self) -> bool:
        return self.told[-1:] == ["start"]

    async def exec(self, *command: str | Path, **_: Any) -> ExecResult:  # noqa: ANN401
        return ExecResult(stdout=str(command[0]).encode(), stderr=b"", exit_code=0)

    async def read(self, path: str | PurePath, *, user: object = None) -> io.BytesIO:
        try:
            return io.BytesIO(self._files[str(path)])
        except KeyError as error:
            raise WorkspaceReadNotFoundError(path=path, cause=error) from error

    async def write(self, path: str | PurePath, data: Any, *, user: object = None) -> None:  # noqa: ANN401
        self._files[str(path)] = bytes(data)

    async def ls(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> list[FileEntry]:
        raise NotImplementedError

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: object = None
    ) -> None:
        raise NotImplementedError

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> None:
        raise NotImplementedError

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        return Path(path)

    async def persist_workspace(self) -> io.BytesIO:
        raise NotImplementedError

    async def hydrate_workspace(self, data: object, *, archive_limits: object = None) -> None:
        raise NotImplementedError
