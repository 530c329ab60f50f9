"""Duplicate: an exact copy of a workspace in a new, empty directory, made from descriptor to descriptor.

What is kept, and what is left out, is as in a snapshot. Nobody but this program knows the new directory
yet, so nothing in it is staged; whoever makes it removes it if the copy fails.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.archive.model import Kind
from sandyard.archive.report import Tally
from sandyard.limits import COPY_CHUNK_BYTES, KERNEL_COPY_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.copying import Abandoned
from sandyard.workspace.extract_members import set_attributes
from sandyard.workspace.extract_stage import is_temporary
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.faults import translated
from sandyard.workspace.kernel import PATH_ONLY, reopen_file
from sandyard.workspace.layer_marks import (
    Beneath,
    escaped_attributes,
    is_opaque,
    lasting_attributes,
)
from sandyard.workspace.persist_facts import (
    REASONS,
    SPECIAL,
    attributes_of,
    extents_of,
    has_holes,
)
from sandyard.workspace.persist_stream import gone_root

if TYPE_CHECKING:
    from threading import Event

    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["Duplicated", "duplicate"]

_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_PERMISSIONS: Final = 0o777
_SPECIAL_BITS: Final = 0o7000

_CLONE: Final = 0x4004_9409
"""FICLONE (ioctl_ficlone(2)): two files share their blocks until one of them is written to."""


class Duplicated(NamedTuple):
    """What copying a workspace did.

    Attributes:
        report: what is in the copy, and what could not be.
        shared: whether all files share their blocks with the source's until they are written to.
    """

    report: ArchiveReport
    shared: bool


def duplicate(
    source: WorkspaceRoot,
    target: WorkspaceRoot,
    excluded: frozenset[Path],
    stopped: Event,
    *,
    beneath: Beneath | None = None,
) -> Duplicated:
    """Copy all of a workspace into another one, which is new and empty. Blocks.

    Args:
        source: the workspace; commands may write to it meanwhile.
        target: a directory that the library made, and that no session has started in. What belongs
            to one of the users and groups in its ``names`` does so in the copy.
        excluded: paths that are left out, with all in them.
        stopped: set by whoever wants no more of it.
        beneath: what lies beneath the changes of an overlay, which are copied as overlayfs keeps
            them, with what says that something beneath is gone; what of them is left out is gone as
            well. None (default) for a workspace that is no overlay's changes.

    Raises:
        WorkspaceArchiveReadError: the source was removed, or can't be read.
        WorkspaceArchiveWriteError: the target can't be written.
        Abandoned: nobody wants it any more.
    """
    if source.gone:
        raise gone_root(source.inside)
    with translated("fork", source.inside, source):
        owner = rightful_owner(source)
    copying = _Copying(source, target, excluded, owner, stopped, beneath)
    with translated("fork", source.inside, target):
        copying.run()
    if source.gone:
        raise gone_root(source.inside)
    return Duplicated(copying.tally.report(), copying.shared)


class _Level(NamedTuple):
    """One directory that is being copied.

    Attributes:
        path: its path.
        facts: what it was when its parent was listed.
        attributes: its extended attributes that are kept.
        hiding: whether what is left out of it may lie beneath it.
        waiting: what in it is still to be copied; None in place of facts for what is left out.
    """

    path: Path
    facts: os.stat_result
    attributes: dict[bytes, bytes] | None
    hiding: bool
    waiting: deque[tuple[bytes, os.stat_result | None]]


class _Copying:
    """One copy under way. The source is read as its owner, the target written as this program."""

    def __init__(
        self,
        source: WorkspaceRoot,
        target: WorkspaceRoot,
        excluded: frozenset[Path],
        owner: Owner | None,
        stopped: Event,
        beneath: Beneath | None,
    ) -> None:
        self.tally = Tally()
        self._beneath = beneath
        self._source = source
        self._target = target
        self._excluded = excluded
        self._owner = owner
        self._stopped = stopped
        self._links: dict[tuple[int, int], Path] = {}
        self._can_clone = True
        self._copied = False

    @property
    def shared(self) -> bool:
        """Whether no byte was copied, and there was one."""
        return self._can_clone and not self._copied

    def run(self) -> None:
        """Copy all of it, each directory before what is in it.

        Raises:
            OSError: something can't be written, or the source itself can't be read.
        """
        with (
            Directories(self._source.fd, self._source.ward.admit) as old,
            Directories(self._target.fd) as new,
        ):
            top, hiding = os.fstat(self._source.fd), self._beneath is not None
            levels = [self._entered(old, (), top, hiding=hiding)]
            while levels:
                level = levels[-1]
                if not level.waiting:
                    self._finish(new, level)
                    levels.pop()
                    continue
                name, facts = level.waiting.popleft()
                path = (*level.path, name)
                copied = False
                if facts is not None and stat.S_ISDIR(facts.st_mode):
                    below = self._try_enter(old, path, facts, hiding=level.hiding)
                    if below is not None:
                        os.mkdir(name, _PRIVATE_DIRECTORY, dir_fd=new.at(level.path))
                        levels.append(below)
                        continue
                elif facts is not None:
                    copied = self._copy_entry(old, new, path, facts)
                if level.hiding and not copied:
                    self._hide(new, path)

    # --- directories ------------------------------------------------------------------------------

    def _try_enter(
        self, old: Directories, path: Path, facts: os.stat_result, *, hiding: bool
    ) -> _Level | None:
        try:
            return self._entered(old, path, facts, hiding=hiding)
        except OSError as error:
            self._leave_out(path, error)
            return None

    def _entered(
        self, old: Directories, path: Path, facts: os.stat_result, *, hiding: bool
    ) -> _Level:
        """Look at all that is in a directory."""
        if self._stopped.is_set():
            raise Abandoned
        waiting: deque[tuple[bytes, os.stat_result | None]] = deque()
        with acting_as(self._owner):
            opened = os.open(".", _LIST, dir_fd=old.at(path))
            try:
                for name in sorted(os.fsencode(name) for name in os.listdir(opened)):
                    try:
                        found = os.stat(name, dir_fd=opened, follow_symlinks=False)
                    except FileNotFoundError:
                        self.tally.note("skipped", b"/".join((*path, name)), "vanished")
                        continue
                    meant = self._is_meant((*path, name), found)
                    if meant or hiding:
                        waiting.append((name, found if meant else None))
                attributes = attributes_of(opened, path, self.tally)
            finally:
                os.close(opened)
        return _Level(path, facts, attributes, hiding and not is_opaque(attributes), waiting)

    def _is_meant(self, path: Path, facts: os.stat_result) -> bool:
        """Tell whether something is copied, whatever it is; if not, why is noted."""
        form, reason = stat.S_IFMT(facts.st_mode), None
        if self._is_whiteout(facts):
            return True
        if self._source.ward.is_denied(facts):
            reason = "denied"
        elif path in self._excluded:
            reason = "excluded"
        elif is_temporary(path[-1]):
            reason = "temporary"
        elif form not in {stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR}:
            reason = SPECIAL.get(form, "device")
        if reason is not None:
            self.tally.note("skipped", b"/".join(path), reason)
        return reason is None

    def _is_whiteout(self, facts: os.stat_result) -> bool:
        """Whether something only says that what is beneath is gone."""
        of_changes = self._beneath is not None
        return of_changes and stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0

    def _finish(self, new: Directories, level: _Level) -> None:
        """Give a directory its look, last: a read-only one takes no files, and each changes its time."""
        facts = level.facts
        made = os.open(".", _LIST, dir_fd=new.at(level.path))
        try:
            self._set_attributes(made, level.path, level.attributes)
            if level.path:  # the workspace's own directory stays private
                os.fchmod(made, facts.st_mode & _PERMISSIONS)
                self.tally.count(Kind.DIRECTORY)
            if facts.st_mode & _SPECIAL_BITS:
                self.tally.note_special(b"/".join(level.path), facts.st_mode)
            os.utime(made, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            if level.path:
                self._give(b".", made, level.path, facts)
        finally:
            os.close(made)

    # --- entries ----------------------------------------------------------------------------------

    def _copy_entry(
        self, old: Directories, new: Directories, path: Path, facts: os.stat_result
    ) -> bool:
        """Copy what is no directory; tell whether it is there now."""
        if self._stopped.is_set():
            raise Abandoned
        if self._is_whiteout(facts):
            os.mknod(path[-1], stat.S_IFCHR, dir_fd=new.at(path[:-1]))
            return True
        several = facts.st_nlink > 1
        first = self._links.get((facts.st_dev, facts.st_ino)) if several else None
        if first is not None:
            self._link(new, path, first)
            return True
        copied = (
            self._copy_link(old, new, path, facts)
            if stat.S_ISLNK(facts.st_mode)
            else self._copy_file(old, new, path)
        )
        if several and copied:
            self._links[facts.st_dev, facts.st_ino] = path
        return copied

    def _hide(self, new: Directories, path: Path) -> None:
        """Say that what lies beneath is gone, or it would show in the place of what was left out."""
        # Where nothing lies beneath, such a mark would be seen.
        if self._beneath is not None and self._beneath.has(path):
            os.mknod(path[-1], stat.S_IFCHR, dir_fd=new.at(path[:-1]))

    def _link(self, new: Directories, path: Path, first: Path) -> None:
        # The second directory may be the one that the first call's descriptor is closed for.
        above = os.open(".", _LOOK | os.O_DIRECTORY, dir_fd=new.at(first[:-1]))
        try:
            os.link(
                first[-1],
                path[-1],
                src_dir_fd=above,
                dst_dir_fd=new.at(path[:-1]),
                follow_symlinks=False,
            )
        finally:
            os.close(above)
        self.tally.count(Kind.HARD_LINK)

    def _copy_link(
        self, old: Directories, new: Directories, path: Path, facts: os.stat_result
    ) -> bool:
        try:
            with acting_as(self._owner):
                target = os.readlink(path[-1], dir_fd=old.at(path[:-1]))
        except OSError as error:
            self._leave_out(path, error)
            return False
        here, times = new.at(path[:-1]), (facts.st_atime_ns, facts.st_mtime_ns)
        os.symlink(target, path[-1], dir_fd=here)
        os.utime(path[-1], ns=times, dir_fd=here, follow_symlinks=False)
        self._give(path[-1], here, path, facts)
        self.tally.count(Kind.SYMLINK)
        return True

    def _copy_file(self, old: Directories, new: Directories, path: Path) -> bool:
        try:
            source = self._opened(old, path)
        except OSError as error:
            self._leave_out(path, error)
            return False
        try:
            here = new.at(path[:-1])
            target = os.open(path[-1], _CREATE, _PRIVATE_FILE, dir_fd=here)
            try:
                facts = self._fill(source, target, path)
            finally:
                os.close(target)
            self._give(path[-1], here, path, facts)
        finally:
            os.close(source)
        return True

    def _opened(self, old: Directories, path: Path) -> int:
        """Open what was a regular file a moment ago, and nothing that took its place."""
        with acting_as(self._owner):
            handle = os.open(path[-1], _LOOK, dir_fd=old.at(path[:-1]))
            try:
                return reopen_file(handle)
            finally:
                os.close(handle)

    def _give(self, name: bytes, here: int, path: Path, facts: os.stat_result) -> None:
        """Let something that is finished belong to the user and group that it did, if others know them."""
        names = self._target.names
        uid, gid = (each if each in names else -1 for each in (facts.st_uid, facts.st_gid))
        if (uid, gid) == (-1, -1):
            return
        try:
            os.chown(name, uid, gid, dir_fd=here, follow_symlinks=False)
        except PermissionError:
            owner = f"{names.get(uid, '')}:{names.get(gid, '')}"
            self.tally.note("dropped", b"/".join(path), f"owner {owner}")

    def _fill(self, source: int, target: int, path: Path) -> os.stat_result:
        """Give a new file the content and the look of another; return what that was."""
        facts, text = os.fstat(source), b"/".join(path)
        lost = self._pour(source, target, facts) if facts.st_size else False
        self._set_attributes(target, path, attributes_of(source, path, self.tally))
        if facts.st_mode & _SPECIAL_BITS:
            self.tally.note_special(text, facts.st_mode)
        os.fchmod(target, facts.st_mode & _PERMISSIONS)
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        self.tally.count(Kind.FILE, facts.st_size)
        now = os.fstat(source)
        if lost or now.st_size < facts.st_size:
            self.tally.note("changed", text, "shrank")
        elif now.st_size > facts.st_size:
            self.tally.note("changed", text, "grew")
        elif now.st_mtime_ns != facts.st_mtime_ns:
            self.tally.note("changed", text, "changed")
        return facts

    def _set_attributes(
        self, opened: int, path: Path, attributes: dict[bytes, bytes] | None
    ) -> None:
        kept = attributes or {}
        if self._beneath is not None:
            kept = lasting_attributes(kept)
        elif self._target.is_layer:
            kept = escaped_attributes(kept)
        for name in set_attributes(opened, kept):
            text = name.decode("utf-8", "backslashreplace")
            self.tally.note("dropped", b"/".join(path), f"xattr {text}")

    def _leave_out(self, path: Path, error: OSError) -> None:
        """Note that something of the source can't be read.

        Raises:
            OSError: the error is about more than that.
        """
        if error.errno not in REASONS:
            raise error
        self.tally.note("skipped", b"/".join(path), REASONS[error.errno])

    # --- contents ---------------------------------------------------------------------------------

    def _pour(self, source: int, target: int, facts: os.stat_result) -> bool:
        """Give a file the bytes and the holes of another; tell whether some of them were lost."""
        if self._can_clone:
            try:
                fcntl.ioctl(target, _CLONE, source)
            except OSError:  # two file systems, or one that can't: nothing was written
                self._can_clone = False
            else:
                os.truncate(target, facts.st_size)  # it may have grown meanwhile
                return False
        self._copied, lost = True, False
        sparse = extents_of(source, facts.st_size) if has_holes(facts) else None
        for offset, length in [(0, facts.st_size)] if sparse is None else sparse:
            lost |= self._move(source, target, offset, length)
        if lost or sparse is not None:
            os.truncate(target, facts.st_size)
        return lost

    def _move(self, source: int, target: int, at: int, length: int) -> bool:
        """Copy one part to the same place; tell whether the source has less of it by now."""
        end = at + length
        if length > COPY_CHUNK_BYTES:
            at = self._moved_by_kernel(source, target, at, end)
        while at < end:
            if self._stopped.is_set():
                raise Abandoned
            piece = memoryview(os.pread(source, min(COPY_CHUNK_BYTES, end - at), at))
            if not piece:
                return True
            while piece:
                done = os.pwrite(target, piece, at)
                at, piece = at + done, piece[done:]
        return False

    def _moved_by_kernel(self, source: int, target: int, at: int, end: int) -> int:
        """Let the kernel copy what it can of a part; return how far it came."""
        with suppress(OSError):  # the plain way says what is really wrong
            while at < end:
                if self._stopped.is_set():
                    raise Abandoned
                size = min(KERNEL_COPY_BYTES, end - at)
                done = os.copy_file_range(source, target, size, at, at)
                if not done:
                    break
                at += done
        return at
