"""MemoryFiles: a workspace in memory, as directories and files by name; no file of the host is touched."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, TypeVar

from sandyard.accounts import AGENT
from sandyard.errors import (
    ArgumentError,
    ExecNonZeroError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from sandyard.types import EntryKind, ExecResult, FileEntry, Permissions
from sandyard.workspace.names import Names, names_beneath
from sandyard.workspace.patterns import compile_glob

if TYPE_CHECKING:
    from sandyard.errors import OpName

__all__ = ["MemoryFiles", "Node"]

T = TypeVar("T")

_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755
_PERMISSIONS: Final = 0o777


@dataclass(frozen=True, slots=True)
class Node:
    """A file, or a directory.

    Attributes:
        content: of a file; None for a directory.
        mode: permission bits.
        modified_ns: when it last changed, in ns since 1970.
    """

    content: bytes | None
    mode: int
    modified_ns: int

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.content is None


class MemoryFiles:
    """The tree of a workspace: there are directories and files, and no links.

    Methods take paths as callers give them, and raise what the same verbs of a session do.

    Args:
        inside: absolute path of the workspace.
    """

    def __init__(self, inside: str) -> None:
        self.inside = inside
        self._nodes: dict[Names, Node] = {(): _directory()}

    # --- paths ------------------------------------------------------------------------------------

    def names(self, path: str | PurePath, op: OpName) -> Names:
        """Where a path leads; without links its words alone say so.

        Raises:
            InvalidManifestPathError: out of the workspace.
            ArgumentError: it is none.
        """
        found: list[str] = []
        for name in names_beneath(path, self.inside, op):
            if name != "..":
                found.append(name)
            elif found:
                found.pop()
            else:
                raise InvalidManifestPathError(rel=path, reason="escape_root")
        return tuple(found)

    def absolute(self, names: Names) -> str:
        """The path of something, as commands would see it."""
        return "/".join((self.inside.rstrip("/"), *names)) or "/"

    def beneath(self, names: Names) -> list[Names]:
        """What lies beneath a directory, sorted by path."""
        deep = len(names)
        found = (one for one in self._nodes if len(one) > deep and one[:deep] == names)
        return sorted(found, key="/".join)

    # --- reading ----------------------------------------------------------------------------------

    def node(self, path: str | PurePath, op: OpName) -> Node | None:
        """What is at a path, if anything is."""
        return self._nodes.get(self.names(path, op))

    def content(self, path: str | PurePath) -> bytes:
        """The content of a file."""
        node = self.node(path, "read")
        if node is None:
            raise WorkspaceReadNotFoundError(path=path)
        if node.content is None:
            raise WorkspaceArchiveReadError(path=path, context={"reason": "is_directory"})
        return node.content

    def entry(self, path: str | PurePath, op: OpName) -> FileEntry:
        """A description of what is at a path."""
        names = self.names(path, op)
        if names not in self._nodes:
            raise WorkspaceReadNotFoundError(path=path)
        return self._described(names)

    def _described(self, names: Names) -> FileEntry:
        node = self._nodes[names]
        kind = stat.S_IFDIR if node.is_dir else stat.S_IFREG
        return FileEntry(
            path=self.absolute(names),
            permissions=Permissions.from_mode(kind | node.mode),
            owner=AGENT,
            group=AGENT,
            size=len(node.content or b""),
            kind=EntryKind.DIRECTORY if node.is_dir else EntryKind.FILE,
            modified_ns=node.modified_ns,
        )

    def listed(self, path: str | PurePath, *, recursive: bool) -> list[FileEntry]:
        """What is in a directory, or all beneath it, sorted by path."""
        names = self.names(path, "ls")
        node = self._nodes.get(names)
        if node is None or not node.is_dir:
            why = "No such file or directory" if node is None else "Not a directory"
            raise _said(("ls", "-la", "--", str(path)), why)
        return [
            self._described(one)
            for one in self.beneath(names)
            if recursive or len(one) == len(names) + 1
        ]

    def matches(self, pattern: str, path: str | PurePath) -> list[str]:
        """What a pattern of ``glob`` matches beneath a directory."""
        glob, top = compile_glob(pattern), self.names(path, "glob")
        node = self._nodes.get(top)
        if node is None or not node.is_dir:
            raise WorkspaceReadNotFoundError(path=path)
        found = []
        for names in self.beneath(top):
            states, relative = glob.start(), names[len(top) :]
            for name in relative:
                states = glob.step(states, name)
            if glob.is_match(states):
                found.append("/".join(relative))
        return found

    def walk(self) -> Iterator[tuple[Names, Node]]:
        """All that there is but the workspace itself, directories before what is in them."""
        return ((names, self._nodes[names]) for names in sorted(self._nodes) if names)

    # --- writing ----------------------------------------------------------------------------------

    def at_once(self, work: Callable[[], T]) -> T:
        """Do several things, all of them or, if one fails, none."""
        before = dict(self._nodes)
        try:
            return work()
        except BaseException:
            self._nodes = before
            raise

    def put(self, path: str | PurePath, content: bytes, *, op: OpName = "write") -> None:
        """Write a file; missing parents are made, and its mode is kept."""
        names = self.names(path, op)
        old = self._nodes.get(names)
        if old is not None and old.is_dir:
            raise _unwritten(path, "a directory is there", "is_directory")
        self._make_above(names, path)
        mode = _FILE_MODE if old is None else old.mode
        self._nodes[names] = Node(content, mode, time.time_ns())

    def make(self, path: str | PurePath, *, parents: bool) -> None:
        """Make a directory; one that exists is left alone."""
        names = self.names(path, "mkdir")
        node = self._nodes.get(names)
        if node is not None:
            if not node.is_dir:
                raise _unwritten(path, "a file is there", "not_a_directory")
            return
        if not parents and names[:-1] not in self._nodes:
            raise _unwritten(path, "the directory above it is missing", "not_found")
        self._make_above(names, path)
        self._nodes[names] = _directory()

    def _make_above(self, names: Names, path: str | PurePath) -> None:
        above = [names[:deep] for deep in range(1, len(names))]
        if any(one in self._nodes and not self._nodes[one].is_dir for one in above):
            raise _unwritten(path, "a file is where a directory has to be", "not_a_directory")
        for one in above:
            self._nodes.setdefault(one, _directory())

    def remove(self, path: str | PurePath, *, recursive: bool) -> None:
        """Remove a file, or with ``recursive`` a tree."""
        names = self.names(path, "rm")
        if not names:
            raise _unwritten(path, "the workspace itself is not removed", "root")
        if names not in self._nodes:
            if recursive:
                return
            raise _said(("rm", "--", str(path)), "No such file or directory")
        beneath = self.beneath(names)
        if self._nodes[names].is_dir and not recursive and beneath:
            raise _unwritten(path, "the directory is not empty", "not_empty")
        for one in (*beneath, names):
            del self._nodes[one]

    def move(self, source: str | PurePath, destination: str | PurePath) -> None:
        """Rename a file or a directory; a file at the destination is replaced."""
        names, target = self.names(source, "mv"), self.names(destination, "mv")
        words = ("mv", "-fT", "--", str(source), str(destination))
        if not names or names not in self._nodes:
            raise _said(words, "No such file or directory" if names else "it is the workspace")
        there, above = self._nodes.get(target), self._nodes.get(target[:-1])
        if above is None or not above.is_dir:
            raise _said(words, "there is no directory for the destination")
        if target == names:
            return
        if (there is not None and there.is_dir) or target[: len(names)] == names:
            raise _said(words, "a directory is at the destination, or it lies within the source")
        if there is not None and self._nodes[names].is_dir:
            raise _said(words, "Not a directory")
        for one in (names, *self.beneath(names)):
            self._nodes[target + one[len(names) :]] = self._nodes.pop(one)

    def copy(self, source: str | PurePath, destination: str | PurePath, *, recursive: bool) -> None:
        """Copy a file, or with ``recursive`` a tree, to where nothing is or a file by a file."""
        names, target = self.names(source, "copy"), self.names(destination, "copy")
        node, there = self._nodes.get(names), self._nodes.get(target)
        if node is None:
            raise _unwritten(source, "it does not exist", "not_found")
        if node.is_dir and not recursive:
            raise _unwritten(source, "it is a directory; recursive=True copies it", "is_directory")
        if there is not None and (there.is_dir or node.is_dir):
            raise _unwritten(destination, "something is in the way", "exists")
        if target[: len(names)] == names and target != names:
            raise _unwritten(destination, "it lies within what is copied", "within_source")
        self._make_above(target, destination)
        for one in (names, *self.beneath(names)):
            self._nodes[target + one[len(names) :]] = self._nodes[one]

    def set_mode(self, path: str | PurePath, mode: object, *, op: OpName = "chmod") -> None:
        """Set the permission bits of a file or directory."""
        bits = mode.to_mode() & _PERMISSIONS if isinstance(mode, Permissions) else mode
        if isinstance(bits, bool) or not isinstance(bits, int) or bits & ~_PERMISSIONS:
            raise ArgumentError(
                "mode is nine bits, such as 0o644, or Permissions",
                op=op,
                argument="mode",
                value=mode,
            )
        names = self.names(path, op)
        if names not in self._nodes:
            raise _unwritten(path, "it does not exist", "not_found")
        self._nodes[names] = replace(self._nodes[names], mode=bits)


def _directory() -> Node:
    return Node(None, _DIRECTORY_MODE, time.time_ns())


def _unwritten(path: str | PurePath, why: str, reason: str) -> WorkspaceArchiveWriteError:
    return WorkspaceArchiveWriteError(
        path=path,
        message=f"{path}: {why}; nothing was changed",
        context={"reason": reason},
        retryable=False,
    )


def _said(words: tuple[str, ...], why: str) -> ExecNonZeroError:
    """The error of a command of this name, as verbs raise it that were commands once."""
    text = f"{words[0]}: {words[-1]}: {why}"
    return ExecNonZeroError(
        ExecResult(stdout=b"", stderr=text.encode(), exit_code=1), command=words
    )
