"""Exact copies of trees: what is meant of them, with times, modes, symlinks and hard links."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.errors import LocalDirReadError, shown
from sandyard.limits import COPY_DEPTH, IGNORE_FILE_BYTES, IGNORE_LINES
from sandyard.manifest.selecting import NOTHING, Rules, rules_of_text
from sandyard.workspace.acting import acting_as
from sandyard.workspace.copying import (
    OWN,
    PERMISSIONS,
    Abandoned,
    Copied,
    Skipped,
    copy_file,
    fill_file,
    opened_file,
)
from sandyard.workspace.kernel import PATH_ONLY, reopen_file
from sandyard.workspace.names import leads_out
from sandyard.workspace.placing import (
    Look,
    Target,
    discard,
    facts_of,
    finish_directory,
    open_or_make,
    put_link,
    temporary_name,
    unlock,
)
from sandyard.workspace.ward import NO_RULES, ClosedError, Ward

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from sandyard.workspace.copying import Digest
    from sandyard.workspace.root import Owner

    Names = tuple[str, ...]

__all__ = ["ALL", "Chosen", "Tree", "copy_tree"]

_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LONGER: Final = frozenset({
    errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO,
})  # fmt: skip
"""What opening says of an entry that is something else by now."""

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FILE: Final = 0o600
_PRIVATE_DIRECTORY: Final = 0o700
_IGNORE_FILE: Final = ".gitignore"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is meant of a tree.

    Attributes:
        include: what is; nothing is everything.
        exclude: what is not.
        gitignore: whether .gitignore files in the tree are obeyed.
        inner_links: True leaves out symlinks that lead out of the tree.
    """

    include: Rules = NOTHING
    exclude: Rules = NOTHING
    gitignore: bool = False
    inner_links: bool = False


ALL: Final = Chosen()


@dataclass(frozen=True, slots=True)
class Tree:
    """What stays the same during one copy of a tree.

    Attributes:
        src: the source as given, for errors.
        owner: whom everything is made as; None is this program. The source is read as this
            program.
        done: where to report.
        own: ``(st_dev, st_ino)`` of the directories that are copied into, which a copy of something
            around them must leave out, or it would never end.
        ward: what of the source is denied, so that all of the copy is; and what must stay as it is,
            if somebody moves it into the copy (default: nothing).
        chosen: what of the source is meant (default: everything).
        direct: True writes files of new directories at once under their own names, for where
            nobody looks yet (default: each appears whole).
        stopped: set by whoever wants no more of it.
        settled: True leaves directories that were there before the permissions that they had, and
            asks for no rule around them: the target is the caller's, outside of all that has rules.
    """

    src: Path
    owner: Owner | None
    done: Copied
    own: frozenset[tuple[int, int]]
    ward: Ward = NO_RULES
    chosen: Chosen = ALL
    direct: bool = False
    stopped: Event | None = None
    settled: bool = False
    twins: dict[tuple[int, int], Names] = field(default_factory=dict)
    """Files of several names that were copied: where their first copy stands, in the tree."""
    sums: dict[tuple[int, int], Digest] = field(default_factory=dict)
    """Their checksums, where they are wanted."""


@dataclass(frozen=True, slots=True)
class _Level:
    """One directory that is being copied.

    Attributes:
        source: its descriptor.
        target: descriptor of its copy.
        top: descriptor of the copy of the whole tree.
        names: its path in the tree.
        path: path of the copy beneath the root, for the report.
        fresh: whether the copy was made just now.
        wanted: whether something above it was named by a pattern of what is meant.
        ignored: .gitignore files on the way here, each with its depth.
    """

    source: int
    target: int
    top: int
    names: Names
    path: str
    fresh: bool
    wanted: bool
    ignored: tuple[tuple[int, Rules], ...] = ()


def copy_tree(tree: Tree, source: int, target: int, path: str, *, fresh: bool = False) -> None:
    """Copy what is meant of a directory: permissions, times, symlinks, hard links, empty directories.

    Files that exist are replaced, those that only the target has are left alone.

    Args:
        tree: what it is a copy of.
        source: descriptor of the source directory, open for reading.
        target: descriptor of the target directory, open for reading.
        path: the target's path beneath the root, for the report.
        fresh: whether the target was made just now.

    Raises:
        LocalDirReadError: something changed during the copy, is too deep, or can't be read.
        ClosedError: a rule of the policy denies a part of it.
        Abandoned: nobody wants it any more.
        OSError: something can't be written.
    """
    wanted = not tree.chosen.include.rules
    _copy_children(tree, _Level(source, target, target, (), path, fresh, wanted))


def _copy_children(tree: Tree, level: _Level) -> None:
    """Copy what is in one directory."""
    if len(level.names) >= COPY_DEPTH:
        raise LocalDirReadError(
            src=tree.src,
            message=f"source {shown(str(tree.src))} is nested more than {COPY_DEPTH} directories "
            "deep; copy it as an archive instead",
            context={"reason": "too_deep", "child": level.path},
        )
    if tree.chosen.gitignore:
        level = _with_ignored(tree, level)
    for name in sorted(os.listdir(level.source)):
        if tree.stopped is not None and tree.stopped.is_set():
            raise Abandoned
        _copy_child(tree, level, name, f"{level.path}/{name}" if level.path else name)


def _copy_child(tree: Tree, level: _Level, name: str, path: str) -> None:
    """Copy one entry of a directory."""
    facts = facts_of(level.source, name)
    if facts is None:
        raise _changed(tree, path)
    rule = tree.ward.rule_of(facts)
    if rule is not None and rule.kind == "deny":
        raise ClosedError(rule)
    kind = stat.S_IFMT(facts.st_mode)
    copy = _COPIERS.get(kind)
    reason = OWN if (facts.st_dev, facts.st_ino) in tree.own else None
    if reason is None and copy is None:
        reason = _special(facts.st_mode)
    wanted = level.wanted
    if reason is None and tree.chosen is not ALL:
        reason, wanted = _choice(tree, level, name, is_dir=kind == stat.S_IFDIR)
    if reason is not None or copy is None:
        tree.done.skipped.append(Skipped(path, reason or ""))
        return
    if name in tree.ward.names:
        tree.ward.check_itself(level.target, name)
    there = None
    if not level.fresh:
        with acting_as(tree.owner):  # the thread may be a reader, who may not look there
            there = facts_of(level.target, name)
    copy(tree, level, _Child(Target(level.target, name, there), facts, path, wanted))


@dataclass(frozen=True, slots=True)
class _Child:
    """One entry of a directory that is being copied.

    Attributes:
        target: where its copy is to stand.
        facts: what it is.
        path: path of the copy beneath the root, for the report.
        wanted: whether it, or something above it, was named by a pattern of what is meant.
    """

    target: Target
    facts: os.stat_result
    path: str
    wanted: bool


# --- what is meant ----------------------------------------------------------------------------


def _choice(tree: Tree, level: _Level, name: str, *, is_dir: bool) -> tuple[str | None, bool]:
    """Why an entry is left out, or None; and whether it, or something above it, is meant by name."""
    names = (*level.names, name)
    if tree.chosen.exclude.verdict(names, is_dir=is_dir):
        return "excluded", False
    for depth, rules in reversed(level.ignored):
        verdict = rules.verdict(names[depth:], is_dir=is_dir)
        if verdict is not None:
            if verdict:
                return "gitignore", False
            break
    wanted = level.wanted or bool(tree.chosen.include.verdict(names, is_dir=is_dir))
    return (None if wanted or is_dir else "not_included"), wanted


def _with_ignored(tree: Tree, level: _Level) -> _Level:
    """A directory with the rules of the .gitignore file in it, if it has one."""
    try:
        opened = opened_file(os.open(_IGNORE_FILE, _LOOK, dir_fd=level.source))
    except OSError:  # none, or none that could be read: Git goes on as well
        return level
    try:
        text = os.read(opened, IGNORE_FILE_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(opened)
    lines = text.count("\n") + sum(len(rules.rules) for _, rules in level.ignored)
    if lines > IGNORE_LINES:
        raise LocalDirReadError(
            src=tree.src,
            message=f"source {shown(str(tree.src))} has more than {IGNORE_LINES} lines in .gitignore "
            f"files that hold in {shown(level.path or '.')}; copy it without gitignore=True",
            context={"reason": "too_many_patterns", "child": level.path or _IGNORE_FILE},
        )
    ignored = (*level.ignored, (len(level.names), rules_of_text(text)))
    return _Level(
        source=level.source,
        target=level.target,
        top=level.top,
        names=level.names,
        path=level.path,
        fresh=level.fresh,
        wanted=level.wanted,
        ignored=ignored,
    )


# --- one entry --------------------------------------------------------------------------------


def _copy_regular(tree: Tree, level: _Level, child: _Child) -> None:
    facts, target = child.facts, child.target
    twin = (facts.st_dev, facts.st_ino) if facts.st_nlink > 1 else None
    if twin is not None and twin in tree.twins and _linked(tree, level, child, tree.twins[twin]):
        tree.done.wrote(child.path, 0)
        tree.done.sum(child.path, tree.sums.get(twin))
        return
    digest = tree.done.digest()
    opened = _open_same(tree, level.source, target.name, _open_regular, child.path)
    try:
        if tree.direct and level.fresh:
            _write_direct(tree, target, opened, digest)
        else:
            copy_file(opened, target, tree.owner, None, tree.stopped, digest)
    finally:
        os.close(opened)
    if twin is not None:
        tree.twins[twin] = (*level.names, target.name)
        if digest is not None:
            tree.sums[twin] = digest
    tree.done.sum(child.path, digest)
    tree.done.wrote(child.path, facts.st_size)


def _write_direct(tree: Tree, target: Target, source: int, digest: Digest | None) -> None:
    """Write a file under its own name into a directory that was made just now."""
    with acting_as(tree.owner):
        opened = os.open(target.name, _CREATE, _PRIVATE_FILE, dir_fd=target.directory)
    try:
        try:
            fill_file(source, opened, None, tree.stopped, digest)
        finally:
            os.close(opened)
    except BaseException:
        discard(target.directory, target.name, tree.owner)
        raise


def _linked(tree: Tree, level: _Level, child: _Child, first: Names) -> bool:
    """Give the first copy of a file a further name; False if it is not where it was put."""
    from sandyard.workspace.extract_tree import Directories  # noqa: PLC0415  # for links alone

    target, staged = child.target, temporary_name()
    above = tuple(os.fsencode(name) for name in first[:-1])
    try:
        with acting_as(tree.owner), Directories(level.top, tree.ward.refuse_foreign) as held:
            beside = held.at(above)
            copied = facts_of(beside, first[-1])
            if copied is None or not stat.S_ISREG(copied.st_mode):
                return False
            if target.facts is not None:
                if os.path.samestat(copied, target.facts):
                    return True
                if not stat.S_ISREG(target.facts.st_mode):
                    return False
            os.link(
                first[-1],
                staged,
                src_dir_fd=beside,
                dst_dir_fd=target.directory,
                follow_symlinks=False,
            )
            made = facts_of(target.directory, staged)
            if made is None or not os.path.samestat(copied, made):
                discard(target.directory, staged, tree.owner)
                return False
            os.rename(staged, target.name, src_dir_fd=target.directory, dst_dir_fd=target.directory)
    except OSError as error:
        discard(target.directory, staged, tree.owner)
        if isinstance(error, ClosedError):
            raise
        return False  # no hard links here, or too many: then it is a copy of its own
    return True


def _copy_link(tree: Tree, level: _Level, child: _Child) -> None:
    target, facts = child.target, child.facts
    try:
        points_to = os.readlink(target.name, dir_fd=level.source)
    except OSError as error:
        raise _changed(tree, child.path, error) from error
    if tree.chosen.inner_links and leads_out((*level.names, target.name), points_to):
        tree.done.skipped.append(Skipped(child.path, "link_leads_out"))
        return
    look = Look(owner=tree.owner, times=(facts.st_atime_ns, facts.st_mtime_ns))
    put_link(target, points_to, look)
    tree.done.wrote(child.path, 0)


def _copy_directory(tree: Tree, level: _Level, child: _Child) -> None:
    name = child.target.name
    source = _open_same(tree, level.source, name, _open_below, child.path)
    try:
        with acting_as(tree.owner):
            made, fresh = open_or_make(level.target, name, _PRIVATE_DIRECTORY)
        try:
            # Somebody may have put another in its place.
            (tree.ward.refuse_foreign if tree.settled else tree.ward.check_directory)(made)
            had = os.fstat(made).st_mode
            unlock(made, tree.owner)
            before = len(tree.done.written)
            deeper = _Level(
                source=source,
                target=made,
                top=level.top,
                names=(*level.names, name),
                path=child.path,
                fresh=fresh,
                wanted=child.wanted,
                ignored=level.ignored,
            )
            _copy_children(tree, deeper)
            if fresh and not child.wanted and len(tree.done.written) == before:
                with suppress(OSError), acting_as(tree.owner):  # nothing in it was meant
                    os.rmdir(name, dir_fd=level.target)
                return
            # Last, since a read-only directory takes no files, and each file changes its time.
            mode = had if tree.settled and not fresh else child.facts.st_mode
            finish_directory(made, tree.owner, mode & PERMISSIONS, child.facts)
        finally:
            os.close(made)
    finally:
        os.close(source)


_COPIERS: Final[dict[int, Callable[[Tree, _Level, _Child], None]]] = {
    stat.S_IFREG: _copy_regular,
    stat.S_IFLNK: _copy_link,
    stat.S_IFDIR: _copy_directory,
}


def _open_regular(directory: int, name: str) -> int:
    """Open what was a regular file a moment ago, and nothing that took its place."""
    handle = os.open(name, _LOOK, dir_fd=directory)
    try:
        return reopen_file(handle)
    finally:
        os.close(handle)


def _open_below(directory: int, name: str) -> int:
    return os.open(name, _OPEN_DIRECTORY, dir_fd=directory)


def _open_same(
    tree: Tree, directory: int, name: str, opens: Callable[[int, str], int], path: str
) -> int:
    """Open an entry, if it is still what it was when it was looked at."""
    try:
        return opens(directory, name)
    except OSError as error:
        if error.errno in _NO_LONGER:
            raise _changed(tree, path, error) from error
        raise LocalDirReadError(
            src=tree.src, context={"reason": "unreadable", "child": path}, cause=error
        ) from error


def _changed(tree: Tree, path: str, cause: OSError | None = None) -> LocalDirReadError:
    return LocalDirReadError(
        src=tree.src,
        message=f"source {shown(str(tree.src))} changed while it was copied, at {shown(path)}; "
        "copy it when nothing writes to it",
        context={"reason": "path_changed_during_copy", "child": path},
        cause=cause,
    )


def _special(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "socket" if stat.S_ISSOCK(mode) else "device"
