"""The search for interpreters and toolchains outside the system directories.

What counts as one, and what is never shown, is data in ``toolchain_kinds``; this file only looks.
Nothing here raises for an odd host: what can't be read is not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from sandyard.platform.facts import Toolchains, is_beneath, is_within
from sandyard.platform.shortage import refuse_shortage
from sandyard.platform.toolchain_kinds import (
    CODE_PARTS,
    CREDENTIAL_FILES,
    FOREIGN_TREES,
    KINDS,
    NEVER_SHOWN,
    NEVER_SHOWN_BENEATH,
    PERSONAL_MARKS,
    VENV,
    Kind,
)

__all__ = ["ToolchainSearch", "find_toolchains"]

_LINKED_PROGRAMS: Final = 256
"""Entries of one directory of programs that are looked at for links elsewhere: far more than
people install for themselves, and about a millisecond of work."""

_LINK_HOPS: Final = 16
"""Symlinks followed from the interpreter of a virtual environment to the real one."""


@dataclass(frozen=True, slots=True)
class ToolchainSearch:
    """Where to look.

    Attributes:
        directories: directories of programs as they are named: PATH, and where the running
            interpreter lies.
        home: the caller's home.
        environ: the host's environment.
        visible: trees that are visible inside anyway.
    """

    directories: tuple[str, ...]
    home: str
    environ: Mapping[str, str]
    visible: tuple[str, ...]


def find_toolchains(search: ToolchainSearch) -> Toolchains:
    """Look around; blocks on the file system for a few milliseconds."""
    finding = _Finding(search)
    finding.note_home()
    for directory in search.directories:
        finding.consider(directory)
    return finding.result()


@dataclass(slots=True)
class _Finding:
    """A search under way."""

    search: ToolchainSearch
    seen: set[str] = field(default_factory=set)
    roots: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)

    def consider(self, directory: str, *, strangers: bool = True) -> None:
        """Take in the toolchain of which ``directory`` is the directory of programs.

        Without ``strangers`` only toolchains of a known kind are taken in.
        """
        if not directory.startswith("/") or directory in self.seen:
            return
        self.seen.add(directory)
        real = os.path.realpath(directory)
        if not os.path.isdir(real):
            return
        self._note_rustup(real)
        self._note_secrets(os.path.dirname(real))
        self._note_secrets(real)
        if self._is_visible(real):
            self._name_alike(directory, real, real)
            return
        kind, root = _recognise(real)
        if kind is not None:
            self._take_kind(kind, root)
        elif strangers:
            self._take_stranger(real)
        around = [root for root in self.roots if is_within(real, root)]
        if around:
            self._name_alike(directory, real, min(around, key=len))
        if real in self.roots:
            self._follow_programs(real)

    def note_home(self) -> None:
        """Keep what is personal out of sight where home lies in a tree that is visible anyway.

        Accounts of services have such homes: /usr/share/something, /usr/src/app.
        """
        for name in PERSONAL_MARKS:
            path = os.path.join(self.search.home, name)
            if self._is_visible(path) and _is_there(path):
                self.secrets.add(path)

    def result(self) -> Toolchains:
        """What was found, without what lies within something else."""
        roots = tuple(
            root
            for root in sorted(self.roots)
            if not any(is_beneath(root, other) for other in self.roots)
        )
        shown = roots + self.search.visible
        links = {
            path: target
            for path, target in self.links.items()
            if not any(is_within(path, tree) or is_within(tree, path) for tree in shown)
        }
        outer = {
            path: target
            for path, target in links.items()
            if not any(is_beneath(path, other) for other in links)
        }
        masks = (path for path in self.secrets if any(is_beneath(path, tree) for tree in shown))
        return Toolchains(
            roots=roots,
            links=tuple(sorted(outer.items())),
            masks=tuple(sorted(masks)),
            variables=tuple(sorted(self.variables.items())),
        )

    def _take_kind(self, kind: Kind, root: str) -> None:
        parts = kind.parts
        if not parts and (self._is_never_shown(root) or _has_any(root, kind.strangers)):
            parts = CODE_PARTS
        if not parts:
            self._show(root)
        for part in parts:
            self._show_part(root, part)
        if kind.variable:
            self.variables[kind.variable] = root
        self._note_secrets(root)
        for pattern in kind.installed:
            # Each of them has its own settings: pip's in its prefix, npm's in etc beneath it.
            for place in _places(root, *pattern.split("/")):
                self._note_secrets(place)
        if kind is VENV:
            for directory in _interpreter_directories(root):
                self.consider(directory)

    def _take_stranger(self, real: str) -> None:
        """Take in a directory of programs of no known kind."""
        parent, name = os.path.split(real)
        if any(is_within(real, tree) for tree in FOREIGN_TREES):
            return
        whole = is_beneath(parent, "/opt") and not _has_any(parent, PERSONAL_MARKS)
        if name == "bin" and whole and not self._is_never_shown(parent):
            # /opt holds one directory for each product; its programs need its libraries.
            self._show(parent)
        elif name in ("bin", "sbin") or is_beneath(real, "/opt"):
            self._show(real)

    def _show(self, path: str) -> None:
        if not self._is_never_shown(path):
            self.roots.add(path)

    def _show_part(self, root: str, part: str) -> None:
        path = os.path.join(root, part)
        real = os.path.realpath(path)
        if not os.path.exists(real):
            return
        if real == path:
            self._show(real)
        elif is_beneath(real, root) or self._is_visible(real):
            # lib64 -> lib: the name has to be made, since only parts of the root are there.
            self._link(path, real)

    def _follow_programs(self, directory: str) -> None:
        # ~/.local/bin is mostly links into environments that pipx or uv made elsewhere.
        for target in _link_directories(directory):
            self.consider(target, strangers=False)

    def _note_rustup(self, real: str) -> None:
        """Show the compilers that rustup's programs in ``real`` start."""
        if not os.path.exists(f"{real}/rustup"):
            return
        beside = os.path.join(os.path.dirname(os.path.dirname(real)), ".rustup")
        homes = (
            self.search.environ.get("RUSTUP_HOME", ""),
            beside,
            os.path.join(self.search.home, ".rustup"),
        )
        for home in homes:
            place = os.path.realpath(home) if home.startswith("/") else ""
            if place and os.path.isdir(os.path.join(place, "toolchains")):
                if not self._is_visible(place):
                    self._show(place)
                self.variables["RUSTUP_HOME"] = place
                return

    def _note_secrets(self, root: str) -> None:
        for name in CREDENTIAL_FILES:
            path = f"{root}/{name}"
            if _is_there(path):
                self.secrets.add(path)

    def _name_alike(self, given: str, real: str, root: str) -> None:
        """Make the name by which ``real`` was found lead to it inside too."""
        if given == real or is_within(given, root):
            return
        tail = real[len(root) :]
        stem = given[: len(given) - len(tail)] if given.endswith(tail) else given
        # The highest name of the root that still differs, so that what lies beside D works too.
        if stem != given and os.path.realpath(stem) == root:
            self._link(stem, root)
        else:
            self._link(given, real)

    def _link(self, path: str, target: str) -> None:
        if not self._is_never_shown(path) and os.path.normpath(path) == path:
            self.links[path] = target

    def _is_visible(self, path: str) -> bool:
        return any(is_within(path, tree) for tree in self.search.visible)

    def _is_never_shown(self, path: str) -> bool:
        return (
            path in NEVER_SHOWN
            or os.path.dirname(path) == "/home"
            or is_within(self.search.home, path)
            or any(is_within(path, tree) for tree in NEVER_SHOWN_BENEATH)
        )


def _recognise(directory: str) -> tuple[Kind | None, str]:
    """The kind of toolchain that ``directory`` belongs to, and its root."""
    above = tuple(islice(_parents(directory), max(kind.levels for kind in KINDS)))
    for kind in KINDS:
        for root in above[: kind.levels]:
            if not root.endswith(kind.suffix):
                continue
            if all(os.path.exists(f"{root}/{mark}") for mark in kind.marks):
                return kind, root
    return None, ""


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _has_any(root: str, names: Iterable[str]) -> bool:
    return any(os.path.lexists(f"{root}/{name}") for name in names)


def _places(root: str, *parts: str) -> Iterator[str]:
    """What a pattern names beneath a directory; a part of it is a name, or ``*`` for all."""
    if not parts:
        yield root
        return
    names = [parts[0]]
    if parts[0] == "*":
        try:
            names = os.listdir(root)
        except OSError as error:
            refuse_shortage(error)
            return
    for name in names:
        yield from _places(f"{root}/{name}", *parts[1:])


def _is_there(path: str) -> bool:
    """Whether a file or directory is at ``path``.

    A symlink does not count: it leads nowhere inside, or to what is shown on purpose.
    """
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _read_link(path: str) -> str | None:
    try:
        target = os.readlink(path)
    except (OSError, ValueError):
        return None
    # The part before the name is resolved first: ".." after a symlink is not the text's parent.
    place = os.path.realpath(os.path.dirname(path))
    return os.path.normpath(os.path.join(place, target))


def _interpreter_directories(venv: str) -> Iterator[str]:
    """Every directory through which ``venv`` finds its base interpreter."""
    base = _configured_home(os.path.join(venv, "pyvenv.cfg"))
    if base:
        yield base
    path: str | None = os.path.join(venv, "bin", "python")
    for _ in range(_LINK_HOPS):
        path = _read_link(path) if path is not None else None
        if path is None:
            return
        yield os.path.dirname(path)


def _configured_home(path: str) -> str | None:
    # PEP 405: the interpreter takes its prefix from this text, not from the symlink.
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in islice(file, _LINK_HOPS):
                key, _, value = line.partition("=")
                if key.strip().lower() == "home":
                    return os.path.normpath(value.strip()) if value.strip() else None
    except OSError as error:
        refuse_shortage(error)
        return None
    return None


def _link_directories(directory: str) -> tuple[str, ...]:
    """The directories in which the symlinks of ``directory`` end, each once."""
    found: dict[str, None] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in islice(entries, _LINKED_PROGRAMS):
                target = _read_link(entry.path) if entry.is_symlink() else None
                if target is not None:
                    found[os.path.dirname(target)] = None
    except OSError as error:
        refuse_shortage(error)
        return ()
    return tuple(found)
