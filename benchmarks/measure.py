"""Owns how things are timed: in random order, in one process, judged by the ratio of medians."""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Cleaning", "Row", "Series", "Subject", "interleaved", "shown", "shown_rates"]

Cleaning = Callable[[], Awaitable[object]]
Subject = Callable[[], Awaitable[Cleaning | None]]

WARM_UP = 10
SETTLE_S = 0.003
"""Pause after each, in which what it left to be done (threads, callbacks, the kernel's own work) is
done, and not in the next one's time."""


@dataclass(slots=True)
class Series:
    """Timings of one subject, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    children: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall)

    @property
    def low(self) -> float:
        """The tenth percentile: what it costs when nothing else interferes."""
        return sorted(self.wall)[len(self.wall) // 10]

    @property
    def host_cpu(self) -> float:
        """Mean processor time of the measuring process itself."""
        return statistics.fmean(self.cpu)

    @property
    def work(self) -> float:
        """Median processor time, of programs that it started and that ended included."""
        return statistics.median(map(sum, zip(self.cpu, self.children, strict=True)))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    Attributes:
        what: what was measured.
        value: the figure, usually a ratio.
        bar: what it should be at most, or at least where ``at_least``.
        detail: the figures behind it.
    """

    what: str
    value: float
    bar: float
    detail: str
    at_least: bool = False
    unit: str = "x"

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def figure(self) -> str:
        """The figure with its unit, as exact as its bar asks for."""
        return f"{self.value:.2f}{self.unit}" if self.bar < 100 else f"{self.value:.0f}{self.unit}"

    @property
    def wanted(self) -> str:
        """The bar in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bar:g}"


async def interleaved(
    subjects: Mapping[str, Subject], count: int, warm_up: int = WARM_UP
) -> dict[str, Series]:
    """Times every subject ``count`` times, in random order, so that drift falls on all alike.

    What a subject returns is called and awaited outside of its time: its cleaning up.
    """
    for subject in subjects.values():
        for _ in range(warm_up):
            await _clean(await subject())
    order = [name for name in subjects for _ in range(count)]
    random.shuffle(order)
    series = {name: Series() for name in subjects}
    for name in order:
        children, cpu, wall = _of_children(), time.process_time(), time.perf_counter()
        cleaning = await subjects[name]()
        series[name].wall.append(time.perf_counter() - wall)
        series[name].cpu.append(time.process_time() - cpu)
        series[name].children.append(_of_children() - children)
        await _clean(cleaning)
        await asyncio.sleep(SETTLE_S)
    return series


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _clean(cleaning: Cleaning | None) -> None:
    if cleaning is not None:
        await cleaning()


def shown(series: Mapping[str, Series]) -> str:
    """Medians and tenth percentiles in milliseconds."""
    return ", ".join(
        f"{name} {each.median * 1e3:.2f} (p10 {each.low * 1e3:.2f}) ms"
        for name, each in series.items()
    )


def shown_rates(series: Mapping[str, Series], size: int) -> str:
    """Median rates in megabytes a second, where so many bytes passed each time."""
    return ", ".join(f"{name} {size / each.median / 1e6:.0f} MB/s" for name, each in series.items())
