"""Owns sessions whose first process is hostile, and what every call to one of them must keep to."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandyard import SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.process import init, launching

ANSWER_S = 20.0
"""Seconds after which a call counts as hanging; all that is waited for here takes less than three."""

Scene = Callable[..., None]
T = TypeVar("T")


async def bounded(call: Awaitable[T]) -> T | SandboxError:
    """What a call returns, or the typed error that it raises; anything else fails the test."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await call
    except SandboxError as error:
        return error


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Puts a scene of ``hostile.py`` into the place where the native program is found."""
    monkeypatch.setattr(init, "START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(init, "CLOSE_TIMEOUT_S", 0.5)

    def put(scene: str, *, seed: int = 0, **arguments: object) -> None:
        program = tmp_path / f"{scene}-{seed}" / "sandyard-init"
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f"#!{sys.executable} -IBS\n"
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import hostile\nhostile.main(int(sys.argv[1]), {scene!r}, {seed}, **{arguments!r})\n"
        )
        program.chmod(0o755)
        monkeypatch.setattr(launching, "program_path", lambda: str(program))

    return put


@asynccontextmanager
async def no_lost_errors() -> AsyncIterator[None]:
    """Fails when something ends in the loop's exception handler: a task that nobody looked at."""
    lost: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: lost.append(context))
    try:
        yield
        gc.collect()  # a task tells of its exception when it is collected
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert not lost


@pytest.fixture
async def deceived() -> AsyncIterator[UnixLocalSandboxSession]:
    """A session that is not started yet, and is deleted afterwards within bounded time."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with no_lost_errors():
        yield session
        assert not isinstance(await bounded(client.delete(session)), SandboxError)
        assert not await session.running()
