"""Where things stand: nothing covers anything, and the deeper path decides."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.confinement.placement import order_steps, step_path
from sandyard.errors import PolicyError
from sandyard.plan import (
    Bind,
    Deny,
    Directory,
    LaunchPlan,
    Mask,
    MountStep,
    Private,
    Symlink,
    TextFile,
)
from sandyard.planted import ProtectedPart
from sandyard.platform import Grant, HostFacts, is_beneath, is_within
from sandyard.policy import Policy
from tests.confinement.hosts import DEBIAN_ROOT, HOSTS, WORKSPACE, grant


def planned(
    *grants: Grant, root: WorkspaceRoot = WORKSPACE, facts: HostFacts = DEBIAN_ROOT
) -> LaunchPlan:
    policy = Policy(
        reads=tuple(one.path for one in grants if not one.writable),
        writes=tuple(one.path for one in grants if one.writable),
    )
    return plan_session(policy, facts, root, grants)


def at(plan: LaunchPlan, path: str) -> MountStep | None:
    found = [step for step in plan.steps if step_path(step) == path]
    assert len(found) < 2
    return found[0] if found else None


def root_at(path: str) -> WorkspaceRoot:
    return WorkspaceRoot(path, path, (7, 42))


def test_workspace_in_tmp_stands_after_it() -> None:
    paths = [step_path(step) for step in planned().steps]
    assert paths.index("/tmp") < paths.index("/tmp/ws")


def test_workspace_within_a_read() -> None:
    plan = planned(grant("/srv"), root=root_at("/srv/ws"))
    paths = [step_path(step) for step in plan.steps]
    assert paths.index("/srv") < paths.index("/srv/ws")
    assert isinstance(at(plan, "/srv/ws"), Bind)


def test_workspace_within_a_write_keeps_its_check() -> None:
    plan = planned(grant("/srv", writable=True), root=root_at("/srv/ws"))
    assert at(plan, "/srv/ws") == Bind(
        "/srv/ws", "/srv/ws", writable=True, as_owner=True, inode=(7, 42)
    )


def test_workspace_within_a_toolchain() -> None:
    plan = planned(root=root_at("/root/.pyenv/src"))
    paths = [step_path(step) for step in plan.steps]
    assert paths.index("/root/.pyenv") < paths.index("/root/.pyenv/src")


def test_toolchains_in_the_workspace_stay_writable() -> None:
    plan = planned(root=root_at("/root"))
    assert at(plan, "/root/.pyenv") is None
    assert at(plan, "/root/.pyenv/pip.conf") is None
    assert at(plan, "/root") == Bind("/root", "/root", writable=True, as_owner=True, inode=(7, 42))


def test_toolchain_as_workspace() -> None:
    plan = planned(root=root_at("/root/.pyenv"))
    step = at(plan, "/root/.pyenv")
    assert isinstance(step, Bind)
    assert step.writable
    assert at(plan, "/root/.pyenv/pip.conf") is None


def test_read_within_the_workspace_is_read_only() -> None:
    plan = planned(grant("/tmp/ws/vendor"))
    assert at(plan, "/tmp/ws/vendor") == Bind(
        "/tmp/ws/vendor", "/tmp/ws/vendor", as_owner=True, inode=(7, 1)
    )


def test_write_within_the_workspace_changes_nothing() -> None:
    assert planned(grant("/tmp/ws/out", writable=True)).steps == planned().steps


def test_write_within_a_read() -> None:
    plan = planned(grant("/srv"), grant("/srv/out", writable=True))
    step = at(plan, "/srv/out")
    assert isinstance(step, Bind)
    assert step.writable


def test_read_within_a_write_within_a_read() -> None:
    plan = planned(grant("/a"), grant("/a/b", writable=True), grant("/a/b/c"))
    found = [at(plan, path) for path in ("/a", "/a/b", "/a/b/c")]
    assert [step.writable for step in found if isinstance(step, Bind)] == [False, True, False]


def test_read_within_a_read_changes_nothing() -> None:
    assert planned(grant("/srv"), grant("/srv/a")).steps == planned(grant("/srv")).steps


def test_write_wins_at_one_place() -> None:
    link = grant("/data", source="/srv/data")
    plan = planned(grant("/srv/data", writable=True), link)
    step = at(plan, "/srv/data")
    assert isinstance(step, Bind)
    assert step.writable
    assert at(plan, "/data") == Symlink("/data", "/srv/data")


def test_workspace_wins_over_a_read_of_it() -> None:
    step = at(planned(grant("/tmp/ws")), "/tmp/ws")
    assert isinstance(step, Bind)
    assert step.writable
    assert step.inode == (7, 42)


def test_granted_toolchain_is_the_owners() -> None:
    step = at(planned(grant("/root/.pyenv")), "/root/.pyenv")
    assert isinstance(step, Bind)
    assert step.as_owner
    # Whoever grants a tree grants all of it.
    assert at(planned(grant("/root/.pyenv")), "/root/.pyenv/pip.conf") is None


def test_reading_the_system_changes_nothing() -> None:
    assert planned(grant("/usr")).steps == planned().steps
    assert planned(grant("/bin", source="/usr/bin")).steps == planned(grant("/usr/bin")).steps


def test_granted_part_of_etc_brings_its_own() -> None:
    plan = planned(grant("/etc/ssl"))
    assert at(plan, "/etc/ssl") == Bind("/etc/ssl", "/etc/ssl", as_owner=True, inode=(7, 1))
    assert at(plan, "/etc/ssl/certs") is None


def test_symlink_within_a_grant_is_the_hosts() -> None:
    plan = planned(grant("/srv"), grant("/srv/link", source="/data"))
    assert at(plan, "/srv/link") is None
    assert isinstance(at(plan, "/data"), Bind)


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/tmp", "is the sandbox's own"),
        ("/home/agent", "is the sandbox's own"),
        ("/home", "contains /home/agent"),
        ("/var", "contains /var/tmp"),
        ("/run", "is the sandbox's own"),
        ("/etc", "contains /etc/group"),
        ("/etc/passwd", "is the sandbox's own"),
        ("/proc", "belongs to the kernel"),
        ("/proc/self", "belongs to the kernel"),
        ("/dev", "belongs to the kernel"),
        ("/dev/shm/x", "belongs to the kernel"),
        ("/sys/class", "belongs to the kernel"),
    ],
)
def test_own_places_are_not_granted(path: str, reason: str, writable: bool) -> None:
    for one in (
        grant(path, writable=writable),
        grant(path, writable=writable, source="/srv/x"),
        grant("/srv/x", writable=writable, source=path),
    ):
        with pytest.raises(PolicyError, match=reason) as caught:
            planned(one)
        assert caught.value.context["field"] == ("writes" if writable else "reads")


@pytest.mark.parametrize("path", ["/usr", "/bin", "/opt", "/nix/store", "/var/lib", "/usr/local"])
def test_system_is_not_granted_for_writing(path: str) -> None:
    with pytest.raises(PolicyError, match="belongs to the system"):
        planned(grant(path, writable=True))


def test_nothing_is_mounted_beneath_a_link() -> None:
    with pytest.raises(PolicyError, match="name the real path"):
        planned(grant("/var/run/x"))


def test_order_is_by_components() -> None:
    steps = {path: Directory(path) for path in ("/a-b", "/a/b", "/a", "/a.b", "/a/b/c", "/a/b-c")}
    paths = [step_path(step) for step in order_steps(steps, "/w")]
    assert paths == ["/a", "/a/b", "/a/b/c", "/a/b-c", "/a-b", "/a.b"]


# --- whatever is asked for ------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "a-b", ".c", "tmp", "ws", "usr", "etc", "ssl", "root", ".pyenv"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@st.composite
def requests(draw: st.DrawFn) -> tuple[HostFacts, WorkspaceRoot, tuple[Grant, ...]]:
    chosen = draw(st.dictionaries(paths, st.booleans(), max_size=6))
    granted = tuple(grant(path, writable=writable) for path, writable in chosen.items())
    return draw(st.sampled_from(HOSTS)), root_at(draw(paths)), granted


@given(requests())
def test_nothing_is_ever_covered(
    request: tuple[HostFacts, WorkspaceRoot, tuple[Grant, ...]],
) -> None:
    facts, root, granted = request
    try:
        plan = planned(*granted, root=root, facts=facts)
    except PolicyError:
        return
    seen: list[MountStep] = []
    for step in plan.steps:
        path = step_path(step)
        for earlier in seen:
            assert not is_within(step_path(earlier), path), "a later step covers an earlier one"
            if is_beneath(path, step_path(earlier)):
                assert not isinstance(earlier, (Symlink, TextFile, Mask))
        seen.append(step)


@given(requests())
def test_right_of_every_path_is_as_asked(
    request: tuple[HostFacts, WorkspaceRoot, tuple[Grant, ...]],
) -> None:
    facts, root, granted = request
    try:
        plan = planned(*granted, root=root, facts=facts)
    except PolicyError:
        return
    binds = {step_path(step): step for step in plan.steps if isinstance(step, (Bind, Private))}
    for one in (*granted, Grant(root.path, root.source, True, root.inode)):
        deepest = max((path for path in binds if is_within(one.path, path)), key=len)
        step = binds[deepest]
        assert isinstance(step, Bind)
        assert step.writable == (one.writable or one.path == root.path)
        assert step.source + one.path[len(deepest) :] == one.source
    written = {one.path for one in granted if one.writable} | {root.path}
    assert {
        path for path, step in binds.items() if isinstance(step, Bind) and step.writable
    } <= written


@given(requests())
def test_landlock_allows_what_mounts_allow(
    request: tuple[HostFacts, WorkspaceRoot, tuple[Grant, ...]],
) -> None:
    facts, root, granted = request
    try:
        plan = planned(*granted, root=root, facts=facts)
    except PolicyError:
        return
    if plan.landlock is None:
        return
    ruled = {rule.path for rule in plan.landlock.rules if rule.access == plan.landlock.handled}
    for step in plan.steps:
        if isinstance(step, Private) or (isinstance(step, Bind) and step.writable):
            assert step_path(step) in ruled
    assert len(ruled) == sum(rule.access == plan.landlock.handled for rule in plan.landlock.rules)


def denying(
    *denied: str, grants: tuple[Grant, ...] = (), root: WorkspaceRoot = WORKSPACE
) -> LaunchPlan:
    policy = Policy(
        reads=tuple(one.path for one in grants if not one.writable),
        writes=tuple(one.path for one in grants if one.writable),
    )
    return plan_session(policy, DEBIAN_ROOT, root, grants, denied)


def test_denied_within_everything() -> None:
    grants = (grant("/srv"), grant("/data", writable=True))
    denied = ("/srv/key", "/data/a/b", f"{WORKSPACE.source}/.env", "/usr/share/x", "/root/.pyenv/y")
    plan = denying(*denied, grants=grants)
    inside = (*denied[:2], f"{WORKSPACE.path}/.env", *denied[3:])
    assert {step for step in plan.steps if isinstance(step, Deny)} == {
        Deny(path) for path in inside
    }
    order = [step_path(step) for step in plan.steps]
    for path in inside:
        assert all(
            order.index(around) < order.index(path) for around in order if is_beneath(path, around)
        )


def test_denied_wins_over_grants() -> None:
    grants = (grant("/srv"), grant("/srv/a", writable=True), grant("/srv/a/b/c"))
    plan = denying("/srv/a", grants=grants)
    assert [step for step in plan.steps if is_within(step_path(step), "/srv")] == [
        at(plan, "/srv"),
        Deny("/srv/a"),
    ]
    plan = denying("/srv", grants=grants)
    assert not [step for step in plan.steps if is_within(step_path(step), "/srv")]


@pytest.mark.parametrize(
    "denied",
    [("/srv/ws/a", "/srv/ws/a/b"), ("/srv/ws/a/b", "/srv/ws/a"), ("/srv/ws/a", "/srv/ws/a")],
    ids=["outer first", "inner first", "twice"],
)
def test_denied_within_denied(denied: tuple[str, str]) -> None:
    plan = plan_session(Policy(), DEBIAN_ROOT, root_at("/srv/ws"), (), denied)
    assert [step for step in plan.steps if isinstance(step, Deny)] == [Deny("/srv/ws/a")]


def test_denying_what_is_not_shown() -> None:
    assert denying("/root/.ssh", "/var/lib/secret", "/root/.cargo") == planned_without(
        "/root/.cargo"
    )


def planned_without(tree: str) -> LaunchPlan:
    plan = planned()
    steps = tuple(step for step in plan.steps if not is_within(step_path(step), tree))
    return dataclasses.replace(plan, steps=steps)


@pytest.mark.parametrize(
    "path", [WORKSPACE.source, "/proc", "/sys/devices", "/tmp", "/etc", "/dev/null", "/home"]
)
def test_what_must_stay(path: str) -> None:
    with pytest.raises(PolicyError) as caught:
        denying(path)
    assert caught.value.context["field"] == "deny"


@given(requests(), st.lists(paths, max_size=4))
def test_nothing_stands_beneath_denied(
    request: tuple[HostFacts, WorkspaceRoot, tuple[Grant, ...]], denied: list[str]
) -> None:
    facts, root, granted = request
    policy = Policy(
        reads=tuple(one.path for one in granted if not one.writable),
        writes=tuple(one.path for one in granted if one.writable),
    )
    try:
        plan = plan_session(policy, facts, root, granted, tuple(denied))
    except PolicyError:
        return
    for path in denied:
        kept = [step for step in plan.steps if is_within(step_path(step), path)]
        assert kept in ([], [Deny(path)])
        shown = [
            step
            for step in plan.steps
            if isinstance(step, Bind) and is_beneath(path, step_path(step))
        ]
        outer = any(is_beneath(path, other) for other in denied)
        assert bool(kept) == (bool(shown) and not outer)


def part(path: str, *, read_only: bool) -> ProtectedPart:
    return ProtectedPart(path, path, (7, 42), read_only)


def protecting(*parts: ProtectedPart, grants: tuple[Grant, ...] = ()) -> LaunchPlan:
    policy = Policy(
        reads=tuple(one.path for one in grants if not one.writable),
        writes=tuple(one.path for one in grants if one.writable),
    )
    return plan_session(policy, DEBIAN_ROOT, root_at("/srv/ws"), grants, (), parts)


def test_protected_parts_stand() -> None:
    pin, whole = part("/srv/ws/.git", read_only=False), part("/srv/ws/.git/hooks", read_only=True)
    plan = protecting(pin, whole)
    inode = (7, 42)
    assert [step for step in plan.steps if is_within(step_path(step), "/srv/ws")] == [
        Bind("/srv/ws", "/srv/ws", writable=True, as_owner=True, inode=inode),
        Bind("/srv/ws/.git", "/srv/ws/.git", writable=True, as_owner=True, inode=inode),
        Bind("/srv/ws/.git/hooks", "/srv/ws/.git/hooks", as_owner=True, inode=inode),
    ]


def test_protection_opens_nothing() -> None:
    # A read-only grant within the workspace holds what lies in it; a pin would make it writable.
    pins = (part("/srv/ws/.git", read_only=False), part("/srv/data/.git", read_only=False))
    grants = (grant("/srv/ws/.git"), grant("/srv/data"))
    assert protecting(*pins, grants=grants) == protecting(grants=grants)


def test_protection_within_what_is_held() -> None:
    whole, inner = part("/srv/ws/a", read_only=True), part("/srv/ws/a/b", read_only=False)
    plan = protecting(whole, inner)
    assert all(
        not step.writable
        for step in plan.steps
        if isinstance(step, Bind) and is_within(step_path(step), "/srv/ws/a")
    )
