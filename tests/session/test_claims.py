"""One directory of a caller's, several sessions: one has it for itself, or all share it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from sandyard import LeaseHeldError, Manifest, UnixLocalSandboxClient
from sandyard.workspace.sweep import sweep


async def test_one_session_at_once(tmp_path: Path) -> None:
    client, manifest = UnixLocalSandboxClient(), Manifest(root=str(tmp_path / "own"))
    claims = Path(os.environ["XDG_STATE_HOME"]) / "sandyard/claims"
    first, second = await client.create(manifest=manifest), await client.create(manifest=manifest)
    third = await client.create(manifest=manifest, shared=True)
    async with first:
        for other in (second, third, second):  # again: what was refused once is not let in later
            with pytest.raises(LeaseHeldError, match="shared=True"):
                await other.start()
        await first.shutdown()  # its files can still be written
        with pytest.raises(LeaseHeldError):
            await second.start()
    fourth = await client.create(manifest=manifest, shared=True)
    async with third, fourth:
        with pytest.raises(LeaseHeldError):
            await second.start()
        await third.write("a", b"1")
        assert (await fourth.exec("cat a", timeout=30)).stdout == b"1"
    (tmp_path / "link").symlink_to(tmp_path)
    same = await client.create(manifest=Manifest(root=str(tmp_path / "link/own")))
    async with second:
        with pytest.raises(LeaseHeldError):  # by another name
            await same.start()
    await same.aclose()
    assert os.listdir(claims) == []


def test_killed_one_holds_nothing(tmp_path: Path) -> None:
    """A directory is free again when the program that had it is gone, however it ended."""

    async def use(*, die: bool) -> None:
        session = await UnixLocalSandboxClient().create(
            manifest=Manifest(root=str(tmp_path / "own"))
        )
        async with session:
            if die:
                os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(use(die=True))
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    asyncio.run(use(die=False))
    sweep(os.path.join(os.environ["XDG_STATE_HOME"], "sandyard"))  # of the killed one's lease
