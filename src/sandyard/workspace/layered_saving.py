"""A workspace on layers, saved as a tree: what its upper layers do not touch is taken from a known tree."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind
from sandyard.archive.report import Fate
from sandyard.archive.trees import decode_entry, entries_in, join_entries, kind_of
from sandyard.workspace.persist_tree import TreeSaving
from sandyard.workspace.stat_index import looks_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.archive.naming import Path
    from sandyard.archive.trees import Node
    from sandyard.workspace.extract_tree import Directories
    from sandyard.workspace.layered_known import KnownTree, Touched
    from sandyard.workspace.persist_frame import Frame, Listing
    from sandyard.workspace.stat_index import Known

__all__ = ["LayeredSaving", "UnknownTreeError"]

_FEW: Final = 16
"""Names that are looked up one by one rather than that a directory is listed."""


class UnknownTreeError(Exception):
    """A tree that should be known can't be read, or is of no use: the workspace is to be walked."""


class LayeredSaving(TreeSaving):
    """Saves what is in a directory on layers as a tree, with the costs of what was changed.

    Nothing is read of what is as it was, nor looked at; it is told of as it was told of then.
    """

    def follow(self, known: KnownTree, touched: Touched) -> None:
        """Take what is not touched from a known tree; once, before ``run``.

        Raises:
            UnknownTreeError: it is of no use.
        """
        self._known = known
        self._touched = touched
        (top, *_) = self._entries(bytes.fromhex(known.tree)).values() or (None,)
        if top is None:
            raise UnknownTreeError
        self._top_was = decode_entry(top).digest
        self._was: dict[Path, dict[bytes, bytes]] = {}
        self._kept: dict[Path, dict[bytes, bytes]] = {}
        self._unlisted: set[Path] = set()
        if known.report.hard_links:
            self._check_links()

    def run(self) -> Node:
        """Save all of it.

        Raises:
            UnknownTreeError: the known tree is of no use; what was counted is wrong then.
            OSError, Abandoned: as for any workspace.
        """
        self._tally.count_report(self._known.report)
        node = super().run()
        report = self._known.report
        told: tuple[tuple[Fate, Iterator[tuple[str, str]]], ...] = (
            ("skipped", iter(report.skipped)),
            ("changed", iter(report.changed)),
            ("dropped", iter(report.dropped)),
        )
        for fate, notes in told:
            for text, reason in notes:
                path = () if text == "." else tuple(os.fsencode(text).split(b"/"))
                depth = self._touched.keeps(path)
                if depth and path[depth - 1] in self._kept.get(path[: depth - 1], ()):
                    self._tally.note(fate, b"/".join(path), reason)
        return node

    # --- directories ------------------------------------------------------------------------------

    def _names_in(self, opened: int, path: Path) -> list[bytes]:
        digest, touched = self._digest_of(path), self._touched.names(path)
        if digest is None:
            return super()._names_in(opened, path)
        was = self._entries(digest)
        if touched is None:
            self._discount(was)
            return super()._names_in(opened, path)
        names = self._touched_ever(path, touched)
        if names is None:
            there = super()._names_in(opened, path)
            kept = {name: was.pop(name) for name in there if name in was and name not in touched}
            names = [name for name in there if name not in kept]
        else:
            kept, was = was, {name: was.pop(name) for name in names if name in was}
            self._unlisted.add(path)
        self._kept[path] = kept
        self._was[path] = {}
        for name, entry in was.items():
            node = decode_entry(entry)
            self._discount_one(node)
            if node.kind is Kind.DIRECTORY:  # what is in it, where it is known what became of it
                self._was[path][name] = node.digest
        return names

    def _touched_ever(self, path: Path, touched: set[bytes]) -> list[bytes] | None:
        """All in a directory that may be otherwise, sorted, where the kernel need not list it for that.

        It is far quicker to list one layer than all of them together. What was made above them and
        removed since the last save leaves no mark: that one looked at it.
        """
        if self._known.report.skipped:  # what is there may be more than what was saved
            return None
        key = b"/".join(path)
        then = self._before.get(key)
        if then is None and self._before.tells_of(key):  # which can't be read
            return None
        names = touched if then is None else touched.union(name for name, _ in looks_in(then.looks))
        return sorted(names) if len(names) <= len(touched) + _FEW else None

    def _looked_at(self, opened: int, path: Path, names: list[bytes]) -> Listing:
        listing = super()._looked_at(opened, path, names)
        return listing._replace(vanished=[]) if path in self._unlisted else listing

    def _digest_of(self, path: Path) -> bytes | None:
        """What a directory was, once; None if it was none."""
        if not path:
            return self._top_was
        return self._was.get(path[:-1], {}).pop(path[-1], None)

    def _old(self, path: Path, key: bytes) -> Known | None:
        known = super()._old(path, key)
        if known is None or path not in self._kept:
            return known
        return known._replace(linked=True)  # it may have lost what nobody looked at

    def _leave(self, tree: Directories, frame: Frame) -> bytes:
        kept = self._kept.get(frame.path)
        if kept is not None:
            saved = sorted((kept | entries_in(frame.saved)).items())
            frame.saved = bytearray(join_entries(entry for _, entry in saved))
            frame.linked = True  # or who looks at all of it would take what is noted for all of it
            for digest in self._was.pop(frame.path).values():  # of what was not entered
                self._discount(self._entries(digest))
        return super()._leave(tree, frame)

    # --- the known tree ---------------------------------------------------------------------------

    def _entries(self, digest: bytes) -> dict[bytes, bytes]:
        entries = self._intake.entries_of(digest)
        if entries is None:
            raise UnknownTreeError
        return entries

    def _discount_one(self, node: Node) -> None:
        self._tally.discount(node.kind, node.size)

    def _discount(self, entries: dict[bytes, bytes]) -> None:
        """Count all of these no longer, with all in them."""
        pending = [*entries.values()]
        while pending:
            node = decode_entry(pending.pop())
            self._discount_one(node)
            if node.kind is Kind.DIRECTORY:
                pending += self._entries(node.digest).values()

    def _check_links(self) -> None:
        """Refuse a tree in which a further name stays of what is not as it was.

        Raises:
            UnknownTreeError: it is one: the name is the first one now.
        """
        pending: list[tuple[Path, bytes]] = [((), self._top_was)]
        while pending:
            path, digest = pending.pop()
            for entry in self._entries(digest).values():
                if kind_of(entry) not in {Kind.DIRECTORY, Kind.HARD_LINK}:
                    continue
                node = decode_entry(entry)
                here = (*path, node.name)
                if node.kind is Kind.DIRECTORY:
                    pending.append((here, node.digest))
                else:
                    first = tuple(node.link.split(b"/"))
                    if self._touched.keeps(here) and not self._touched.keeps(first):
                        raise UnknownTreeError
