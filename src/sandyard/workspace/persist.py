"""A workspace or a part of it, as a tar archive: read by descriptor, honest about what could not be."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind, Member
from sandyard.archive.tar_writing import END, headers_of, padding
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.extract_stage import is_temporary
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.kernel import PATH_ONLY, reopen_regular
from sandyard.workspace.names import leads_out
from sandyard.workspace.persist_facts import (
    REASONS,
    SPECIAL,
    attributes_of,
    extents_of,
    has_holes,
)
from sandyard.workspace.ward import NO_RULES, Ward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally

__all__ = ["Saving"]

_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777


class Saving:
    """Writes what is in a directory, or one file, as a tar archive.

    The same files make the same bytes: members are sorted by name, and nothing tells whose they
    are.

    Args:
        top: descriptor of the directory or the file; it stays the caller's.
        write: takes the archive, piece by piece.
        excluded: paths that are left out, with all beneath them.
        tally: counts, and hears of what could not be saved.
        ward: what the policy denies; that is left out.
        name: what the archive calls it (default: it is the archive's own root).
        outer_links: False leaves out symlinks that may lead out of the directory (default: True).
    """

    def __init__(  # what is read, where it goes, by which rules, and who hears of it
        self,
        top: int,
        write: Callable[[bytes], None],
        excluded: frozenset[Path],
        tally: Tally,
        ward: Ward = NO_RULES,
        *,
        name: bytes = b"",
        outer_links: bool = True,
    ) -> None:
        self._ward = ward
        self._outer_links = outer_links
        self._base = b"./" + name if name else b"."
        self._top = top
        self._write = write
        self._excluded = excluded
        self._tally = tally
        self._buffer = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        """Write all of it.

        Raises:
            OSError: the directory itself can't be read, or as ``write`` does.
        """
        with Directories(self._top, self._ward.admit) as tree:
            first = self._save_found(tree, (), self._top)
            way: list[Iterator[bytes]] = [] if first is None else [first]
            path: Path = ()
            while way:
                name = next(way[-1], None)
                if name is None:
                    way.pop()
                    path = path[:-1]
                    continue
                below = self._save_entry(tree, (*path, name))
                if below is not None:
                    way.append(below)
                    path = (*path, name)
        self._put(END)
        self._flush()

    # --- entries ------------------------------------------------------------------------------

    def _enter(self, tree: Directories, path: Path) -> Iterator[bytes]:
        """Save a directory itself, and list what is in it."""
        opened = os.open(".", _LIST, dir_fd=tree.at(path))
        try:
            facts = os.fstat(opened)
            names = sorted(os.fsencode(name) for name in os.listdir(opened))
            self._tally.note_special(b"/".join(path), facts.st_mode)
            member = self._member(path, Kind.DIRECTORY, facts)
            member.attributes = attributes_of(opened, path, self._tally)
        finally:
            os.close(opened)
        self._put(headers_of(member))
        if path:
            self._tally.count(Kind.DIRECTORY)
        return iter(names)

    def _save_entry(self, tree: Directories, path: Path) -> Iterator[bytes] | None:
        """Save one entry; return what is in it if it is a directory."""
        text = b"/".join(path)
        if path in self._excluded:
            self._tally.note("skipped", text, "excluded")
            return None
        if is_temporary(path[-1]):
            self._tally.note("skipped", text, "temporary")
            return None
        try:
            handle = os.open(path[-1], _LOOK, dir_fd=tree.at(path[:-1]))
            try:
                return self._save_found(tree, path, handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            self._tally.note("skipped", text, REASONS[error.errno])
            return None

    def _save_found(self, tree: Directories, path: Path, handle: int) -> Iterator[bytes] | None:
        facts = os.fstat(handle)
        form = stat.S_IFMT(facts.st_mode)
        if self._ward.is_denied(facts):
            self._tally.note("skipped", b"/".join(path), "denied")
            return None
        if form == stat.S_IFDIR:
            return self._enter(tree, path)
        if form not in {stat.S_IFREG, stat.S_IFLNK}:
            self._tally.note("skipped", b"/".join(path), SPECIAL.get(form, "device"))
        elif not self._save_again(path, facts):
            if form == stat.S_IFREG:
                self._save_file(path, handle, facts)
            else:
                self._save_link(path, handle, facts)
            if facts.st_nlink > 1:
                self._links[facts.st_dev, facts.st_ino] = self._name(path)
        return None

    def _save_link(self, path: Path, handle: int, facts: os.stat_result) -> None:
        points_to = os.readlink("", dir_fd=handle)
        if not self._outer_links and leads_out(tuple(map(os.fsdecode, path)), points_to):
            self._tally.note("skipped", b"/".join(path), "link_leads_out")
            return
        member = self._member(path, Kind.SYMLINK, facts)
        member.link = os.fsencode(points_to)
        self._put(headers_of(member))
        self._tally.count(Kind.SYMLINK)

    def _save_again(self, path: Path, facts: os.stat_result) -> bool:
        """Save another name of what was saved; tell whether it is one."""
        if facts.st_nlink == 1:
            return False
        first = self._links.get((facts.st_dev, facts.st_ino))
        if first is None:
            return False
        member = self._member(path, Kind.HARD_LINK, facts)
        member.link = first
        self._put(headers_of(member))
        self._tally.count(Kind.HARD_LINK)
        return True

    # --- files --------------------------------------------------------------------------------

    def _save_file(self, path: Path, handle: int, facts: os.stat_result) -> None:
        text = b"/".join(path)
        opened = reopen_regular(handle, facts.st_mode)
        try:
            member = self._member(path, Kind.FILE, facts)
            member.size = facts.st_size
            member.attributes = attributes_of(opened, path, self._tally)
            if has_holes(facts):
                member.sparse = extents_of(opened, facts.st_size)
            self._put(headers_of(member))
            short = stored = 0
            for offset, length in [(0, member.size)] if member.sparse is None else member.sparse:
                short += self._copy(opened, offset, length)
                stored += length
            self._put(padding(stored))
            now = os.fstat(opened)
        finally:
            os.close(opened)
        self._tally.note_special(text, facts.st_mode)
        self._tally.count(Kind.FILE, member.size)
        if short or now.st_size < facts.st_size:
            self._tally.note("changed", text, "shrank")
        elif now.st_size > facts.st_size:
            self._tally.note("changed", text, "grew")
        elif now.st_mtime_ns != facts.st_mtime_ns:
            self._tally.note("changed", text, "changed")

    def _copy(self, opened: int, offset: int, length: int) -> int:
        """Write a part of a file; what it has lost since is zeros, and their number is returned."""
        end = offset + length
        while offset < end:
            piece = os.pread(opened, min(COPY_CHUNK_BYTES, end - offset), offset)
            if not piece:
                break
            self._put(piece)
            offset += len(piece)
        lost = left = end - offset
        while left:
            piece = bytes(min(COPY_CHUNK_BYTES, left))
            self._put(piece)
            left -= len(piece)
        return lost

    # --- headers and bytes --------------------------------------------------------------------

    def _name(self, path: Path) -> bytes:
        return b"/".join((self._base, *path))

    def _member(self, path: Path, kind: Kind, facts: os.stat_result) -> Member:
        name = self._name(path)
        if kind is Kind.DIRECTORY:
            name += b"/"
        return Member(name, kind, mode=facts.st_mode & _PERMISSIONS, mtime=facts.st_mtime_ns)

    def _put(self, piece: bytes) -> None:
        if len(self._buffer) + len(piece) > COPY_CHUNK_BYTES:
            self._flush()
        if len(piece) >= COPY_CHUNK_BYTES:
            self._write(piece)
        else:
            self._buffer += piece

    def _flush(self) -> None:
        if self._buffer:
            self._write(bytes(self._buffer))
            self._buffer.clear()
