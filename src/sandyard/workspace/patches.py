"""Patches carried out on files: all of one, or nothing of it.

Every operation is worked out in memory, as if those before it had been done. Then every new file is
staged beside its place; only then are the files exchanged, and what was replaced is kept until the
last one is in its place, so that all of it can be put back.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sandyard.errors import (
    ApplyPatchDecodeError,
    ApplyPatchDiffError,
    ApplyPatchFileNotFoundError,
    ApplyPatchPathError,
    InvalidManifestPathError,
)
from sandyard.limits import PATCH_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import StatedError, translated
from sandyard.workspace.kernel import reopen_file
from sandyard.workspace.names import names_beneath
from sandyard.workspace.opener import ElsewhereError
from sandyard.workspace.placing import (
    Look,
    Target,
    discard,
    facts_of,
    found_target,
    refuse_odd,
    stage_file,
    temporary_name,
    write_all,
)
from sandyard.workspace.reach import Spot, real_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sandyard.patching import Operation
    from sandyard.patching.operations import Differ
    from sandyard.workspace.names import Names
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["carry_out"]

_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_HANDLE: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
Reason = Literal["absolute", "escape_root", "empty"]


def carry_out(root: WorkspaceRoot, operations: Sequence[Operation], differ: Differ) -> None:
    """Carry out a patch; if any of it can't be done, nothing is.

    Args:
        root: the workspace.
        operations: what to do, each as if those before it had been done.
        differ: applies the diffs.

    Raises:
        ApplyPatchPathError: a path is empty, or leaves the workspace.
        ApplyPatchFileNotFoundError: a file that should change is not there.
        ApplyPatchDecodeError: a file that should change is not UTF-8.
        ApplyPatchDiffError: a diff does not fit, or a file to be created exists.
        PolicyDeniedError: the policy keeps one of the files as it is.
        WorkspaceArchiveWriteError: one of them can't be read or written, or changed meanwhile.
    """
    with translated("apply_patch", root.inside, root):
        owner = rightful_owner(root)
    with acting_as(owner):
        draft = _Draft(root)
        for operation in operations:
            draft.add(operation, differ)
    _Exchange(root, owner).carry_out(draft.files.values())


class _Was(NamedTuple):
    """What a file was when it was read, to notice a change before it is replaced."""

    inode: tuple[int, int]
    size: int
    changed_ns: int


def _state(facts: os.stat_result) -> _Was:
    return _Was((facts.st_dev, facts.st_ino), facts.st_size, facts.st_mtime_ns)


@dataclass(slots=True)
class _File:
    """One file of a patch.

    Attributes:
        path: as the patch names it first.
        names: where it really is.
        was: what it was; None if it was not there.
        mode: its permission bits then; for one that was moved, those of its source.
        text: what it is to hold; None if it is to be gone.
        touched: whether the patch changes it.
    """

    path: str
    names: Names
    was: _Was | None
    mode: int | None
    text: str | None
    touched: bool = False


class _Draft:
    """All files of a patch, as they will be."""

    def __init__(self, root: WorkspaceRoot) -> None:
        self._root = root
        self._left = PATCH_BYTES
        self.files: dict[Names, _File] = {}

    def add(self, operation: Operation, differ: Differ) -> None:
        """Work out one operation."""
        follow = operation.kind != "delete_file"
        file = self._file(operation.path, follow=follow)
        if operation.kind == "create_file":
            if file.text is not None:
                raise ApplyPatchDiffError(
                    "it exists already; update it instead", path=operation.path
                )
            file.text, file.touched = self._applied(differ, "", operation, "create"), True
            return
        if file.text is None:
            raise ApplyPatchFileNotFoundError(path=operation.path)
        if operation.kind == "delete_file":
            file.text, file.touched = None, True
            return
        text = self._applied(differ, file.text, operation, "default")
        self._put(file, operation, text)

    def _put(self, file: _File, operation: Operation, text: str) -> None:
        """Note an updated text, where the operation wants it."""
        if operation.move_to is None:
            file.text, file.touched = text, True
            return
        target = self._file(operation.move_to, follow=True)
        if target is not file:
            file.text, target.mode = None, file.mode
        target.text = text
        file.touched = target.touched = True

    def _applied(
        self,
        differ: Differ,
        text: str,
        operation: Operation,
        mode: Literal["default", "create"],
    ) -> str:
        try:
            done = differ(text, operation.diff, mode)
            done.encode()  # which lone surrogates, as JSON may hold them, refuse
            return done
        except ApplyPatchDiffError as error:
            if "path" in error.context:
                raise
            raise ApplyPatchDiffError(
                error.said, path=operation.path, hunk=error.hunk, cause=error
            ) from error
        except ValueError as error:  # a caller's own format refuses
            raise ApplyPatchDiffError(str(error), path=operation.path, cause=error) from error

    def _file(self, path: str, *, follow: bool) -> _File:
        names = self._names(path, follow=follow)
        if names not in self.files:
            with translated("apply_patch", path, self._root):
                self.files[names] = self._read(path, names, follow=follow)
        return self.files[names]

    def _names(self, path: str, *, follow: bool) -> Names:
        """Where a path of the patch really leads."""
        if not path.strip():
            raise ApplyPatchPathError(path=path, reason="empty")
        try:
            names = names_beneath(path, self._root.inside, "apply_patch")
            with translated("apply_patch", path, self._root):
                names = real_names(Spot(self._root, names), follow=follow)
        except (InvalidManifestPathError, ElsewhereError) as error:
            reason: Reason = "absolute" if path.startswith("/") else "escape_root"
            raise ApplyPatchPathError(path=path, reason=reason, cause=error) from error
        if not names:
            raise ApplyPatchPathError(path=path, reason="empty")
        return names

    def _read(self, path: str, names: Names, *, follow: bool) -> _File:
        """Read a file as it is now."""
        try:
            handle = self._root.opener.open(names, _HANDLE)
        except OSError as error:
            if error.errno in _MISSING:
                return _File(path, names, None, None, None)
            raise
        try:
            facts = os.fstat(handle)
            if stat.S_ISLNK(facts.st_mode) and not follow:
                return _File(path, names, _state(facts), None, "")
            refuse_odd(facts, names[-1])
            self._left -= facts.st_size
            if self._left < 0:
                raise StatedError(
                    errno.EFBIG,
                    "too_large",
                    f"the files of a patch have {PATCH_BYTES:,} bytes at most",
                )
            with open(reopen_file(handle), "rb") as opened:
                raw = opened.read(facts.st_size + 1)
        finally:
            os.close(handle)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ApplyPatchDecodeError(path=path, cause=error) from error
        return _File(path, names, _state(facts), stat.S_IMODE(facts.st_mode) & 0o777, text)


@dataclass(slots=True)
class _Change:
    """A file that is to be exchanged.

    Attributes:
        file: what it is about.
        target: where it stands.
        staged: name of the new file beside it; empty for a deletion.
        kept: name under which the old one is kept; empty if there was none.
        done: whether the new one is in its place, or the old one gone from it.
    """

    file: _File
    target: Target
    staged: str = ""
    kept: str = ""
    done: bool = False


@dataclass(slots=True)
class _Exchange:
    """The files of one patch, staged and then exchanged."""

    root: WorkspaceRoot
    owner: Owner | None
    changes: list[_Change] = field(default_factory=list)
    made: list[Names] = field(default_factory=list)

    def carry_out(self, files: Iterable[_File]) -> None:
        """Exchange all files, or put back what was exchanged and take away what was made."""
        with ExitStack() as stack:
            try:
                for file in files:
                    with translated("apply_patch", file.path, self.root):
                        self._stage(file, stack)
                for change in self.changes:
                    with (
                        translated("apply_patch", change.file.path, self.root),
                        acting_as(self.owner),
                    ):
                        _exchange(change)
            except BaseException:
                with acting_as(self.owner):
                    self._put_back()
                raise
            for change in self.changes:
                if change.kept:
                    discard(change.target.directory, change.kept, self.owner)

    def _stage(self, file: _File, stack: ExitStack) -> None:
        if not file.touched or (file.text is None and file.was is None):
            return  # only read, or made and deleted again by the same patch
        with acting_as(self.owner), self.root.opener.place(file.names, follow=False) as place:
            known = (*place.real, *place.rest)
            first = len(place.real) + 1
            self.made += [known[:depth] for depth in range(first, len(known))]
        if file.text is None:
            target = stack.enter_context(_removed(self.root, file.names, self.owner))
        else:
            target = stack.enter_context(found_target(self.root, file.names, self.owner))
        change = _Change(file, target)
        self.changes.append(change)
        if file.text is not None:
            content = memoryview(file.text.encode())
            look = Look(owner=self.owner, mode=file.mode)
            change.staged = stage_file(target, lambda opened: write_all(opened, content), look)

    def _put_back(self) -> None:
        """Undo, the last first. What is not as it was left any more is somebody else's by now."""
        for change in reversed(self.changes):
            here, name = change.target.directory, change.target.name
            if change.kept:
                with suppress(OSError):
                    if change.done or facts_of(here, name) is None:
                        os.rename(change.kept, name, src_dir_fd=here, dst_dir_fd=here)
                    else:
                        os.unlink(change.kept, dir_fd=here)
            elif change.done:
                with suppress(OSError):
                    os.unlink(name, dir_fd=here)
            if change.staged and not change.done:
                discard(here, change.staged, self.owner)
        for names in reversed(self.made):
            with suppress(OSError):
                directory = self.root.opener.open_parent(names)
                try:
                    os.rmdir(names[-1], dir_fd=directory)
                finally:
                    os.close(directory)


@contextmanager
def _removed(root: WorkspaceRoot, names: Names, owner: Owner | None) -> Iterator[Target]:
    """Find what is to be removed, itself if it is a symlink."""
    with acting_as(owner):
        directory = root.opener.open_parent(names)
    try:
        with acting_as(owner):
            root.ward.check_entry(directory, names[-1])
            target = Target(directory, names[-1], facts_of(directory, names[-1]))
        yield target
    finally:
        os.close(directory)


def _exchange(change: _Change) -> None:
    """Put one file in its place, and keep what was there."""
    here, name = change.target.directory, change.target.name
    facts = facts_of(here, name)
    if (None if facts is None else _state(facts)) != change.file.was:
        raise StatedError(
            errno.EAGAIN, "changing", "somebody changed it meanwhile; read it and try again"
        )
    if facts is not None:
        kept = temporary_name()
        if change.staged:
            os.link(name, kept, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
        else:
            os.rename(name, kept, src_dir_fd=here, dst_dir_fd=here)
            change.done = True
        change.kept = kept
    if change.staged:
        os.rename(change.staged, name, src_dir_fd=here, dst_dir_fd=here)
        change.done = True
