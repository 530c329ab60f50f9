"""Limits and a host's facts become rlimits, control groups and a report, compared whole."""

from __future__ import annotations

import dataclasses

import pytest

from sandyard.confinement import LimitsPlan, plan_limits, plan_session, wants_cgroups
from sandyard.errors import ConfinementUnavailableError
from sandyard.plan import CgroupPlace, CgroupPlan, ResourceLimit, Scratch
from sandyard.platform import NO_CGROUPS, CgroupFacts, CgroupParent
from sandyard.policy import Policy
from sandyard.resources import EnforcedLimit, LimitScope, ResourceLimits
from sandyard.types import LimitName
from tests.confinement.hosts import DEBIAN_ROOT, GIB, MIB, OLD_USER, WORKSPACE

FIRST = CgroupFacts(
    parents=(
        CgroupParent(1, "/sys/fs/cgroup/memory/app", ("memory",)),
        CgroupParent(1, "/sys/fs/cgroup/pids", ("pids",)),
        CgroupParent(1, "/sys/fs/cgroup/cpu,cpuacct", ("cpu",)),
    )
)
"""Version 1, each controller with a hierarchy of its own."""

SECOND = CgroupFacts(parents=(CgroupParent(2, "/sys/fs/cgroup/app", ("memory", "pids", "cpu")),))
"""Version 2, with all controllers."""

DENIED = CgroupFacts(refusals=(("cpu", "/sys/fs/cgroup/app is not delegated to this program"),))


def held(limit: LimitName, value: float, by: str, scope: LimitScope) -> EnforcedLimit:
    return EnforcedLimit(limit=limit, value=value, by=by, scope=scope)


OPEN_FILES = held("open_files", 4096, "rlimit per process", "process")
OUTPUT = held("output", 16 * MIB, "host capture", "stream")
RLIMITS = (ResourceLimit(4, 1), ResourceLimit(6, 4096), ResourceLimit(7, 4096))


def test_default_needs_no_group() -> None:
    assert not wants_cgroups(ResourceLimits(), SECOND)
    for groups in (FIRST, SECOND, NO_CGROUPS):
        assert plan_limits(ResourceLimits(), DEBIAN_ROOT, groups) == LimitsPlan(
            rlimits=RLIMITS,
            scratch=Scratch(4 * GIB, 262144),
            cgroup=None,
            enforced=(
                held("processes", 4096, "rlimit per user namespace", "session"),
                OPEN_FILES,
                held("scratch_size", 4 * GIB, "tmpfs size", "session"),
                OUTPUT,
            ),
        )


ALL = ResourceLimits(
    memory=2 * GIB,
    processes=100,
    cpus=1.5,
    cpu_time=60,
    wall_time=600,
    file_size=GIB,
    workspace_size=3 * GIB,
    open_files=256,
    scratch_size=512 * MIB,
    output=1000,
)


def test_all_limits_on_first_version() -> None:
    planned = plan_limits(ALL, DEBIAN_ROOT, FIRST)
    assert planned == LimitsPlan(
        rlimits=(
            ResourceLimit(4, 1),
            ResourceLimit(6, 100),
            ResourceLimit(7, 256),
            ResourceLimit(1, GIB),
            ResourceLimit(0, 60),
        ),
        scratch=Scratch(512 * MIB, 32768),
        cgroup=CgroupPlan(
            (
                CgroupPlace(
                    1,
                    "/sys/fs/cgroup/memory/app",
                    (
                        ("memory.limit_in_bytes", str(2 * GIB)),
                        ("memory.memsw.limit_in_bytes", str(2 * GIB)),
                    ),
                ),
                CgroupPlace(
                    1,
                    "/sys/fs/cgroup/cpu,cpuacct",
                    (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")),
                ),
                CgroupPlace(1, "/sys/fs/cgroup/pids", (("pids.max", "100"),)),
            )
        ),
        enforced=(
            held("memory", 2 * GIB, "cgroup v1 memory", "session"),
            held("processes", 100, "cgroup v1 pids", "session"),
            held("cpus", 1.5, "cgroup v1 cpu", "session"),
            held("open_files", 256, "rlimit per process", "process"),
            held("cpu_time", 60, "rlimit per process", "process"),
            held("file_size", GIB, "rlimit per process", "process"),
            EnforcedLimit(
                limit="workspace_size",
                value=3 * GIB,
                by="scan",
                scope="session",
                strength="partial",
                why=planned.enforced[6].why,
            ),
            held("wall_time", 600, "host timer", "command"),
            held("scratch_size", 512 * MIB, "tmpfs size", "session"),
            held("output", 1000, "host capture", "stream"),
        ),
    )
    assert "open without a name" in planned.enforced[6].why


def test_second_version_has_one_place() -> None:
    limits = ResourceLimits(memory=GIB, cpus=0.5)
    planned = plan_limits(limits, DEBIAN_ROOT, SECOND)
    assert planned.cgroup == CgroupPlan(
        (
            CgroupPlace(
                2,
                "/sys/fs/cgroup/app",
                (
                    ("memory.max", str(GIB)),
                    ("memory.swap.max", "0"),
                    ("memory.oom.group", "0"),
                    ("cpu.max", "50000 100000"),
                    ("pids.max", "4096"),
                ),
            ),
        )
    )
    assert planned.rlimits == RLIMITS
    assert planned.scratch == Scratch(512 * MIB, 32768)  # half of what the session may use
    assert [limit.by for limit in planned.enforced[:3]] == [
        "cgroup v2 memory",
        "cgroup v2 pids",
        "cgroup v2 cpu",
    ]


def test_delegated_group_is_shared_out() -> None:
    parent = dataclasses.replace(SECOND.parents[0], enable=("memory", "pids", "cpu"))
    planned = plan_limits(ResourceLimits(cpus=2), OLD_USER, CgroupFacts(parents=(parent,)))
    assert planned.cgroup == CgroupPlan(
        (
            CgroupPlace(
                2,
                "/sys/fs/cgroup/app",
                (("cpu.max", "200000 100000"), ("pids.max", "4096")),
                enable=("memory", "pids", "cpu"),
            ),
        )
    )


def test_memory_alone_touches_no_processors() -> None:
    planned = plan_limits(ResourceLimits(memory=GIB), DEBIAN_ROOT, FIRST)
    assert planned.cgroup is not None
    assert [place.parent for place in planned.cgroup.places] == [
        "/sys/fs/cgroup/memory/app",
        "/sys/fs/cgroup/pids",
    ]


def test_memory_without_group_is_partial() -> None:
    groups = CgroupFacts(refusals=(("memory", "no group can be made"),))
    planned = plan_limits(ResourceLimits(memory=GIB), OLD_USER, groups)
    assert planned.cgroup is None
    assert planned.rlimits == (*RLIMITS, ResourceLimit(2, GIB))
    memory = planned.enforced[0]
    assert (memory.limit, memory.value, memory.by) == ("memory", GIB, "rlimit per process")
    assert (memory.scope, memory.strength) == ("process", "partial")
    assert "no group can be made" in memory.why


def test_uncounted_swap_is_partial() -> None:
    parent = dataclasses.replace(FIRST.parents[0], counts_swap=False)
    planned = plan_limits(ResourceLimits(memory=GIB), DEBIAN_ROOT, CgroupFacts(parents=(parent,)))
    assert planned.cgroup is not None
    assert planned.cgroup.places[0].settings == (("memory.limit_in_bytes", str(GIB)),)
    assert (planned.enforced[0].strength, planned.enforced[0].scope) == ("partial", "session")
    assert "swap" in planned.enforced[0].why


@pytest.mark.parametrize("groups", [NO_CGROUPS, DENIED])
def test_processors_without_group_are_refused(groups: CgroupFacts) -> None:
    with pytest.raises(ConfinementUnavailableError) as caught:
        plan_limits(ResourceLimits(cpus=1.5), OLD_USER, groups)
    assert caught.value.context["dimension"] == "resources"
    assert groups.refusal_of("cpu") in str(caught.value)
    assert "Delegate=yes" in str(caught.value.context["fix"])


def test_limited_caller_keeps_half() -> None:
    groups = dataclasses.replace(SECOND, memory_limit=2 * GIB)
    assert wants_cgroups(ResourceLimits(), groups)
    planned = plan_limits(ResourceLimits(), DEBIAN_ROOT, groups)
    assert planned.cgroup is not None
    assert ("memory.max", str(GIB)) in planned.cgroup.places[0].settings
    assert planned.scratch == Scratch(512 * MIB, 32768)
    assert planned.enforced[0] == held("memory", GIB, "cgroup v2 memory", "session")
    asked = plan_limits(ResourceLimits(memory=128 * MIB), DEBIAN_ROOT, groups)
    assert asked.enforced[0].value == 128 * MIB


def test_limited_caller_without_group_is_told() -> None:
    planned = plan_limits(ResourceLimits(), OLD_USER, CgroupFacts(memory_limit=256 * MIB))
    assert (planned.cgroup, planned.rlimits) == (None, RLIMITS)
    assert planned.scratch.size == 128 * MIB
    assert (planned.enforced[0].value, planned.enforced[0].strength) == (256 * MIB, "partial")


def test_small_scratch_has_room_for_a_root() -> None:
    planned = plan_limits(ResourceLimits(scratch_size=MIB), DEBIAN_ROOT, NO_CGROUPS)
    assert planned.scratch == Scratch(MIB, 4096)


def test_no_file_exceeds_the_workspace() -> None:
    for limits in (
        ResourceLimits(workspace_size=GIB),
        ResourceLimits(workspace_size=GIB, file_size=2 * GIB),
    ):
        assert ResourceLimit(1, GIB) in plan_limits(limits, DEBIAN_ROOT, NO_CGROUPS).rlimits


def test_session_plan_carries_limits() -> None:
    policy = Policy(limits=ALL)
    limits = plan_limits(ALL, DEBIAN_ROOT, SECOND)
    plan = plan_session(policy, DEBIAN_ROOT, WORKSPACE, (), limits=limits)
    assert (plan.limits, plan.scratch, plan.cgroup) == (
        limits.rlimits,
        limits.scratch,
        limits.cgroup,
    )
    bare = plan_session(Policy(), DEBIAN_ROOT, WORKSPACE, ())
    assert (bare.limits, bare.cgroup) == (RLIMITS, None)
    with pytest.raises(ConfinementUnavailableError, match="cpus"):
        plan_session(policy, DEBIAN_ROOT, WORKSPACE, ())
