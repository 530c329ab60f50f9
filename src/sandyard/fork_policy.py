"""What a fork may do: what its parent may, of the places where its own workspace is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from sandyard.errors import ConfinementUnavailableError, PolicyError
from sandyard.platform import is_within
from sandyard.resources import ResourceLimits

if TYPE_CHECKING:
    from sandyard.confinement.footing import Footing
    from sandyard.policy import Policy

__all__ = ["check_narrower", "check_rung", "moved_policy"]


def moved_policy(policy: Policy, inside: str, outside: str) -> Policy:
    """A policy for a workspace that is known inside under another path than its own.

    What the policy says of paths in the workspace, it says of the paths that commands know.

    Args:
        policy: the session's.
        inside: what commands know the workspace as.
        outside: where it is on the host.
    """
    if inside == outside:
        return policy

    def moved(path: str) -> str:
        return outside + path[len(inside) :] if path.startswith(f"{inside}/") else path

    reads, writes, deny = (
        tuple(map(moved, paths)) for paths in (policy.reads, policy.writes, policy.deny)
    )
    return replace(policy, reads=reads, writes=writes, deny=deny)


def check_rung(footing: Footing) -> None:
    """Refuse a workspace that has another path inside where there are no mounts to give it one.

    Raises:
        ConfinementUnavailableError: the rung has none.
    """
    if footing.bare:
        raise ConfinementUnavailableError(
            "a fork can't be known to commands under its parent's path",
            dimension="write",
            cause_text=f"without mounts a directory has its own path alone, and {footing.cause}",
            fix=f"{footing.fix}; or fork with keep_path=False, which breaks absolute links and programs "
            "of virtual environments",
        )


def check_narrower(parent: Policy, given: Policy) -> None:
    """Refuse a policy that lets a fork do what its parent may not.

    Raises:
        PolicyError: it does, in the field that is named.
    """
    writes = parent.writes
    allowed = {
        "reads": _are_within(given.reads, (*parent.reads, *writes)),
        "writes": _are_within(given.writes, writes),
        "deny": _are_within(parent.deny, given.deny),
        "protect": {*parent.protect} <= {*given.protect},
        "inherit": {*given.inherit} <= {*parent.inherit},
        "network": given.network in {"none", parent.network},
        "toolchains": parent.toolchains or not given.toolchains,
        "home": given.home == parent.home,
        "syscalls": ("ptrace" in parent.syscalls or "ptrace" not in given.syscalls)
        and ("no-unix-sockets" in given.syscalls or "no-unix-sockets" not in parent.syscalls),
        "devices": {*given.devices} <= {*parent.devices},
        "require": {*parent.require} <= {*given.require},
        "accept": {*given.accept} <= {*parent.accept},
        "limits": _are_lower(given.limits, parent.limits),
        "unconfined": parent.unconfined or not given.unconfined,
    }
    for field, narrower in allowed.items():
        if not narrower:
            raise PolicyError(
                f"a fork may do no more than its parent, and {field} of the policy allows more; to give "
                "a copy of the files another policy, fork what is saved of them: the session's state "
                "after its end, or a snapshot",
                field=field,
                value=getattr(given, field),
            )


def _are_within(paths: tuple[str, ...], trees: tuple[str, ...]) -> bool:
    return all(any(is_within(path, tree) for tree in trees) for path in paths)


def _are_lower(given: ResourceLimits, parent: ResourceLimits) -> bool:
    """Whether no limit is higher, or missing where the parent has one."""
    for field in fields(ResourceLimits):
        own, most = getattr(given, field.name), getattr(parent, field.name)
        if most is not None and (own is None or own > most):
            return False
    return True
