"""A tree that was unpacked apart comes to stand in a workspace: whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.archive.model import ArchiveError
from sandyard.workspace.extract_members import set_attributes
from sandyard.workspace.extract_tree import ANYHOW, EXCHANGE, KEEP, Directories, rename
from sandyard.workspace.handing import handing_over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.archive.naming import Path
    from sandyard.archive.report import Tally
    from sandyard.workspace.extract_members import Look
    from sandyard.workspace.extract_stage import Stage
    from sandyard.workspace.ward import Ward

__all__ = ["publish"]

_READ: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Step(NamedTuple):
    """One name that is moved.

    Attributes:
        path: it, the same in both trees.
        replaces: whether something in the target has it.
    """

    path: Path
    replaces: bool


class _Done(NamedTuple):
    """One change, and how it is undone.

    Attributes:
        path: what was changed.
        how: by which rename; None if it is a directory's look that may have changed.
        aside: the name in the stage of what was there before, where it could not be exchanged.
        facts: what the directory looked like.
    """

    path: Path
    how: int | None
    aside: bytes | None = None
    facts: os.stat_result | None = None


def publish(  # what is moved, where to, by which rules, and who hears of it
    stage: Stage,
    target: int,
    looks: Mapping[Path, Look],
    tally: Tally,
    ward: Ward,
    *,
    strict: bool,
    finish: bool = False,
) -> None:
    """Move all that is in a stage's tree into a directory; what is there already is merged with it.

    Files and symlinks that have the name of a new one are replaced; directories keep what only
    they have.

    Args:
        stage: what was unpacked.
        target: descriptor of the directory (O_PATH is enough).
        looks: what directories are to look like, by path.
        tally: hears what of that the file system does not take.
        ward: what of the target the policy closes.
        strict: True refuses to replace what is no directory by a directory.
        finish: True if another publication of the same into an empty directory was killed: what that
            had moved is there whole and stays, since somebody may have changed it since.

    Raises:
        ClosedError: a rule of the policy forbids it; nothing has changed.
        ArchiveError: something of another kind is in the way; nothing has changed.
        OSError: something can't be moved; all is as it was.
    """
    new, old = Directories(stage.tree, ward.refuse_foreign), Directories(target, ward.admit)
    with new as tree, old as there:
        publishing = _Publishing(stage, tree, there, looks, tally, ward)
        if finish:
            publishing.plan_rest()
        else:
            publishing.plan(strict=strict)
        publishing.ask()
        publishing.dress_staged()
        try:
            publishing.carry_out()
        except BaseException:
            publishing.undo()
            raise


class _Publishing:
    """One publication under way."""

    def __init__(
        self,
        stage: Stage,
        tree: Directories,
        there: Directories,
        looks: Mapping[Path, Look],
        tally: Tally,
        ward: Ward,
    ) -> None:
        self._ward = ward
        self._known: dict[Path, tuple[int, int]] = {}
        self._stage = stage
        self._tree = tree
        self._there = there
        self._looks = looks
        self._tally = tally
        self._steps: list[_Step] = []
        self._merged: list[Path] = [()]
        self._late: set[Path] = set()
        self._done: list[_Done] = []

    # --- before -------------------------------------------------------------------------------

    def plan(self, *, strict: bool) -> None:
        """Compare the two trees, and list what is to be moved."""
        todo: list[Path] = [()]
        while todo:
            above = todo.pop()
            for name in self._names(above):
                path = (*above, name)
                new = os.stat(name, dir_fd=self._tree.at(above), follow_symlinks=False)
                try:
                    old = os.stat(name, dir_fd=self._there.at(above), follow_symlinks=False)
                except FileNotFoundError:
                    self._steps.append(_Step(path, replaces=False))
                    continue
                if stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(old.st_mode):
                    self._merged.append(path)
                    todo.append(path)
                    continue
                _refuse_clash(path, new.st_mode, old.st_mode, strict=strict)
                self._steps.append(_Step(path, replaces=True))
        self._late = {*self._merged, *(step.path for step in self._steps)}

    def plan_rest(self) -> None:
        """List what a killed publication had not moved.

        Names at the top were moved one by one. A file of several names is moved again, where it looks
        as it was saved, so that those that are missing and those that are there are one file.
        """
        todo: list[Path] = [()]
        while todo:
            above = todo.pop()
            for name in self._names(above):
                path = (*above, name)
                new = os.stat(name, dir_fd=self._tree.at(above), follow_symlinks=False)
                try:
                    old = os.stat(name, dir_fd=self._there.at(above), follow_symlinks=False)
                except FileNotFoundError:
                    if not above:
                        self._steps.append(_Step(path, replaces=False))
                    continue
                if stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(old.st_mode):
                    self._merged.append(path)  # its look may be missing
                    todo.append(path)
                elif new.st_nlink > 1 and _look(new) == _look(old):
                    self._steps.append(_Step(path, replaces=True))
        self._late = {*self._merged, *(step.path for step in self._steps)}

    def ask(self) -> None:
        """Refuse what a rule forbids: to change what is in a directory, an entry, or its look.

        What was asked about is noted, since somebody may give its name to another directory.
        """
        ward = self._ward
        if ward.idle:
            return
        changed = {step.path[:-1] for step in self._steps}
        changed.update(path for path in self._merged if path and path in self._looks)
        for path in self._merged:
            here = self._there.at(path)
            self._known[path] = _identity(here)
            if path in changed:
                ward.check_directory(here)
        for step in self._steps:
            self._refuse_rule(self._at(step.path[:-1]), step.path[-1])

    def _refuse_rule(self, directory: int, raw: bytes) -> None:
        """Refuse to move what has a rule of its own."""
        name = os.fsdecode(raw)
        if name in self._ward.names:
            self._ward.check_itself(directory, name)

    def _at(self, path: Path) -> int:
        """A directory of the target, if it is the one that was asked about.

        Raises:
            ClosedError: it is a new one, and lies by now where a rule forbids to change it.
            OSError: EAGAIN if another one has its name by now.
        """
        here = self._there.at(path)
        if path in self._known:
            if _identity(here) != self._known[path]:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fsdecode(path[-1]))
        else:
            self._ward.check_directory(here)
        return here

    def _names(self, path: Path) -> list[bytes]:
        opened = os.open(".", _READ, dir_fd=self._tree.at(path))
        try:
            return [os.fsencode(name) for name in os.listdir(opened)]
        finally:
            os.close(opened)

    def dress_staged(self) -> None:
        """Give directories that are moved with all in them their looks, deepest first.

        A directory can't be moved by an owner who may not write to it, so that it waits.
        """
        late: set[Path] = set()
        merged = frozenset(self._merged)
        for path in sorted(self._looks, key=len, reverse=True):
            mode = self._looks[path].mode
            moved = path in self._late and path not in merged
            closed = mode is not None and not mode & stat.S_IWUSR
            closed |= self._looks[path].owner is not None
            if path in self._late and (closed or not moved):
                late.add(path)
            else:
                self._dress(path, self._tree.at(path))
        self._late = late

    def _dress(self, path: Path, directory: int) -> None:
        """Set what a directory looks like; by ``.``, since an O_PATH descriptor takes nothing."""
        look = self._looks[path]
        if look.attributes:
            opened = os.open(".", _READ, dir_fd=directory)
            try:
                for name in set_attributes(opened, look.attributes):
                    self._tally.note("dropped", b"/".join(path), f"xattr {os.fsdecode(name)}")
            finally:
                os.close(opened)
        if look.mtime is not None:
            os.utime(".", ns=(look.mtime, look.mtime), dir_fd=directory)
        if look.mode is not None:
            os.chmod(".", look.mode, dir_fd=directory)
        if look.owner is not None:
            with self._stage.as_program(), handing_over() as hand:
                hand(".", look.owner, directory)

    # --- the change itself --------------------------------------------------------------------

    def carry_out(self) -> None:
        """Move everything."""
        for path in self._merged:
            here = self._at(path)
            facts = os.stat(".", dir_fd=here)
            self._done.append(_Done(path, None, facts=facts))
            look = self._looks.get(path)
            if look is not None and look.mode is not None and not facts.st_mode & stat.S_IWUSR:
                # Its owner may always allow this, and its look is set anew afterwards.
                mode = stat.S_IMODE(facts.st_mode) | stat.S_IRWXU
                os.chmod(".", mode, dir_fd=here)
        for step in self._steps:
            self._move(step)
        for path in sorted(self._late, key=len, reverse=True):
            self._dress(path, self._at(path))

    def _move(self, step: _Step) -> None:
        name, how = step.path[-1], EXCHANGE if step.replaces else KEEP
        here = self._tree.at(step.path[:-1])
        there = self._at(step.path[:-1])
        self._refuse_rule(here, name)
        aside: bytes | None = None
        try:
            rename(here, name, there, name, how)
        except OSError as error:
            if error.errno == errno.EXDEV:  # a mount of the host's, not a way out
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), error.filename) from None
            if error.errno != errno.ENOSYS:
                raise
            how = ANYHOW
            if step.replaces:
                aside = b"%d" % len(self._done)
                rename(there, name, self._stage.fd, aside)
            try:
                rename(here, name, there, name)
            except OSError:
                if aside is not None:
                    rename(self._stage.fd, aside, there, name)
                raise
        self._done.append(_Done(step.path, how, aside))

    def undo(self) -> None:
        """Put back what was there, as far as nobody has moved it meanwhile."""
        while self._done:
            done = self._done.pop()
            with suppress(OSError):
                self._undo(done)

    def _undo(self, done: _Done) -> None:
        if done.facts is not None:
            times = (done.facts.st_atime_ns, done.facts.st_mtime_ns)
            here = self._at(done.path)
            os.utime(".", ns=times, dir_fd=here)
            os.chmod(".", stat.S_IMODE(done.facts.st_mode), dir_fd=here)
            return
        here, there = self._tree.at(done.path[:-1]), self._at(done.path[:-1])
        name = done.path[-1]
        if done.how == EXCHANGE:
            rename(here, name, there, name, EXCHANGE)
            return
        rename(there, name, here, name)
        if done.aside is not None:
            rename(self._stage.fd, done.aside, there, name)


def _identity(directory: int) -> tuple[int, int]:
    facts = os.fstat(directory)
    return facts.st_dev, facts.st_ino


def _look(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_mode, facts.st_size, facts.st_mtime_ns


def _refuse_clash(path: Path, new: int, old: int, *, strict: bool) -> None:
    """Refuse to put something in the place of another kind."""
    text = os.fsdecode(b"/".join(path))
    if stat.S_ISDIR(old):
        raise ArchiveError(f"destination is a directory: {text}")
    if strict and stat.S_ISDIR(new):
        if stat.S_ISLNK(old):
            raise ArchiveError(f"symlink in parent path: {text}")
        raise ArchiveError(f"destination is no directory: {text}")
