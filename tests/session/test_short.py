"""Starts and commands of a program that has no descriptor left: typed errors, and nothing lost."""

from __future__ import annotations

import pytest

from sandyard import ResourceLimitError, UnixLocalSandboxClient
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
        with no_descriptor_left(spare), pytest.raises(ResourceLimitError) as caught:
            await session.exec("echo lost")
        assert caught.value.retryable
        assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)
