"""The text tree that tells a model what a manifest put where; pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandyard.errors import ManifestError, shown
from sandyard.limits import DESCRIPTION_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Line", "render"]

_logger = logging.getLogger("sandyard.manifest")


@dataclass(frozen=True, slots=True)
class Line:
    """What is said about one entry.

    Attributes:
        path: normal path beneath the root.
        is_dir: True for a directory.
        description: what it is, or None.
    """

    path: str
    is_dir: bool
    description: str | None


@dataclass(slots=True)
class _Node:
    full_path: str
    is_dir: bool = False
    description: str | None = None
    children: dict[str, _Node] = field(default_factory=dict)


def render(root: str, lines: Iterable[Line], depth: int | None) -> str:
    """Draw the tree.

    Args:
        root: path of the root inside.
        lines: the entries, in any order.
        depth: levels to draw; None draws all.

    Raises:
        ManifestError: the depth is less than 1.
    """
    if depth is not None and (isinstance(depth, bool) or depth < 1):
        raise ManifestError(
            f"depth must be 1 or more, or None for all levels, not {shown(depth)}", field="depth"
        )
    top = root.rstrip("/")
    tree = _Node(full_path=top, is_dir=True)
    for line in lines:
        _insert(tree, line)
    rows = list(_rows(tree, "", depth))
    width = max((len(name) for name, _ in rows), default=0)
    text = "\n".join([top, *(f"{name:<{width}}  {note}" for name, note in rows)])
    return _shortened(text + "\n")


def _insert(tree: _Node, line: Line) -> None:
    """Put an entry into the tree, with the directories above it."""
    node = tree
    for name in line.path.split("/"):
        if name == ".":
            return  # the root itself, which is drawn anyway
        node.is_dir = True
        node = node.children.setdefault(name, _Node(full_path=f"{node.full_path}/{name}"))
    node.is_dir = node.is_dir or line.is_dir
    node.description = node.description or line.description


def _rows(node: _Node, indent: str, depth: int | None) -> Iterator[tuple[str, str]]:
    """Give the tree's name column and its comments, top down."""
    if depth == 0:
        return
    deeper = None if depth is None else depth - 1
    names = sorted(node.children)
    for name in names:
        child = node.children[name]
        last = name == names[-1]
        shape = f"{indent}{'└── ' if last else '├── '}{_one_line(name)}"
        about = f" — {_one_line(child.description)}" if child.description else ""
        yield f"{shape}/" if child.is_dir else shape, f"# {_one_line(child.full_path)}{about}"
        yield from _rows(child, f"{indent}{'    ' if last else '│   '}", deeper)


def _one_line(text: str) -> str:
    """Escape what would break the lines of the tree: names may hold newlines."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _shortened(text: str) -> str:
    """Cut a text that is too long, and say so to the model and in the log."""
    if len(text) <= DESCRIPTION_CHARS:
        return text
    note = (
        "\n... (truncated {} chars)\n\nThe tree above is not complete. "
        "Use `ls` to see what is in a directory before relying on it.\n"
    )
    keep = DESCRIPTION_CHARS - len(note.format(len(text)))
    _logger.warning(
        "the manifest's description has %d characters and was cut to %d; "
        "describe it with a smaller depth",
        len(text),
        DESCRIPTION_CHARS,
    )
    return text[:keep].rstrip() + note.format(len(text) - keep)
