"""The numbers of the confinement room, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

from sandyard.plan import ResourceLimit, Scratch

__all__ = [
    "AGENT_GID",
    "AGENT_UID",
    "RESOURCE_LIMITS",
    "scratch_for",
]

AGENT_UID: Final = 1000
"""The user that commands run as: what distributions give their first person, so that programs treat
it as one. Never 0: many programs behave differently as root, or refuse."""

AGENT_GID: Final = 1000
"""The group of that user."""

SCRATCH_SHARE: Final = 2
"""Half of memory may be held by a session's private directories together: /tmp, HOME, /dev/shm and
the others. It is what the kernel gives a tmpfs by default."""

SMALLEST_SCRATCH: Final = 64 * 1024**2
"""Bytes that they may hold on however small a machine: less breaks ordinary builds."""

SCRATCH_GRANULE: Final = 1024**2
"""The size is rounded down to this, so that a plan reads well; the kernel rounds to pages."""

INODE_BYTES: Final = 16 * 1024
"""One file is allowed per this many bytes of a tmpfs, as ext4 has it. An empty file costs the
kernel about 1 KiB that the size does not count."""

MOST_INODES: Final = 1024 * 1024
"""Files in one tmpfs, at most: about 1 GiB of uncounted memory if all are empty."""

# Numbers of resources (asm-generic/resource.h).
_RLIMIT_CORE: Final = 4
_RLIMIT_NPROC: Final = 6
_RLIMIT_NOFILE: Final = 7

RESOURCE_LIMITS: Final = (
    # core(5): 1 rather than 0, since a core_pattern that is a pipe runs its handler, as root of the
    # host, for 0 too; 1 is the value with which the kernel refuses it.
    ResourceLimit(_RLIMIT_CORE, 1),
    # Counted per user namespace (Linux 5.14): parallel builds fit, a fork bomb does not. The first
    # process and its helpers count too.
    ResourceLimit(_RLIMIT_NPROC, 4096),
    # Four times the usual soft limit. A million, as some hosts have, makes programs that close all
    # descriptors before exec take seconds.
    ResourceLimit(_RLIMIT_NOFILE, 4096),
)
"""What every process inside is limited to."""


def scratch_for(memory_bytes: int) -> Scratch:
    """What a session's private directories may hold on a machine with this much memory."""
    share = memory_bytes // SCRATCH_SHARE // SCRATCH_GRANULE * SCRATCH_GRANULE
    size = max(share, SMALLEST_SCRATCH)
    return Scratch(size=size, inodes=min(size // INODE_BYTES, MOST_INODES))
