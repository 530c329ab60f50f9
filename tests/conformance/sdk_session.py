"""The OpenAI Agents SDK's own Unix-local session in the dress of the contract, to be tried alike."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path, PurePath
from typing import Any, Final, cast

from agents.sandbox import Manifest as SdkManifest
from agents.sandbox.sandboxes import UnixLocalSandboxClient as SdkClient
from agents.sandbox.session import BaseSandboxSession as SdkBase

import sandyard as ours
from sandyard.errors import OpName

__all__ = ["SdkSession", "make_sdk_session"]

DEFAULTS: Final = (None, "keep")
"""What an argument is that asks for nothing."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise the SDK's errors as those of ours that have the same name.

    Builtins that ours are as well are taken for them: the classes, not the behaviour, are ours.
    """
    try:
        yield
    except ours.SandboxError:
        raise
    except Exception as error:
        made = our_error(error)
        if made is None:
            raise
        raise made from error


def our_error(error: Exception) -> ours.SandboxError | None:
    for kind in type(error).__mro__:
        same = getattr(ours, kind.__name__, None)
        if isinstance(same, type) and issubclass(same, ours.SandboxError):
            return copied(error, same)
    if isinstance(error, RuntimeError) and str(error) == "stdin is not available for this process":
        return copied(error, ours.PtyStdinUnavailableError)
    if isinstance(error, TypeError | ValueError):
        kind = ours.ArgumentTypeError if isinstance(error, TypeError) else ours.ArgumentError
        return copied(error, kind)
    return None


def copied(error: Any, kind: type[ours.SandboxError]) -> ours.SandboxError:  # noqa: ANN401
    """An error of ours, with what the SDK's says."""
    made = kind.__new__(kind)
    code = getattr(error, "error_code", "")
    ours.SandboxError.__init__(
        made,
        getattr(error, "message", str(error)),
        cast(ours.ErrorCode, getattr(code, "value", code)),
        cast(OpName, getattr(error, "op", "exec")),
        getattr(error, "context", {}),
        error,
    )
    return made


class SdkSession(ours.BaseSandboxSession):
    """One of theirs. Values are changed into the other's types; what it lacks is not offered."""

    def __init__(self, session: SdkBase) -> None:
        self.state = ours.UnixLocalSandboxSessionState()
        self._theirs = session

    def _only(self, method: str, **options: object) -> None:
        for name, value in options.items():
            if value not in DEFAULTS:
                raise ours.UnsupportedOperationError(
                    op="exec", method=method, session="SdkSession", argument=name
                )

    async def start(self, *, progress: object = None) -> None:
        with translated():
            await self._theirs.start()

    async def stop(self) -> None:
        with translated():
            await self._theirs.stop()

    async def shutdown(self) -> None:
        with translated():
            await self._theirs.shutdown()

    async def running(self) -> bool:
        return await self._theirs.running()

    async def aclose(self) -> None:
        with translated():
            await self._theirs.aclose()

    def register_pre_stop_hook(self, hook: Any) -> None:  # noqa: ANN401  # odd ones as well
        with translated():
            self._theirs.register_pre_stop_hook(hook)

    async def run_pre_stop_hooks(self) -> None:
        with translated():
            await self._theirs.run_pre_stop_hooks()

    def register_persist_workspace_skip_path(self, path: str | PurePath) -> PurePath:
        with translated():
            return self._theirs.register_persist_workspace_skip_path(Path(path))

    def supports_pty(self) -> bool:
        return self._theirs.supports_pty()

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: Any = True,  # noqa: ANN401  # a list, of theirs
        user: Any = None,  # noqa: ANN401  # a user, of theirs
        **options: object,
    ) -> ours.ExecResult:
        self._only("exec", **options)
        with translated():
            done = await self._theirs.exec(*command, timeout=timeout, shell=shell, user=user)
        return ours.ExecResult(stdout=done.stdout, stderr=done.stderr, exit_code=done.exit_code)

    async def pty_exec_start(self, *command: str | Path, **options: Any) -> Any:  # noqa: ANN401
        with translated():
            return await self._theirs.pty_exec_start(*command, **options)

    async def pty_write_stdin(self, **options: Any) -> Any:  # noqa: ANN401
        with translated():
            return await self._theirs.pty_write_stdin(**options)

    async def pty_terminate_all(self) -> None:
        with translated():
            await self._theirs.pty_terminate_all()

    async def read(self, path: str | PurePath, *, user: object = None) -> io.BufferedIOBase:
        with translated():
            return cast(io.BufferedIOBase, await self._theirs.read(Path(path)))

    async def read_bounded(
        self, path: str | PurePath, *, max_bytes: int, user: object = None
    ) -> bytes:
        with translated():
            return await self._theirs.read_bounded(Path(path), max_bytes=max_bytes)

    async def write(self, path: str | PurePath, data: Any, *, user: object = None) -> None:  # noqa: ANN401
        stream = data if isinstance(data, io.IOBase) else io.BytesIO(data)
        with translated():
            await self._theirs.write(Path(path), stream)

    async def ls(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> list[ours.FileEntry]:
        if recursive:
            self._only("ls", recursive=True)
        with translated():
            listed = await self._theirs.ls(Path(path))
        return [
            ours.FileEntry(
                path=one.path,
                permissions=ours.Permissions.from_mode(one.permissions.to_mode()),
                owner=one.owner,
                group=one.group,
                size=one.size,
                kind=ours.EntryKind(one.kind.value),
            )
            for one in listed
        ]

    async def mkdir(
        self, path: str | PurePath, *, parents: bool = False, user: object = None
    ) -> None:
        with translated():
            await self._theirs.mkdir(Path(path), parents=parents)

    async def rm(
        self, path: str | PurePath, *, recursive: bool = False, user: object = None
    ) -> None:
        with translated():
            await self._theirs.rm(Path(path), recursive=recursive)

    async def mv(
        self, source: str | PurePath, destination: str | PurePath, *, user: object = None
    ) -> None:
        with translated():
            await self._theirs.mv(Path(source), Path(destination))

    async def same_file(
        self,
        left: str | PurePath,
        right: str | PurePath,
        *,
        follow_symlinks: bool = True,
        user: object = None,
    ) -> bool:
        with translated():
            return await self._theirs.same_file(
                Path(left), Path(right), follow_symlinks=follow_symlinks
            )

    async def normalize_path(self, path: str | PurePath, *, for_write: bool = False) -> Path:
        with translated():
            return self._theirs.normalize_path(Path(path), for_write=for_write)

    async def apply_patch(
        self,
        operations: Any,  # noqa: ANN401  # of theirs
        *,
        patch_format: Any = "v4a",  # noqa: ANN401  # of theirs
        user: object = None,
    ) -> str:
        if isinstance(operations, str):
            self._only("apply_patch", operations=operations)
        with translated():
            return await self._theirs.apply_patch(operations, patch_format=patch_format)

    async def extract(self, path: str | PurePath, data: Any, **options: Any) -> None:  # noqa: ANN401
        with translated():
            await self._theirs.extract(Path(path), data, **options)

    async def persist_workspace(self) -> io.BufferedIOBase:
        with translated():
            return cast(io.BufferedIOBase, await self._theirs.persist_workspace())

    async def hydrate_workspace(self, data: Any, *, archive_limits: object = None) -> None:  # noqa: ANN401
        with translated():
            await self._theirs.hydrate_workspace(data)


@asynccontextmanager
async def make_sdk_session() -> AsyncIterator[SdkSession]:
    """A new session of theirs."""
    client = SdkClient()
    session = await client.create(manifest=SdkManifest(), snapshot=None, options=None)
    try:
        yield SdkSession(session)
    finally:
        await session.shutdown()
        await client.delete(session)
