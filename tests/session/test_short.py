"""Starts and commands of a program that has no descriptor left: typed errors, and nothing lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandyard import ResourceLimitError, UnixLocalSandboxClient


@contextmanager
def no_descriptor_left(spare: int) -> Iterator[None]:
    """The process may open ``spare`` descriptors more, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
async def test_start_without_descriptors(spare: int) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    with no_descriptor_left(spare), pytest.raises(ResourceLimitError) as caught:
        await session.start()
    assert caught.value.retryable
    assert not await session.running()
    await session.start()  # the same session, when there is room again
    assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
async def test_command_without_descriptors(spare: int) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        with no_descriptor_left(spare), pytest.raises(ResourceLimitError) as caught:
            await session.exec("echo lost")
        assert caught.value.retryable
        assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)
