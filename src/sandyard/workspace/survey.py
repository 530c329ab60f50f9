"""Finds what directories hold that programs outside would run or obey: repositories, planted files.

A bounded walk by descriptor. Nothing that is found is run, and Git is not asked: it would obey the
very configuration that is looked for.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.limits import SURVEY_DEPTH, SURVEY_ENTRIES, SURVEY_FILE_BYTES
from sandyard.planted import GIT_DIRECTORY, GIT_PARTS, LIBRARY, PLANTED, ProtectedPart
from sandyard.workspace.gitconfig import parse_config
from sandyard.workspace.names import split_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sandyard.workspace.names import Names
    from sandyard.workspace.opener import Opener

__all__ = ["Look", "Repository", "Survey", "Tree", "locate", "survey_trees"]

_LOOK: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PRUNED: Final = frozenset({"node_modules", "__pycache__", ".venv", ".tox", "site-packages"})
"""What is installed, not worked on: thousands of directories in which nobody opens an editor."""

_READERS: Final = {each.name: each.reader for each in PLANTED}
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_BARE: Final = frozenset({"HEAD", "objects", "refs"})
"""What makes a directory a repository without a ``.git`` around it (gitrepository-layout(5))."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory that commands can write to.

    Attributes:
        inside: its path inside.
        source: its path on the host, without symlinks.
        opener: opens what lies beneath it.
    """

    inside: str
    source: str
    opener: Opener

    def path(self, names: Names) -> str:
        """Where something in it is inside."""
        return posixpath.join(self.inside, *names)

    def look(self, names: Names) -> Look:
        """What something is; a symlink is itself.

        Raises:
            OSError: nothing is there, or it can't be looked at.
        """
        opened = self.opener.open(names, _LOOK)
        try:
            facts = os.fstat(opened)
            is_link = stat.S_ISLNK(facts.st_mode)
            return Look(facts, os.readlink("", dir_fd=opened) if is_link else None)
        finally:
            os.close(opened)

    def list(self, names: Names, most: int) -> Mapping[str, int]:
        """The names in a directory and their kinds, at most so many.

        Raises:
            OSError: it is none, or can't be listed.
        """
        opened = self.opener.open(names, _LIST)
        try:
            with os.scandir(opened) as entries:
                return {entry.name: _kind(entry) for entry in islice(entries, most)}
        finally:
            os.close(opened)

    def read(self, names: Names) -> bytes:
        """The beginning of a file; nothing if there is none."""
        try:
            with open(self.opener.open_file(names), "rb") as file:
                return file.read(SURVEY_FILE_BYTES)
        except OSError:
            return b""

    def text(self, names: Names) -> str:
        """The same, as text."""
        return self.read(names).decode("utf-8", "surrogateescape")


class Look(NamedTuple):
    """What something is.

    Attributes:
        facts: of itself.
        target: of a symlink; None for anything else.
    """

    facts: os.stat_result
    target: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository.

    Attributes:
        path: of the directory that holds ``.git``, or of a bare repository; absolute, inside.
        directory: of the Git directory, inside; None where it lies in no tree.
    """

    path: str
    directory: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Attributes:
        parts: what is to be kept as it is, of the names that were asked for.
        repositories: all that were found.
        planted: paths of planted files that were found, inside.
        notes: what can't be kept as it is, and why; sentences.
        complete: False if there was more than is looked at.
    """

    parts: tuple[ProtectedPart, ...]
    repositories: tuple[Repository, ...]
    planted: tuple[str, ...]
    notes: tuple[str, ...]
    complete: bool


def survey_trees(
    trees: Sequence[Tree], names: Collection[str], *, entries: int = SURVEY_ENTRIES
) -> Survey:
    """Look through directories; this library is kept as it is wherever it lies in them.

    Blocks on the file system.

    Args:
        trees: where to look; one that lies within another is looked through once.
        names: which names are to be protected: ``.git``, others, or paths relative to a tree.
        entries: how many directory entries are looked at, in all.
    """
    walk = _Walk(tuple(trees), frozenset(names), entries)
    for tree in trees:
        walk.through(tree)
        walk.keep_library(tree)
    return Survey(
        parts=tuple(walk.parts[path] for path in sorted(walk.parts)),
        repositories=tuple(walk.repositories[path] for path in sorted(walk.repositories)),
        planted=tuple(sorted(walk.planted)),
        notes=tuple(walk.notes),
        complete=walk.left > 0,
    )


def locate(trees: Sequence[Tree], path: str) -> tuple[Tree, Names] | None:
    """Find the tree that an absolute path lies in, by its words alone; None if it lies in none.

    Args:
        path: as commands know it, or as the host does.
    """
    plain = posixpath.normpath(path)
    for tree in trees:
        for root in (tree.inside, tree.source):
            if plain == root or plain.startswith(root + "/"):
                return tree, split_names(plain[len(root) :])
    return None


@dataclass(slots=True)
class _Walk:
    """One survey under way."""

    trees: tuple[Tree, ...]
    names: frozenset[str]
    left: int
    parts: dict[str, ProtectedPart] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    planted: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    git_directories: set[str] = field(default_factory=set)

    def through(self, tree: Tree) -> None:
        """Look through one tree, the upper directories first."""
        queue: deque[Names] = deque([()])
        while queue and self.left > 0:
            at = queue.popleft()
            found = self._listed(tree, at)
            if at and found.keys() >= _BARE:
                self.repositories[tree.path(at)] = Repository(tree.path(at), tree.path(at))
                self._add_git(tree, at)
                continue
            for name, kind in found.items():
                here = (*at, name)
                if name == GIT_DIRECTORY:
                    self._add_repository(tree, at, kind)
                elif self._is_watched(here):
                    self._add_planted(tree, here, kind)
                elif kind == stat.S_IFDIR and name not in _PRUNED and len(here) < SURVEY_DEPTH:
                    queue.append(here)

    def keep_library(self, tree: Tree) -> None:
        """Keep what runs outside as this library, and hold the directories that lead to it."""
        if not LIBRARY.startswith(f"{tree.source.rstrip('/')}/"):
            return
        names = split_names(LIBRARY[len(tree.source) :])
        for depth in range(1, len(names)):
            self._keep(tree, names[:depth], read_only=False)
        self._keep(tree, names, read_only=True)

    def _listed(self, tree: Tree, at: Names) -> Mapping[str, int]:
        """The entries of a directory and their kinds; none if it can't be listed."""
        try:
            found = tree.list(at, self.left)
        except OSError as error:
            if error.errno not in _ABSENT:
                self.notes.append(f"{tree.path(at)} can't be looked into: {error.strerror}")
            return {}
        self.left -= len(found)
        return found

    def _is_watched(self, names: Names) -> bool:
        return names[-1] in _READERS or names[-1] in self.names or "/".join(names) in self.names

    def _add_planted(self, tree: Tree, names: Names, kind: int) -> None:
        path = tree.path(names)
        if names[-1] in _READERS:
            self.planted.add(path)
        if names[-1] not in self.names and "/".join(names) not in self.names:
            return
        if kind == stat.S_IFLNK:
            self.notes.append(f"{path} is a symlink, which can be replaced")
        else:
            self._keep(tree, names, read_only=True)

    # --- Git ----------------------------------------------------------------------------------

    def _add_repository(self, tree: Tree, at: Names, kind: int) -> None:
        path, link = tree.path(at), (*at, GIT_DIRECTORY)
        found: tuple[Tree, Names] | None = (tree, link)
        if kind == stat.S_IFREG:  # a linked worktree's, or a submodule's
            target = tree.text(link).removeprefix("gitdir:").strip()
            found = self._locate(tree, at, target)
            if GIT_DIRECTORY in self.names:
                self._keep(tree, link, read_only=True)
        elif kind == stat.S_IFLNK:
            target = _link_target(tree, link)
            found = self._locate(tree, at, target)
            self.notes.append(f"{tree.path(link)} is a symlink, which can be replaced")
        if found is None:
            self.notes.append(
                f"{tree.path(link)} leads to {target}, which commands can't write to: Git does "
                "not work there unless the policy's writes name it"
            )
            self.repositories[path] = Repository(path, None)
            return
        self.repositories[path] = Repository(path, found[0].path(found[1]))
        self._add_git(*found)

    def _add_git(self, tree: Tree, at: Names) -> None:
        """Keep a Git directory in its place, and what it runs as it is."""
        path = tree.path(at)
        if GIT_DIRECTORY not in self.names or path in self.git_directories:
            return
        self.git_directories.add(path)
        self._keep(tree, at, read_only=False)
        for part in GIT_PARTS:
            *parents, last = part.split("/")
            if parents:
                self._keep(tree, (*at, *parents), read_only=False)
            self._keep(tree, (*at, *parents, last), read_only=True)
        if common := tree.text((*at, "commondir")).strip():
            self._follow(tree, at, common, self._add_git)
        for key, value in parse_config(tree.text((*at, "config"))):
            if key == "core.hookspath":  # relative to where hooks run: the top of the worktree
                self._follow(tree, at[:-1], value, self._keep_whole)
            elif key == "include.path" or (key.startswith("includeif.") and key.endswith(".path")):
                self._follow(tree, at, value, self._keep_whole)
        self._add_nested(tree, at, "modules")
        self._add_nested(tree, at, "worktrees")

    def _add_nested(self, tree: Tree, at: Names, name: str) -> None:
        """Git directories of submodules and linked worktrees, which lie within the first one."""
        queue: deque[Names] = deque([(*at, name)])
        while queue and self.left > 0:
            here = queue.popleft()
            found = self._listed(tree, here)
            if "HEAD" in found:
                self._add_git(tree, here)
            elif found:
                # Else it could be moved away, and another one put in its place.
                self._keep(tree, here, read_only=False)
                queue.extend(
                    (*here, child) for child, kind in found.items() if kind == stat.S_IFDIR
                )

    # --- one thing ----------------------------------------------------------------------------

    def _keep(self, tree: Tree, names: Names, *, read_only: bool) -> None:
        """Note something as to be kept, if it exists; what is kept whole stays so."""
        if not names:
            return  # the top of a tree is a mount already, and all of it is not to be kept
        path = tree.path(names)
        try:
            facts, target = tree.look(names)
        except OSError as error:
            if error.errno not in _ABSENT:
                self.notes.append(f"{path} can't be looked at: {error.strerror}")
            return
        if target is not None:
            self.notes.append(f"{path} is a symlink, which can be replaced")
        elif stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
            known = self.parts.get(path)
            inode = facts.st_dev, facts.st_ino
            source = posixpath.join(tree.source, *names)
            kept = read_only or (known is not None and known.read_only)
            self.parts[path] = ProtectedPart(path, source, inode, kept)
            if stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1:
                self.notes.append(f"{path} has other names too (hard links), which are not held")

    def _keep_whole(self, tree: Tree, names: Names) -> None:
        self._keep(tree, names, read_only=True)

    def _follow(
        self, tree: Tree, at: Names, target: str, action: Callable[[Tree, Names], None]
    ) -> None:
        """Do something with what a path in a Git directory leads to, where commands can write."""
        found = self._locate(tree, at, target)
        if found is not None:
            action(*found)

    def _locate(self, tree: Tree, at: Names, target: str) -> tuple[Tree, Names] | None:
        """Find where a path leads that something in ``at`` names, without symlinks."""
        found = locate(self.trees, posixpath.join(tree.path(at), target))
        if found is None:
            return None
        other, names = found
        try:
            with other.opener.place(names) as place:
                return other, (*place.real, *place.rest)
        except OSError:  # it leaves the tree
            return None


def _link_target(tree: Tree, names: Names) -> str:
    try:
        return tree.look(names).target or ""
    except OSError:
        return ""


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0
