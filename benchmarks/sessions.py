"""Owns the cost of a session: start, rate, memory while idle."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.measure import Row, interleaved, shown
from benchmarks.peers import bubblewrap
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
    bwrap = bubblewrap(kept.state.manifest.root)
    if bwrap is not None:
        series = await interleaved({"session": lambda: _whole(client), "bwrap": bwrap.run}, COUNT)
        ratio = series["session"].median / series["bwrap"].median
        rows.append(Row("create + start + close, beside bwrap … true", ratio, 0.8, shown(series)))
    await client.delete(kept)
    rows.append(await _rate(client))
    rows.append(await _memory(client))
    return rows


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
