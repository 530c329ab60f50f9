"""On each rung exactly that is held which it claims: attacks get out where it says so, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.escape.work import WORK
from tests.ladder.attacker import PUBLIC_PYTHON
from tests.ladder.claims import ATTACKS, CHANGES, IDLE, METADATA, SAMPLE
from tests.ladder.hosts import Host, ask

HOSTS = (
    Host("nested,covered_proc", "full_without_proc", ""),
    Host("nested,no_user", "landlock_seccomp", ""),
    Host("container", "landlock_seccomp", ""),
)


def make(host: Host, attacks: tuple[str, ...], work: tuple[str, ...]) -> dict[str, Any]:
    if not host.ordinary and not Path(PUBLIC_PYTHON).exists():
        pytest.skip(f"it needs {PUBLIC_PYTHON}, which everybody may run")
    told = ask(
        host.how, "tests.ladder.attacker", {"attacks": attacks, "work": work, "rung": host.rung}
    )
    assert told["report"]["rung"] == host.rung
    return told


def open_to(host: Host) -> frozenset[str]:
    """The attacks that a rung does not claim to hold."""
    if host.rung != "landlock_seccomp":
        return frozenset()
    if host.ordinary:
        return METADATA | CHANGES
    # Root's session works elsewhere, where there is no directory of that name to begin with.
    return METADATA | {"writing-remove_the_workspace"}


def check(host: Host, told: dict[str, Any]) -> None:
    for name, outcome in told["attacks"].items():
        assert outcome["alive"], (name, outcome)
        if name in open_to(host):
            continue
        assert not outcome["escapes"], (name, outcome)


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_sample_is_held(host: Host) -> None:
    quick = tuple(work.name for work in WORK if not work.slow)
    told = make(host, SAMPLE, quick)
    check(host, told)
    for name, outcome in told["attacks"].items():
        # Without the wall they succeed on the same host, or they would show nothing.
        assert outcome["control"] or ATTACKS[name].needs, (name, outcome)
    failed = {name for name, why in told["work"].items() if why}
    assert failed <= IDLE[host.rung], told["work"]
    if host.rung == "landlock_seccomp" and host.ordinary:
        # What it says of itself is so: the test would notice if it claimed too little.
        for name in ("reading-file_is_there", "writing-change_mode", "granted-change_mode"):
            assert told["attacks"][name]["escapes"], name


@pytest.mark.soak
@pytest.mark.timeout(900)  # three hundred attacks, each with its control
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.how)
def test_everything_is_held(host: Host) -> None:
    told = make(host, tuple(sorted(ATTACKS)), tuple(work.name for work in WORK))
    check(host, told)
    assert {name for name, why in told["work"].items() if why} <= IDLE[host.rung], told["work"]
