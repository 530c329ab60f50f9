"""Gives orders to the stage, and knows which faults are not answered yet as they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.faults.programs import run_python
from tests.faults.stage import Found, Order

__all__ = [
    "CLOSES",
    "LOOKS",
    "ONLY_ROOT",
    "OWNERS",
    "RARE",
    "THREADS",
    "WATCHES",
    "play",
    "spared_calls",
]

THREADS: Final = ("clone", "clone3")
CLOSES: Final = ("close",)
LOOKS: Final = ("stat", "lstat", "fstat", "newfstatat", "statx")
OWNERS: Final = ("fchown",)
WATCHES: Final = ("epoll_ctl",)

RARE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("create", THREADS),
    ("start", THREADS),
    ("rm", LOOKS),
    ("delete", CLOSES),
    ("start", WATCHES),
    ("stream_part", WATCHES),
    ("run_large_request", WATCHES),
    ("run_with_input", OWNERS),
    ("stream_part", OWNERS),
)
"""Verbs and calls that seldom fail and have a path of their own when they do."""

ONLY_ROOT: Final = frozenset(
    {
        ("run_with_input", OWNERS),
        ("stream_part", OWNERS),
    }
)
"""Those that an ordinary user does not meet: it gives nothing away."""

_MASKED: Final = {  # the same, where it is chance whether they are made
    "run_plain": WATCHES,
    "run_with_input": (*WATCHES, *OWNERS),
    "run_large_request": OWNERS,
}


def spared_calls(verb: str) -> list[str]:
    """The calls of a verb that are tried by themselves."""
    rare = [call for name, calls in RARE if name == verb for call in calls]
    return [*rare, *_MASKED.get(verb, ())]


def play(
    mode: Literal["fail", "kill"],
    verb: str,
    place: Path,
    points: int,
    *,
    names: tuple[str, ...] | None = None,
    timeout: float = 50,
) -> Found:
    """Try a verb; skips the test where the machine lets nobody trace.

    Args:
        mode: what kind of fault.
        verb: its name.
        place: a directory for the programs' files.
        points: how many moments; 0 is all.
        names: the calls that fail; None is all that are not tried by themselves.
        timeout: seconds that it may take.
    """
    order: Order = {
        "mode": mode,
        "verb": verb,
        "directory": str(place / "source"),
        "points": points,
        "names": None if names is None else list(names),
        "spared": spared_calls(verb) if names is None else [],
    }
    words = ["-m", "tests.faults.stage", json.dumps(order)]
    found: Found | None = json.loads(run_python(words, place, timeout=timeout))
    if found is None:
        pytest.skip("ptrace(2) is refused here, or this machine's numbers are not known")
    return found
