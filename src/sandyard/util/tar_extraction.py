"""Owns the unpacking of a tar archive that Python's own ``tarfile`` reads, into a directory."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sandyard.errors import UnsafeTarMemberError
from sandyard.util.tar_rules import safe_tar_member_rel_path, validate_tarfile

__all__ = ["safe_extract_tarfile"]

_PRIVATE: Final = 0o600
_SHARED: Final = 0o755
_EXECUTE: Final = 0o111
_NO_DIRECTORY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
"""What opening says of a link or a file where a directory is wanted (ELOOP on macOS)."""


def safe_extract_tarfile(
    tar: tarfile.TarFile, *, root: Path, allow_external_symlink_targets: bool = True
) -> None:
    """Unpack an archive beneath a directory of this machine's, and nowhere else.

    The archive is checked first, as ``validate_tarfile`` does it. Each member is made by descriptor
    from the directory down, no symlink is followed, and symlinks are made last; so nothing is written
    elsewhere, whatever stands in the directory and whoever changes it meanwhile. Files replace files and
    symlinks of the same name. They keep permission bits, but for those of others to write and
    special ones. It is not atomic; ``session.extract`` and ``session.hydrate_workspace`` are. Not on Windows.

    Args:
        tar: the archive, opened for reading, of a file that can be sought in.
        root: the directory; it is made if it is missing.
        allow_external_symlink_targets: False refuses symlinks that lead out of the archive.

    Raises:
        UnsafeTarMemberError: a member is refused, before anything is written; or something in the
            directory stands in its way.
        OSError: the machine can't write it.
    """
    validate_tarfile(tar, allow_external_symlink_targets=allow_external_symlink_targets)
    root.mkdir(parents=True, exist_ok=True)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for member in sorted(tar.getmembers(), key=tarfile.TarInfo.issym):
            path = safe_tar_member_rel_path(member, allow_symlinks=True)
            if path is not None:
                _make(tar, member, top, path.parts)
    finally:
        os.close(top)


def _make(tar: tarfile.TarFile, member: tarfile.TarInfo, top: int, parts: tuple[str, ...]) -> None:
    """Make one member."""
    *parents, name = parts
    with _parent(member, top, parents) as parent:
        if member.isdir():
            _make_directory(parent, name)
            return
        _clear(member, parent, name, "/".join(parts))
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        else:
            _make_file(tar, member, parent, name)


@contextmanager
def _parent(member: tarfile.TarInfo, top: int, parents: list[str]) -> Iterator[int]:
    """A descriptor of the directory that a member belongs into; missing ones are made."""
    here = _open_directory(top, ".")
    try:
        for name in parents:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
            try:
                inner = _open_directory(here, name)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY:
                    raise
                raise UnsafeTarMemberError(
                    member=member.name, reason=_in_the_way(here, name), cause=error
                ) from error
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def _open_directory(parent: int, name: str) -> int:
    return os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _in_the_way(parent: int, name: str) -> str:
    facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return f"{'symlink' if stat.S_ISLNK(facts.st_mode) else 'non-directory'} in parent path"


def _make_directory(parent: int, name: str) -> None:
    """Make one, in the place of a file or link of that name; one that is there stays as it is."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=parent)
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)


def _clear(member: tarfile.TarInfo, parent: int, name: str, path: str) -> None:
    """Remove a file or link where a member belongs."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise UnsafeTarMemberError(
                member=member.name, reason=f"destination directory already exists: {path}"
            )
        os.unlink(name, dir_fd=parent)


def _make_file(tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
    content = tar.extractfile(member)
    if content is None:  # tarfile's own types say so; a regular member always has one
        raise UnsafeTarMemberError(member=member.name, reason="missing file payload")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with content, os.fdopen(os.open(name, flags, _PRIVATE, dir_fd=parent), "wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        # Last, so that a file of which a part is missing is nobody else's to read or run.
        os.fchmod(file.fileno(), _mode(member.mode))


def _mode(archived: int) -> int:
    """The permissions that a file gets: it is run only by its owner's leave, and never unreadable."""
    kept = archived & _SHARED
    if not kept & stat.S_IXUSR:
        kept &= ~_EXECUTE
    return kept | _PRIVATE
