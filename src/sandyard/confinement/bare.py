"""The plan of a session without namespaces: Landlock and seccomp are its whole wall, or there is none. Pure.

Paths are the host's own. Landlock only adds rights, so what lies in a tree that is shown can't be
hidden: whatever must not show was left out of the facts before (``platform.facts_around``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandyard.confinement.landlock import bare_ruleset
from sandyard.confinement.launch import call_options
from sandyard.confinement.seccomp import seccomp_program
from sandyard.confinement.sizes import AGENT_GID, AGENT_UID
from sandyard.errors import ConfinementUnavailableError
from sandyard.plan import (
    DevPts,
    HostIdentity,
    Identity,
    LandlockRule,
    LaunchPlan,
    Namespaces,
    Private,
    Proc,
    ReadOnly,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.confinement.footing import Footing
    from sandyard.confinement.limiting import LimitsPlan
    from sandyard.confinement.placement import WorkspaceRoot
    from sandyard.platform import Grant, HostFacts
    from sandyard.policy import Policy

__all__ = ["bare_plan", "bare_view", "open_plan"]

_PROC_FILES: Final = (
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys/fs/pipe-max-size",
    "sys/kernel/cap_last_cap",
    "sys/kernel/ngroups_max",
    "sys/kernel/osrelease",
    "sys/kernel/pid_max",
    "sys/kernel/random/uuid",
    "sys/vm/overcommit_memory",
    "uptime",
    "version",
)
"""Files of /proc that speak of the machine and of no process."""

_DEVICES: Final = ("full", "null", "random", "urandom", "zero")


def bare_plan(
    policy: Policy,
    facts: HostFacts,
    workspace: WorkspaceRoot,
    limits: LimitsPlan,
    footing: Footing,
) -> LaunchPlan:
    """Plan a session without namespaces.

    Args:
        policy: what commands may touch.
        facts: the host.
        workspace: where they work.
        limits: what holds its limits.
        footing: the rung, with the private directories, and what is shown around hidden things.

    Raises:
        ConfinementUnavailableError: this host has no Landlock.
    """
    facts, grants = footing.around or (facts, ())
    if facts.landlock_abi < 1:
        raise ConfinementUnavailableError(
            "files can't be confined",
            dimension="read",
            cause_text=f"there is no Landlock, and {footing.cause}",
            fix=footing.fix,
        )
    host_network = policy.network == "host"
    shown = tuple(_shown(policy, facts, host_network=host_network))
    reads = (*(LandlockRule(path, 0) for path in shown), *_granted(grants, writable=False))
    writes = (
        LandlockRule(workspace.source, 0, workspace.inode),
        *_granted(grants, writable=True),
        *_private(footing),
    )
    landlock = bare_ruleset(
        facts.landlock_abi,
        reads=reads,
        writes=writes,
        devices=tuple(f"/dev/{name}" for name in _DEVICES),
        logged=facts.audited,
    )
    return replace(
        open_plan(facts, limits),
        landlock=landlock,
        seccomp=seccomp_program(facts.machine, **call_options(policy, landlock, bare=True)),
        unconfined=False,
    )


def open_plan(facts: HostFacts, limits: LimitsPlan) -> LaunchPlan:
    """Plan a session without a wall, for a policy that says so itself.

    Args:
        facts: the host.
        limits: what holds its limits.
    """
    return LaunchPlan(
        identity=Identity(
            uid=AGENT_UID,
            gid=AGENT_GID,
            host=HostIdentity.LEASED if facts.euid == 0 else HostIdentity.CALLER,
        ),
        namespaces=Namespaces(0),
        hostname="",
        loopback=False,
        scratch=None,
        steps=(),
        limits=limits.rlimits,
        landlock=None,
        seccomp=b"",
        cgroup=limits.cgroup,
        outer_proc=True,
        unconfined=True,
    )


def _shown(policy: Policy, facts: HostFacts, *, host_network: bool) -> Iterator[str]:
    yield from facts.system_trees
    yield from (entry.source for entry in facts.root_entries)
    yield from (entry.source for entry in facts.etc)
    if host_network:
        yield from (entry.source for entry in facts.network_etc)
    if policy.toolchains:
        yield from facts.toolchains.roots
    yield from (f"/proc/{name}" for name in _PROC_FILES)


def _granted(grants: tuple[Grant, ...], *, writable: bool) -> Iterator[LandlockRule]:
    for grant in grants:
        if grant.writable == writable:
            yield LandlockRule(grant.source, 0, grant.inode)


def _private(footing: Footing) -> Iterator[LandlockRule]:
    if footing.private is not None:
        home, temporary = footing.private.inodes
        yield LandlockRule(footing.private.home, 0, home)
        yield LandlockRule(footing.private.temporary, 0, temporary)


def bare_view(full: LaunchPlan, footing: Footing) -> LaunchPlan:
    """What a bare session shows, as a plan in which paths can be looked up; it is never launched."""
    made = (Private, Proc, DevPts, ReadOnly)
    private = footing.private
    places = () if private is None else (private.home, private.temporary)
    steps = (step for step in full.steps if not isinstance(step, made))
    own = (Private(path, 0o700) for path in places)
    return replace(full, steps=(*steps, *own), scratch=None)  # they lie on a disk, without a limit
