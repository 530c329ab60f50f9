"""Pipes to and from commands: what is read in one go is bounded, whoever goes on writing."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os

import pytest

from sandyard.limits import PIPE_LARGE_BYTES, PIPE_READ_BYTES
from sandyard.process.pipes import ChunkSink, InputPipe, OutputPipe, open_pipe
from tests.process.test_latch import let_run


async def test_draining_ends_though_somebody_writes() -> None:
    # What a command left running may fill the pipe as fast as it is emptied; it is the loop's time.
    read_end, write_end = open_pipe(None)
    os.set_blocking(write_end, False)
    total = 0

    def refill(chunk: bytes) -> None:
        nonlocal total
        total += len(chunk)
        if total < 100_000_000:
            os.write(write_end, chunk)

    pipe = OutputPipe(read_end, ChunkSink(refill), asyncio.get_running_loop())
    os.write(write_end, bytes(65536))
    pipe.drain()
    pipe.close()
    os.close(write_end)
    assert 65536 <= total < 10_000_000


async def test_draining_takes_all_of_it() -> None:
    # A command owns its pipes, and may resize them: nothing of what it left there may be lost.
    read_end, write_end = open_pipe(None)
    came = bytearray()
    pipe = OutputPipe(read_end, ChunkSink(came.extend), asyncio.get_running_loop())
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_LARGE_BYTES)
    assert os.write(write_end, bytes(PIPE_LARGE_BYTES)) == PIPE_LARGE_BYTES
    os.close(write_end)
    pipe.drain()
    pipe.close()
    assert len(came) == PIPE_LARGE_BYTES


async def test_input_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    # The next one must wait for the reader, and not for whoever was never told to wake it.
    read_end, write_end = open_pipe(None)
    loop = asyncio.get_running_loop()
    pipe = InputPipe(write_end, loop)
    with monkeypatch.context() as shortage:
        shortage.setattr(loop, "add_writer", refuse_watch)
        with pytest.raises(OSError, match="No space"):
            await pipe.write(bytes(PIPE_LARGE_BYTES))
    writing = asyncio.create_task(pipe.write(b"more"))
    await let_run()
    assert os.read(read_end, PIPE_READ_BYTES)
    async with asyncio.timeout(5):
        assert await writing
    pipe.end()
    os.close(read_end)


def refuse_watch(*_: object) -> None:
    """What a loop does that can't watch one more descriptor."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
