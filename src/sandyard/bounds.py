"""The limits of one session: found out at its start, watched while its commands run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandyard.confinement import LimitsPlan, plan_limits, wants_cgroups
from sandyard.platform import cgroup_facts
from sandyard.process import InitProcess, LimitWatch, WorkspaceQuota, sweep_groups

if TYPE_CHECKING:
    from sandyard.platform import HostFacts
    from sandyard.resources import EnforcedLimit, ResourceLimits
    from sandyard.workspace import Workspace

__all__ = ["SessionLimits"]


class SessionLimits:
    """The limits of one session, and what holds them.

    Attributes:
        asked: what the policy says.
        report: each limit that there is, and what holds it, how well; empty until the session
            was started once.
    """

    def __init__(self, asked: ResourceLimits) -> None:
        """Take a policy's limits."""
        self.asked = asked
        self.report: tuple[EnforcedLimit, ...] = ()
        self._quota: WorkspaceQuota | None = None

    def plan(self, facts: HostFacts, *, several: bool = False) -> LimitsPlan:
        """Find out what holds the limits on this host (it blocks).

        Args:
            facts: the host.
            several: whether the session has several users.

        Raises:
            ConfinementUnavailableError: one of them can't be enforced at all.
        """
        groups = cgroup_facts(tried=False)
        if wants_cgroups(self.asked, groups, several=several):
            groups = cgroup_facts(tried=True)
        sweep_groups(groups.directories)
        planned = plan_limits(self.asked, facts, groups, several=several)
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
