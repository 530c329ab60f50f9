"""The numbers of the confinement room, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

from sandyard.plan import Scratch

__all__ = [
    "AGENT_GID",
    "AGENT_UID",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "scratch_for",
    "scratch_of",
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

SMALLEST_INODES: Final = 4_096
"""Files in one tmpfs, at least: the root's own directories and mount points are some hundred."""

# Numbers of resources (asm-generic/resource.h).
RLIMIT_CPU: Final = 0
RLIMIT_FSIZE: Final = 1
RLIMIT_DATA: Final = 2
RLIMIT_CORE: Final = 4
RLIMIT_NPROC: Final = 6
RLIMIT_NOFILE: Final = 7


def scratch_for(memory_bytes: int) -> Scratch:
    """What a session's private directories may hold on a machine with this much memory."""
    share = memory_bytes // SCRATCH_SHARE // SCRATCH_GRANULE * SCRATCH_GRANULE
    return scratch_of(max(share, SMALLEST_SCRATCH))


def scratch_of(size: int) -> Scratch:
    """Private directories of this size together."""
    inodes = min(max(size // INODE_BYTES, SMALLEST_INODES), MOST_INODES)
    return Scratch(size=size, inodes=inodes)
