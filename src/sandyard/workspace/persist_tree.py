"""A workspace, saved as a tree of directories: what looks as it did is not read again."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind
from sandyard.archive.trees import (
    Node,
    decode_entry,
    encode_file,
    encode_node,
)
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.extract_stage import is_temporary
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.kernel import PATH_ONLY, reopen_regular
from sandyard.workspace.persist_facts import (
    REASONS,
    SPECIAL,
    attributes_of,
    extents_of,
    has_holes,
    owner_of,
)
from sandyard.workspace.persist_frame import Frame, KnownEntries, Listing, names_in, starting
from sandyard.workspace.reader_program import has_changed, is_plain
from sandyard.workspace.root import Owner
from sandyard.workspace.stat_index import (
    Known,
    Looks,
    clock_now,
    is_settled,
    joined_looks,
    look_at,
    looks_in,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

    from sandyard.archive.model import Extent
    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally
    from sandyard.archive.trees import Intake
    from sandyard.workspace.persist_frame import Entry
    from sandyard.workspace.stat_index import Look
    from sandyard.workspace.ward import Ward

__all__ = ["TreeSaving"]

_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS: Final = b".sandyard-"
_PERMISSIONS: Final = 0o777
_SPECIAL_BITS: Final = 0o7000
_MODE, _LINKS, _CHANGED = 2, 3, 6
"""Where these stand in how a file looks."""


class TreeSaving:
    """Saves what is in a directory as a tree.

    Args:
        top: descriptor of the directory; it stays the caller's.
        intake: takes contents and directories.
        looks: what is known from the last save, and what takes what is known then.
        excluded: paths that are left out, with all beneath them.
        tally: counts, and hears of what could not be saved.
        ward: what the policy denies; that is left out.
        owner: whom the caller acts as meanwhile.
        stopped: set by whoever wants no more of it.

    Attributes:
        names: what users and groups besides the workspace's own are called, by their ids on disk.
    """

    def __init__(  # what is saved, where to, by which rules, and who hears of it
        self,
        top: int,
        intake: Intake,
        looks: Looks,
        excluded: frozenset[Path],
        tally: Tally,
        ward: Ward,
        owner: Owner | None,
        stopped: threading.Event,
    ) -> None:
        self._top = top
        self._intake = intake
        self._before, self._after = looks
        self._excluded = excluded
        self._holders = {path[:-1] for path in excluded}
        self._tally = tally
        self._ward = ward
        self._owner = owner
        back = None if owner is None else Owner(os.geteuid(), os.getegid())
        intake.as_program = partial(acting_as, back)  # the store is this program's
        self._stopped = stopped
        self._links: dict[tuple[int, int], bytes] = {}
        self._since = clock_now()
        self.names: Mapping[int, str] = {}

    def run(self) -> Node:
        """Save all of it.

        Returns:
            The directory's own entry, named ``.``.

        Raises:
            OSError: the directory itself can't be read.
            Abandoned: nobody wants it any more.
        """
        top = os.open(".", _LIST, dir_fd=self._top)
        try:
            admit = self._ward.admit if self._ward.closes else None
            with Directories(top, admit, readable=True) as tree:
                return self._walk(tree)
        finally:
            os.close(top)

    def _walk(self, tree: Directories) -> Node:
        stack = [self._enter(tree, ())]
        top = stack[0].node
        while True:
            frame = stack[-1]
            entry = self._next_directory(tree, frame)
            if entry is None:
                digest = self._leave(tree, frame)
                stack.pop()
                if not stack:
                    return top._replace(digest=digest)
                self._take(stack[-1], frame, digest)
                continue
            _, (name, look) = entry
            below = self._try_enter(tree, (*frame.path, name), look if frame.same else None)
            if below is None:
                self._drop(frame, name)
            else:
                stack.append(below)

    # --- directories ------------------------------------------------------------------------------

    def _try_enter(self, tree: Directories, path: Path, look: Look | None) -> Frame | None:
        try:
            return self._enter(tree, path, look)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            self._tally.note("skipped", b"/".join(path), REASONS[error.errno])
            return None

    def _enter(self, tree: Directories, path: Path, look: Look | None = None) -> Frame:
        """Look at all that is in a directory.

        Args:
            tree: opens it.
            path: it.
            look: how it looks itself, if that is how it looked: then what is saved of it is known.
        """
        if self._stopped.is_set():
            raise Abandoned
        opened, key = tree.at(path), b"/".join(path)
        listing = self._looked_at(opened, path, self._names_in(opened, path))
        frame = Frame(path, key, listing, self._left_out(path, listing), self._old(path, key))
        if look is None or not frame.same:
            noted = self._tally.noted
            frame.node, mode = self._facts_of(opened, path)
            frame.noted = self._tally.noted != noted
        else:
            mode = look[_MODE]
        for each in listing.vanished:
            self._tally.note("skipped", b"/".join((*path, each)), "vanished")
        if mode & _SPECIAL_BITS:
            self._tally.note_special(key, mode)
        if path:
            self._tally.count(Kind.DIRECTORY)
        return frame

    def _facts_of(self, opened: int, path: Path) -> tuple[Node, int]:
        """What is saved of a directory itself, its digest excepted, and its mode."""
        attributes = attributes_of(opened, path, self._tally)
        kept = None if attributes is None else tuple(sorted(attributes.items()))
        facts = os.fstat(opened)
        mode, mtime, whose = facts.st_mode, facts.st_mtime_ns, owner_of(facts, self.names)
        name = path[-1] if path else b"."
        bits = mode & _PERMISSIONS
        return Node(name, Kind.DIRECTORY, bits, mtime, attributes=kept, owner=whose), mode

    def _names_in(self, opened: int, path: Path) -> list[bytes]:
        """The names of what is to be looked at in a directory, sorted."""
        del path
        return names_in(opened)

    def _looked_at(self, opened: int, path: Path, names: list[bytes]) -> Listing:
        """Look at entries of a directory."""
        return Listing.of(opened, names)

    def _old(self, path: Path, key: bytes) -> Known | None:
        """What is known of a directory."""
        return self._before.get(key)

    def _left_out(self, path: Path, listing: Listing) -> dict[bytes, str]:
        """What of a directory is not to be saved, whatever it is, and why."""
        found = {name: "temporary" for name in starting(listing.names, _OURS) if is_temporary(name)}
        if self._holders and path in self._holders:
            found |= {name: "excluded" for name in listing.names if (*path, name) in self._excluded}
        if self._ward.closes:
            for name, (device, inode, *_) in looks_in(listing.looks):
                if self._ward.is_closed((device, inode)):
                    found[name] = "denied"
        return found

    def _next_directory(self, tree: Directories, frame: Frame) -> Entry | None:
        """Save entries up to the next directory, and return that."""
        if frame.same:
            return frame.next()
        while (entry := frame.next()) is not None:
            _, (name, look) = entry
            if stat.S_ISDIR(look[_MODE]) and name not in frame.left_out:
                return entry
            self._save_entry(tree, frame, entry)
        return None

    def _take(self, frame: Frame, below: Frame, digest: bytes) -> None:
        """Note what a directory in a directory has become."""
        settled = self._check_below(frame, below)
        if not frame.same:
            frame.saved += encode_node(below.node._replace(digest=digest))
        elif not settled or below.old is None or below.old.digest != digest:
            frame.fresh = True
            frame.below[below.path[-1]] = digest

    def _check_below(self, frame: Frame, below: Frame) -> bool:
        """Whether a directory in a directory need not be entered the next time if it looks the same."""
        settled = frame.same or self._is_settled(look_at(frame.looks, frame.at))
        if below.noted or not settled:
            frame.unsettled.append(frame.at)  # what was noted is told again
            return False
        return True

    def _is_settled(self, look: Look) -> bool:
        return is_settled(look[_CHANGED], self._since)

    def _drop(self, frame: Frame, name: bytes) -> None:
        """Go on without a directory that can't be read, and try it again the next time."""
        frame.unsettled.append(frame.at)
        frame.fresh = True
        frame.below[name] = None

    def _leave(self, tree: Directories, frame: Frame) -> bytes:
        """Save a directory; return its digest."""
        old = frame.old
        if frame.same and old is not None:
            files, symlinks, size = old.counts
            self._tally.count_many(files, symlinks, size)
            if not frame.fresh:
                self._after.add(frame.key, old)
                return old.digest
            self._fill_in(tree, frame)
        elif old is not None:
            frame.old = old = old._replace(looks=b"")  # of a large one, all that is held counts
        frame.was = None
        digest = self._intake.put(frame.saved)
        self._after.add(frame.key, frame.known(digest))
        return digest

    def _fill_in(self, tree: Directories, frame: Frame) -> None:
        """Add the files of a directory of which only directories in it have changed."""
        counted = self._tally
        self._tally = type(counted)()  # its files were counted
        try:
            for entry in frame.entries():
                _, (_, look) = entry
                if stat.S_ISDIR(look[_MODE]):
                    frame.saved += self._directory_of(tree, frame, entry, counted)
                else:
                    self._save_entry(tree, frame, entry)
        finally:
            self._tally = counted

    def _directory_of(self, tree: Directories, frame: Frame, entry: Entry, tally: Tally) -> bytes:
        """What is saved of a directory that looks as it did; nothing if it can't be."""
        place, (name, look) = entry
        path, saved = (*frame.path, name), self._known_entries(frame).get(name, look)
        if name in frame.below:
            digest = frame.below[name]
        else:
            old = self._old(path, b"/".join(path))
            digest = None if old is None else old.digest
        if digest is None:
            return b""
        if saved is not None:
            return encode_node(decode_entry(saved)._replace(digest=digest))
        try:  # what was saved is lost
            opened = tree.at(path)
            facts = os.fstat(opened)
            if (facts.st_dev, facts.st_ino) != look[:2]:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            node, _ = self._facts_of(opened, path)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            tally.note("skipped", b"/".join(path), REASONS[error.errno])
            frame.unsettled.append(place)
            return b""
        return encode_node(node._replace(digest=digest))

    # --- entries ----------------------------------------------------------------------------------

    def _save_entry(self, tree: Directories, frame: Frame, entry: Entry) -> None:
        """Save one entry that is no directory, or note why not."""
        saved = self._saved_entry(tree, frame, entry)
        if saved is not None:
            frame.saved += saved

    def _saved_entry(self, tree: Directories, frame: Frame, entry: Entry) -> bytes | None:
        """What is saved of such an entry; None if nothing is, which is noted then."""
        place, (name, look) = entry
        noted = self._tally.noted
        try:
            saved = self._saved(tree, frame, name, look)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            self._tally.note("skipped", b"/".join((*frame.path, name)), REASONS[error.errno])
            saved = None
        if saved is not None:
            frame.linked |= look[_LINKS] > 1
        if self._tally.noted != noted or not self._is_settled(look):
            frame.unsettled.append(place)  # what was noted is looked at again, to be told again
        return saved

    def _saved(self, tree: Directories, frame: Frame, name: bytes, look: Look) -> bytes | None:
        """What is saved of an entry, as it is written; None for nothing."""
        device, inode, mode, links, size, *_ = look
        if name in frame.left_out:
            self._tally.note("skipped", b"/".join((*frame.path, name)), frame.left_out[name])
            return None
        is_file = stat.S_ISREG(mode)
        if not is_file and not stat.S_ISLNK(mode):
            reason = SPECIAL.get(stat.S_IFMT(mode), "device")
            self._tally.note("skipped", b"/".join((*frame.path, name)), reason)
            return None
        first = self._links.get((device, inode)) if links > 1 else None
        if first is not None:
            facts = os.stat(name, dir_fd=tree.at(frame.path), follow_symlinks=False)
            mode, mtime = facts.st_mode & _PERMISSIONS, facts.st_mtime_ns
            self._tally.count(Kind.HARD_LINK)
            return encode_node(Node(name, Kind.HARD_LINK, mode, mtime, link=first))
        saved = self._known_entries(frame).get(name, look)
        if saved is None:
            saved = self._read(tree.at(frame.path), frame.path, name)
        else:
            if mode & _SPECIAL_BITS:
                self._tally.note_special(b"/".join((*frame.path, name)), mode)
            self._tally.count(Kind.FILE if is_file else Kind.SYMLINK, size if is_file else 0)
        if links > 1:
            self._links[device, inode] = b"/".join((*frame.path, name))
        return saved

    def _known_entries(self, frame: Frame) -> KnownEntries:
        """What was saved of those entries that look as they did; further names are found anew."""
        if frame.was is None:
            old = frame.old
            if old is None:
                frame.was = _NOTHING_KNOWN
            else:
                frame.was = KnownEntries(old.looks, partial(self._intake.directory, old.digest))
        return frame.was

    # --- contents ---------------------------------------------------------------------------------

    def _read(self, above: int, beneath: Path, name: bytes) -> bytes:
        """Save a file or symlink; it is called for each of a first save, and so calls little itself."""
        if self._stopped.is_set():
            raise Abandoned
        handle = os.open(name, _LOOK, dir_fd=above)
        try:
            facts = os.fstat(handle)
            mode = facts.st_mode
            if stat.S_ISLNK(mode):
                return self._read_link(handle, facts, name)
            opened = reopen_regular(handle, mode)
        finally:
            os.close(handle)
        try:
            size, mtime = facts.st_size, facts.st_mtime_ns
            if self.names or not is_plain(opened, facts, COPY_CHUNK_BYTES):
                return self._read_file(opened, facts, (*beneath, name))
            data = os.pread(opened, size, 0) if size else b""
            if len(data) < size:
                return self._read_file(opened, facts, (*beneath, name))
            digest = self._intake.put(data) if data else b""
            now = os.fstat(opened)
        finally:
            os.close(opened)
        if mode & _SPECIAL_BITS or has_changed(facts, now):
            self._note_changes((*beneath, name), facts, now)
        self._tally.count(Kind.FILE, size)
        return encode_file(name, mode & _PERMISSIONS, mtime, size, digest)

    def _read_link(self, handle: int, facts: os.stat_result, name: bytes) -> bytes:
        link = os.fsencode(os.readlink("", dir_fd=handle))
        mode, whose = facts.st_mode & _PERMISSIONS, owner_of(facts, self.names)
        self._tally.count(Kind.SYMLINK)
        return encode_node(
            Node(name, Kind.SYMLINK, mode, facts.st_mtime_ns, link=link, owner=whose)
        )

    def _read_file(self, opened: int, facts: os.stat_result, path: Path) -> bytes:
        """Save a file that has more to it than some bytes."""
        size = facts.st_size
        attributes = attributes_of(opened, path, self._tally)
        sparse = extents_of(opened, size) if has_holes(facts) else None
        reading = _Reading(opened, sparse or [(0, size)], self._stopped)
        digest = b""
        if sparse is None and size <= COPY_CHUNK_BYTES:
            data = b"".join(reading.pieces())
            if data:
                digest = self._intake.put(data)
        elif sparse is None or sparse:
            digest = self._intake.put_pieces(reading.pieces())
        self._note_changes(path, facts, os.fstat(opened), lost=reading.lost)
        self._tally.count(Kind.FILE, size)
        node = Node(
            path[-1],
            Kind.FILE,
            facts.st_mode & _PERMISSIONS,
            facts.st_mtime_ns,
            size,
            digest,
            attributes=None if attributes is None else tuple(sorted(attributes.items())),
            sparse=None if sparse is None else tuple(sparse),
            owner=owner_of(facts, self.names),
        )
        return encode_node(node)

    def _note_changes(
        self, path: Path, facts: os.stat_result, now: os.stat_result, *, lost: int = 0
    ) -> None:
        """Note what is not kept of a file's mode, and whether somebody wrote to it meanwhile."""
        key = b"/".join(path)
        self._tally.note_special(key, facts.st_mode)
        if lost or now.st_size < facts.st_size:
            self._tally.note("changed", key, "shrank")
        elif now.st_size > facts.st_size:
            self._tally.note("changed", key, "grew")
        elif now.st_mtime_ns != facts.st_mtime_ns:
            self._tally.note("changed", key, "changed")


_NOTHING_KNOWN: Final = KnownEntries(joined_looks((), ()), lambda: None)


class _Reading:
    """Reads parts of a file; what it has lost since it was measured is zeros.

    Attributes:
        lost: bytes of these.
    """

    def __init__(self, opened: int, parts: list[Extent], stopped: threading.Event) -> None:
        self._opened = opened
        self._parts = parts
        self._stopped = stopped
        self.lost = 0

    def pieces(self) -> Iterator[bytes]:
        """All of them, piece by piece."""
        for offset, length in self._parts:
            at, end = offset, offset + length
            while at < end:
                if self._stopped.is_set():
                    raise Abandoned
                room = min(COPY_CHUNK_BYTES, end - at)
                piece = os.pread(self._opened, room, at)
                if not piece:
                    self.lost += room
                    piece = bytes(room)
                at += len(piece)
                yield piece
