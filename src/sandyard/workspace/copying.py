"""Exact copies of the host's files and directories into a workspace, by descriptor on both sides."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import LocalDirReadError, LocalFileReadError, shown
from sandyard.limits import COPY_CHUNK_BYTES, KERNEL_COPY_BYTES
from sandyard.workspace.kernel import PATH_ONLY, open_without_links, reopen_file
from sandyard.workspace.persist_facts import extents_of, has_holes
from sandyard.workspace.placing import (
    Look,
    Target,
    put_file,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from sandyard.workspace.root import Owner

__all__ = [
    "OWN",
    "PERMISSIONS",
    "Abandoned",
    "Copied",
    "Digest",
    "MaterializationResult",
    "Materialized",
    "MaterializedFile",
    "Origin",
    "Skipped",
    "copy_file",
    "fill_file",
    "open_source",
    "opened_file",
]

PERMISSIONS: Final = 0o777
"""Set-user-id, set-group-id and sticky bits are not copied: the copy has another owner."""

OWN: Final = "the workspace itself"
"""Why what is copied into is left out of a copy of what is around it."""

_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FILE: Final = frozenset({errno.EISDIR, errno.EINVAL})
_NO_LONGER: Final = _NO_FILE | {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
"""What opening says of an entry that is something else by now."""

_NO_KERNEL_COPY: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
)
"""What copy_file_range(2) says when these two files need the plain way."""


class Skipped(NamedTuple):
    """Something that was not copied.

    Attributes:
        path: where it would have been, beneath the root.
        reason: what it is: ``fifo``, ``socket`` or ``device``; or why it was left out: ``excluded``,
            ``not_included``, ``gitignore``, ``link_leads_out``, ``the workspace itself``.
    """

    path: str
    reason: str


class MaterializedFile(NamedTuple):
    """A file that was copied from the host.

    Attributes:
        path: where it stands, beneath the root.
        sha256: of what was written, in hexadecimal digits.
    """

    path: str
    sha256: str


class Digest:
    """The SHA-256 of a file, as it is written."""

    __slots__ = ("_sum",)

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Take in what is written next."""
        self._sum.update(piece)

    def add_whole(self, opened: int, stopped: Event | None) -> None:
        """Take in all that a file has, where the kernel has written it.

        Raises:
            OSError: it can't be read.
            Abandoned: nobody wants it any more.
        """
        at = 0
        while piece := os.pread(opened, COPY_CHUNK_BYTES, at):
            self.add(piece)
            at += len(piece)
            _go_on(stopped)

    def __str__(self) -> str:
        """In hexadecimal digits."""
        return self._sum.hexdigest()


class Abandoned(Exception):  # noqa: N818  # no error: who asked for it has gone
    """The caller was cancelled, so the work is not gone on with."""


@dataclass(slots=True)
class Copied:
    """What a copy did.

    Attributes:
        written: files and symlinks that were written, beneath the root.
        skipped: what was left out.
        size: bytes of the files.
        tell: hears of each, with its path and its bytes (default: nobody does).
        sums: whether checksums of files are wanted.
        files: those that have one.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    size: int = 0
    tell: Callable[[str, int], None] | None = None
    sums: bool = False
    files: list[MaterializedFile] = field(default_factory=list)

    def wrote(self, path: str, size: int) -> None:
        """Note a file or symlink."""
        self.written.append(path)
        self.size += size
        if self.tell is not None:
            self.tell(path, size)

    def digest(self) -> Digest | None:
        """What takes the checksum of the next file, if it is wanted."""
        return Digest() if self.sums else None

    def sum(self, path: str, digest: object) -> None:
        """Note a checksum, if there is one."""
        if digest is not None:
            self.files.append(MaterializedFile(path, str(digest)))


@dataclass(frozen=True, slots=True)
class Materialized:
    """What applying a manifest did.

    Attributes:
        written: files and symlinks that were written, beneath the root, in the order of the
            entries.
        skipped: what was left out of copied directories, and why.
        files: those that were copied from the host, by ``LocalFile`` and ``LocalDir`` entries, with
            checksums of what was written.
    """

    written: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    files: tuple[MaterializedFile, ...] = ()


MaterializationResult = Materialized
"""The name that the OpenAI Agents SDK has for it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where sources may lie.

    Attributes:
        base: absolute directory that relative sources start at; what lies beneath it is allowed. None
            where the working directory is gone: then there are no relative sources.
        grants: further absolute paths on the host whose contents are allowed.
    """

    base: str | None
    grants: tuple[str, ...] = ()

    def located(self, src: Path, failure: type[LocalFileReadError | LocalDirReadError]) -> str:
        """Return the absolute path of a source.

        Args:
            src: as given in the manifest.
            failure: which error to raise.

        Raises:
            LocalFileReadError, LocalDirReadError: it lies outside of what is allowed.
        """
        path = posixpath.normpath(posixpath.join(self.base or "", str(src)))
        if self.base is None and not posixpath.isabs(path):
            raise failure(
                src=src,
                message=f"source {shown(str(src))} is relative, and the working directory is gone; give "
                "an absolute path, or change to a directory that exists",
                context={"reason": "no_base_dir"},
            )
        tops = self.grants if self.base is None else (self.base, *self.grants)
        if any(_is_beneath(path, top) for top in tops):
            return path
        raise failure(
            src=src,
            message=f"source {shown(str(src))} is not beneath the working directory "
            f"{'(which is gone)' if self.base is None else shown(self.base)} and no path grant covers it; add "
            f"SandboxPathGrant(path={posixpath.dirname(path)!r}, read_only=True) to the manifest",
            context={
                "reason": "outside_base_dir",
                "base_dir": self.base,
                "extra_path_grants": self.grants,
            },
        )


def _is_beneath(path: str, top: str) -> bool:
    top = top.rstrip("/")
    return path == top or path.startswith(f"{top}/")


def open_source(path: str, src: Path, failure: type[LocalFileReadError | LocalDirReadError]) -> int:
    """Open a source of the host for reading.

    Args:
        path: its absolute path; no part of it may be a symlink.
        src: as given in the manifest, for errors.
        failure: which error to raise.

    Returns:
        Its descriptor, the caller's to close.

    Raises:
        LocalFileReadError, LocalDirReadError: it is missing, of another kind, behind a symlink, or
            can't be read.
    """
    is_dir = failure is LocalDirReadError
    try:
        if is_dir:
            return open_without_links(path, _OPEN_DIRECTORY)
        return opened_file(open_without_links(path, PATH_ONLY))
    except OSError as error:
        raise _unreadable(path, src, failure, error) from error


def opened_file(handle: int) -> int:
    """Open what an O_PATH descriptor leads to, if it is a regular file, and close that."""
    try:
        return reopen_file(handle)
    finally:
        os.close(handle)


def _unreadable(
    path: str, src: Path, failure: type[LocalFileReadError | LocalDirReadError], error: OSError
) -> LocalFileReadError | LocalDirReadError:
    """Say why a source can't be opened."""
    context: dict[str, object] = {"reason": errno.errorcode.get(error.errno or 0, "").lower()}
    message = None
    link = _first_link(path) if error.errno in {errno.ELOOP, errno.ENOTDIR} else None
    if link is not None:
        context = {"reason": "symlink_not_supported", "child": link}
        message = (
            f"source {shown(str(src))} is reached through the symlink {shown(link)}, which may "
            f"change between a check and its use; give {shown(os.path.realpath(path))} instead"
        )
    elif error.errno == errno.ENOENT:
        context = {"reason": "path_not_found"}
        message = f"source {shown(str(src))} does not exist (looked at {shown(path)})"
    elif error.errno in _NO_FILE and failure is LocalFileReadError:
        context = {"reason": "not_a_regular_file"}
        message = f"source {shown(str(src))} is not a regular file"
    return failure(src=src, message=message, context=context, cause=error)


def _first_link(path: str) -> str | None:
    """Find the first part of a path that is a symlink, for a message."""
    for part in [*reversed(Path(path).parents), Path(path)]:
        if part.is_symlink():
            return str(part)
    return None


# --- files ------------------------------------------------------------------------------------


def copy_file(
    source: int,
    target: Target,
    owner: Owner | None,
    mode: int | None,
    stopped: Event | None = None,
    digest: Digest | None = None,
) -> None:
    """Copy an open file: content, modification time, and permissions unless others are given.

    Args:
        source: descriptor of a regular file, at its beginning.
        target: where the copy is to stand.
        owner: whom it is made as; None is this program.
        mode: permission bits; None takes the source's.
        stopped: set by whoever wants no more of it.
        digest: takes in what is written.

    Raises:
        OSError: as reading and writing do.
        Abandoned: nobody wants it any more.
    """
    facts = os.fstat(source)
    look = Look(
        owner=owner,
        mode=facts.st_mode & PERMISSIONS if mode is None else mode,
        times=(facts.st_atime_ns, facts.st_mtime_ns),
    )
    put_file(target, lambda opened: _pour(source, opened, facts, stopped, digest), look)


def fill_file(
    source: int,
    target: int,
    mode: int | None,
    stopped: Event | None = None,
    digest: Digest | None = None,
) -> None:
    """Give an empty file the content, the modification time and the permissions of another.

    Args:
        source: descriptor of a regular file, at its beginning.
        target: descriptor of the file.
        mode: permission bits; None takes the source's.
        stopped: set by whoever wants no more of it.
        digest: takes in what is written.

    Raises:
        OSError: as reading and writing do.
        Abandoned: nobody wants it any more.
    """
    facts = os.fstat(source)
    _pour(source, target, facts, stopped, digest)
    os.fchmod(target, facts.st_mode & PERMISSIONS if mode is None else mode)
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _pour(
    source: int,
    target: int,
    facts: os.stat_result,
    stopped: Event | None,
    digest: Digest | None,
) -> None:
    """Move all bytes; large files are moved by the kernel where it can, and keep their holes.

    A file that is nothing but a hole, or that somebody makes longer all the time, takes as long as
    the disk has room: so each piece may be the last.
    """
    size = facts.st_size
    large = size > COPY_CHUNK_BYTES
    if large and has_holes(facts):
        _move_extents(source, target, size, stopped)
    elif large:
        _move(source, target, size, stopped)
    # Both descriptors stand where that stopped, so this takes up what it left: everything, or what
    # was appended meanwhile, or the files of which the kernel says too early that they end.
    most = min(size + 1, COPY_CHUNK_BYTES)
    while piece := os.read(source, most):
        write_all(target, memoryview(piece))
        if digest is not None and not large:
            digest.add(piece)
        if len(piece) == size < most:
            return  # one byte more was asked for, and there is none
        most = COPY_CHUNK_BYTES
        _go_on(stopped)
    if digest is not None and large:
        digest.add_whole(target, stopped)


def _move_extents(source: int, target: int, size: int, stopped: Event | None) -> None:
    """Move what of a file is no hole, each piece to where it stood."""
    for start, length in extents_of(source, size):
        for opened in (source, target):
            os.lseek(opened, start, os.SEEK_SET)
        _move(source, target, length, stopped)
    _go_on(stopped)
    end = min(size, os.fstat(source).st_size)  # somebody may have cut it meanwhile
    os.ftruncate(target, end)
    for opened in (source, target):
        os.lseek(opened, end, os.SEEK_SET)


def _move(source: int, target: int, size: int, stopped: Event | None) -> None:
    """Move at most so many bytes from where two files stand, which may share their blocks then."""
    left = size
    try:
        while left and hasattr(os, "copy_file_range"):  # not every C library has it
            moved = os.copy_file_range(source, target, min(left, KERNEL_COPY_BYTES))
            if not moved:
                break
            left -= moved
            _go_on(stopped)
    except OSError as error:
        if error.errno not in _NO_KERNEL_COPY:
            raise
    while left and (piece := os.read(source, min(left, COPY_CHUNK_BYTES))):
        write_all(target, memoryview(piece))
        left -= len(piece)
        _go_on(stopped)


def _go_on(stopped: Event | None) -> None:
    """Stop what nobody wants any more."""
    if stopped is not None and stopped.is_set():
        raise Abandoned
