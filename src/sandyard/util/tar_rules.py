"""What members of a tar archive may be, for who unpacks it with Python's own ``tarfile``; all pure."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from sandyard.archive.naming import leaves
from sandyard.errors import UnsafeTarMemberError

__all__ = [
    "safe_tar_member_rel_path",
    "should_skip_tar_member",
    "validate_tar_bytes",
    "validate_tarfile",
]

_DRIVE: Final = re.compile(r"[A-Za-z]:|//[^/]+/[^/]+|\\\\")
_Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rules:
    """What an archive may not have, beside what none may; ``validate_tarfile`` says what they mean."""

    closed: frozenset[_Parts]
    no_links: frozenset[_Parts]
    root_name: str | None
    links_out: bool


def safe_tar_member_rel_path(
    member: tarfile.TarInfo, *, allow_symlinks: bool = False
) -> Path | None:
    """Where a member belongs in the directory that it is unpacked into.

    Args:
        member: what the archive says of it.
        allow_symlinks: False refuses symlinks.

    Returns:
        The path, relative; None for the directory itself.

    Raises:
        UnsafeTarMemberError: the member is refused: for its name, or because it is neither a directory
            nor a file, nor a symlink that is allowed.
    """
    problem = _problem(member, allow_symlinks=allow_symlinks)
    if problem is not None:
        raise UnsafeTarMemberError(member=member.name, reason=problem)
    parts = _parts(member.name)
    return Path(*parts) if parts else None


def should_skip_tar_member(
    member_name: str, *, skip_rel_paths: Iterable[str | PurePath], root_name: str | None
) -> bool:
    """Whether a member is, or lies beneath, one of some paths.

    Args:
        member_name: as the archive has it.
        skip_rel_paths: the paths, relative to the directory.
        root_name: a first name that archives made of the directory's parent have; it is seen
            through.
    """
    names = _names(member_name, root_name)
    skipped = [_parts(path) for path in skip_rel_paths]
    return any(_beneath(name, path) for name in names for path in skipped)


def validate_tarfile(
    tar: tarfile.TarFile,
    *,
    reject_rel_paths: Iterable[str | PurePath] = (),
    reject_symlink_rel_paths: Iterable[str | PurePath] = (),
    skip_rel_paths: Iterable[str | PurePath] = (),
    root_name: str | None = None,
    allow_symlinks: bool = True,
    allow_external_symlink_targets: bool = True,
) -> None:
    """Refuse an archive of which a member would be unpacked elsewhere, or in the way of another.

    ``session.extract`` and ``session.hydrate_workspace`` need none of this: they check what they
    unpack, and more of it. It is for code that hands an archive to ``tarfile`` or to another sandbox.

    Args:
        tar: the archive, opened for reading.
        reject_rel_paths: paths that no member may be, lie beneath, or take the place of.
        reject_symlink_rel_paths: paths that no symlink may have.
        skip_rel_paths: members there are not looked at.
        root_name: a first name of members that is seen through, for the three above.
        allow_symlinks: False refuses symlinks.
        allow_external_symlink_targets: False refuses symlinks that lead out of the archive, by
            themselves or by way of others of it.

    Raises:
        UnsafeTarMemberError: it is refused; ``member`` and ``reason`` say why.
    """
    skipped = tuple(skip_rel_paths)
    rules = _Rules(
        closed=frozenset(_parts(path) for path in reject_rel_paths),
        no_links=frozenset(_parts(path) for path in reject_symlink_rel_paths),
        root_name=root_name,
        links_out=allow_external_symlink_targets,
    )
    members: dict[_Parts, tarfile.TarInfo] = {}
    for member in tar.getmembers():
        if should_skip_tar_member(member.name, skip_rel_paths=skipped, root_name=root_name):
            continue
        path = safe_tar_member_rel_path(member, allow_symlinks=allow_symlinks)
        if path is None:
            continue
        problem = _refusal(member, path.parts, rules, members.get(path.parts))
        if problem is not None:
            raise UnsafeTarMemberError(member=member.name, reason=problem)
        members[path.parts] = member
    _check_parents(members)
    if not allow_external_symlink_targets:
        _check_links(members)


def validate_tar_bytes(
    raw: bytes,
    *,
    reject_rel_paths: Iterable[str | PurePath] = (),
    reject_symlink_rel_paths: Iterable[str | PurePath] = (),
    skip_rel_paths: Iterable[str | PurePath] = (),
    root_name: str | None = None,
    allow_external_symlink_targets: bool = True,
) -> None:
    """As ``validate_tarfile``, of the bytes of an archive, compressed or not.

    Raises:
        UnsafeTarMemberError: it is refused, or the bytes are no archive that can be read.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as tar:
            validate_tarfile(
                tar,
                reject_rel_paths=reject_rel_paths,
                reject_symlink_rel_paths=reject_symlink_rel_paths,
                skip_rel_paths=skip_rel_paths,
                root_name=root_name,
                allow_external_symlink_targets=allow_external_symlink_targets,
            )
    except UnsafeTarMemberError:
        raise
    except _unreadable() as error:
        raise UnsafeTarMemberError(
            member="<tar>", reason="invalid tar stream", cause=error
        ) from error


def _unreadable() -> tuple[type[Exception], ...]:
    """What is raised of a stream that is corrupt or cut short."""
    general = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error)
    # Not every Python has it, and where it was needed tarfile has loaded it.
    lzma = sys.modules.get("lzma")
    return general if lzma is None else (*general, lzma.LZMAError)


def _problem(member: tarfile.TarInfo, *, allow_symlinks: bool) -> str | None:
    """What no archive may have."""
    name = member.name
    if not _parts(name) and not name.startswith("/"):
        return _root_problem(member)
    if _DRIVE.match(name):
        return "windows drive path"
    if "\\" in name:
        return "windows path separator"
    if name.startswith("/"):
        return "absolute path"
    if "\0" in name:
        return "name has a NUL"
    if ".." in name.split("/"):
        return "parent traversal"
    return _kind_problem(member, allow_symlinks=allow_symlinks)


def _root_problem(member: tarfile.TarInfo) -> str | None:
    if member.isdir():
        return None
    if member.issym():
        return "archive root symlink"
    return "archive root hardlink" if member.islnk() else "archive root member must be directory"


def _kind_problem(member: tarfile.TarInfo, *, allow_symlinks: bool) -> str | None:
    if member.islnk():
        return "hardlink member not allowed"
    if member.issym():
        return None if allow_symlinks else "symlink member not allowed"
    return None if member.isdir() or member.isreg() else "unsupported member type"


def _refusal(
    member: tarfile.TarInfo, path: _Parts, rules: _Rules, before: tarfile.TarInfo | None
) -> str | None:
    """What this archive may not have."""
    for closed in rules.closed:
        for name in _names(member.name, rules.root_name):
            if _beneath(name, closed) or (not member.isdir() and _beneath(closed, name)):
                return f"archive member overlaps protected path: {'/'.join(closed)}"
    if before is not None and not (before.isdir() and member.isdir()):
        return f"duplicate archive path: {'/'.join(path)}"
    return _link_problem(member, path, rules) if member.issym() else None


def _link_problem(member: tarfile.TarInfo, path: _Parts, rules: _Rules) -> str | None:
    if path in rules.no_links:
        return f"symlink member not allowed: {'/'.join(path)}"
    if not rules.links_out and member.linkname.startswith("/"):
        return f"absolute symlink target not allowed: {member.linkname}"
    return None


def _check_parents(members: dict[_Parts, tarfile.TarInfo]) -> None:
    """Refuse what lies beneath a member that is no directory, wherever in the archive that stands."""
    for path, member in members.items():
        for length in range(len(path) - 1, 0, -1):
            parent = members.get(path[:length])
            if parent is None or parent.isdir():
                continue
            what = "symlink" if parent.issym() else "non-directory"
            raise UnsafeTarMemberError(
                member=member.name,
                reason=f"archive path descends through {what}: {'/'.join(path[:length])}",
            )


def _check_links(members: dict[_Parts, tarfile.TarInfo]) -> None:
    """Refuse a symlink that leads out, followed as the kernel follows it."""
    links = {
        tuple(map(os.fsencode, path)): os.fsencode(member.linkname)
        for path, member in members.items()
        if member.issym()
    }
    for path in links:
        if leaves(path, links):
            member = members[tuple(map(os.fsdecode, path))]
            raise UnsafeTarMemberError(
                member=member.name,
                reason=f"symlink target escapes archive root: {member.linkname}",
            )


def _parts(path: str | PurePath) -> _Parts:
    """The names of a path, without those that say nothing."""
    text = path.as_posix() if isinstance(path, PurePath) else path
    return tuple(name for name in text.split("/") if name not in {"", "."})


def _names(member_name: str, root_name: str | None) -> list[_Parts]:
    """A member's path, and the one that it has within the root."""
    parts = _parts(member_name)
    return [parts, parts[1:]] if parts and parts[0] == root_name else [parts]


def _beneath(path: _Parts, top: _Parts) -> bool:
    return path[: len(top)] == top
