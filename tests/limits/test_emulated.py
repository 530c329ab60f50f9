"""Control groups version 2 on a real kernel, in an emulated machine: delegated, crowded, topmost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.limits.emulator import find_emulator, run_guest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2000)]

MIB = 2**20


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    emulator = find_emulator()
    if emulator is None:
        pytest.skip("needs an emulator and a kernel (see emulator.py and scripts/with-machine)")
    place = tmp_path_factory.mktemp("machine")
    answers = run_guest(Path(__file__).with_name("guest.py"), place, emulator)
    assert "error" not in answers, answers["error"]
    return answers


@pytest.mark.parametrize("where", ["delegated", "topmost"])
def test_limits_hold(told: dict[str, Any], where: str) -> None:
    answers = told[where]
    assert "error" not in answers, answers["error"]
    assert answers["report"] == {
        "memory": "cgroup v2 memory",
        "processes": "cgroup v2 pids",
        "cpus": "cgroup v2 cpu",
        "open_files": "rlimit per process",
        "wall_time": "host timer",
        "scratch_size": "tmpfs size",
        "output": "host capture",
    }
    settings = answers["settings"]
    assert settings.pop("memory.swap.max", "0") == "0"
    assert settings == {
        "memory.max": str(64 * MIB),
        "memory.oom.group": "0",
        "pids.max": "30",
        "cpu.max": "50000 100000",
    }
    assert answers["quiet"] == [0, []]
    assert answers["memory"] == [answers["memory"][0], ["memory by cgroup v2 memory"]]
    assert answers["memory"][0] in (-9, 137)
    assert answers["processes"][1] == ["processes by cgroup v2 pids"]
    code, share = answers["cpu"]
    assert code == 0
    assert share <= 0.55  # half of a processor, and one quota more


def test_other_limits_are_told(told: dict[str, Any]) -> None:
    names = ("cpu_time", "file_size", "output", "wall_time", "workspace_size")
    assert told["others"] == {name: [name] for name in names}


def test_program_goes_aside_and_returns(told: dict[str, Any]) -> None:
    answers = told["delegated"]
    group, below = answers["during"]
    assert group.startswith("/delegated/sandyard-host-")
    assert len(below) == 2
    assert answers["after"] == ["/delegated", []]
    assert answers["shared"] == []


def test_topmost_group_is_used_as_it_is(told: dict[str, Any]) -> None:
    answers = told["topmost"]
    group, below = answers["during"]
    assert (group, len(below)) == ("/", 1)
    assert answers["after"] == ["/", []]
    assert sorted(answers["shared"]) == ["cpu", "memory", "pids"]


def test_company_is_told(told: dict[str, Any]) -> None:
    answers = told["crowded"]
    assert "error" not in answers, answers["error"]
    assert "holds other processes" in answers["cpus"]
    assert answers["report"] == [["rlimit per process", "partial"]]
    assert answers["group"] == "/crowded"
