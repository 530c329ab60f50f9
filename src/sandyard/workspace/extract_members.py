"""The members of an archive, made in a tree that nobody else uses yet."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.archive.model import ArchiveError, Kind, Member
from sandyard.archive.naming import NameRules, check_links, check_target
from sandyard.limits import KERNEL_COPY_BYTES
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.handing import handing_over
from sandyard.workspace.layer_marks import escaped_attributes
from sandyard.workspace.placing import write_all
from sandyard.workspace.ward import NO_RULES, ClosedError, Ward

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from sandyard.archive.bounds import ArchiveMeter
    from sandyard.archive.model import Part, PlainFile
    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally

__all__ = ["Abandoned", "Look", "Unpacking", "set_attributes"]

_PERMISSIONS: Final = 0o777
_PRIVATE: Final = 0o600
_SHARED: Final = 0o666
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ODD: Final = frozenset({b"", b".", b".."})
_USER: Final = b"user."
_IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.ELOOP})


class Look(NamedTuple):
    """What a directory looks like, as far as an archive tells it.

    Attributes:
        mode: permissions.
        mtime: modification time in ns.
        attributes: extended attributes of the user's.
        owner: ids of its user and group on disk, -1 for whoever makes it; None for both.
    """

    mode: int | None
    mtime: int | None
    attributes: dict[bytes, bytes]
    owner: tuple[int, int] | None = None


class Abandoned(Exception):  # noqa: N818  # no error: who asked for it has gone
    """The caller was cancelled, so the work is undone."""


class Unpacking:
    """Makes members in a tree, and notes what they look like in the end.

    Args:
        top: descriptor of the tree's own directory.
        beneath: directories that stand between it and the archive's root.
        meter: counts members.
        tally: counts what was made.
        strict: True takes the archive for somebody else's: only portable names, and only symlinks
            that stay in it.
        stopped: set by whoever wants no more of it.
        ward: what no name of the archive may lead to, if somebody moved it into the tree.

    Attributes:
        looks: what directories are to look like.
        ids: ids on disk of the users and groups that a member's owner may name; nothing gives all to
            whoever makes them.
        as_program: acts as this program, which alone may give files away.
        into_layer: whether the tree becomes a layer, which overlayfs reads.
    """

    def __init__(  # what is made, where, by which rules, and who hears of it
        self,
        top: Directories,
        beneath: Path,
        meter: ArchiveMeter,
        tally: Tally,
        *,
        strict: bool,
        stopped: threading.Event,
        ward: Ward = NO_RULES,
    ) -> None:
        self._ward = ward
        self._tree = top
        self._beneath = beneath
        self._meter = meter
        self._tally = tally
        self._strict = strict
        self._stopped = stopped
        self._rules = NameRules(meter.limits, portable=strict)
        self._links: dict[Path, bytes] = {}
        self._head = b"/"  # of no member
        self._above: Path = ()
        self.looks: dict[Path, Look] = {}
        self.ids: Mapping[bytes, int] = {}
        self.into_layer = False
        self.as_program: Callable[[], AbstractContextManager[None]] = nullcontext
        self._owners: list[tuple[Path, tuple[int, int]]] = []

    def add_all(self, parts: Iterable[Part]) -> None:
        """Make all members of an archive, and check what can be judged only when all is there.

        Raises:
            ArchiveError: one may not be made, the archive ends in one, or symlinks lead out of it.
            OSError: one can't be made.
        """
        for part in parts:
            if isinstance(part, list):
                self.add_files(part)
            else:
                self.add(part)
        self.finish()

    def add(self, member: Member) -> None:
        """Make one member.

        Raises:
            ArchiveError: it may not be made, or the archive ends in it.
            OSError: it can't be made.
        """
        if self._stopped.is_set():
            raise Abandoned
        self._meter.note(member)
        path = self._path_of(member.name)
        if not path:
            self._add_root(member)
            return
        try:
            self._ADDERS[member.kind](self, member, path)
        except FileExistsError:
            raise _duplicate(path, member.name) from None
        if member.mode is not None and member.mode & ~_PERMISSIONS:
            self._tally.note_special(b"/".join(path), member.mode)
        if member.kind is not Kind.DIRECTORY and (owner := self._ids_of(member, path)):
            self._owners.append((path, owner))

    def add_files(self, files: list[PlainFile]) -> None:
        """Make files of which all is at hand, a good number of them at most.

        Raises:
            ArchiveError: one may not be made.
            OSError: one can't be made.
        """
        if self._stopped.is_set():
            raise Abandoned
        size = sum(len(data) for _, _, _, data in files)
        self._meter.note_files(files, size)
        known: bytes | None = None  # the directory that is open, as the last name had it
        for name, mode, mtime, data in files:
            head, _, last = name.rpartition(b"/")
            if head == known and last not in _ODD:
                self._rules.check_last(name, last)
            else:
                path = self._path_of(name)
                if not path:
                    raise ArchiveError(f"archive root {Kind.FILE.value}", member=name)
                here = self._directory(path[:-1], name)
                known = head if head and last not in _ODD else None
                last = path[-1]
            try:
                opened = os.open(last, _CREATE, _PRIVATE, dir_fd=here)
            except FileExistsError:
                raise _duplicate(self._path_of(name), name) from None
            try:
                if data:
                    write_all(opened, data)
                os.fchmod(opened, mode & _PERMISSIONS)
                os.utime(opened, ns=(mtime, mtime))
            finally:
                os.close(opened)
            if mode > _PERMISSIONS:
                self._tally.note_special(b"/".join(self._path_of(name)), mode)
        self._tally.count_many(len(files), 0, size)

    def finish(self) -> None:
        """Check what can be judged only when all is there.

        Raises:
            ArchiveError: symlinks lead out of the archive.
        """
        if self._strict:
            check_links(self._links)

    def _path_of(self, name: bytes) -> Path:
        """Take a name apart; that of a member beside the last one, only its end."""
        head, _, last = name.rpartition(b"/")
        if head != self._head or not head or last in _ODD:
            path = self._rules.path_of(name)
            if last and last != b".":
                self._head, self._above = head, path[:-1]
            return path
        self._rules.check_last(name, last)
        return (*self._above, last)

    def _add_root(self, member: Member) -> None:
        if member.kind is not Kind.DIRECTORY:
            raise ArchiveError(f"archive root {member.kind.value}", member=member.name)
        if not self._strict:
            attributes = self._kept(member.attributes, ())
            self.looks[self._beneath] = Look(None, member.mtime, attributes)

    def _directory(self, path: Path, name: bytes) -> int:
        """The directory that a path leads to, made where it is missing."""
        try:
            return self._tree.at(self._beneath + path, make=True)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
        for end in range(1, len(path) + 1):
            if path[:end] in self._links:
                raise ArchiveError(
                    f"archive path descends through symlink: {_text(path[:end])}", member=name
                )
        raise ArchiveError(
            f"archive path descends through non-directory: {_text(path)}", member=name
        )

    # --- kinds --------------------------------------------------------------------------------

    def _add_directory(self, member: Member, path: Path) -> None:
        above = self._directory(path[:-1], member.name)
        try:
            os.mkdir(path[-1], dir_fd=above)
        except FileExistsError:
            self._directory(path, member.name)  # which refuses all but a directory
        mode = None if member.mode is None else member.mode & _PERMISSIONS
        attributes = self._kept(member.attributes, path)
        owner = self._ids_of(member, path)
        self.looks[self._beneath + path] = Look(mode, member.mtime, attributes, owner)
        self._tally.count(Kind.DIRECTORY)

    def _add_file(self, member: Member, path: Path) -> None:
        above = self._directory(path[:-1], member.name)
        mode = member.mode
        opened = os.open(path[-1], _CREATE, _SHARED if mode is None else _PRIVATE, dir_fd=above)
        try:
            if member.sparse is not None:
                self._fill_sparse(opened, member)
            elif member.size:
                self._fill(opened, member)
            if member.attributes:
                kept = self._kept(member.attributes, path)
                for name in set_attributes(opened, kept):
                    self._tally.note("dropped", b"/".join(path), f"xattr {os.fsdecode(name)}")
            if mode is not None:
                os.fchmod(opened, mode & _PERMISSIONS)
            if member.mtime is not None:
                os.utime(opened, ns=(member.mtime, member.mtime))
        finally:
            os.close(opened)
        self._tally.count(Kind.FILE, member.size)

    def _fill(self, opened: int, member: Member) -> None:
        for _, piece in member.pieces():
            left = piece
            while left:
                left = left[os.write(opened, left[:KERNEL_COPY_BYTES]) :]
                if self._stopped.is_set():
                    raise Abandoned

    def _fill_sparse(self, opened: int, member: Member) -> None:
        os.ftruncate(opened, member.size)
        for offset, piece in member.pieces():
            at, left = offset, piece
            while left:
                written = os.pwrite(opened, left[:KERNEL_COPY_BYTES], at)
                at, left = at + written, left[written:]
            if self._stopped.is_set():
                raise Abandoned

    def _kept(self, attributes: dict[bytes, bytes] | None, path: Path) -> dict[bytes, bytes]:
        """The attributes that are restored; what others would obey is not."""
        kept: dict[bytes, bytes] = {}
        for name, value in (attributes or {}).items():
            if name.startswith(_USER):
                kept[name] = value
            else:
                self._tally.note("dropped", b"/".join(path), f"xattr {os.fsdecode(name)}")
        return escaped_attributes(kept) if self.into_layer else kept

    def _add_symlink(self, member: Member, path: Path) -> None:
        check_target(member.name, member.link, inside=self._strict)
        above = self._directory(path[:-1], member.name)
        os.symlink(member.link, path[-1], dir_fd=above)
        if member.mtime is not None:
            times = (member.mtime, member.mtime)
            os.utime(path[-1], ns=times, dir_fd=above, follow_symlinks=False)
        self._links[path] = member.link
        self._tally.count(Kind.SYMLINK)

    def _add_hard_link(self, member: Member, path: Path) -> None:
        target = self._rules.path_of(member.link)
        above = os.dup(self._directory(path[:-1], member.name))
        try:
            there = self._tree.at(self._beneath + target[:-1])
            if not target:
                raise FileNotFoundError
            name = os.fsdecode(target[-1])
            if name in self._ward.names:
                self._ward.check_itself(there, name)
            os.link(target[-1], path[-1], src_dir_fd=there, dst_dir_fd=above, follow_symlinks=False)
        except ClosedError:
            raise
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise ArchiveError(
                f"hard link to what is no earlier file of the archive: {_text(target)}",
                member=member.name,
            ) from error
        finally:
            os.close(above)
        if target in self._links:  # the same target, seen from another place
            self._links[path] = self._links[target]
        self._tally.count(Kind.HARD_LINK)

    def _ids_of(self, member: Member, path: Path) -> tuple[int, int] | None:
        """The ids on disk of whom a member belonged to; -1 leaves one as it is."""
        if not member.owner:
            return None
        user, _, group = member.owner.partition(b":")
        uid, gid = self.ids.get(user, -1), self.ids.get(group, -1)
        if (user and uid < 0) or (group and gid < 0):
            self._tally.note("dropped", b"/".join(path), f"owner {os.fsdecode(member.owner)}")
        return uid, gid

    def give(self) -> None:
        """Give files and symlinks to whom they belonged, when nothing more is to be made of them.

        Raises:
            OSError: this program may not.
        """
        with handing_over() as hand:
            for path, owner in self._owners:
                above = self._tree.at(self._beneath + path[:-1])
                with self.as_program():
                    hand(path[-1], owner, above)

    _ADDERS: Final = {
        Kind.DIRECTORY: _add_directory,
        Kind.FILE: _add_file,
        Kind.SYMLINK: _add_symlink,
        Kind.HARD_LINK: _add_hard_link,
    }


def set_attributes(opened: int, attributes: Mapping[bytes, bytes]) -> list[bytes]:
    """Set extended attributes; return those that the file system does not take.

    Raises:
        OSError: the disk is full.
    """
    refused: list[bytes] = []
    for name, value in attributes.items():
        try:
            os.setxattr(opened, name, value)
        except ValueError:  # a NUL in its name
            refused.append(name)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            refused.append(name)
    return refused


def _duplicate(path: Path, name: bytes) -> ArchiveError:
    return ArchiveError(f"duplicate archive path: {_text(path)}", member=name)


def _text(path: Path) -> str:
    return os.fsdecode(b"/".join(path))
