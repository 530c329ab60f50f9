"""Owns the verbs of a session that are tried under each shortage, and how each is refused."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandyard import (
    ExecNonZeroError,
    ResourceLimitError,
    SandboxError,
    UnixLocalSandboxSession,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
)

Session = UnixLocalSandboxSession

LARGE = "x" * 100_000
"""More than fits into one message to init: it goes by a memfd, which is a descriptor more."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that is asked of a session.

    Attributes:
        ask: asks, and returns what came of it.
        answer: what comes of it where nothing is short.
        refusal: the error where something is.
        fact: what that error's context has as its limit or its reason.
        piecewise: whether a refusal may come when a part is done, as with its shell command.
        free: whether it needs no descriptor at all.
    """

    ask: Callable[[Session], Awaitable[object]]
    answer: object
    refusal: type[SandboxError]
    fact: str
    piecewise: bool = False
    free: bool = False


async def _run(session: Session) -> object:
    return (await session.exec("echo on")).stdout


async def _feed(session: Session) -> object:
    return (await session.exec("cat", stdin=b"fed")).stdout


async def _feed_file(session: Session) -> object:
    return (await session.exec("cat", stdin=io.BytesIO(b"fed"))).stdout


async def _run_large(session: Session) -> object:
    return len((await session.exec("echo", LARGE)).stdout)


async def _stream(session: Session) -> object:
    async with session.stream("echo on") as running:
        chunks = [chunk.data async for chunk in running]
    return b"".join(chunks)


async def _write(session: Session) -> object:
    await session.write("made/below/file", b"new")
    with await session.read("made/below/file") as file:
        return file.read()


async def _replace(session: Session) -> None:
    await session.write("kept", b"kept")


async def _read(session: Session) -> object:
    with await session.read("kept") as file:
        return file.read()


async def _list(session: Session) -> object:
    return [entry.path.rpartition("/")[2] for entry in await session.ls("tree")]


async def _make(session: Session) -> None:
    await session.mkdir("made/below", parents=True)


async def _remove(session: Session) -> None:
    await session.rm("tree", recursive=True)


async def _normalize(session: Session) -> object:
    return (await session.normalize_path("tree/../kept")).name


_READ, _WRITE = WorkspaceArchiveReadError, WorkspaceArchiveWriteError
_MANY = "too_many_open_files"

COMMANDS = {
    "exec": Verb(_run, b"on\n", ResourceLimitError, "open_files", free=True),
    "stdin": Verb(_feed, b"fed", ResourceLimitError, "open_files"),
    "stdin_file": Verb(_feed_file, b"fed", ResourceLimitError, "open_files"),
    "large": Verb(_run_large, len(LARGE) + 1, ResourceLimitError, "open_files"),
    "stream": Verb(_stream, b"on\n", ResourceLimitError, "open_files"),
}

FILES = {
    "replace": Verb(_replace, None, _WRITE, _MANY),
    "read": Verb(_read, b"kept", _READ, _MANY),
    "ls": Verb(_list, ["inner"], ExecNonZeroError, _MANY),
    "mkdir": Verb(_make, None, _WRITE, _MANY, piecewise=True),
    "rm": Verb(_remove, None, _WRITE, _MANY, piecewise=True),
    "normalize": Verb(_normalize, "kept", _READ, _MANY),
}

VERBS = COMMANDS | FILES
