"""A system call of the host fails inside a verb: a typed error or success, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.calls import ONLY_ROOT, RARE, play
from tests.faults.keeping import KEEPING
from tests.faults.verbs import VERBS

POINTS = 2
"""Calls of each name that fail: the first, and the last."""

# What makes most of the different calls; the others are in the soak.
QUICK = (
    "create",
    "start",
    "shutdown",
    "delete",
    "run_plain",
    "run_longer",
    "run_with_input",
    "stream_part",
    "write",
    "read",
    "rm",
    "append",
    "mv",
    "copy",
    "apply_patch",
    "watch",
)


@pytest.mark.parametrize("verb", QUICK)
def test_failing_calls_are_told(verb: str, tmp_path: Path) -> None:
    found = play("fail", verb, tmp_path, POINTS)
    assert found["wrong"] == {}
    assert found["happened"] >= found["tried"] // 2 > 0


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", VERBS | KEEPING)
def test_every_failing_call(verb: str, tmp_path: Path) -> None:
    found = play("fail", verb, tmp_path, 0, timeout=1100)
    assert found["wrong"] == {}
    assert found["happened"] >= found["tried"] // 2 > 0


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        pytest.param(
            verb,
            names,
            marks=[pytest.mark.root] if (verb, names) in ONLY_ROOT else [],
            id=f"{verb}-{names[-1]}",
        )
        for verb, names in RARE
    ],
)
def test_rare_faults_are_told(verb: str, names: tuple[str, ...], tmp_path: Path) -> None:
    found = play("fail", verb, tmp_path, POINTS, names=names)
    assert found["tried"] > 0
    assert found["wrong"] == {}
