"""The whole plan of a session: a policy and the host's facts become one LaunchPlan."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypedDict

from sandyard.accounts import ONLY_AGENT
from sandyard.confinement.etc import HOSTNAME
from sandyard.confinement.footing import FULL
from sandyard.confinement.landlock import TRUNCATE, closes_abstract_sockets, landlock_ruleset
from sandyard.confinement.limiting import LimitsPlan, plan_limits
from sandyard.confinement.placement import (
    WorkspaceRoot,
    add_denied,
    add_grants,
    add_protected,
    add_toolchains,
    add_workspace,
    give_workspace,
    order_steps,
    step_path,
)
from sandyard.confinement.rootfs import PRIVATE_DIRECTORIES, base_steps
from sandyard.confinement.seccomp import seccomp_program
from sandyard.confinement.sizes import AGENT_GID, AGENT_UID
from sandyard.errors import ConfinementUnavailableError, PolicyError
from sandyard.plan import HostIdentity, Identity, LaunchPlan, MountStep, Namespaces
from sandyard.platform import NO_CGROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.accounts import Accounts
    from sandyard.confinement.footing import Footing
    from sandyard.plan import LandlockRuleset
    from sandyard.planted import ProtectedPart
    from sandyard.platform import DeviceNode, Grant, HostFacts
    from sandyard.policy import Policy

__all__ = ["CallOptions", "call_options", "plan_session"]

_ALL_NAMESPACES: Final = (
    Namespaces.MOUNT
    | Namespaces.CGROUP
    | Namespaces.UTS
    | Namespaces.IPC
    | Namespaces.USER
    | Namespaces.PID
    | Namespaces.NET
)


def plan_session(  # noqa: PLR0913, PLR0917  # all that a plan depends on
    policy: Policy,
    facts: HostFacts,
    workspace: WorkspaceRoot,
    grants: tuple[Grant, ...],
    denied: tuple[str, ...] = (),
    protected: tuple[ProtectedPart, ...] = (),
    limits: LimitsPlan | None = None,
    devices: tuple[DeviceNode, ...] = (),
    footing: Footing = FULL,
    accounts: Accounts = ONLY_AGENT,
) -> LaunchPlan:
    """Plan a session.

    Args:
        policy: what commands may touch.
        facts: the host.
        workspace: where they work.
        grants: what the policy names, as found on the host (``platform.resolve_grants``).
        denied: what it denies, likewise (``platform.resolve_denied``).
        protected: what of these trees is kept as it is, parents before children.
        limits: what holds the policy's limits (default: what holds them without control groups).
        devices: what it names in ``devices``, as found (``platform.resolve_devices``).
        footing: the rung (default: the highest).
        accounts: its users and groups (default: ``agent`` alone).

    Raises:
        ManifestError: a user can't be made.
        PolicyError: the policy or the workspace asks for what can't be granted.
        ConfinementUnavailableError: this host can't be made to enforce the policy.
    """
    _check_possible(facts, devices, footing, accounts)
    _check_grants(policy, grants)
    if limits is None:
        limits = plan_limits(policy.limits, facts, NO_CGROUPS)
    if footing.bare:
        from sandyard.confinement.bare import bare_plan, open_plan  # noqa: PLC0415  # few machines need it

        if footing.rung == "unconfined":
            return open_plan(facts, limits)
        return bare_plan(policy, facts, workspace, limits, footing)
    host_network = policy.network == "host"
    copies = footing.copies if footing.rung == "full_without_proc" else None
    steps = dict(_base(facts, host_network=host_network, copies=copies))
    if devices:
        from sandyard.confinement.devices import add_devices  # noqa: PLC0415  # few policies do

        add_devices(steps, devices, leased=facts.euid == 0)
    if policy.toolchains:
        add_toolchains(steps, facts.toolchains)
    add_grants(steps, grants, _shown(facts))
    add_workspace(steps, workspace)
    held = add_protected(steps, protected)
    if footing.given:
        give_workspace(steps, workspace)
    homes = _add_accounts(steps, accounts, facts)
    add_denied(steps, denied, workspace)
    writable = (*PRIVATE_DIRECTORIES, *homes, *_granted(grants), workspace.path)
    landlock = landlock_ruleset(facts.landlock_abi, dict.fromkeys(writable), logged=facts.audited)
    return LaunchPlan(
        identity=Identity(
            uid=AGENT_UID,
            gid=AGENT_GID,
            host=_host_identity(facts, accounts),
            further=accounts.further,
            disk=accounts.first,
        ),
        namespaces=_ALL_NAMESPACES & ~Namespaces.NET if host_network else _ALL_NAMESPACES,
        hostname=HOSTNAME,
        loopback=not host_network,
        scratch=limits.scratch,
        steps=order_steps(steps, workspace.path, held),
        limits=limits.rlimits,
        landlock=landlock,
        seccomp=seccomp_program(facts.machine, **call_options(policy, landlock, bare=False)),
        cgroup=limits.cgroup,
        outer_proc=copies is not None,
    )


def _host_identity(facts: HostFacts, accounts: Accounts) -> HostIdentity:
    if facts.euid == 0:
        return HostIdentity.LEASED
    return HostIdentity.SUBORDINATE if accounts.further else HostIdentity.CALLER


def _add_accounts(
    steps: dict[str, MountStep], accounts: Accounts, facts: HostFacts
) -> tuple[str, ...]:
    """Put further users in; returns their private directories."""
    if not accounts.further:
        return ()
    from sandyard.confinement.several import add_accounts  # noqa: PLC0415  # few sessions do

    add_accounts(steps, accounts, facts.shell)
    return tuple(user.home for user in accounts.users[1:])


def _check_possible(
    facts: HostFacts, devices: tuple[DeviceNode, ...], footing: Footing, accounts: Accounts
) -> None:
    """Refuse what no plan can do on this host, or on this rung."""
    if facts.system != "linux":
        raise ConfinementUnavailableError(
            "commands can't be confined",
            dimension="processes",
            cause_text=f"namespaces are a thing of Linux, and this is {facts.system}",
            fix="run on Linux",
        )
    if accounts.further:
        from sandyard.confinement.several import check_several  # noqa: PLC0415  # few sessions do

        check_several(facts, footing)
    if devices and footing.bare:
        raise ConfinementUnavailableError(
            "devices can't be shown",
            dimension="read",
            cause_text=f"without mounts there is no place for them, and {footing.cause}",
            fix=f"{footing.fix}; or name no devices",
        )


def _check_grants(policy: Policy, grants: tuple[Grant, ...]) -> None:
    writes = frozenset(policy.writes)
    wanted = {(path, path in writes) for path in (*policy.reads, *policy.writes)}
    found = {(grant.path, grant.writable) for grant in grants}
    if wanted != found:
        raise PolicyError(
            "the grants are not those of the policy",
            field="reads",
            value=sorted(path for path, _ in wanted ^ found),
        )


def _granted(grants: tuple[Grant, ...]) -> tuple[str, ...]:
    return tuple(grant.source for grant in grants if grant.writable)


def _shown(facts: HostFacts) -> tuple[str, ...]:
    return facts.system_trees + tuple(entry.path for entry in facts.root_entries)


@lru_cache(maxsize=8)  # one for each host and network; a program has one host
def _base(
    facts: HostFacts, *, host_network: bool, copies: tuple[tuple[str, bytes], ...] | None
) -> Mapping[str, MountStep]:
    steps = base_steps(facts, host_network=host_network, copies=copies)
    return MappingProxyType({step_path(step): step for step in steps})


class CallOptions(TypedDict):
    """The arguments of ``seccomp_rules`` and ``seccomp_program``."""

    unix_sockets: bool
    ptrace: bool
    internet: bool
    shared: bool
    truncation: bool


def call_options(policy: Policy, landlock: LandlockRuleset | None, *, bare: bool) -> CallOptions:
    """What a session's filter is made with.

    Args:
        policy: what commands may touch.
        landlock: the ruleset of the plan.
        bare: whether there are no namespaces.
    """
    host_network = policy.network == "host"
    # Abstract Unix sockets belong to the network namespace. In the host's own, those of the session
    # bus and of other programs are closed by Landlock, or else with all the others. Without mounts
    # all that lie in the file system can be reached: Landlock does not keep connect(2) from them.
    closed = not bare and (not host_network or closes_abstract_sockets(landlock))
    return CallOptions(
        unix_sockets=closed and "no-unix-sockets" not in policy.syscalls,
        ptrace="ptrace" in policy.syscalls,
        internet=host_network or not bare,
        shared=bare,
        truncation=not bare or (landlock is not None and bool(landlock.handled & TRUNCATE)),
    )
