"""A workspace on layers, saved as a tree: what its upper layers do not touch is taken from a known tree."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from sandyard.archive.model import Kind
from sandyard.archive.report import Fate
from sandyard.archive.trees import encode_nodes
from sandyard.workspace.persist_tree import TreeSaving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandyard.archive.naming import Path
    from sandyard.archive.trees import Node
    from sandyard.workspace.extract_tree import Directories
    from sandyard.workspace.layered_known import KnownTree, Touched
    from sandyard.workspace.persist_frame import Frame, Listing
    from sandyard.workspace.stat_index import Known

__all__ = ["LayeredSaving", "UnknownTreeError"]

_NOTHING: Final = hashlib.sha256(encode_nodes(())).digest()


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
        (top, *_) = self._nodes(bytes.fromhex(known.tree)) or (None,)
        if top is None:
            raise UnknownTreeError
        self._top_was = top.digest
        self._was: dict[Path, dict[bytes, bytes]] = {}
        self._kept: dict[Path, dict[bytes, Node]] = {}
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

    def _looked_at(self, opened: int, path: Path, names: list[bytes]) -> Listing:
        digest, touched = self._digest_of(path), self._touched.names(path)
        if digest is None:
            return super()._looked_at(opened, path, names)
        was = {node.name: node for node in self._nodes(digest)}
        if touched is None:
            self._discount(was.values())
            return super()._looked_at(opened, path, names)
        kept = {name: was.pop(name) for name in names if name in was and name not in touched}
        listing = super()._looked_at(opened, path, [name for name in names if name not in kept])
        self._kept[path] = kept
        self._was[path] = {}
        for name, node in was.items():
            self._discount_one(node)
            if (
                node.kind is Kind.DIRECTORY
            ):  # what is in it, where it is known what has become of it
                self._was[path][name] = node.digest
        return listing

    def _digest_of(self, path: Path) -> bytes | None:
        """What a directory was, once; None if it was none."""
        if not path:
            return self._top_was
        return self._was.get(path[:-1], {}).pop(path[-1], None)

    def _old(self, path: Path) -> Known | None:
        known = super()._old(path)
        if known is None or path not in self._kept:
            return known
        return known._replace(linked=True)  # it may have lost what nobody looked at

    def _leave(self, tree: Directories, frame: Frame) -> Node:
        kept = self._kept.get(frame.path)
        if kept is not None:
            frame.nodes = sorted((*frame.nodes, *kept.values()), key=lambda node: node.name)
            frame.linked = True  # or who looks at all of it would take what is noted for all of it
            for digest in self._was.pop(frame.path).values():  # of what was not entered
                self._discount(self._nodes(digest))
        return super()._leave(tree, frame)

    # --- the known tree ---------------------------------------------------------------------------

    def _nodes(self, digest: bytes) -> list[Node]:
        with self._as_program():
            nodes = self._intake.nodes_of(digest)
        if not nodes and digest != _NOTHING:
            raise UnknownTreeError
        return nodes

    def _discount_one(self, node: Node) -> None:
        self._tally.discount(node.kind, node.size)

    def _discount(self, nodes: Iterable[Node]) -> None:
        """Count all of these no longer, with all in them."""
        pending = [*nodes]
        while pending:
            node = pending.pop()
            self._discount_one(node)
            if node.kind is Kind.DIRECTORY:
                pending += self._nodes(node.digest)

    def _check_links(self) -> None:
        """Refuse a tree in which a further name stays of what is not as it was.

        Raises:
            UnknownTreeError: it is one: the name is the first one now.
        """
        pending: list[tuple[Path, bytes]] = [((), self._top_was)]
        while pending:
            path, digest = pending.pop()
            for node in self._nodes(digest):
                here = (*path, node.name)
                if node.kind is Kind.DIRECTORY:
                    pending.append((here, node.digest))
                elif node.kind is Kind.HARD_LINK:
                    first = tuple(node.link.split(b"/"))
                    if self._touched.keeps(here) and not self._touched.keeps(first):
                        raise UnknownTreeError
