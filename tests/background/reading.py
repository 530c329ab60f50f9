"""Reads logs: whole, up to something, and with what is missing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from sandyard import BackgroundProcess, LogChunk, LogReader

PATIENCE_S = 30


async def read_whole(reader: LogReader) -> list[LogChunk]:
    """All that a reader is told."""
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in reader]


def text_of(chunks: Sequence[LogChunk], stream: str | None = None) -> bytes:
    """The bytes of chunks, of one stream or of both."""
    return b"".join(chunk.data for chunk in chunks if stream in (None, chunk.stream))


async def read_now(process: BackgroundProcess) -> bytes:
    """What a process has written so far, both streams."""
    return text_of(await read_whole(process.logs(follow=False)))


async def read_until(process: BackgroundProcess, wanted: bytes) -> bytes:
    """Follow a process until something was written."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        async for chunk in process.logs():
            seen += chunk.data
            if wanted in seen:
                return seen
    raise AssertionError(f"{wanted!r} never came, but {seen!r}")


def log_files() -> list[str]:
    """The logs of all sessions of this test run."""
    sessions = Path(os.environ["XDG_STATE_HOME"], "sandyard", "sessions")
    return sorted(str(path.relative_to(sessions)) for path in sessions.glob("*/logs/*"))
