"""SnapshotDiff: what is different between two saved trees; directories that are the same are not read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandyard.archive.model import Kind

if TYPE_CHECKING:
    from sandyard.archive.trees import Node
    from sandyard.snapshot.reading import TreeReader

__all__ = ["SnapshotDiff", "compare_trees"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDiff:
    """What is different between two snapshots; paths are sorted.

    Attributes:
        removed: what only the old one has; of a directory, itself and all in it.
        added: what only the new one has, likewise.
        changed: what both have with other content, another kind or target.
        retouched: what both have with other permissions, attributes or times only.
    """

    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    retouched: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing is different."""
        return not (self.removed or self.added or self.changed or self.retouched)


def compare_trees(reader: TreeReader, old: str, new: str) -> SnapshotDiff:
    """Compare two trees by their digests.

    Raises:
        ArchiveError: one is damaged.
    """
    comparing = _Comparing(reader)
    (before,), (after,) = reader.nodes(bytes.fromhex(old)), reader.nodes(bytes.fromhex(new))
    if old != new:
        comparing.run(before, after)
    found = (comparing.removed, comparing.added, comparing.changed, comparing.retouched)
    removed, added, changed, retouched = (
        tuple(os.fsdecode(path) for path in sorted(each)) for each in found
    )
    return SnapshotDiff(removed=removed, added=added, changed=changed, retouched=retouched)


class _Comparing:
    """One comparison under way."""

    def __init__(self, reader: TreeReader) -> None:
        self._reader = reader
        self.removed: list[bytes] = []
        self.added: list[bytes] = []
        self.changed: list[bytes] = []
        self.retouched: list[bytes] = []

    def run(self, before: Node, after: Node) -> None:
        """Compare two directories and all in them."""
        todo: list[tuple[bytes, Node, Node]] = [(b"", before, after)]
        while todo:
            path, old, new = todo.pop()
            if old._replace(digest=b"") != new._replace(digest=b""):
                self.retouched.append(path or b".")
            if old.digest == new.digest:
                continue
            olds = {node.name: node for node in self._reader.nodes(old.digest, path)}
            news = {node.name: node for node in self._reader.nodes(new.digest, path)}
            for name in olds.keys() | news.keys():
                here = path + b"/" + name if path else name
                was, now = olds.get(name), news.get(name)
                if was is None or now is None or was.kind is not now.kind:
                    self._replace(here, was, now)
                elif was.kind is Kind.DIRECTORY:
                    todo.append((here, was, now))
                elif _content(was) != _content(now):
                    self.changed.append(here)
                elif was != now:
                    self.retouched.append(here)

    def _replace(self, path: bytes, was: Node | None, now: Node | None) -> None:
        """Note what came, went, or became something else."""
        one = was is not None and now is not None
        if one:
            self.changed.append(path)
        for node, into in ((was, self.removed), (now, self.added)):
            if node is None:
                continue
            if not one:
                into.append(path)
            if node.kind is Kind.DIRECTORY:
                self._list(path, node, into)

    def _list(self, path: bytes, top: Node, into: list[bytes]) -> None:
        todo = [(path, top)]
        while todo:
            above, node = todo.pop()
            for each in self._reader.nodes(node.digest, above):
                here = above + b"/" + each.name
                into.append(here)
                if each.kind is Kind.DIRECTORY:
                    todo.append((here, each))


def _content(node: Node) -> tuple[int, bytes, bytes]:
    return node.size, node.digest, node.link
