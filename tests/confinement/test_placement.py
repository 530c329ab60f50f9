"""Where things stand: nothing covers anything, and the deeper path decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.confinement.placement import order_steps, step_path
from sandyard.errors import PolicyError
from sandyard.plan import Bind, Directory, LaunchPlan, Mask, MountStep, Private, Symlink, TextFile
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
