"""What a fork of a session on layers lies upon: the session's own layers, and what it changed, as one more.

Where the session may go on changing it, that is copied; what has not changed since is not copied again.
It blocks on the file system.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sandyard.archive.report import ArchiveReport
from sandyard.errors import WorkspaceStartError
from sandyard.limits import LAYERS_DEEP, LAYERS_SETTLED_NS
from sandyard.workspace.copying import Abandoned
from sandyard.workspace.duplicate import Duplicated, duplicate
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.layer_marks import Beneath
from sandyard.workspace.persist_facts import REASONS
from sandyard.workspace.root import WorkspaceRoot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from sandyard.archive.naming import Path
    from sandyard.workspace.layered_place import LayeredPlace

__all__ = ["ForkPoint", "is_too_deep", "make_point"]

PointWay = Literal["layers", "changes", "copy", "clone"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ForkPoint(NamedTuple):
    """Layers that hold all that a session had at one moment.

    Attributes:
        names: the layers, the uppermost first.
        report: what was copied for it.
        looks: how the session's changes looked then; empty where they may look the same and be others.
        way: ``"layers"`` if nothing was copied for it, ``"changes"`` if what the session changed was,
            ``"copy"`` or ``"clone"`` if all that it has was.
    """

    names: tuple[str, ...]
    report: ArchiveReport = ArchiveReport()
    looks: bytes = b""
    way: PointWay = "layers"


def is_too_deep(names: tuple[str, ...]) -> bool:
    """Whether a workspace can't lie upon one layer more than these."""
    return len(names) >= LAYERS_DEEP


def make_point(
    root: WorkspaceRoot,
    *,
    place: LayeredPlace,
    before: ForkPoint | None,
    excluded: frozenset[Path],
    stopped: Event,
) -> ForkPoint:
    """Freeze what a session has, while it may go on.

    Args:
        root: its workspace, as commands see it.
        place: where it keeps its changes.
        before: what was made for an earlier fork, whose layers the session uses still.
        excluded: paths that are left out of what it changed.
        stopped: set by whoever wants no more of it.

    Raises:
        WorkspaceStartError: the session's place is gone, or no layer can be made.
        WorkspaceArchiveReadError, WorkspaceArchiveWriteError: what was changed can't be copied.
        Abandoned: nobody wants it any more.
    """
    names = place.names() or ()
    with _opened(place.upper) as changes:
        try:
            looks, empty = _looks(changes.fd)
        except OSError as error:
            raise WorkspaceStartError(path=place.upper, cause=error) from error
        if empty:
            return ForkPoint(names)
        if before is not None and looks and before.looks == looks:
            return before._replace(report=ArchiveReport(), way="layers")
        whole = is_too_deep(names)
        source, left = (root, ()) if whole else (changes, names)
        beneath = None if whole else Beneath(map(place.store.tree, names))
        name, done = _copied(source, place, excluded, stopped, beneath)
        point = ForkPoint((name, *left), done.report, looks, "changes")
        if whole:
            point = point._replace(way="clone" if done.shared else "copy")
        place.store.leave_others(place.session_id, (name, *names))
        return point


def _copied(
    source: WorkspaceRoot,
    place: LayeredPlace,
    excluded: frozenset[Path],
    stopped: Event,
    beneath: Beneath | None,
) -> tuple[str, Duplicated]:
    """Copy a workspace, or its changes, into a new layer that the session uses."""
    with place.filling() as layer:
        done = duplicate(source, layer.root, excluded, stopped, beneath=beneath)
        if stopped.is_set():
            raise Abandoned
    return layer.name, done


def _opened(path: str) -> WorkspaceRoot:
    try:
        return WorkspaceRoot(os.open(path, _DIRECTORY), path, owned=False)
    except OSError as error:
        raise WorkspaceStartError(path=path, cause=error) from error


def _looks(top: int) -> tuple[bytes, bool]:
    """How changes look, to compare, and whether there are none.

    What changed a moment ago might change once more without looking otherwise: then they look like
    nothing else.
    """
    began, newest, empty = time.time_ns(), 0, True
    told = hashlib.sha256()
    for path, facts in _walked(top):
        empty = False
        newest = max(newest, facts.st_ctime_ns)
        said = facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
        told.update(repr((path, said)).encode())
    settled = newest < began - LAYERS_SETTLED_NS
    return (told.digest() if settled else b""), empty


def _walked(top: int) -> Iterator[tuple[Path, os.stat_result]]:
    """All in a directory that can be looked at; nothing is followed."""
    pending: list[Path] = [()]
    with Directories(top) as directories:
        while pending:
            above = pending.pop()
            try:
                opened = os.open(".", _DIRECTORY, dir_fd=directories.at(above))
            except OSError as error:
                if not above or error.errno not in REASONS:
                    raise
                continue  # gone, or closed to us, as its own look tells
            try:
                for name in sorted(os.fsencode(name) for name in os.listdir(opened)):
                    try:
                        facts = os.stat(name, dir_fd=opened, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    path = (*above, name)
                    yield path, facts
                    if stat.S_ISDIR(facts.st_mode):
                        pending.append(path)
            finally:
                os.close(opened)
