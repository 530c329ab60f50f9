"""Owns the cost of a command: latency, throughput, the host's processor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.measure import Row, Series, Subject, interleaved, shown
from benchmarks.peers import TRUE, agents_session, bare, bubblewrap
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["command_rows"]

COUNT = 300
AT_ONCE = 64
ROUNDS = 5
PER_ROUND = 320


async def command_rows() -> list[Row]:
    """Confined exec beside a bare spawn, the Agents SDK and bubblewrap."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session, agents_session() as agents:
            rows = await _latency(session, agents)
            rows.append(await _throughput(session))
    finally:
        await client.delete(session)
    return rows


async def _latency(session: UnixLocalSandboxSession, agents: Any) -> list[Row]:  # noqa: ANN401  # its types are not ours
    async def confined() -> None:
        await session.exec(TRUE, shell=False)

    subjects: dict[str, Subject] = {"confined": confined, "bare": bare}
    if agents is not None:

        async def unconfined() -> None:
            await agents.exec(TRUE, shell=False)

        subjects["agents"] = unconfined
    bwrap = bubblewrap(session.state.manifest.root)
    if bwrap is not None:
        subjects["bwrap"] = bwrap.run
    series = await interleaved(subjects, COUNT)
    rows = [_ratio("exec /bin/true, beside a bare asyncio spawn", series, "bare", 0.80)]
    if agents is not None:
        rows.append(_ratio("… beside openai-agents, unconfined", series, "agents", 0.50))
    if bwrap is not None:
        rows.append(_ratio("… beside bubblewrap per command", series, "bwrap", 0.20))
    cpu = series["confined"].host_cpu, series["bare"].host_cpu
    detail = f"{cpu[0] * 1e6:.0f} against {cpu[1] * 1e6:.0f} us"
    rows.append(Row("… processor time of the host per exec", cpu[0] / cpu[1], 0.30, detail))
    return rows


def _ratio(what: str, series: dict[str, Series], peer: str, bar: float) -> Row:
    both = {name: series[name] for name in ("confined", peer)}
    return Row(what, both["confined"].median / both[peer].median, bar, shown(both))


async def _throughput(session: UnixLocalSandboxSession) -> Row:
    rates: dict[str, list[float]] = {"confined": [], "bare": []}

    async def confined() -> None:
        await session.exec(TRUE, shell=False)

    for _ in range(ROUNDS):  # alternating, so that drift falls on both
        for name, one in (("confined", confined), ("bare", bare)):
            rates[name].append(await _rate(one))
    best = {name: max(each) for name, each in rates.items()}
    detail = ", ".join(f"{name} {rate:.0f}/s" for name, rate in best.items())
    ratio = best["confined"] / best["bare"]
    return Row(f"{AT_ONCE} at once, commands per second", ratio, 1.5, detail, at_least=True)


async def _rate(one: Callable[[], Awaitable[None]]) -> float:
    async def worker() -> None:
        for _ in range(PER_ROUND // AT_ONCE):
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return PER_ROUND / (time.perf_counter() - began)
