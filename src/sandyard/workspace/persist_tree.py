"""A workspace, saved as a tree of directories: what looks as it did is not read again."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind
from sandyard.archive.trees import Node, encode_nodes
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.extract_stage import is_temporary
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.kernel import PATH_ONLY, reopen_file
from sandyard.workspace.persist_facts import (
    REASONS,
    SPECIAL,
    attributes_of,
    extents_of,
    has_holes,
    owner_of,
)
from sandyard.workspace.root import Owner
from sandyard.workspace.stat_index import (
    Known,
    Looks,
    clock_now,
    look_of,
    looks_in,
    settled_look,
    unlike,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from sandyard.archive.model import Extent
    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally
    from sandyard.archive.trees import Intake
    from sandyard.workspace.ward import Ward

__all__ = ["Entry", "Frame", "TreeSaving"]

_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777
_SPECIAL_BITS: Final = 0o7000

Entry = tuple[bytes, os.stat_result, bytes]
"""Name, facts, and how it looks."""


class Frame:
    """One directory that is being saved.

    Attributes:
        path: it.
        node: what its own entry will say, its digest excepted.
        entries: what is in it, sorted.
        old: what is known of it.
        left_out: names in it that are not to be saved, and why.
        same: whether all in it looks as it did, directories excepted.
        fresh: whether a directory in it has another digest than before.
        nodes: what will be saved of it.
        looks: how its entries looked.
        linked: whether a file in it has other names.
    """

    __slots__ = (
        "at",
        "entries",
        "fresh",
        "left_out",
        "linked",
        "looks",
        "node",
        "nodes",
        "old",
        "path",
        "same",
        "was_looks",
        "was_nodes",
    )

    def __init__(
        self,
        path: Path,
        node: Node,
        entries: list[Entry],
        left_out: dict[bytes, str],
        old: Known | None,
    ) -> None:
        self.path = path
        self.node = node
        self.entries = entries
        self.left_out = left_out
        self.old = old
        self.at = 0
        looks = b"".join(look for _, _, look in entries)
        known = old is not None and not old.linked and old.looks == looks
        self.same = known and not left_out
        self.fresh = False
        self.linked = False
        self.nodes: list[Node] = []
        self.looks: list[bytes] = []
        self.was_nodes: dict[bytes, Node] | None = None
        self.was_looks: dict[bytes, bytes] | None = None


class TreeSaving:
    """Saves what is in a directory as a tree.

    Args:
        top: descriptor of the directory; it stays the caller's.
        intake: takes contents and directories; it is called as this program, not as ``owner``.
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
        self._back = None if owner is None else Owner(os.geteuid(), os.getegid())
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
        with Directories(self._top, self._ward.admit) as tree:
            facts = os.fstat(self._top)
            stack = [self._enter(tree, (), b".", facts)]
            while True:
                frame = stack[-1]
                entry = self._next_directory(tree, frame)
                if entry is None:
                    node = self._leave(tree, frame)
                    stack.pop()
                    if not stack:
                        return node
                    self._take(stack[-1], node, frame.old)
                    continue
                name, facts, _ = entry
                below = self._try_enter(tree, (*frame.path, name), facts)
                if below is None:
                    self._drop(frame)
                else:
                    stack.append(below)

    # --- directories ------------------------------------------------------------------------------

    def _try_enter(self, tree: Directories, path: Path, facts: os.stat_result) -> Frame | None:
        try:
            return self._enter(tree, path, path[-1], facts)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            self._tally.note("skipped", b"/".join(path), REASONS[error.errno])
            return None

    def _enter(self, tree: Directories, path: Path, name: bytes, facts: os.stat_result) -> Frame:
        """Look at all that is in a directory."""
        if self._stopped.is_set():
            raise Abandoned
        opened = os.open(".", _LIST, dir_fd=tree.at(path))
        try:
            entries = self._looked_at(opened, path, sorted(map(os.fsencode, os.listdir(opened))))
            attributes = attributes_of(opened, path, self._tally)
        finally:
            os.close(opened)
        kept = None if attributes is None else tuple(sorted(attributes.items()))
        mode = facts.st_mode & _PERMISSIONS
        whose = owner_of(facts, self.names)
        node = Node(name, Kind.DIRECTORY, mode, facts.st_mtime_ns, attributes=kept, owner=whose)
        if facts.st_mode & _SPECIAL_BITS:
            self._tally.note_special(b"/".join(path), facts.st_mode)
        if path:
            self._tally.count(Kind.DIRECTORY)
        left_out = self._left_out(path, entries)
        return Frame(path, node, entries, left_out, self._before.get(b"/".join(path)))

    def _looked_at(self, opened: int, path: Path, names: list[bytes]) -> list[Entry]:
        """Look at entries of a directory."""
        entries: list[Entry] = []
        for each in names:
            try:
                found = os.stat(each, dir_fd=opened, follow_symlinks=False)
            except FileNotFoundError:
                self._tally.note("skipped", b"/".join((*path, each)), "vanished")
                continue
            entries.append((each, found, look_of(each, found)))
        return entries

    def _left_out(self, path: Path, entries: list[Entry]) -> dict[bytes, str]:
        """What of a directory is not to be saved, whatever it is, and why."""
        found: dict[bytes, str] = {}
        holds_excluded, closes = path in self._holders, self._ward.closes
        for name, facts, _ in entries:
            if closes and self._ward.is_denied(facts):
                found[name] = "denied"
            elif holds_excluded and (*path, name) in self._excluded:
                found[name] = "excluded"
            elif name.startswith(b".sandyard-") and is_temporary(name):
                found[name] = "temporary"
        return found

    def _next_directory(self, tree: Directories, frame: Frame) -> Entry | None:
        """Save entries up to the next directory, and return that."""
        while frame.at < len(frame.entries):
            entry = frame.entries[frame.at]
            if stat.S_ISDIR(entry[1].st_mode) and entry[0] not in frame.left_out:
                return entry
            frame.at += 1
            if frame.same:
                self._count(frame, entry)
            else:
                self._save_entry(tree, frame, entry)
        return None

    def _take(self, frame: Frame, node: Node, was: Known | None) -> None:
        """Note what a directory in a directory has become."""
        name, facts, _ = frame.entries[frame.at]
        frame.at += 1
        frame.fresh |= was is None or was.digest != node.digest
        frame.nodes.append(node)
        frame.looks.append(settled_look(name, facts, self._since))

    def _drop(self, frame: Frame) -> None:
        """Go on without a directory that can't be read, and try it again the next time."""
        frame.looks.append(unlike(frame.entries[frame.at][2]))
        frame.at += 1
        frame.fresh = True

    def _leave(self, tree: Directories, frame: Frame) -> Node:
        old = frame.old
        key = b"/".join(frame.path)
        if frame.same and old is not None:
            if not frame.fresh:
                self._after.add(key, old)
                return frame.node._replace(digest=old.digest)
            self._fill_in(tree, frame)
        with self._as_program():
            digest = self._intake.put(encode_nodes(frame.nodes))
        self._after.add(key, Known(digest, frame.linked, b"".join(frame.looks)))
        return frame.node._replace(digest=digest)

    def _fill_in(self, tree: Directories, frame: Frame) -> None:
        """Add the files of a directory of which only directories in it have changed."""
        below = {node.name: node for node in frame.nodes}
        looks = dict(looks_in(b"".join(frame.looks)))
        frame.nodes, frame.looks, frame.same = [], [], False
        counted = self._tally
        self._tally = type(counted)()  # its files were counted
        try:
            for entry in frame.entries:
                name = entry[0]
                if name in looks:
                    frame.looks.append(looks[name])
                    if name in below:
                        frame.nodes.append(below[name])
                else:
                    self._save_entry(tree, frame, entry)
        finally:
            self._tally = counted

    # --- entries ----------------------------------------------------------------------------------

    def _count(self, frame: Frame, entry: Entry) -> None:
        """Count what looks as it did."""
        facts = entry[1]
        if stat.S_ISREG(facts.st_mode):
            self._tally.count(Kind.FILE, facts.st_size)
        elif stat.S_ISLNK(facts.st_mode):
            self._tally.count(Kind.SYMLINK)

    def _save_entry(self, tree: Directories, frame: Frame, entry: Entry) -> None:
        """Save one entry that is no directory, or note why not."""
        name, facts, look = entry
        noted = self._tally.noted
        try:
            node = self._node_of(tree, frame, entry)
        except OSError as error:
            if error.errno not in REASONS:
                raise
            self._tally.note("skipped", b"/".join((*frame.path, name)), REASONS[error.errno])
            node = None
        if node is not None:
            frame.nodes.append(node)
            frame.linked |= facts.st_nlink > 1
        if self._tally.noted == noted:
            frame.looks.append(settled_look(name, facts, self._since))
        else:  # it is looked at again, to be told again
            frame.looks.append(unlike(look))

    def _node_of(self, tree: Directories, frame: Frame, entry: Entry) -> Node | None:
        name, facts, look = entry
        path = (*frame.path, name)
        form = stat.S_IFMT(facts.st_mode)
        if name in frame.left_out:
            self._tally.note("skipped", b"/".join(path), frame.left_out[name])
            return None
        if form not in {stat.S_IFREG, stat.S_IFLNK}:
            self._tally.note("skipped", b"/".join(path), SPECIAL.get(form, "device"))
            return None
        inode = facts.st_dev, facts.st_ino
        first = self._links.get(inode) if facts.st_nlink > 1 else None
        if first is not None:
            self._tally.count(Kind.HARD_LINK)
            mode = facts.st_mode & _PERMISSIONS
            return Node(name, Kind.HARD_LINK, mode, facts.st_mtime_ns, link=first)
        node = self._known_node(frame, name, look)
        if node is None:
            node = self._read(tree.at(frame.path), path)
        elif facts.st_mode & _SPECIAL_BITS:
            self._tally.note_special(b"/".join(path), facts.st_mode)
        self._tally.count(node.kind, node.size)
        if facts.st_nlink > 1:
            self._links[inode] = b"/".join(path)
        return node

    def _known_node(self, frame: Frame, name: bytes, look: bytes) -> Node | None:
        """What was saved of an entry, if it looks as it did."""
        if frame.old is None:
            return None
        if frame.was_looks is None:
            frame.was_looks = dict(looks_in(frame.old.looks))
        if frame.was_looks.get(name) != look:
            return None
        if frame.was_nodes is None:
            with self._as_program():
                nodes = self._intake.nodes_of(frame.old.digest)
            frame.was_nodes = {node.name: node for node in nodes}
        node = frame.was_nodes.get(name)
        return None if node is None or node.kind is Kind.HARD_LINK else node

    # --- contents ---------------------------------------------------------------------------------

    def _read(self, above: int, path: Path) -> Node:
        handle = os.open(path[-1], _LOOK, dir_fd=above)
        try:
            facts = os.fstat(handle)
            mode = facts.st_mode & _PERMISSIONS
            if stat.S_ISLNK(facts.st_mode):
                link = os.fsencode(os.readlink("", dir_fd=handle))
                whose = owner_of(facts, self.names)
                return Node(path[-1], Kind.SYMLINK, mode, facts.st_mtime_ns, link=link, owner=whose)
            opened = reopen_file(handle)
        finally:
            os.close(handle)
        try:
            return self._read_file(opened, path)
        finally:
            os.close(opened)

    def _read_file(self, opened: int, path: Path) -> Node:
        facts, text = os.fstat(opened), b"/".join(path)
        attributes = attributes_of(opened, path, self._tally)
        sparse = extents_of(opened, facts.st_size) if has_holes(facts) else None
        reading = _Reading(opened, sparse or [(0, facts.st_size)], self._stopped)
        digest = b""
        if sparse is None and facts.st_size <= COPY_CHUNK_BYTES:
            data = b"".join(reading.pieces())
            if data:
                with self._as_program():
                    digest = self._intake.put(data)
        elif sparse is None or sparse:
            with self._as_program():
                digest = self._intake.put_pieces(reading.pieces())
        now = os.fstat(opened)
        if facts.st_mode & _SPECIAL_BITS:
            self._tally.note_special(text, facts.st_mode)
        if reading.lost or now.st_size < facts.st_size:
            self._tally.note("changed", text, "shrank")
        elif now.st_size > facts.st_size:
            self._tally.note("changed", text, "grew")
        elif now.st_mtime_ns != facts.st_mtime_ns:
            self._tally.note("changed", text, "changed")
        return Node(
            path[-1],
            Kind.FILE,
            facts.st_mode & _PERMISSIONS,
            facts.st_mtime_ns,
            size=facts.st_size,
            digest=digest,
            attributes=None if attributes is None else tuple(sorted(attributes.items())),
            sparse=None if sparse is None else tuple(sparse),
            owner=owner_of(facts, self.names),
        )

    def _as_program(self) -> AbstractContextManager[None]:
        """The store is this program's, whoever the files belong to."""
        return acting_as(self._back)


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
