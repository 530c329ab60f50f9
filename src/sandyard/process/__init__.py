"""The process room: owns pids, pipes and the first process of each sandbox.

It carries out a ``LaunchPlan`` and a ``Spawn`` without knowing what they are for.
"""

from __future__ import annotations

from sandyard.process.cgroup import sweep_groups
from sandyard.process.commands import CommandCall, Commands
from sandyard.process.init import InitProcess
from sandyard.process.pipes import StdinSource
from sandyard.process.quota import WorkspaceQuota
from sandyard.process.stream import CommandStream, OutputChunk
from sandyard.process.watch import LimitWatch

__all__ = [
    "CommandCall",
    "CommandStream",
    "Commands",
    "InitProcess",
    "LimitWatch",
    "OutputChunk",
    "StdinSource",
    "WorkspaceQuota",
    "sweep_groups",
]
