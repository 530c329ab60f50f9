"""Owns the cost of a session: start, rate, memory while idle."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.measure import Cleaning, Row, Subject, interleaved, shown
from benchmarks.peers import bubblewrap, like_ours
from sandyard import UnixLocalSandboxClient

__all__ = ["session_rows"]

COUNT = 100
AT_ONCE = 8
PER_WORKER = 25
IDLE = 8


async def session_rows() -> list[Row]:
    """Sessions beside one run of bubblewrap, and what an idle one holds."""
    client = UnixLocalSandboxClient()
    rows = []
    kept = await client.create()
    workspace = kept.state.manifest.root
    least, like = bubblewrap(workspace), like_ours(workspace)
    if least is not None and like is not None:
        subjects: dict[str, Subject] = {
            "session": lambda: _open_and_close(client),
            "least": least.run,
            "like ours": like.run,
        }
        series = await interleaved(subjects, COUNT)
        for what, peer in (
            ("create + start + close, beside the least bwrap … true", "least"),
            ("… beside bwrap … true that shows what ours shows", "like ours"),
        ):
            both = {name: series[name] for name in ("session", peer)}
            ratio = series["session"].median / series[peer].median
            rows.append(Row(what, ratio, 0.8, shown(both)))
    await client.delete(kept)
    rows.append(await _rate(client))
    rows.append(await _memory(client))
    return rows


async def _open_and_close(client: UnixLocalSandboxClient) -> Cleaning:
    session = await client.create()
    async with session:
        pass
    return lambda: client.delete(session)  # bubblewrap is given its directory, and leaves it


async def _whole(client: UnixLocalSandboxClient) -> None:
    session = await client.create()
    async with session:
        pass
    await client.delete(session)


async def _rate(client: UnixLocalSandboxClient) -> Row:
    async def worker() -> None:
        for _ in range(PER_WORKER):
            await _whole(client)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    rate = AT_ONCE * PER_WORKER / (time.perf_counter() - began)
    what = f"sessions per second, {AT_ONCE} at once"
    return Row(what, rate, 150, "create + start + close + delete", at_least=True, unit="/s")


async def _memory(client: UnixLocalSandboxClient) -> Row:
    sessions = [await client.create() for _ in range(IDLE)]
    for session in sessions:
        await session.start()
        await session.exec("/bin/true", shell=False)
    own = _descendants()
    pss = sum(map(_pss_bytes, own)) / IDLE / 1e6
    for session in sessions:
        await client.delete(session)
    detail = f"PSS of {len(own) // IDLE} processes each, {IDLE} sessions"
    return Row("memory of an idle session", pss, 1.0, detail, unit=" MB")


def _descendants() -> list[Path]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = {int(Path("/proc/self").resolve().name)}
    own = found.copy()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path("/proc") / str(pid) for pid in found - own]


def _pss_bytes(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:  # gone, or not ours to look at
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
