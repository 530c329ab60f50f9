"""What to change where a start is refused, in the words that the doctor uses too."""

from __future__ import annotations

from typing import Final

__all__ = ["ID_MAPS", "KERNEL", "LIMITS", "REINSTALL"]

ID_MAPS: Final = (
    "mount the workspace from a file system that supports idmapped mounts (ext4, xfs, btrfs, "
    "tmpfs), or run as the user who owns it"
)
KERNEL: Final = "use Linux 5.12 or later, and in a container allow the mount system calls"
REINSTALL: Final = (
    "reinstall sandyard so that its native program is built and executable (and not on a file "
    "system mounted noexec)"
)
LIMITS: Final = "raise the limits on processes and open files"
