"""Counts attempts to get out: how many there were, how many held, and how many prove something.

An attempt proves that the wall holds if the same code gets out without it, as its control. Where a
control needs what this user or machine does not have, the attempt held all the same, and is skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Count", "count_attempts", "table"]

ATTACK, WORK = "test_attacks.py::test_attack[", "test_work.py::test_work["


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the attempts of one kind.

    Attributes:
        attempts: how many there were.
        held: how many got nothing.
        controls: how many of these got out without the wall.
    """

    attempts: int
    held: int
    controls: int


def count_attempts(outcomes: Iterable[tuple[str, str]]) -> tuple[dict[str, Count], Counter[str]]:
    """Attempts by kind, and the outcomes of work that must go on.

    Args:
        outcomes: of tests, each with its name: "passed", "skipped" or "failed".
    """
    attempts: dict[str, Counter[str]] = {}
    work = Counter[str]()
    for name, outcome in outcomes:
        if ATTACK in name:
            kind = name.partition(ATTACK)[2].partition("-")[0]
            attempts.setdefault(kind, Counter())[outcome] += 1
        elif WORK in name:
            work[outcome] += 1
    counts = {
        kind: Count(each.total(), each["passed"] + each["skipped"], each["passed"])
        for kind, each in attempts.items()
    }
    return counts, work


def table(counts: Mapping[str, Count], work: Mapping[str, int]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| Kind | Attempts | Held | Got out without the wall |"
    yield "|---|---|---|---|"
    for kind, each in counts.items():
        yield f"| {kind} | {each.attempts} | {each.held} | {each.controls} |"
    columns = ([getattr(each, name) for each in counts.values()] for name in Count.__slots__)
    yield f"| all | {' | '.join(str(sum(column)) for column in columns)} |"
    if not work:
        return
    failed = f", {work['failed']} failed" if work.get("failed") else ""
    yield f"| honest work | {work.get('passed', 0)} programs worked{failed} | | |"
