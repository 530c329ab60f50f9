"""Owns the journal of an apply: what is about to change in a caller's directory, so that it can be undone.

It lies beside the session's lease, where no command reaches it, and is written before anything moves.
Whoever finds one that is not finished, after a crash, undoes what it says: an apply is done as a whole
or not at all.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import posixpath
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sandyard.limits import APPLY_JOURNAL_BYTES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.extract_tree import EXCHANGE, KEEP, rename
from sandyard.workspace.kernel import chmod_handle
from sandyard.workspace.overlay_tree import PlainTree
from sandyard.workspace.removal import remove_tree
from sandyard.workspace.root import Inode, Owner

if TYPE_CHECKING:
    from sandyard.workspace.names import Names

__all__ = ["Journal", "Step", "carry_out", "known_stats", "settle_journal", "undo", "write_known"]

_logger = logging.getLogger("sandyard.workspace")
_JOURNAL: Final = "apply"
_KNOWN: Final = "applied"
_VERSION: Final = 1
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC

StepKind = Literal["delete", "put", "mode"]
Stat = tuple[int, int]
"""An entry's inode and ctime: another one is another state of it."""


class Step(NamedTuple):
    """One thing that an apply does to a name of the directory.

    Attributes:
        kind: ``"delete"`` moves it aside; ``"put"`` gives the name to what was staged, and moves what
            had it aside; ``"mode"`` sets permissions.
        names: its path.
        number: of what it is called in the stage.
        inode: what is staged, or what the permissions are set of.
        mode: permissions to be set.
        old: what they were; of a put, whether something had the name.
    """

    kind: StepKind
    names: tuple[str, ...]
    number: int = 0
    inode: int = 0
    mode: int = 0
    old: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What an apply is about to do, in order.

    Attributes:
        root: absolute path of the directory.
        inode: what it is.
        stage: name of the directory in it in which things are made, and moved aside.
        done: whether all of it was done, and only the stage is to be removed.
        steps: what is done; none while things are still being made.
    """

    root: str
    inode: Inode
    stage: str
    done: bool = False
    steps: tuple[Step, ...] = field(default=())

    def write(self, directory: str) -> None:
        """Write it down, to last; it replaces what was there.

        Args:
            directory: the session's.

        Raises:
            OSError: that can't be done.
        """
        said = {
            "version": _VERSION,
            "root": _hexed(self.root),
            "inode": list(self.inode),
            "stage": self.stage,
            "done": self.done,
            "steps": [[s.kind, [_hexed(n) for n in s.names], *s[2:]] for s in self.steps],
        }
        text = json.dumps(said)
        if len(text) > APPLY_JOURNAL_BYTES:  # nobody could read it, and undo what it says
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), _JOURNAL)
        _write(directory, _JOURNAL, text)

    @staticmethod
    def forget(directory: str) -> None:
        """Remove it, when nothing is left to do.

        Raises:
            OSError: that can't be done.
        """
        with suppress(FileNotFoundError):
            os.unlink(posixpath.join(directory, _JOURNAL))

    @staticmethod
    def read(directory: str) -> Journal | None:
        """Read it; None if there is none, or one that nobody finished writing.

        Raises:
            OSError: it can't be read.
        """
        try:
            with open(os.open(posixpath.join(directory, _JOURNAL), _READ), "rb") as file:
                said = json.loads(file.read(APPLY_JOURNAL_BYTES))
            return _decoded(said)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError):
            return None


def carry_out(journal: Journal, base: PlainTree, stage: int) -> None:
    """Do what a journal says.

    Args:
        journal: it, written down.
        base: the directory.
        stage: descriptor of the stage.

    Raises:
        OSError: a step can't be done; those before it are.
    """
    for step in journal.steps:
        with base.above(step.names) as here:
            name, aside = os.fsencode(step.names[-1]), _aside(step)
            match step.kind:
                case "delete":
                    rename(here, name, stage, aside, KEEP)
                case "put":
                    rename(stage, aside, here, name, EXCHANGE if step.old else KEEP)
                case "mode":
                    _set_mode(here, step, step.mode)


def undo(journal: Journal, base: PlainTree, stage: int) -> list[str]:
    """Take back what was done of a journal, the last first.

    Returns:
        Paths that somebody else changed since, which are left as they are.

    Raises:
        OSError: something can't be taken back.
    """
    left: list[str] = []
    for step in reversed(journal.steps):
        above = base.look(step.names[:-1])
        if above is None or not stat.S_ISDIR(above.st_mode):  # it has no place to go back to
            done = _is_kept(step, stage)
        else:
            with base.above(step.names) as here:
                done = _undo_step(step, base.look(step.names), here, stage)
        if done:
            left.append("/".join(step.names))
    return left


def _undo_step(step: Step, there: os.stat_result | None, here: int, stage: int) -> bool:
    """Take one step back; tell whether it was done and can't be, since somebody changed it."""
    aside = PlainTree(stage)
    name, kept = os.fsencode(step.names[-1]), os.fsdecode(_aside(step))
    ours = there is not None and there.st_ino == step.inode
    if step.kind == "mode":
        if ours:
            _set_mode(here, step, step.old)
        return False
    if step.kind == "delete":
        if aside.look((kept,)) is None:
            return False  # it was not done
        if there is not None:
            return True
        rename(stage, os.fsencode(kept), here, name, KEEP)
        return False
    if ours:
        how = KEEP if aside.look((kept,)) is None else EXCHANGE
        rename(here, name, stage, os.fsencode(kept), how)
        return False
    return not _is_staged(aside, kept, step.inode)


def _is_kept(step: Step, stage: int) -> bool:
    """Whether what a step took away is in the stage."""
    facts = PlainTree(stage).look((os.fsdecode(_aside(step)),))
    return facts is not None and (step.kind == "delete" or facts.st_ino != step.inode)


def _is_staged(aside: PlainTree, name: str, inode: int) -> bool:
    """Whether what was to be put in place is still in the stage: then it was not done."""
    facts = aside.look((name,))
    return facts is not None and facts.st_ino == inode


def _set_mode(here: int, step: Step, mode: int) -> None:
    handle = os.open(step.names[-1], _HANDLE, dir_fd=here)
    try:
        facts = os.fstat(handle)
        if facts.st_ino != step.inode or stat.S_ISLNK(facts.st_mode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), step.names[-1])
        chmod_handle(handle, mode)
    finally:
        os.close(handle)


def _aside(step: Step) -> bytes:
    return b"%d" % step.number


def settle_journal(directory: str) -> None:
    """Undo an apply that was cut short, or remove what a finished one left (blocking).

    Args:
        directory: the session's, in the state directory, which is locked.

    Raises:
        OSError: that can't be done now; the journal stays.
    """
    journal = Journal.read(directory)
    if journal is None:
        return
    cut_short = bool(journal.steps) and not journal.done
    try:
        top = os.open(journal.root, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        if cut_short and not _has_vanished(journal):
            raise
        Journal.forget(directory)  # what it speaks of is gone
        return
    try:
        facts = os.fstat(top)
        if (facts.st_dev, facts.st_ino) != journal.inode:
            if cut_short:  # it may be put back, and is half applied
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), journal.root)
        else:
            owner = None
            if os.geteuid() == 0 and facts.st_uid != 0:
                owner = Owner(facts.st_uid, facts.st_gid)
            with acting_as(owner):
                _settle(journal, top)
            if cut_short:
                base = PlainTree(top)
                write_known(directory, base, [step.names for step in journal.steps])
    finally:
        os.close(top)
    Journal.forget(directory)


def _has_vanished(journal: Journal) -> bool:
    """Whether the directory was removed, and not only its file system unmounted."""
    if os.path.lexists(journal.root):
        return False
    return os.stat(posixpath.dirname(journal.root)).st_dev == journal.inode.device


def _settle(journal: Journal, top: int) -> None:
    if not journal.done and journal.steps:
        try:
            stage = os.open(journal.stage, _DIRECTORY, dir_fd=top)
        except FileNotFoundError:
            return  # nothing was moved aside that could be put back
        try:
            left = undo(journal, PlainTree(top), stage)
        finally:
            os.close(stage)
        if left:  # what was there before is in the stage, and somebody else's is in its place
            _logger.warning("%s: not undone, changed meanwhile: %s", journal.root, ", ".join(left))
            return
    if failures := remove_tree(top, journal.stage):
        raise failures[0]


# --- what we changed ourselves ----------------------------------------------------------------------


def known_stats(directory: str) -> dict[tuple[str, ...], Stat]:
    """What was changed beneath by an apply of this session, and how it was left."""
    try:
        with open(os.open(posixpath.join(directory, _KNOWN), _READ), "rb") as file:
            said = json.loads(file.read(APPLY_JOURNAL_BYTES))
        return {
            tuple(_plain(name) for name in names): (int(inode), int(changed))
            for names, inode, changed in said
        }
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def write_known(directory: str, base: PlainTree, changed: list[Names]) -> None:
    """Note how an apply left what it changed, and the directories around.

    Raises:
        OSError: that can't be done.
    """
    known = known_stats(directory)
    for names in changed:
        for at in range(len(names) + 1):
            facts = base.look(names[:at])
            if facts is not None and at >= len(names) - 1:
                known[names[:at]] = (facts.st_ino, facts.st_ctime_ns)
    said = [[[_hexed(name) for name in names], *kept] for names, kept in known.items()]
    _write(directory, _KNOWN, json.dumps(said))


def finished(journal: Journal) -> Journal:
    """The journal of an apply of which all was done."""
    return replace(journal, done=True)


def _write(directory: str, name: str, text: str) -> None:
    path = posixpath.join(directory, name)
    with open(os.open(f"{path}.new", _NEW, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    top = os.open(directory, _DIRECTORY)
    try:
        os.fsync(top)
    finally:
        os.close(top)


def _hexed(text: str) -> str:
    return os.fsencode(text).hex()


def _plain(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text))


def _decoded(said: object) -> Journal | None:
    match said:
        case {
            "version": 1,
            "root": str(root),
            "inode": [int(device), int(number)],
            "stage": str(stage),
            "done": bool(done),
            "steps": list(listed),
        } if "/" not in stage:
            steps = tuple(
                Step(kind, tuple(_plain(name) for name in names), *map(int, numbers))
                for kind, names, *numbers in listed
            )
            inode = Inode(device, number)
            return Journal(root=_plain(root), inode=inode, stage=stage, done=done, steps=steps)
        case _:
            return None
