"""The driver of control groups version 2 against a stand-in for the kernel's files."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from sandyard import ConfinementUnavailableError
from sandyard.plan import CgroupPlace, CgroupPlan
from sandyard.process.cgroup import Cgroup, CgroupCounts, sweep_groups
from tests.limits.kernel_tree import KernelTree

ME = str(os.getpid())
SETTINGS = (
    ("memory.max", "1000000"),
    ("memory.swap.max", "0"),
    ("memory.oom.group", "0"),
    ("cpu.max", "50000 100000"),
    ("pids.max", "30"),
)
ALL = ("memory", "pids", "cpu")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelTree:
    return KernelTree(tmp_path, monkeypatch)


def plan(tree: KernelTree, *enable: str) -> CgroupPlan:
    return CgroupPlan((CgroupPlace(2, str(tree.own), SETTINGS, enable),))


def share_out(tree: KernelTree) -> None:
    (tree.own / "cgroup.procs").write_text("")
    (tree.own / "cgroup.subtree_control").write_text("memory pids cpu")


def members(place: Path) -> list[str]:
    return (place / "cgroup.procs").read_text().split()


def test_limits_are_written_in_order(tree: KernelTree) -> None:
    share_out(tree)
    with Cgroup.create(plan(tree)) as group:
        (made,) = tree.groups()
        group.add(4242)
        wanted = [(f"{made.name}/{file}", value) for file, value in SETTINGS]
        assert tree.written == [*wanted, (f"{made.name}/cgroup.procs", "4242")]
        assert members(made) == ["4242"]
    # What was still in it was ended by the kernel's own means, then it was removed.
    assert tree.written[-1] == (f"{made.name}/cgroup.kill", "1")
    assert tree.groups() == []


def test_counters_are_read_anew(tree: KernelTree) -> None:
    share_out(tree)
    group = Cgroup.create(plan(tree))
    (made,) = tree.groups()
    assert group.count() == CgroupCounts(0, 0)
    (made / "memory.events").write_text("low 0\noom 9\noom_kill 3\noom_group_kill 7\n")
    (made / "pids.events").write_text("max 5\n")
    assert group.count() == CgroupCounts(killed=3, refused=5)
    group.close()
    assert group.count() == CgroupCounts(killed=3, refused=5)  # as it was at the end


@pytest.mark.parametrize("file", [file for file, _ in SETTINGS])
def test_refused_setting_leaves_nothing(tree: KernelTree, file: str) -> None:
    share_out(tree)
    tree.refuse = lambda path, value: (
        OSError(22, "Invalid argument") if path.endswith(file) else None
    )
    with pytest.raises(ConfinementUnavailableError) as caught:
        Cgroup.create(plan(tree))
    assert file in str(caught.value.context["cause_text"])
    assert tree.groups() == []


def test_program_goes_aside_and_returns(tree: KernelTree) -> None:
    first = Cgroup.create(plan(tree, *ALL))
    host = next(path for path in tree.groups() if path.name.startswith("sandyard-host-"))
    assert members(host) == [ME]
    assert members(tree.own) == []
    assert tree.written[:2] == [
        (f"{host.name}/cgroup.procs", ME),
        ("cgroup.subtree_control", "+memory +pids +cpu"),
    ]
    second = Cgroup.create(plan(tree))  # by then the controllers are there
    first.close()
    assert members(host) == [ME]  # the second one still needs them
    second.close()
    assert tree.groups() == []
    assert members(tree.own) == [ME]
    assert (tree.own / "cgroup.subtree_control").read_text().split() == []


def test_program_that_is_not_let_stays(tree: KernelTree) -> None:
    tree.refuse = lambda path, value: (
        OSError(16, "Device or resource busy") if path.endswith("subtree_control") else None
    )
    with pytest.raises(ConfinementUnavailableError, match="busy"):
        Cgroup.create(plan(tree, *ALL))
    assert members(tree.own) == [ME]
    assert tree.groups() == []


def test_children_of_the_program_are_not_moved(tree: KernelTree) -> None:
    group = Cgroup.create(plan(tree, *ALL))
    host = next(path for path in tree.groups() if path.name.startswith("sandyard-host-"))
    (host / "cgroup.procs").write_text(f"{ME}\n77\n")
    group.close()
    assert members(host) == [ME, "77"]
    assert tree.groups() == [host]
    sweep_groups((str(tree.own),), now=True)
    assert tree.groups() == [host]  # somebody is in it
    (host / "cgroup.procs").write_text("")
    sweep_groups((str(tree.own),), now=True)
    assert tree.groups() == []


def test_sweep_takes_what_nobody_holds(tree: KernelTree) -> None:
    share_out(tree)
    living = Cgroup.create(plan(tree))
    (kept,) = tree.groups()
    dead = tree.own / "sandyard-00ff"
    os.mkdir(str(dead))
    (dead / "cgroup.procs").write_text("77\n")
    other, probe = tree.own / "other", tree.own / "sandyard-probe-1"
    os.mkdir(str(other))
    os.mkdir(str(probe))
    sweep_groups((str(tree.own), "/nowhere"), now=True)
    assert tree.groups() == sorted([kept, probe])  # somebody may be looking at the probe
    assert other.exists()
    os.utime(probe, (0, 0))
    sweep_groups((str(tree.own),), now=True)
    assert tree.groups() == [kept]
    living.close()


def test_sweep_and_birth_do_not_meet(tree: KernelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    share_out(tree)
    real = fcntl.flock
    taken: list[int] = []

    def lose_first(fd: int, operation: int) -> None:
        if not taken:  # another program's sweep has it just then
            taken.append(fd)
            raise BlockingIOError
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lose_first)
    with Cgroup.create(plan(tree)):
        assert len(tree.groups()) == 1
    assert taken
    assert tree.groups() == []
