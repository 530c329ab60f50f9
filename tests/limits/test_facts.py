"""What is found out about control groups: from what the kernel says, and by trying."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandyard.platform.cgroups import (
    NO_CGROUPS,
    CgroupFacts,
    CgroupParent,
    cgroup_facts,
    look_at_cgroups,
)
from tests.limits.kernel_tree import KernelTree

ALL = ("memory", "pids", "cpu")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelTree:
    return KernelTree(tmp_path, monkeypatch)


def look(tree: KernelTree, *, tried: bool = True) -> CgroupFacts:
    return look_at_cgroups(tree.cgroup, tree.mountinfo, tried=tried)


def enable(tree: KernelTree, controllers: str) -> None:
    (tree.own / "cgroup.subtree_control").write_text(controllers)


def test_nothing_is_no_facts() -> None:
    for cgroup, mountinfo in (("", ""), ("0::/\n", "garbage\n1 2 3 - x\n"), ("rubbish", "")):
        assert look_at_cgroups(cgroup, mountinfo, tried=True) == NO_CGROUPS


def test_shared_out_controllers_are_usable(tree: KernelTree) -> None:
    enable(tree, "memory pids cpu")
    assert look(tree) == CgroupFacts(
        parents=(CgroupParent(2, str(tree.own), ALL),), directories=(str(tree.own),)
    )
    assert tree.groups() == []


def test_looking_makes_nothing(tree: KernelTree) -> None:
    enable(tree, "memory pids cpu")
    tree.own.chmod(0o555)
    assert look(tree, tried=False) == CgroupFacts(directories=(str(tree.own),))
    assert tree.written == []


def test_program_alone_may_share_out(tree: KernelTree) -> None:
    facts = look(tree)
    assert facts.parents == (
        CgroupParent(2, str(tree.own), ALL, ALL, os.path.exists("/proc/swaps")),
    )
    assert facts.refusals == ()


def test_company_is_never_moved(tree: KernelTree) -> None:
    (tree.own / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    facts = look(tree)
    assert facts.parents == ()
    assert "holds other processes" in facts.refusal_of("memory")


def test_topmost_group_is_left_alone(tree: KernelTree) -> None:
    (tree.mount / "cgroup.subtree_control").write_text("")
    facts = look_at_cgroups("0::/\n", tree.mountinfo, tried=True)
    assert facts.parents == ()
    assert "topmost" in facts.refusal_of("cpu")


def test_missing_controller_is_told(tree: KernelTree) -> None:
    (tree.own / "cgroup.controllers").write_text("memory pids")
    facts = look(tree)
    assert facts.parents[0].controllers == ("memory", "pids")
    assert "not given" in facts.refusal_of("cpu")


@pytest.mark.user
def test_foreign_group_is_refused(tree: KernelTree) -> None:
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (tree.own / name).chmod(0o444)
    facts = look(tree)
    assert "not delegated" in facts.refusal_of("memory")


def test_moved_program_finds_its_way(tree: KernelTree) -> None:
    enable(tree, "memory pids cpu")
    aside = tree.own / "sandyard-host-0123"
    os.mkdir(str(aside))
    facts = look_at_cgroups("0::/app/sandyard-host-0123\n", tree.mountinfo, tried=True)
    assert [parent.directory for parent in facts.parents] == [str(tree.own)]


@pytest.mark.parametrize(
    ("own", "above", "least"),
    [("max", "max", None), ("1000", "max", 1000), ("max", "2000", 2000), ("3000", "2000", 2000)],
)
def test_least_limit_counts(tree: KernelTree, own: str, above: str, least: int | None) -> None:
    (tree.mount / "memory.max").write_text(f"{above}\n")
    (tree.own / "memory.max").write_text(f"{own}\n")
    assert look(tree, tried=False).memory_limit == least


def test_first_version_tells_its_limit(tmp_path: Path) -> None:
    own = tmp_path / "memory" / "app"
    own.mkdir(parents=True)
    mountinfo = (
        f"33 22 0:30 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"34 22 0:31 / {tmp_path}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    stat = own / "memory.stat"
    stat.write_text("cache 0\nhierarchical_memory_limit 5000000\n")
    cgroup = "4:memory:/app\n3:cpu,cpuacct:/missing\n"
    facts = look_at_cgroups(cgroup, mountinfo, tried=False)
    assert facts == CgroupFacts(memory_limit=5_000_000, directories=(str(own),))
    stat.write_text("hierarchical_memory_limit 9223372036854771712\n")
    assert look_at_cgroups(cgroup, mountinfo, tried=False).memory_limit is None


def test_container_shows_a_part(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    mountinfo = f"33 22 0:30 /docker/abc {tmp_path} ro - cgroup cgroup rw,memory\n"
    for path, wanted in (
        ("/docker/abc", (str(tmp_path),)),
        ("/docker/abc/inner", (str(tmp_path / "inner"),)),
        ("/docker/other", ()),
        ("/docker/abcdef", ()),
        ("/../outside", ()),
    ):
        facts = look_at_cgroups(f"4:memory:{path}\n", mountinfo, tried=False)
        assert facts.directories == wanted, path


def test_this_machine_answers() -> None:
    first, second = cgroup_facts(tried=True), cgroup_facts(tried=True)
    assert first == second
    for name in ALL:
        assert (first.parent_of(name) is None) == (name in dict(first.refusals)) or (
            "no such controller" in first.refusal_of(name)
        )
