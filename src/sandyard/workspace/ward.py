"""What of the files a policy closes to file work: rules found by device and inode, never by name.

A mount holds what commands may not change; the file verbs work on the host, where there is no such
mount, and ask here instead. Neither answer can be raced from inside: whoever is confined can't move
a directory into or out of what is closed, nor give what has a rule another name.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sandyard.limits import WARD_STEPS
from sandyard.workspace.kernel import PATH_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NO_RULES", "ClosedError", "Rule", "RuleKind", "Ward"]

RuleKind = Literal["deny", "mount", "protect", "read", "write", "hold"]
"""``deny`` closes a tree, and so does ``mount``, since what is mounted there only the sandbox sees;
``protect`` and ``read`` let it be read only, ``write`` opens it, ``hold`` keeps only the thing itself in
its place. Whatever has a rule stays where it is."""

_STRENGTH: Final[tuple[RuleKind, ...]] = ("hold", "write", "read", "protect", "mount", "deny")
_CLOSING: Final = frozenset({"deny", "mount"})
_UP: Final = PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Rule(NamedTuple):
    """A rule about one file or directory and what lies beneath it.

    Attributes:
        kind: what it does.
        path: what it is about, absolute, as commands know it.
        inode: its ``(st_dev, st_ino)``.
    """

    kind: RuleKind
    path: str
    inode: tuple[int, int]


class ClosedError(PermissionError):
    """A rule forbids what was tried; the border of the file verbs says it in words.

    Attributes:
        rule: which one.
        entry: True if the thing itself was to be moved, removed or replaced.
    """

    def __init__(self, rule: Rule, *, entry: bool = False) -> None:
        super().__init__(errno.EACCES, os.strerror(errno.EACCES), rule.path)
        self.rule = rule
        self.entry = entry


class Ward:
    """The rules of one session.

    Args:
        rules: all of them, those of the workspace and of granted trees included; of two about one
            thing the stronger counts.

    Attributes:
        closes: whether a tree is closed, so that the way to a file matters and not only its end.
        idle: whether no rule forbids anything.
        names: the last names of what has a rule. Nobody inside can rename that, so a thing of
            another name has none.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: dict[tuple[int, int], Rule] = {}
        for rule in sorted(rules, key=lambda rule: _STRENGTH.index(rule.kind)):
            self._rules[rule.inode] = rule
        kinds = {rule.kind for rule in self._rules.values()}
        self.closes = bool(kinds & _CLOSING)
        self.idle = kinds <= {"write"}
        self.names = frozenset(rule.path.rpartition("/")[2] for rule in self._rules.values())

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of them, one for each thing."""
        return tuple(self._rules.values())

    def with_rule(self, rule: Rule) -> Ward:
        """These rules and one more."""
        return Ward((*self._rules.values(), rule))

    def without_mount(self, path: str) -> Ward:
        """These rules without that about what was mounted at a path."""
        left = (each for each in self._rules.values() if (each.kind, each.path) != ("mount", path))
        return Ward(left)

    def rule_of(self, facts: os.stat_result) -> Rule | None:
        """The rule about a thing itself, if it has one."""
        return self._rules.get((facts.st_dev, facts.st_ino))

    def is_denied(self, facts: os.stat_result) -> bool:
        """Tell whether a thing itself is denied, or something is mounted there."""
        return self.closes and self.is_closed((facts.st_dev, facts.st_ino))

    def is_closed(self, inode: tuple[int, int]) -> bool:
        """Do what ``is_denied`` does, by device and inode."""
        rule = self._rules.get(inode)
        return rule is not None and rule.kind in _CLOSING

    def admit(self, descriptor: int) -> None:
        """Refuse to go into, or to read, what is closed.

        Raises:
            ClosedError: it is.
        """
        if self.closes:
            rule = self.rule_of(os.fstat(descriptor))
            if rule is not None and rule.kind in _CLOSING:
                raise ClosedError(rule)

    def refuse_foreign(self, descriptor: int) -> None:
        """Refuse to work in what has a rule where nothing can have one: somebody moved it there.

        Raises:
            ClosedError: it has one.
        """
        rule = None if self.idle else self.rule_of(os.fstat(descriptor))
        if rule is not None:
            raise ClosedError(rule, entry=True)

    def check_directory(self, directory: int) -> None:
        """Refuse to add to a directory, or to take from it, where a rule forbids it.

        Raises:
            ClosedError: the nearest rule above it lets it be read only, or it is denied.
            OSError: EAGAIN if it is moved all the time, or was moved out of all that is known.
        """
        if self.idle:
            return
        rule = self._nearest(directory)
        if rule.kind != "write":
            raise ClosedError(rule)

    def check_entry(self, directory: int, name: str) -> None:
        """Refuse to make, replace, move or remove an entry of a directory where a rule forbids it.

        Raises:
            ClosedError: a rule is about the entry itself, or one about the directory forbids it.
            OSError: as ``check_directory``.
        """
        if name in self.names:
            self.check_itself(directory, name)
        self.check_directory(directory)

    def check_itself(self, directory: int, name: str) -> None:
        """Refuse to move, replace or remove what has a rule of its own, whatever lies around it.

        Raises:
            ClosedError: it has one.
        """
        try:
            facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        rule = self.rule_of(facts)
        if rule is not None:
            raise ClosedError(rule, entry=True)

    def check_content(self, directory: int, handle: int) -> None:
        """Refuse to change what a file holds, or its mode, where a rule forbids it.

        Args:
            directory: where it was found.
            handle: the file itself.

        Raises:
            ClosedError: a rule about it, or else the nearest above it, forbids it.
            OSError: as ``check_directory``.
        """
        if self.idle:
            return
        rule = self.rule_of(os.fstat(handle))
        if rule is None or rule.kind == "hold":
            self.check_directory(directory)
        elif rule.kind != "write":
            raise ClosedError(rule)

    def _nearest(self, directory: int) -> Rule:
        """The deepest rule about a directory or what lies around it, found on the way up."""
        here = os.open(".", _UP, dir_fd=directory)
        try:
            for _ in range(WARD_STEPS):
                rule = self.rule_of(os.fstat(here))
                if rule is not None and rule.kind != "hold":
                    return rule
                above = os.open("..", _UP, dir_fd=here)
                os.close(here)
                here = above
        finally:
            os.close(here)
        # At the top of the file system ".." leads nowhere else, so this ends as well.
        raise OSError(errno.EAGAIN, "its directory is moved away while it is worked on")


NO_RULES: Final = Ward()
"""What holds before a session has started, and where nobody asked for anything."""
