"""The numbers of the confinement room, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

from sandyard.plan import ResourceLimit

__all__ = [
    "AGENT_GID",
    "AGENT_UID",
    "HOME_SHARE",
    "INODE_BYTES",
    "MOST_INODES",
    "RESOURCE_LIMITS",
    "RUN_SHARE",
    "SHARED_MEMORY_SHARE",
    "SMALLEST_TMPFS",
    "TMPFS_GRANULE",
    "TMP_SHARE",
    "VAR_TMP_SHARE",
]

AGENT_UID: Final = 1000
"""The user that commands run as: what distributions give their first person, so that programs treat
it as one. Never 0: many programs behave differently as root, or refuse."""

AGENT_GID: Final = 1000
"""The group of that user."""

TMP_SHARE: Final = 4
"""A quarter of memory may be held by /tmp. A tmpfs counts as memory, and half of it, the kernel's
default, in more than one place at once would be all of it."""

HOME_SHARE: Final = 4
"""A quarter by HOME: caches of package managers go there."""

SHARED_MEMORY_SHARE: Final = 4
"""A quarter by /dev/shm: browsers, databases and numeric libraries share buffers there."""

VAR_TMP_SHARE: Final = 8
"""An eighth by /var/tmp, which is used seldom, for large files."""

RUN_SHARE: Final = 128
"""A little by /run: sockets and pid files."""

SMALLEST_TMPFS: Final = 16 * 1024**2
"""Bytes that each may hold on however small a machine: less breaks ordinary builds."""

TMPFS_GRANULE: Final = 1024**2
"""Sizes are rounded down to this, so that a plan reads well; the kernel rounds to pages."""

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
