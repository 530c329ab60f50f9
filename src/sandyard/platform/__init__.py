"""The platform room: the only place that asks which Unix this is and what it can do.

Everything it finds out is returned as frozen values; nothing is changed.
"""

from __future__ import annotations

from sandyard.platform.cgroups import NO_CGROUPS, CgroupFacts, CgroupParent, cgroup_facts
from sandyard.platform.devices import DeviceNode, device_option, resolve_devices
from sandyard.platform.facts import (
    Grant,
    HostEntry,
    HostFacts,
    Toolchains,
    is_beneath,
    is_within,
)
from sandyard.platform.grants import resolve_denied, resolve_grants
from sandyard.platform.host import host_facts
from sandyard.platform.state_home import state_directory

__all__ = [
    "NO_CGROUPS",
    "CgroupFacts",
    "CgroupParent",
    "DeviceNode",
    "Grant",
    "HostEntry",
    "HostFacts",
    "Toolchains",
    "cgroup_facts",
    "device_option",
    "host_facts",
    "is_beneath",
    "is_within",
    "resolve_denied",
    "resolve_devices",
    "resolve_grants",
    "state_directory",
]
