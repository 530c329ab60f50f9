"""What names and targets of links in archives may be; all of it pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import ArchiveError
from sandyard.limits import ARCHIVE_LINK_BYTES, PATH_COMPONENT_BYTES, SYMLINK_HOPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.archive.bounds import SandboxArchiveLimits

__all__ = ["NameRules", "Path", "check_links", "check_target", "leaves"]

Path = tuple[bytes, ...]
"""A path in an archive, name by name; none is empty, ``.`` or ``..``. ``()`` is its root."""

_DRIVE: Final = re.compile(rb"[A-Za-z]:")
_ODD: Final = frozenset({b"", b".", b".."})


class NameRules:
    """Which names an archive may use.

    Args:
        limits: how long and how deep they may be.
        portable: True refuses what other systems read as a path of their own: backslashes and
            letters of drives.
    """

    def __init__(self, limits: SandboxArchiveLimits, *, portable: bool) -> None:
        self._longest = limits.max_path_bytes
        self._deepest = limits.max_depth
        self._portable = portable

    def path_of(self, name: bytes) -> Path:
        """Take a member's name apart.

        Raises:
            ArchiveError: it may not be used.
        """
        problem = self._problem(name)
        if problem:
            raise ArchiveError(problem, member=name)
        names = tuple(part for part in name.split(b"/") if part not in _ODD)
        if any(len(part) > PATH_COMPONENT_BYTES for part in names):
            raise ArchiveError("name is too long", member=name)
        if self._deepest is not None and len(names) > self._deepest:
            raise ArchiveError(
                "path depth exceeds limit",
                member=name,
                knob="max_depth",
                limit=self._deepest,
                actual=len(names),
            )
        return names

    def _problem(self, name: bytes) -> str:
        if b"\0" in name:
            return "name has a NUL"
        if name.startswith(b"/"):
            return "absolute path"
        if b".." in name and b".." in name.split(b"/"):
            return "parent traversal"
        if self._portable and b"\\" in name:
            return "windows path separator"
        if self._portable and _DRIVE.match(name):
            return "windows drive path"
        if self._longest is not None and len(name) > self._longest:
            return "path is too long"
        return ""

    def check_last(self, name: bytes, last: bytes) -> None:
        """Refuse the name of a member that stands beside one whose path was taken apart.

        Args:
            name: all of it.
            last: what comes after its last slash; neither empty nor made of dots.
        """
        if len(last) > PATH_COMPONENT_BYTES or b"\0" in last or b"\\" in last:
            self.path_of(name)
        if self._longest is not None and len(name) > self._longest:
            raise ArchiveError("path is too long", member=name)


def check_target(name: bytes, target: bytes, *, inside: bool) -> None:
    """Refuse what can't be, or may not be, the target of a symlink.

    Args:
        name: the symlink's own, for the error.
        target: where it points.
        inside: True refuses absolute targets.

    Raises:
        ArchiveError: it is refused.
    """
    problem = ""
    if not target or b"\0" in target or len(target) > ARCHIVE_LINK_BYTES:
        problem = "symlink target is empty, too long, or has a NUL"
    elif inside and target.startswith(b"/"):
        problem = f"absolute symlink target not allowed: {_shown(target)}"
    elif inside and (b"\\" in target or _DRIVE.match(target)):
        problem = f"symlink target is a windows path: {_shown(target)}"
    if problem:
        raise ArchiveError(problem, member=name)


def check_links(links: Mapping[Path, bytes]) -> None:
    """Refuse symlinks of which one leads out of the archive, alone or together with others.

    Args:
        links: every symlink of the archive, and where it points.

    Raises:
        ArchiveError: one leads out.
    """
    for path in links:
        if leaves(path, links):
            raise ArchiveError(
                f"symlink target escapes archive root: {_shown(links[path])}",
                member=b"/".join(path),
            )


def leaves(path: Path, links: Mapping[Path, bytes]) -> bool:
    """Tell whether a symlink leads out of a tree, followed as the kernel follows it.

    What is no symlink of the tree is taken for a directory. One that leads through more symlinks
    than the kernel follows leads nowhere.
    """
    if links[path].startswith(b"/"):
        return True
    here = list(path[:-1])
    todo = links[path].split(b"/")[::-1]
    hops = 0
    while todo:
        name = todo.pop()
        if name == b"..":
            if not here:
                return True
            here.pop()
            continue
        if name in {b"", b"."}:
            continue
        here.append(name)
        target = links.get(tuple(here))
        if target is None:
            continue
        hops += 1
        if hops > SYMLINK_HOPS:
            return False
        if target.startswith(b"/"):
            return True
        here.pop()
        todo.extend(target.split(b"/")[::-1])
    return False


def _shown(target: bytes) -> str:
    return repr(target.decode("utf-8", "backslashreplace"))
