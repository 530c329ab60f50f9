"""Pipes to and from commands: what is read in one go is bounded, whoever goes on writing."""

from __future__ import annotations

import asyncio
import fcntl
import os

from sandyard.limits import PIPE_LARGE_BYTES
from sandyard.process.pipes import ChunkSink, OutputPipe, open_pipe


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
