"""Owns the cost of archives: a tree unpacked and saved, beside GNU tar and Python's own module."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
import tempfile
from itertools import count
from pathlib import Path

from benchmarks.measure import Cleaning, Row, Series, interleaved, shown
from sandyard import Manifest, UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["archive_rows"]

FILES = 20_000
PER_DIRECTORY = 100
SMALL = b"x" * 200
COUNT = 5
IMAGE_BYTES = 10 * 1024**3
"""Of the file system for root: room for all that is unpacked, 16 KiB for each file; most stays a hole."""

Times = dict[str, Series]


async def archive_rows() -> list[Row]:
    """A tree of small files as an uncompressed tar archive, unpacked and saved.

    What was deleted on a file system, or is still on its way to the disk, slows whoever works there
    next. So root has a new one, nothing is removed until the end, and all is sent to the disk after
    each turn.
    """
    top = Path(await asyncio.to_thread(tempfile.mkdtemp))
    is_mounted = await _mounted(top)
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root=str(top / "workspace")))
    try:
        await asyncio.to_thread(_fill, top / "tree")
        async with session:
            await _run("tar", "-cf", str(top / "tree.tar"), "-C", str(top / "tree"), ".")
            unpacked = await _unpacked(session, top)
            saved = await _saved(session)
    finally:
        await client.delete(session)
        if is_mounted:
            await _run("umount", "-l", str(top))
        await asyncio.to_thread(shutil.rmtree, top)
    return [
        *_rows(f"extract {FILES:,} files, beside tar -x", unpacked, "tar", 1.3),
        *_rows(f"extract {FILES:,} files, beside tarfile", unpacked, "tarfile", 0.5),
        *_rows(f"persist {FILES:,} files, beside tar -c", saved, "tar", 3.0),
    ]


def _rows(what: str, times: Times, peer: str, bar: float) -> list[Row]:
    """One by the clock, and one by processor time, in which nobody else's work shows."""
    ours, theirs = times["ours"], times[peer]
    work = f"ours {ours.work * 1e3:.0f}, {peer} {theirs.work * 1e3:.0f} ms"
    return [
        Row(what, ours.median / theirs.median, bar, shown({"ours": ours, peer: theirs})),
        Row(f"{what}, by processor", ours.work / theirs.work, bar, work),
    ]


async def _unpacked(session: UnixLocalSandboxSession, top: Path) -> Times:
    rounds = count()
    archive = top / "tree.tar"

    async def ours() -> Cleaning:
        with open(archive, "rb") as file:  # noqa: ASYNC230  # opening alone
            await session.extract(f"t{next(rounds)}/t.tar", file, keep_archive=False)
        return _settle

    async def tar() -> Cleaning:
        target = top / f"t{next(rounds)}"
        target.mkdir()
        await _run("tar", "-xf", str(archive), "-C", str(target))
        return _settle

    async def module() -> Cleaning:
        await asyncio.to_thread(_unpack, archive, top / f"t{next(rounds)}")
        return _settle

    return await interleaved({"ours": ours, "tar": tar, "tarfile": module}, COUNT, 1)


async def _saved(session: UnixLocalSandboxSession) -> Times:
    for entry in (await session.ls("."))[1:]:
        await session.rm(entry.path, recursive=True)
    await _settle()

    async def ours() -> None:
        async with await session.persist_workspace() as stream:
            async for _ in stream:
                pass

    async def tar() -> None:
        root = session.state.manifest.root
        await _run("tar", "-cf", "/dev/stdout", "--format=posix", "-C", root, ".")

    return await interleaved({"ours": ours, "tar": tar}, COUNT, 1)


async def _mounted(top: Path) -> bool:
    """Put a new file system there, where this program may."""
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        return False
    image = top / "image"
    with open(image, "wb") as file:  # noqa: ASYNC230  # nothing is written
        file.truncate(IMAGE_BYTES)
    try:
        await _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image))
        await _run("mount", "-o", "loop", str(image), str(top))
    except RuntimeError:  # a container without devices
        image.unlink()
        return False
    return True


async def _settle() -> None:
    await asyncio.to_thread(os.sync)


def _fill(tree: Path) -> None:
    for first in range(0, FILES, PER_DIRECTORY):
        directory = tree / f"d{first}"
        directory.mkdir(parents=True)
        for number in range(PER_DIRECTORY):
            (directory / f"f{number}").write_bytes(SMALL)


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(target, filter="tar")


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words} failed")
