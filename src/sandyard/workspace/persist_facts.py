"""What is kept of a file besides its bytes: attributes, holes; and why an entry is left out."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from sandyard.limits import ARCHIVE_EXTENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.archive.model import Extent
    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally

__all__ = ["REASONS", "SPECIAL", "attributes_of", "extents_of", "has_holes", "owner_of"]

_USER: Final = "user."
_BY_THE_SYSTEM: Final = frozenset({"security.selinux", "security.SMACK64"})
"""Labels that the system gives to every file by itself; they are no loss."""

_HELD: Final = 512
"""``st_blocks`` counts these, whatever the file system's own blocks are."""

SPECIAL: Final = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
"""What is never saved, by its kind; all else that is neither file, directory nor symlink is a device."""

REASONS: Final = {
    errno.EBUSY: "mount",
    errno.ENOENT: "vanished",
    errno.ENOTDIR: "vanished",
    errno.ELOOP: "vanished",
    errno.EINVAL: "vanished",
    errno.EISDIR: "vanished",
    errno.ESTALE: "vanished",
    errno.EACCES: "unreadable",
    errno.EPERM: "unreadable",
    errno.EAGAIN: "unreadable",
    errno.EIO: "unreadable",
}
"""Why an entry is left out, by what the kernel says of it. Anything else is no entry's fault."""


def attributes_of(opened: int, path: Path, tally: Tally) -> dict[bytes, bytes] | None:
    """The extended attributes that are kept of an open file; what is not is noted."""
    try:
        names = os.listxattr(opened)
    except OSError:  # a file system without
        return None
    if not names:
        return None
    kept: dict[bytes, bytes] = {}
    for name in names:
        try:
            if name.startswith(_USER):
                kept[os.fsencode(name)] = os.getxattr(opened, name)
                continue
        except OSError:  # it was removed meanwhile, or may not be read
            pass
        if name not in _BY_THE_SYSTEM:
            tally.note("dropped", b"/".join(path), f"xattr {name}")
    return kept or None


def owner_of(facts: os.stat_result, names: Mapping[int, str]) -> bytes:
    """Whose something is, by the names that ids have inside; nothing if it is the workspace's own."""
    if facts.st_uid not in names and facts.st_gid not in names:
        return b""
    return f"{names.get(facts.st_uid, '')}:{names.get(facts.st_gid, '')}".encode()


def has_holes(facts: os.stat_result) -> bool:
    """Whether a file takes less of the disk than it is long."""
    return facts.st_blocks * _HELD < facts.st_size


def extents_of(opened: int, size: int) -> list[Extent]:
    """Where a file has data; beyond so many pieces, the rest counts as one."""
    extents: list[Extent] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(opened, at, os.SEEK_DATA)
            at = os.lseek(opened, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            return [(0, size)]
        if start >= size:
            break
        if len(extents) == ARCHIVE_EXTENTS - 1:
            at = size
        at = min(at, size)
        extents.append((start, at - start))
    return extents
