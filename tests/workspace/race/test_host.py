"""Races on the host: a native process swaps names while each verb works on them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SandboxError
from sandyard.workspace.kernel import Kernel
from tests.workspace.race.arena import ATTACKS, opened_descriptors
from tests.workspace.race.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandyard.workspace import WorkspaceRoot
    from tests.workspace.race.arena import Arena

SWAPS = 100
"""Rounds that an attack makes at least while a verb works, so that a busy machine takes longer."""

ROUNDS = 30
"""Times that the verb is done at least meanwhile."""

SOAK_S = float(os.environ.get("RACE_SECONDS", "20"))
"""The same for `make soak`, all attacks on one verb together."""

WHERE = {"nests": "d/n1/n2/../..", "dots": "d2/../d"}
"""The path to the directory that is attacked, where it is not simply that."""


def race(
    root: WorkspaceRoot, verb: str, attack: str, swaps: Callable[[], int], seconds: float
) -> int:
    """Do the verb again and again while the attack runs, and count how often it succeeded."""
    rounds = done = 0
    enough, end = swaps() + SWAPS, time.monotonic() + seconds
    ours = VERBS[verb].ours
    while rounds < ROUNDS or swaps() < enough or time.monotonic() < end:
        rounds += 1
        with suppress(SandboxError):
            ours(root, WHERE.get(attack, "d"))
            done += 1
    return done


def race_all(root: WorkspaceRoot, arena: Arena, verb: str, link: str, seconds: float) -> None:
    done = 0
    with opened_descriptors(), arena.untouched():
        for attack in ATTACKS:
            with arena.unopened_device(), arena.attacked(attack, arena.outside, link) as swaps:
                done += race(root, verb, attack, swaps, seconds)
    assert done, "it never succeeded, so nothing was shown"
    assert arena.leaks(VERBS[verb].naive), "the naive way did not leak, so nothing was shown"


@pytest.fixture(params=["kernel", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each race is run with openat2 and without it."""
    if request.param == "walk":
        monkeypatch.setattr(Kernel, "resolves", False)
    return str(request.param)


@pytest.mark.timeout(180)  # it goes on until attack and control were at work, however busy
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_leaks(
    raced: WorkspaceRoot,
    arena: Arena,
    outside_descriptor: int,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    monkeypatch.chdir(arena.outside)
    link = f"/proc/{os.getpid()}/fd/{outside_descriptor}"
    race_all(raced, arena, verb, link, 0)


@pytest.mark.soak
@pytest.mark.timeout(60 + 4 * SOAK_S)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_leaks_for_long(
    raced: WorkspaceRoot,
    arena: Arena,
    outside_descriptor: int,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    monkeypatch.chdir(arena.outside)
    link = f"/proc/{os.getpid()}/fd/{outside_descriptor}"
    race_all(raced, arena, verb, link, SOAK_S / len(ATTACKS))
