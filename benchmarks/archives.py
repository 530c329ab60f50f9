"""Owns the cost of archives: a tree unpacked and saved, beside GNU tar and Python's own module."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from itertools import count
from pathlib import Path

from benchmarks.measure import Row, interleaved, shown
from sandyard import UnixLocalSandboxClient

__all__ = ["archive_rows"]

FILES = 2_000
PER_DIRECTORY = 100
COUNT = 5


async def archive_rows() -> list[Row]:
    """A tree of small files as an uncompressed tar archive, unpacked and saved.

    Nothing is removed in between: ext4 passes over inodes that were freed in the last seconds, one by
    one, whenever it looks for a new one, so that every round would pay for those before it.
    """
    client = UnixLocalSandboxClient()
    session = await client.create()
    top = Path(await asyncio.to_thread(tempfile.mkdtemp))
    root = session.state.manifest.root
    archive = top / "tree.tar"
    await asyncio.to_thread(_fill, top / "tree")
    try:
        async with session:
            await _tar("-cf", str(archive), "-C", str(top / "tree"), ".")

            rounds = count()

            async def ours() -> None:
                with open(archive, "rb") as file:  # noqa: ASYNC230  # opening alone
                    await session.extract(f"t{next(rounds)}/t.tar", file, keep_archive=False)

            async def tar() -> None:
                target = top / f"t{next(rounds)}"
                target.mkdir()
                await _tar("-xf", str(archive), "-C", str(target))

            async def module() -> None:
                await asyncio.to_thread(_unpack, archive, top / f"t{next(rounds)}")

            unpacked = await interleaved({"ours": ours, "tar": tar, "tarfile": module}, COUNT, 1)
            for name in await session.ls("."):
                await session.rm(name.path, recursive=True)
            with open(archive, "rb") as file:  # noqa: ASYNC230  # opening alone
                await session.hydrate_workspace(file)

            async def save() -> None:
                async with await session.persist_workspace() as stream:
                    async for _ in stream:
                        pass

            async def pack() -> None:
                await _tar("-cf", "/dev/stdout", "--format=posix", "-C", root, ".")

            saved = await interleaved({"ours": save, "tar": pack}, COUNT, 1)
    finally:
        await client.delete(session)
        await asyncio.to_thread(shutil.rmtree, top)
    mine = unpacked["ours"].median
    files = f"{FILES:,} files"
    return [
        Row(f"extract {files}, beside tar -x", mine / unpacked["tar"].median, 1.3, shown(unpacked)),
        Row(f"extract {files}, beside tarfile", mine / unpacked["tarfile"].median, 0.5, ""),
        Row(
            f"persist {files}, beside tar -c",
            saved["ours"].median / saved["tar"].median,
            3.0,
            shown(saved),
        ),
    ]


def _fill(tree: Path) -> None:
    for first in range(0, FILES, PER_DIRECTORY):
        directory = tree / f"d{first}"
        directory.mkdir(parents=True)
        for number in range(PER_DIRECTORY):
            (directory / f"f{number}").write_bytes(b"x" * (number * 20))


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(target, filter="tar")


async def _tar(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("tar", *words, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    if process.returncode:
        raise RuntimeError(f"tar {words} failed")
