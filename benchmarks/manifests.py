"""Owns the cost of manifests: small files and a copied tree, made by a start, beside ``cp -a``."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Cleaning, Row, interleaved, shown
from sandyard import File, LocalDir, Manifest, SandboxPathGrant, UnixLocalSandboxClient

__all__ = ["manifest_rows"]

SMALL = b"x" * 200
ENTRIES = 5_000
COPIED = 20_000
PER_DIRECTORY = 100
COUNT = 5


async def manifest_rows() -> list[Row]:
    """Starts whose manifests have many small files, or a large tree; sandboxes included."""
    top = Path(await asyncio.to_thread(tempfile.mkdtemp))
    try:
        names = _names(ENTRIES)
        await asyncio.to_thread(_fill, top / "few", names)
        await asyncio.to_thread(_fill, top / "many", _names(COPIED))
        entries = {name: File(content=SMALL) for name in names}
        grant = SandboxPathGrant(path=str(top), read_only=True)
        copied = Manifest(entries={"t": LocalDir(src=top / "many")}, extra_path_grants=[grant])
        return [
            await _row(
                "5,000 small files of a manifest, beside cp -a",
                2,
                top / "few",
                Manifest(entries=entries),
            ),
            await _row("LocalDir of 20,000 files, beside cp -a", 1.3, top / "many", copied),
        ]
    finally:
        await asyncio.to_thread(shutil.rmtree, top)


async def _row(what: str, bar: float, source: Path, manifest: Manifest) -> Row:
    client = UnixLocalSandboxClient()
    target = source.parent / "copy"

    async def ours() -> Cleaning:
        session = await client.create(manifest=manifest)
        await session.start()
        return partial(client.delete, session)

    async def cp() -> Cleaning:
        process = await asyncio.create_subprocess_exec("cp", "-a", source, target)
        if await process.wait():
            raise RuntimeError("cp failed")
        return partial(asyncio.to_thread, shutil.rmtree, target)

    series = await interleaved({"start": ours, "cp": cp}, COUNT, 1)
    return Row(what, series["start"].median / series["cp"].median, bar, shown(series))


def _names(count: int) -> list[str]:
    return [f"d{number // PER_DIRECTORY}/f{number}" for number in range(count)]


def _fill(top: Path, names: list[str]) -> None:
    for name in names:
        path = top / name
        if not path.parent.exists():
            os.makedirs(path.parent)
        path.write_bytes(SMALL)
