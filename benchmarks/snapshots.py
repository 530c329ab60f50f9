"""Owns the cost of snapshots: saving, saving again, restoring, resuming, in time, disk and memory."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Cleaning, Row, Series, Subject, interleaved, shown
from sandyard import (
    Manifest,
    SnapshotStore,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)

__all__ = ["snapshot_rows"]

SCALE = float(os.environ.get("SNAPSHOT_SCALE", "1"))
"""For a look in a minute; the bars are those of the whole."""

FILES = int(20_000 * SCALE)
BYTES = int(400_000_000 * SCALE)
"""What the tree has at least: libraries of Python as they are installed, and a repository."""

CHANGED = 10
COUNT = int(os.environ.get("SNAPSHOT_ROUNDS", "5"))
MEMORY_FILES = int(100_000 * SCALE)
PER_DIRECTORY = 1_000
MEMORY_BAR_MB = 32


async def snapshot_rows() -> list[Row]:
    """All figures, of one tree on one file system."""
    top = Path(await asyncio.to_thread(tempfile.mkdtemp))
    client = UnixLocalSandboxClient()
    manifest = Manifest(root=str(top / "tree"))
    spec = StoreSnapshotSpec(directory=str(top / "store"))
    session = await client.create(snapshot=spec, manifest=manifest)
    try:
        async with session:
            files = await asyncio.to_thread(_fill, top / "tree")
            first = await interleaved(_first(session, top), COUNT, 1)
            await session.stop()
            again = await interleaved(_again(session, top), COUNT, 1)
        resumed = await interleaved(_resumed(client, session, top), COUNT, 1)
        restored = await interleaved(_restored(client, session, top), COUNT, 1)
        kept = await _share_kept(client, manifest, top)
        grown = await _memory(top)
    finally:
        await client.delete(session)
        await asyncio.to_thread(shutil.rmtree, top)
    return [
        _row(f"first save of {files:,} files beside tar -c and fsync", first, "tar", 1.3),
        _row(f"save after {CHANGED} changed beside a look at each", again, "walk", 1.5),
        _row("resume of an intact tree beside a look at each", resumed, "walk", 1.5),
        _row("restore into an empty directory beside tar -x", restored, "tar", 1.1),
        Row("three like environments, compacted, beside their sum", kept[0], 0.4, kept[1]),
        Row(
            f"memory for a save of {MEMORY_FILES:,} files",
            grown[0],
            MEMORY_BAR_MB,
            grown[1],
            unit=" MB",
        ),
    ]


Tries = dict[str, Subject]


def _first(session: UnixLocalSandboxSession, top: Path) -> Tries:
    async def ours() -> Cleaning:
        await session.stop()
        return partial(asyncio.to_thread, shutil.rmtree, top / "store")

    async def tar() -> Cleaning:
        await _run(f"tar -cf {top}/saved.tar -C {top}/tree . && sync {top}/saved.tar")
        return partial(asyncio.sleep, 0)

    found: Tries = {"ours": ours, "tar": tar}
    if shutil.which("borg"):

        async def borg() -> Cleaning:
            where = f"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_REPO={top}/borg"
            await _run(f"export {where}; borg init -e none; cd {top}/tree; borg create ::one .")
            return partial(asyncio.to_thread, shutil.rmtree, top / "borg")

        found["borg"] = borg
    if shutil.which("restic"):

        async def restic() -> Cleaning:
            where = f"RESTIC_PASSWORD=x RESTIC_REPOSITORY={top}/restic"
            await _run(f"export {where}; restic -q init; cd {top}/tree; restic -q backup .")
            return partial(asyncio.to_thread, shutil.rmtree, top / "restic")

        found["restic"] = restic
    if importlib.util.find_spec("agents") is not None:
        found["agents"] = partial(_agents_save, top)
    return found


async def _agents_save(top: Path) -> Cleaning:
    """The Agents SDK's own local snapshot of the same tree, whole each time."""
    snapshots: Any = importlib.import_module("agents.sandbox.snapshot")
    sandboxes: Any = importlib.import_module("agents.sandbox.sandboxes")
    manifests: Any = importlib.import_module("agents.sandbox.manifest")
    client = sandboxes.UnixLocalSandboxClient()
    session = await client.create(
        options=sandboxes.UnixLocalSandboxClientOptions(),
        manifest=manifests.Manifest(root=str(top / "tree")),
        snapshot=snapshots.LocalSnapshotSpec(base_path=top / "agents"),
    )
    await session.start()
    await session.stop()
    await session.shutdown()
    return partial(asyncio.to_thread, shutil.rmtree, top / "agents")


def _again(session: UnixLocalSandboxSession, top: Path) -> Tries:
    paths = sorted(path for path in (top / "tree").rglob("*.py") if path.stat().st_size)
    chosen = paths[:: max(1, len(paths) // CHANGED)][:CHANGED]

    async def ours() -> Cleaning | None:
        await session.stop()
        return partial(asyncio.to_thread, _change, chosen)

    async def walk() -> Cleaning | None:
        await asyncio.to_thread(_walk, top / "tree")
        return None

    return {"ours": ours, "walk": walk}


def _resumed(client: UnixLocalSandboxClient, session: UnixLocalSandboxSession, top: Path) -> Tries:
    async def ours() -> Cleaning | None:
        again = await client.resume(session.state)
        await again.start()
        return again.aclose

    async def walk() -> Cleaning | None:
        await asyncio.to_thread(_walk, top / "tree")
        return None

    return {"ours": ours, "walk": walk}


def _restored(client: UnixLocalSandboxClient, session: UnixLocalSandboxSession, top: Path) -> Tries:
    shutil.rmtree(top / "tree")

    async def ours() -> Cleaning | None:
        again = await client.resume(session.state)
        await again.start()
        await again.shutdown()

        async def clean() -> None:
            await again.aclose()
            await asyncio.to_thread(shutil.rmtree, top / "tree")

        return clean

    async def tar() -> Cleaning | None:
        os.mkdir(top / "unpacked")
        await _run(f"tar -xf {top}/saved.tar -C {top}/unpacked")
        return partial(asyncio.to_thread, shutil.rmtree, top / "unpacked")

    return {"ours": ours, "tar": tar}


async def _share_kept(
    client: UnixLocalSandboxClient, manifest: Manifest, top: Path
) -> tuple[float, str]:
    """Three environments that differ in some files, each saved by a session of its own."""
    spec = StoreSnapshotSpec(directory=str(top / "like"))
    total = 0
    for number in range(3):
        session = await client.create(snapshot=spec, manifest=manifest)
        async with session:
            if number:
                paths = sorted((top / "tree").rglob("*.py"))[number::50]
                await asyncio.to_thread(_change, paths)
            else:
                await asyncio.to_thread(_fill, top / "tree")
            await session.stop()
            total += session.checkpoint.report.size if session.checkpoint else 0
    await SnapshotStore(top / "like").compact()
    kept = sum(path.stat().st_size for path in (top / "like/packs").iterdir())
    return kept / total, f"{kept / 1e6:.0f} MB of {total / 1e6:.0f} MB"


async def _memory(top: Path) -> tuple[float, str]:
    """What a program grows by when it saves many files, beyond what a save of one takes."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.snapshots",
        str(top / "many"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await program.communicate()
    before, after = map(int, said.split())
    return (after - before) / 1024, f"{before / 1024:.0f} MB before, {after / 1024:.0f} MB at most"


async def _save_many(top: Path) -> None:
    client = UnixLocalSandboxClient()
    spec = StoreSnapshotSpec(directory=str(top / "store"))
    session = await client.create(snapshot=spec, manifest=Manifest(root=str(top / "tree")))
    async with session:
        await session.write("one", b"1")
        await session.stop()
        before = _peak()
        for first in range(0, MEMORY_FILES, PER_DIRECTORY):
            directory = top / f"tree/d{first}"
            directory.mkdir()
            for number in range(first, first + PER_DIRECTORY):
                (directory / f"f{number}").write_bytes(b"%d" % number)
        await session.stop()
        print(before, _peak())
    await client.delete(session)


def _peak() -> int:
    """The most that this program has held so far, in KiB."""
    found = re.search(r"VmHWM:\s+([0-9]+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _row(name: str, measured: dict[str, Series], beside: str, bar: float) -> Row:
    return Row(name, measured["ours"].median / measured[beside].median, bar, shown(measured))


def _fill(tree: Path) -> int:
    """Copy libraries and a repository until there is enough; no content is there twice."""
    files = size = copies = 0
    here = Path(__file__).parent.parent
    if (here / ".git").is_dir() and SCALE >= 1:
        shutil.copytree(here / ".git", tree / "repository/.git", symlinks=True)
    while files < FILES or size < BYTES:
        for place in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")):
            for path in sorted(Path(place).rglob("*")):
                if path.is_symlink() or not path.is_file():
                    continue
                if files >= FILES and size >= BYTES:
                    return sum(len(names) for _, _, names in os.walk(tree))
                there = tree / f"environment{copies}" / path.relative_to(place)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, there)
                if copies:
                    _change([there])
                files, size = files + 1, size + there.stat().st_size
            copies += 1
    return sum(len(names) for _, _, names in os.walk(tree))


def _change(paths: list[Path]) -> None:
    for path in paths:
        with open(path, "ab") as file:
            file.write(b"# " + os.urandom(8).hex().encode() + b"\n")


def _walk(top: Path) -> None:
    todo = [str(top)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


async def _run(script: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", script, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"{script} failed")


if __name__ == "__main__":
    asyncio.run(_save_many(Path(sys.argv[1])))
