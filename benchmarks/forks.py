"""Owns the cost of forks: a session with a tree of files, beside a copy of the tree by ``cp``."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Cleaning, Row, interleaved, shown
from sandyard import Layered, StoreSnapshotSpec, UnixLocalSandboxClient

__all__ = ["fork_rows"]

FILES = 5_000
SAVED_FILES = 20_000
PER_DIRECTORY = 100
COUNT = 5
LARGE = 100_000_000
CHANGED = 10
LAYERED_COUNT = 30
AT_ONCE = 100
SMALL_BAR, LARGE_BAR = 3.0, 1.5
LAYERED_BAR = 0.2
"""Python's own part of each file shows beside ``cp``; in the bytes of a large one it doesn't."""

FORK_BAR_MS, AT_ONCE_BAR_S, SAVE_BAR_MS = 10.0, 1.0, 10.0
"""What these take on a machine that is not busy, whatever the size."""


async def fork_rows() -> list[Row]:
    """Many small files, and a large one."""
    small, large = await _measured(_fill_small), await _measured(_fill_large)
    return [
        Row(f"fork with {FILES:,} files, beside cp -a", small[0], SMALL_BAR, small[1]),
        Row("fork with one file of 100 MB, beside cp -a", large[0], LARGE_BAR, large[1]),
        *await _layered_rows(),
        *await _saved_rows(),
    ]


async def _layered_rows() -> list[Row]:
    """A session on layers: the same files beneath, and a few that it changed."""
    client = UnixLocalSandboxClient()
    plain = await client.create()
    root = plain.state.host_root
    cp = partial(_copied, root, "--reflink=auto")
    async with plain:
        await asyncio.to_thread(_fill_small, Path(root))
        session = await client.fork(plain, workspace=Layered())

        async def one() -> Cleaning:
            return partial(client.delete, await client.fork(session))

        async def many() -> Cleaning:
            forks = await asyncio.gather(*(client.fork(session) for _ in range(AT_ONCE)))

            async def clean() -> None:
                for fork in forks:
                    await client.delete(fork)

            return clean

        async with session:
            for number in range(CHANGED):
                await session.write(f"changed{number}", b"x" * 1_000)
            singly = await interleaved({"ours": one, "cp": cp}, LAYERED_COUNT, 1)
            at_once = await interleaved({"ours": many, "one": one}, COUNT, 1)
        await client.delete(session)
    await client.delete(plain)
    name = f"fork on layers with {FILES:,} files, {CHANGED} of them changed"
    return [
        Row(
            f"{name}, beside cp -a --reflink=auto",
            singly["ours"].median / singly["cp"].median,
            LAYERED_BAR,
            shown(singly),
        ),
        Row(name, singly["ours"].median * 1000, FORK_BAR_MS, shown(singly), unit=" ms"),
        Row(
            f"{AT_ONCE} forks on layers at once, each beside a single one",
            at_once["ours"].median / AT_ONCE / at_once["one"].median,
            1.0,
            shown(at_once),
        ),
        Row(
            f"{AT_ONCE} forks on layers at once",
            at_once["ours"].median,
            AT_ONCE_BAR_S,
            shown(at_once),
            unit=" s",
        ),
    ]


async def _saved_rows() -> list[Row]:
    """Sessions upon the layer that holds a snapshot: the start of another one, and a save."""
    client = UnixLocalSandboxClient()
    plain = await client.create()
    root = plain.state.host_root
    cp = partial(_copied, root, "--reflink=auto")
    async with plain:
        await asyncio.to_thread(_fill_small, Path(root), SAVED_FILES)
        snapshot = await plain.save_snapshot()
        kept = StoreSnapshotSpec()
        session = await client.fork(snapshot, workspace=Layered(), snapshot=kept)
        rounds = 0

        async def start() -> Cleaning:
            return partial(client.delete, await client.fork(snapshot, workspace=Layered()))

        async def change() -> None:
            nonlocal rounds
            rounds += 1
            for number in range(CHANGED):
                await session.write(f"d{number * PER_DIRECTORY}/f1", b"%d" % rounds)

        async def save() -> Cleaning:
            await session.stop()
            return change

        async def walk() -> None:
            await asyncio.to_thread(_walk, root)

        async with session:
            await change()
            starts = await interleaved({"ours": start, "cp": cp}, COUNT, 1)
            saves = await interleaved({"ours": save, "walk": walk}, LAYERED_COUNT, 1)
        await client.delete(session)
    await client.delete(plain)
    files = f"{SAVED_FILES:,} files"
    return [
        Row(
            f"another start from a snapshot of {files} on layers, beside cp -a --reflink=auto",
            starts["ours"].median / starts["cp"].median,
            LAYERED_BAR,
            shown(starts),
        ),
        Row(
            f"save on layers with {files} after {CHANGED} changed, beside a stat walk",
            saves["ours"].median / saves["walk"].median,
            LAYERED_BAR,
            shown(saves),
        ),
        Row(
            f"save on layers with {files} after {CHANGED} changed",
            saves["ours"].median * 1000,
            SAVE_BAR_MS,
            shown(saves),
            unit=" ms",
        ),
    ]


def _walk(top: str) -> None:
    """Look at everything, and do nothing else."""
    for directory, _, names in os.walk(top):
        for name in names:
            os.lstat(f"{directory}/{name}")


async def _measured(fill: Callable[[Path], None]) -> tuple[float, str]:
    client = UnixLocalSandboxClient()
    session = await client.create()
    root = session.state.host_root
    cp = partial(_copied, root)
    async with session:
        await asyncio.to_thread(fill, Path(root))

        async def ours() -> Cleaning:
            fork = await client.fork(session)
            return partial(client.delete, fork)

        taken = await interleaved({"ours": ours, "cp": cp}, COUNT, 1)
    await client.delete(session)
    return taken["ours"].median / taken["cp"].median, shown(taken)


async def _copied(tree: str, *options: str) -> Cleaning:
    copy = f"{tree}-copy"
    process = await asyncio.create_subprocess_exec("cp", "-a", *options, tree, copy)
    if await process.wait():
        raise RuntimeError("cp failed")
    return partial(asyncio.to_thread, shutil.rmtree, copy)


def _fill_small(top: Path, files: int = FILES) -> None:
    for first in range(0, files, PER_DIRECTORY):
        directory = top / f"d{first}"
        directory.mkdir()
        for number in range(PER_DIRECTORY):
            (directory / f"f{number}").write_bytes(b"x" * (number * 20))


def _fill_large(top: Path) -> None:
    (top / "large").write_bytes(os.urandom(LARGE))
