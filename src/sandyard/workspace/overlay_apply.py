"""Puts what was changed in an overlay into the directory beneath: all that was chosen, or nothing.

What is new is made in a stage, a directory beside, and moved into place when all of it is there; what
it replaces is moved aside, so that every step can be taken back. A journal says how.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from sandyard.changes import AppliedChanges
from sandyard.errors import ApplyRefusedError, ArgumentError
from sandyard.workspace.acting import acting_as
from sandyard.workspace.clocks import present_moment
from sandyard.workspace.copying import fill_file
from sandyard.workspace.names import leads_out, names_beneath
from sandyard.workspace.overlay_diff import kind_of
from sandyard.workspace.overlay_journal import (
    Journal,
    Step,
    carry_out,
    finished,
    known_stats,
    settle_journal,
    undo,
    write_known,
)
from sandyard.workspace.overlay_origin import is_another
from sandyard.workspace.overlay_planted import planted_at
from sandyard.workspace.overlay_tree import Difference, PlainTree, find_differences
from sandyard.workspace.removal import remove_tree
from sandyard.workspace.root import Inode, Owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import PurePath
    from threading import Event

    from sandyard.workspace.names import Names
    from sandyard.workspace.overlay_journal import Stat
    from sandyard.workspace.overlay_place import OverlayPlace, OverlayRecord

__all__ = ["apply_changes"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MADE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS: Final = 0o777
_NAME_BYTES: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)


def apply_changes(
    place: OverlayPlace,
    paths: Iterable[str | PurePath] | None,
    stopped: Event,
    *,
    overwrite: bool,
) -> AppliedChanges:
    """Put changes into the directory beneath (blocking).

    Args:
        place: where the changes are.
        paths: which; None for all.
        stopped: set by whoever wants no more of it; what was done is undone then.
        overwrite: True applies what was changed outside meanwhile as well.

    Raises:
        ApplyRefusedError: something was changed outside, or must be named; nothing was changed.
        ArgumentError: a path names no change.
        OSError: something can't be read or written; nothing was changed.
    """
    settle_journal(place.directory)
    with place.opened() as (upper, base):
        record = place.begun()
        facts = os.fstat(base)
        earliest = record.began.earliest(present_moment())
        work = _Apply(PlainTree(upper), PlainTree(base), record, place.directory, earliest)
        if os.geteuid() == 0 and (facts.st_uid, facts.st_gid) != (0, os.getegid()):
            work.owner = Owner(facts.st_uid, facts.st_gid)
        work.choose(paths, stopped)
        if not overwrite:
            work.refuse_conflicts()
        work.refuse_planted()
        return work.carry_out(stopped, overwrite=overwrite)


@dataclass(slots=True)
class _Apply:
    """One apply under way."""

    upper: PlainTree
    base: PlainTree
    record: OverlayRecord
    directory: str
    earliest: int
    owner: Owner | None = None
    named: tuple[Names, ...] | None = None
    chosen: list[Difference] = field(default_factory=list)
    lowered: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    replaced: dict[Names, bool] = field(default_factory=dict)

    # --- what is wanted ---------------------------------------------------------------------------

    def choose(self, paths: Iterable[str | PurePath] | None, stopped: Event) -> None:
        """Find the changes that are wanted, and the new directories that they lie in."""
        deep: list[Names] = []
        found = list(find_differences(self.upper, self.base, deep, stopped))
        if paths is None:
            _refuse_deep(deep, ((),))
            self.chosen = found
            return
        named = [names_beneath(path, self.record.root, "apply") for path in paths]
        self.named = tuple(named)
        _refuse_deep(deep, named)
        for names in named:
            if not any(_lies_in(each.names, names) for each in found):
                raise ArgumentError(
                    f"nothing was changed at {'/'.join(names) or '.'}; the diff tells what was",
                    op="apply",
                    argument="paths",
                    value="/".join(names),
                )
        wanted = [each for each in found if any(_lies_in(each.names, n) for n in named)]
        around = {each.names[:at] for each in wanted for at in range(1, len(each.names))}
        chosen = {id(each) for each in wanted}
        self.chosen = [each for each in found if id(each) in chosen or each.names in around]

    # --- what is refused --------------------------------------------------------------------------

    def refuse_conflicts(self) -> None:
        """Refuse to overwrite what was changed outside since the overlay began."""
        known = known_stats(self.directory)
        _refuse_changed(path for each in self.chosen for path in self._conflicts(each, known))

    def refuse_late_conflicts(self) -> None:
        """Refuse to overwrite what was changed outside while the rest was being staged."""
        known = known_stats(self.directory)
        self.replaced.clear()  # somebody may have moved something there since
        changed: set[str] = set()
        for each in self.chosen:
            if each.before is None or each.inner:
                continue  # whoever made something there meanwhile is not overwritten
            facts = self.base.look(each.names)
            if facts is None:
                changed.add("/".join(each.names))
            else:
                changed.update(self._conflicts(replace(each, before=facts), known))
        _refuse_changed(changed)

    def _conflicts(self, found: Difference, known: dict[tuple[str, ...], Stat]) -> Iterator[str]:
        if found.inner:
            return  # what it lies in is looked at
        if found.before is None:
            above = self.base.look(found.names[:-1])
            if found.moved and above is not None and self._is_newer(above, found.names[:-1], known):
                yield "/".join(found.names)  # it was beneath once: somebody removed it
            return
        if self._is_newer(found.before, found.names, known) or self._is_replaced(
            found.names, known
        ):
            yield "/".join(found.names)
        now_directory = found.now is not None and stat.S_ISDIR(found.now.st_mode)
        if stat.S_ISDIR(found.before.st_mode) and not now_directory:
            yield from self._newer_within(found.names, known)

    def _newer_within(self, names: Names, known: dict[tuple[str, ...], Stat]) -> Iterator[str]:
        """What of a directory that goes was changed by somebody else."""
        pending = [names]
        while pending:
            at = pending.pop()
            for name in self.base.listed(at):
                facts = self.base.look((*at, name))
                if facts is None:
                    continue
                if self._is_newer(facts, (*at, name), known):
                    yield "/".join((*at, name))
                if stat.S_ISDIR(facts.st_mode):
                    pending.append((*at, name))

    def _is_newer(
        self, facts: os.stat_result, names: Names, known: dict[tuple[str, ...], Stat]
    ) -> bool:
        """Whether somebody else changed something beneath since the overlay began."""
        if names in known:
            return known[names] != (facts.st_ino, facts.st_ctime_ns)
        return facts.st_ctime_ns > self.earliest

    def _is_replaced(self, names: Names, known: dict[tuple[str, ...], Stat]) -> bool:
        """Whether something, or a directory around it, is another one than what was changed.

        What was moved there from elsewhere may be older than the overlay.
        """
        for end in range(len(names), 0, -1):
            at = names[:end]
            if at in known:  # how an apply of this session left it
                facts = self.base.look(at)
                return facts is None or facts.st_ino != known[at][0]
            if at not in self.replaced:
                moved = end < len(names) and self._is_moved(at)
                self.replaced[at] = moved or is_another(self.upper, self.base, at)
            if self.replaced[at]:
                return True
        return False

    def _is_moved(self, names: Names) -> bool:
        """Whether a directory changed since, and nothing in it: by its name, or its permissions."""
        facts = self.base.look(names)
        return facts is not None and facts.st_mtime_ns <= self.earliest < facts.st_ctime_ns

    def refuse_planted(self) -> None:
        """Refuse what programs outside would run or obey, and links that lead out, unless named."""
        planted = []
        for each in self.chosen:
            if each.now is None:
                continue
            at = self._risk(each)
            if at is not None and not self._is_named(each.names, at):
                planted.append("/".join(each.names))
        if planted:
            raise ApplyRefusedError(
                "programs outside would run or obey them, or they lead out of the directory; look at "
                "them, then name them in paths",
                reason="planted",
                paths=tuple(sorted(planted)),
            )

    def _risk(self, found: Difference) -> int | None:
        """The part of a path that is a risk, or None."""
        at = planted_at(found.names)
        assert found.now is not None  # noqa: S101  # the caller has looked
        if at is not None:
            return at
        if stat.S_ISLNK(found.now.st_mode):
            target = self.upper.target(found.names)
            if leads_out(found.names, target):
                return len(found.names) - 1
        bare = found.names[-1] == "HEAD" and all(
            self.upper.look((*found.names[:-1], part)) for part in ("objects", "refs")
        )
        return len(found.names) - 1 if bare else None

    def _is_named(self, names: Names, at: int) -> bool:
        """Whether a caller named something, or what makes it a risk."""
        return any(len(each) > at and _lies_in(names, each) for each in self.named or ())

    # --- what is done -----------------------------------------------------------------------------

    def carry_out(self, stopped: Event, *, overwrite: bool) -> AppliedChanges:
        """Stage, move and tell; or undo it all."""
        if not self.chosen:
            return AppliedChanges(applied=())
        inode = Inode(*self.record.inode)
        stage = f".sandyard-apply-{secrets.token_hex(_NAME_BYTES)}"
        journal = Journal(root=self.record.root, inode=inode, stage=stage)
        journal.write(self.directory)
        try:
            with acting_as(self.owner):
                os.mkdir(stage, 0o700, dir_fd=self.base.top)
                aside = os.open(stage, _DIRECTORY, dir_fd=self.base.top)
            try:
                steps = self._staged(aside, stopped)
                journal = replace(journal, steps=tuple(steps))
                _sync(aside)
                if not overwrite:
                    self.refuse_late_conflicts()
                journal.write(self.directory)
                self._move(journal, aside)
            finally:
                os.close(aside)
        except BaseException:
            with suppress(OSError):  # what can't be undone now is, with the journal, later
                settle_journal(self.directory)
            raise
        self._finish(journal)
        done = {"/".join(each.names) for each in self.chosen} - self.skipped
        return AppliedChanges(
            applied=tuple(sorted(done)),
            lowered=tuple(sorted(self.lowered)),
            skipped=tuple(sorted(self.skipped)),
        )

    def _move(self, journal: Journal, aside: int) -> None:
        with acting_as(self.owner):
            try:
                carry_out(journal, self.base, aside)
            except BaseException:
                undo(journal, self.base, aside)
                raise
        write_known(self.directory, self.base, [each.names for each in self.chosen])
        finished(journal).write(self.directory)

    def _finish(self, journal: Journal) -> None:
        """Remove what was replaced; what can't be removed is with the next apply or start."""
        with suppress(OSError):
            with acting_as(self.owner):
                failures = remove_tree(self.base.top, journal.stage)
            if not failures:
                Journal.forget(self.directory)

    def _staged(self, stage: int, stopped: Event) -> list[Step]:
        """Make what is new in the stage; tell what is to be done, deletions first."""
        deletions: list[Step] = []
        others: list[Step] = []
        modes: list[Step] = []
        made: dict[Names, tuple[str, ...]] = {}
        for number, found in enumerate(self.chosen):
            if stopped.is_set():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            if found.now is None:
                deletions.append(Step("delete", found.names, number))
                continue
            kind = kind_of(self.upper, self.base, found)
            if kind == "mode" and found.before is not None:
                modes.append(_mode_step(found.names, found.now, found.before, number))
                continue
            above = made.get(found.names[:-1]) if found.inner else None
            place = (str(number),) if above is None else (*above, found.names[-1])
            inode = self._make(PlainTree(stage), place, found, stopped)
            if inode is None:
                self.skipped.add("/".join(found.names))
                continue
            if stat.S_ISDIR(found.now.st_mode):
                made[found.names] = place
            if above is None:
                old = 0 if found.before is None else 1
                others.append(Step("put", found.names, number, inode, old=old))
        self._finish_directories(PlainTree(stage), made)
        # Permissions last, the innermost first: they may close the way to what is done before.
        modes.sort(key=lambda step: -len(step.names))
        return deletions + others + modes

    def _make(
        self, stage: PlainTree, place: tuple[str, ...], found: Difference, stopped: Event
    ) -> int | None:
        """Make one entry in the stage; returns its inode, or None for what can't be applied."""
        assert found.now is not None  # noqa: S101  # the caller has looked
        mode = found.now.st_mode
        if stat.S_ISDIR(mode):
            with acting_as(self.owner), stage.above(place) as here:
                os.mkdir(place[-1], 0o700, dir_fd=here)
        elif stat.S_ISLNK(mode):
            target = self.upper.target(found.names)
            with acting_as(self.owner), stage.above(place) as here:
                os.symlink(target, place[-1], dir_fd=here)
        elif stat.S_ISREG(mode):
            self._make_file(stage, place, found, stopped)
        else:
            return None
        if stat.S_IMODE(mode) & ~_PERMISSIONS and not stat.S_ISLNK(mode):
            self.lowered.add("/".join(found.names))
        facts = stage.look(place)
        return None if facts is None else facts.st_ino

    def _make_file(
        self, stage: PlainTree, place: tuple[str, ...], found: Difference, stopped: Event
    ) -> None:
        source = self.upper.open(found.names)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), found.names[-1])
            with acting_as(self.owner), stage.above(place) as here:
                target = os.open(place[-1], _MADE, 0o600, dir_fd=here)
                try:
                    fill_file(source, target, None, stopped)
                finally:
                    os.close(target)
        finally:
            os.close(source)

    def _finish_directories(self, stage: PlainTree, made: dict[Names, tuple[str, ...]]) -> None:
        """Give new directories their permissions and times, the innermost first."""
        for names, place in sorted(made.items(), key=lambda each: -len(each[0])):
            facts = self.upper.look(names)
            if facts is None:
                continue
            with acting_as(self.owner):
                opened = stage.open(place, _DIRECTORY)
                try:
                    os.fchmod(opened, facts.st_mode & _PERMISSIONS)
                    os.utime(opened, ns=(facts.st_atime_ns, facts.st_mtime_ns))
                finally:
                    os.close(opened)


def _mode_step(names: Names, now: os.stat_result, before: os.stat_result, number: int) -> Step:
    mode, old = now.st_mode & _PERMISSIONS, stat.S_IMODE(before.st_mode)
    return Step("mode", names, number, before.st_ino, mode, old)


def _lies_in(names: Names, around: Names) -> bool:
    return names[: len(around)] == around


def _refuse_changed(paths: Iterable[str]) -> None:
    changed = tuple(sorted({*paths}))
    if changed:
        raise ApplyRefusedError(
            "changed outside since the overlay began; look at them, then apply other paths, or "
            "these with overwrite=True",
            reason="conflict",
            paths=changed,
        )


def _refuse_deep(deep: list[Names], named: Iterable[Names]) -> None:
    """Refuse to apply what nobody has looked at whole.

    Raises:
        OSError: ENAMETOOLONG if a directory lies too deep.
    """
    for each in deep:
        if any(_lies_in(each, names) or _lies_in(names, each) for names in named):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "/".join(each))


def _sync(fd: int) -> None:
    """Let the disk have what was staged, before names lead to it."""
    if _libc.syncfs(fd) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
