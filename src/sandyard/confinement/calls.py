"""Which rules of system calls a session has: by its policy, its Landlock and its rung. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from sandyard.confinement.landlock import TRUNCATE, closes_abstract_sockets

if TYPE_CHECKING:
    from sandyard.plan import LandlockRuleset
    from sandyard.policy import Policy

__all__ = ["CallOptions", "call_options"]


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
