"""The limits of one session: found out at its start, watched while its commands run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandyard.confinement import LimitsPlan, plan_limits, wants_cgroups
from sandyard.platform import CgroupFacts, cgroup_facts
from sandyard.process import InitProcess, LimitWatch, WorkspaceQuota, sweep_groups

if TYPE_CHECKING:
    from sandyard.platform import HostFacts
    from sandyard.policy import Policy
    from sandyard.resources import EnforcedLimit
    from sandyard.workspace import Workspace

__all__ = ["SessionLimits"]

_ESCAPED: Final = "commands of an unconfined session can have programs of this machine start others"


def _held_in_part(limits: Iterable[EnforcedLimit]) -> Iterator[EnforcedLimit]:
    """What still holds without a wall; private directories then lie on a disk, where nothing does."""
    for limit in limits:
        if "rlimit" in limit.by and limit.strength == "enforced":
            yield replace(limit, strength="partial", why=_ESCAPED)
        elif limit.limit != "scratch_size":
            yield limit


_NO_GROUPS: Final = CgroupFacts(
    refusals=(("memory", "commands of an unconfined session could leave one"),)
)


class SessionLimits:
    """The limits of one session, and what holds them.

    Attributes:
        asked: what the policy says.
        report: each limit that there is, and what holds it, how well; empty until the session
            was started once.
    """

    def __init__(self, policy: Policy) -> None:
        """Take a policy's limits."""
        self.asked = policy.limits
        self.report: tuple[EnforcedLimit, ...] = ()
        self._quota: WorkspaceQuota | None = None
        self._unconfined = policy.unconfined

    def plan(self, facts: HostFacts, *, several: bool = False) -> LimitsPlan:
        """Find out what holds the limits on this host (it blocks).

        Args:
            facts: the host.
            several: whether the session has several users.

        Raises:
            ConfinementUnavailableError: one of them can't be enforced at all.
        """
        groups = cgroup_facts(tried=False)
        if not self._unconfined and wants_cgroups(self.asked, groups, several=several):
            groups = cgroup_facts(tried=True)
        sweep_groups(groups.directories)
        if self._unconfined:
            groups = _NO_GROUPS
        planned = plan_limits(self.asked, facts, groups, several=several)
        if self._unconfined:
            planned = replace(planned, enforced=tuple(_held_in_part(planned.enforced)))
        self.report = planned.enforced
        return planned

    def watch(self, init: InitProcess, workspace: Workspace) -> LimitWatch | None:
        """What is to be looked at around each command of a sandbox; None where nothing is."""
        asked = self.asked
        if asked.workspace_size is not None:
            self._quota = WorkspaceQuota(asked.workspace_size, workspace.measure)
        quiet = asked.cpu_time is None and asked.file_size is None
        if quiet and init.group is None and self._quota is None:
            return None
        return LimitWatch(self.report, init.group, self._quota)

    async def close(self) -> None:
        """Stop looking; the sandbox's own owner removes what held the limits."""
        quota, self._quota = self._quota, None
        if quota is not None:
            await quota.close()
