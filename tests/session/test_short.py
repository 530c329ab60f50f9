"""Starts and commands of a program that has no descriptor left: typed errors, and nothing lost."""

from __future__ import annotations

import pytest

from sandyard import ResourceLimitError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.session.short import no_descriptor_left


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
        assert await streamed(session) == b"on\n"
        with no_descriptor_left(spare):
            short = await session.exec("echo short")  # whose output comes with its end
            with pytest.raises(ResourceLimitError) as caught:
                await streamed(session)
        assert short.stdout == b"short\n"
        assert caught.value.retryable
        assert await streamed(session) == b"on\n"
    await client.delete(session)


async def streamed(session: UnixLocalSandboxSession) -> bytes:
    """What comes out of a command on pipes that this program makes."""
    async with session.stream("echo on") as command:
        return b"".join([chunk.data async for chunk in command])
