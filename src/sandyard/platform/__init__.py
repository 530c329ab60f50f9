"""The platform room: the only place that asks which Unix this is and what it can do.

Everything it finds out is returned as frozen values; nothing is changed.
"""

from __future__ import annotations

from sandyard.platform.facts import (
    Grant,
    HostEntry,
    HostFacts,
    Toolchains,
    is_beneath,
    is_within,
)
from sandyard.platform.grants import resolve_grants
from sandyard.platform.host import host_facts

__all__ = [
    "Grant",
    "HostEntry",
    "HostFacts",
    "Toolchains",
    "host_facts",
    "is_beneath",
    "is_within",
    "resolve_grants",
]
