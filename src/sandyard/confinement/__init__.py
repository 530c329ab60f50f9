"""The confinement room: it owns nothing and does nothing, and says what a sandbox is born with.

Everything here is a pure function of values: a policy, the facts of a host and a workspace become a
``LaunchPlan``, or a typed refusal. What has an effect is elsewhere.
"""

from __future__ import annotations

from sandyard.confinement.environment import command_environment
from sandyard.confinement.etc import HOME, HOSTNAME, USER
from sandyard.confinement.launch import plan_session
from sandyard.confinement.limiting import LimitsPlan, plan_limits, wants_cgroups
from sandyard.confinement.placement import WorkspaceRoot
from sandyard.confinement.sizes import AGENT_GID, AGENT_UID

__all__ = [
    "AGENT_GID",
    "AGENT_UID",
    "HOME",
    "HOSTNAME",
    "USER",
    "LimitsPlan",
    "WorkspaceRoot",
    "command_environment",
    "plan_limits",
    "plan_session",
    "wants_cgroups",
]
