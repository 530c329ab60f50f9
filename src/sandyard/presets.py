"""Presets: policies and narrowings for common work, as plain values to use or to start from.

``Policy()`` is the one for everything else. Change one with ``dataclasses.replace``.

Example:
    >>> from dataclasses import replace
    >>> from sandyard import UnixLocalSandboxClient, presets
    >>> client = UnixLocalSandboxClient(policy=presets.UNTRUSTED_BUILD)
    >>> online = replace(presets.UNTRUSTED_BUILD, network="host")
"""

from __future__ import annotations

from typing import Final

from sandyard.narrowing import Narrowing
from sandyard.policy import Policy
from sandyard.resources import ResourceLimits

__all__ = ["DEBUGGING", "HOST_NETWORK", "INSPECTION", "UNCONFINED", "UNTRUSTED_BUILD"]

_GIB: Final = 1024**3

UNTRUSTED_BUILD: Final = Policy(
    limits=ResourceLimits(
        memory=4 * _GIB,
        processes=1024,
        wall_time=3600,
        file_size=8 * _GIB,
        workspace_size=32 * _GIB,
    )
)
"""Builds and tests of a repository that you don't know: the default wall, and limits, so that it
can't take the machine either: 4 GiB of memory, 1,024 processes, an hour for each command, 8 GiB for a
file and 32 GiB for the workspace. Where there are no control groups each process alone is held to the
memory."""

DEBUGGING: Final = Policy(syscalls=("ptrace",))
"""Debuggers and tracers (gdb, strace) on what runs in the session."""

HOST_NETWORK: Final = Policy(network="host")
"""The network of this machine, with all that listens on its loopback: to install packages, for work
that you trust that far."""

UNCONFINED: Final = Policy(unconfined=True, network="host", protect=())
"""No wall at all: commands do what the user they run as may do on this machine, and the rest of a session
is as ever. For a machine that is itself thrown away, and for comparing."""

INSPECTION: Final = Narrowing(writes=(), network=False, unix_sockets=False)
"""One command that only looks: it changes nothing of the workspace and of what is granted, and speaks
to nobody. For ``exec(…, narrow=presets.INSPECTION)``: linters, searches, reviews."""
