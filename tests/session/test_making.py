"""Making a session: how often the loop is woken for it, whichever way it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from sandyard import Layered, Overlay, UnixLocalSandboxClient

P = ParamSpec("P")
T = TypeVar("T")

KINDS = (lambda path: None, lambda path: Layered(), lambda path: Overlay(str(path)))


class Turns(ThreadPoolExecutor):
    """A loop's threads, which count what they were given."""

    taken = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.taken += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    with Turns() as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        yield pool


@pytest.mark.parametrize("kind", KINDS, ids=("plain", "layers", "overlay"))
async def test_made_in_one_turn(
    turns: Turns, tmp_path: Path, kind: Callable[[Path], Layered | Overlay | None]
) -> None:
    client, workspace = UnixLocalSandboxClient(), kind(tmp_path)
    made = await client.create(workspace=workspace)
    assert turns.taken == 1
    async with made:
        turns.taken = 0
        fork = await client.fork(made)
        # One makes it; another records what it lies upon.
        assert turns.taken == (2 if isinstance(workspace, Layered) else 1)
        await client.delete(fork)
    turns.taken = 0
    again = await client.resume(made.state)
    assert turns.taken == 1
    await client.delete(again)
