"""Watches: what is told, what becomes one change, and that nothing is missed where it counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    Manifest,
    Policy,
    PolicyDeniedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceReadNotFoundError,
)
from sandyard.workspace.events import FileChange, coalesce


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[UnixLocalSandboxSession]:
    (tmp_path / "work/closed").mkdir(parents=True)
    (tmp_path / "work/old/deep").mkdir(parents=True)
    policy = Policy(deny=(f"{tmp_path}/work/closed",))
    client = UnixLocalSandboxClient(policy=policy)
    made = await client.create(manifest=Manifest(root=f"{tmp_path}/work"))
    async with made:
        yield made
    await client.delete(made)


async def told_until(
    session: UnixLocalSandboxSession, act: str, last: str, *, recursive: bool = True
) -> set[tuple[str, str]]:
    """What a watch tells of a command, up to a file that is made last."""
    found: set[tuple[str, str]] = set()
    root = session.state.manifest.root
    async with session.watch(".", recursive=recursive) as changes:
        result = await session.exec(f"{act}; touch {last}")
        assert result.exit_code == 0, result.stderr
        async with asyncio.timeout(20):
            async for batch in changes:
                found |= {(each.kind, each.path.removeprefix(f"{root}/")) for each in batch}
                if any(each.path.endswith(last) for each in batch):
                    break
    return found - {("created", last), ("modified", last)}


async def test_what_happens_is_told(session: UnixLocalSandboxSession) -> None:
    assert ("created", "file") in await told_until(session, "echo x > file", "end-1")
    assert ("modified", "file") in await told_until(session, "echo y >> file", "end-2")
    told = await told_until(session, "mv file old/deep/file", "end-3")
    assert {("removed", "file"), ("created", "old/deep/file")} <= told
    assert ("removed", "old/deep/file") in await told_until(session, "rm old/deep/file", "end-4")
    told = await told_until(session, "mkdir -p a/b/c; echo x > a/b/c/file", "end-5")
    assert {("created", "a"), ("created", "a/b/c/file")} <= told
    assert ("created", "a/b/c/more") in await told_until(session, "touch a/b/c/more", "end-6")


async def test_directories_that_appear_and_go(session: UnixLocalSandboxSession) -> None:
    act = "for n in $(seq 40); do mkdir -p n$n/x/y; touch n$n/x/y/f; done; mv n1 moved; sync"
    told = await told_until(session, act, "end-1")
    assert {("created", f"n{n}/x/y/f") for n in range(2, 41)} <= told
    assert ("created", "moved/x/y/f") in told
    # A directory that moved is known by its new path.
    async with session.watch() as changes:
        await session.exec("mv moved again")
        await session.exec("touch again/x/y/late")
        async with asyncio.timeout(20):
            async for batch in changes:
                if any(each.path.endswith("/again/x/y/late") for each in batch):
                    break


async def test_one_directory_alone(session: UnixLocalSandboxSession) -> None:
    told = await told_until(session, "touch old/deep/no; touch yes", "end", recursive=False)
    assert ("created", "yes") in told
    assert not any(path.startswith("old/deep") for _, path in told)


async def test_own_writes_are_one_change(session: UnixLocalSandboxSession) -> None:
    root = session.state.manifest.root
    async with session.watch() as changes:
        await session.write("whole", b"x" * 100_000)
        async with asyncio.timeout(20):
            batch = await anext(changes)
    assert [each.path for each in batch] == [f"{root}/whole"]


async def test_what_is_refused(session: UnixLocalSandboxSession, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceReadNotFoundError):
        async with session.watch("missing"):
            pass
    with pytest.raises(PolicyDeniedError):
        async with session.watch("closed"):
            pass
    async with session.watch() as changes:
        (tmp_path / "work/closed/file").touch()
        (tmp_path / "work/last").touch()
        async with asyncio.timeout(20):
            batch = await anext(changes)
        assert not any(each.path.endswith("closed/file") for each in batch)
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


def queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_lost_events_are_told(session: UnixLocalSandboxSession) -> None:
    async with session.watch() as changes:
        count = queue_length() // 2 + 2
        script = f"import os\nfor n in range({count}): os.close(os.open('f%d' % n, 64)); os.unlink('f%d' % n)"
        assert (await session.exec("python3", "-c", script, shell=False)).exit_code == 0
        async with asyncio.timeout(30):
            async for batch in changes:
                if any(each.kind == "overflow" for each in batch):
                    break


async def test_end_of_what_is_watched(session: UnixLocalSandboxSession) -> None:
    async with session.watch("old") as changes:
        await session.rm("old", recursive=True)
        async with asyncio.timeout(20):
            async for batch in changes:
                if any(each.kind == "removed" and each.path.endswith("/old") for each in batch):
                    break


def test_changes_of_one_path() -> None:
    def kinds(*given: str) -> list[str]:
        return [each.kind for each in coalesce(FileChange(kind, "p") for kind in given)]  # type: ignore[arg-type]

    assert kinds("created", "modified", "modified") == ["created"]
    assert kinds("created", "modified", "removed") == []
    assert kinds("removed", "created") == ["modified"]
    assert kinds("modified", "removed") == ["removed"]
    assert kinds("created", "removed", "created") == ["created"]
    assert kinds("overflow", "modified", "overflow") == ["modified", "overflow"]
