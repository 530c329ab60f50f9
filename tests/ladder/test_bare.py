"""The plan without namespaces, compared whole, and what of the host it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sandyard import ConfinementUnavailableError, Policy
from sandyard.confinement import plan_limits, plan_session
from sandyard.confinement.footing import Footing, PrivatePlace
from sandyard.confinement.seccomp import seccomp_program
from sandyard.plan import (
    HostIdentity,
    Identity,
    LandlockRule,
    LandlockRuleset,
    LaunchPlan,
    Namespaces,
)
from sandyard.platform import NO_CGROUPS, Grant
from sandyard.platform.lowering import facts_around, grants_around
from tests.confinement.hosts import ARM_BARE, DEBIAN_ROOT, OLD_USER, WORKSPACE, grant

PRIVATE = PrivatePlace("/tmp/p/home", "/tmp/p/tmp", ((7, 2), (7, 3)))
READ, NODE = 0b1101, 1 << 1 | 1 << 2
ABI_2, ALL_7 = (1 << 14) - 1, (1 << 15) - 1


def footing_for(facts: object, grants: tuple[Grant, ...] = ()) -> Footing:
    return Footing(
        "landlock_seccomp",
        cause="none are allowed",
        fix="allow them",
        private=PRIVATE,
        around=(facts, grants),  # type: ignore[arg-type]
    )


def test_plan_is_this() -> None:
    grants = (grant("/srv/in"), grant("/srv/out", writable=True))
    policy = Policy(reads=("/srv/in",), writes=("/srv/out",), toolchains=False)
    facts = replace(OLD_USER, etc=(), root_entries=OLD_USER.root_entries[:1])
    plan = plan_session(
        policy, facts, WORKSPACE, grants, footing=footing_for(facts, grants)
    )  # fmt: skip
    assert plan.landlock is not None
    files = tuple(rule for rule in plan.landlock.rules if rule.path.startswith("/proc/"))
    assert plan == LaunchPlan(
        identity=Identity(1000, 1000, HostIdentity.CALLER),
        namespaces=Namespaces(0),
        hostname="",
        loopback=False,
        scratch=None,
        steps=(),
        limits=plan_limits(policy.limits, facts, NO_CGROUPS).rlimits,
        landlock=LandlockRuleset(
            handled=ABI_2,
            scoped=0,
            rules=(
                LandlockRule("/usr", READ),
                LandlockRule("/bin", READ),
                *files,
                LandlockRule("/srv/in", READ, (7, 1)),
                *(
                    LandlockRule(f"/dev/{name}", NODE)
                    for name in ("full", "null", "random", "urandom", "zero")
                ),
                LandlockRule("/tmp/ws", ABI_2, (7, 42)),
                LandlockRule("/srv/out", ABI_2, (7, 1)),
                LandlockRule("/tmp/p/home", ABI_2, (7, 2)),
                LandlockRule("/tmp/p/tmp", ABI_2, (7, 3)),
            ),
        ),
        seccomp=seccomp_program(
            "x86_64", unix_sockets=False, internet=False, shared=True, truncation=False
        ),
        cgroup=None,
        outer_proc=True,
    )
    assert {rule.access for rule in files} == {READ}
    assert not any(
        rule.path in ("/proc", "/proc/self", "/tmp", "/dev") for rule in plan.landlock.rules
    )


def test_newest_landlock_is_used() -> None:
    plan = plan_session(
        Policy(), DEBIAN_ROOT, WORKSPACE, (), footing=footing_for(DEBIAN_ROOT)
    )  # fmt: skip
    assert plan.landlock is not None
    assert (plan.landlock.handled, plan.landlock.scoped) == (ALL_7 | 1 << 15, 3)
    by_path = {rule.path: rule.access for rule in plan.landlock.rules}
    assert by_path["/dev/null"] == NODE | 1 << 14 | 1 << 15
    assert by_path["/tmp/ws"] == ALL_7, "no ioctl on devices in the workspace"
    assert plan.identity.host is HostIdentity.LEASED


def test_host_network_opens_sockets() -> None:
    policy = Policy(network="host")
    plan = plan_session(policy, DEBIAN_ROOT, WORKSPACE, (), footing=footing_for(DEBIAN_ROOT))
    assert plan.seccomp == seccomp_program("x86_64", unix_sockets=False, shared=True)
    assert plan.landlock is not None
    assert "/etc/hosts" in {rule.path for rule in plan.landlock.rules}


def test_no_landlock_is_refused() -> None:
    with pytest.raises(ConfinementUnavailableError, match="there is no Landlock, and none are"):
        plan_session(Policy(), ARM_BARE, WORKSPACE, (), footing=footing_for(ARM_BARE))


def test_hidden_parts_are_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("bin/tool", "etc/credentials", "etc/settings", "lib/code"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "link").symlink_to("etc")
    tmp_path.chmod(0o755)
    facts = replace(
        DEBIAN_ROOT,
        euid=1000,
        system_trees=(str(tree), "/usr"),
        root_entries=(),
        toolchains=replace(DEBIAN_ROOT.toolchains, roots=(), masks=(f"{tree}/etc/credentials",)),
        search_path=(f"{tree}/bin", f"{tree}/etc", "/usr/bin"),
    )
    around = facts_around(facts, (f"{tree}/lib",))
    assert around.system_trees == (f"{tree}/bin", f"{tree}/etc/settings", "/usr")
    assert around.toolchains.masks == ()
    assert around.search_path == (f"{tree}/bin", "/usr/bin")
    whole = facts_around(replace(facts, toolchains=replace(facts.toolchains, masks=())), ())
    assert whole.system_trees == facts.system_trees


def test_granted_parts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    facts = tmp_path.stat()
    whole = Grant(str(tmp_path), str(tmp_path), False, (facts.st_dev, facts.st_ino))
    (part,) = grants_around((whole,), (str(tmp_path / "closed"),))
    assert part.source == str(tmp_path / "open")
    assert part.inode == ((tmp_path / "open").stat().st_dev, (tmp_path / "open").stat().st_ino)
    assert list(grants_around((whole,), ())) == [whole]
    assert list(grants_around((whole,), (str(tmp_path),))) == []
    written = replace(whole, writable=True)
    assert list(grants_around((written,), (str(tmp_path / "closed"),))) == [written]
