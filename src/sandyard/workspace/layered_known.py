"""What of a workspace on layers may be otherwise than in a tree that was saved: what lies in upper layers.

Whatever is changed in an overlay stands in its upper layer, in some form, for good: as a copy, as a mark
that something is gone, as a directory that hides what is beneath. What stands in none of the layers above
those that a tree tells of is as the tree tells it. It blocks on the file system.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.archive.report import ArchiveReport
from sandyard.workspace.extract_tree import Directories

if TYPE_CHECKING:
    from sandyard.archive.naming import Path

__all__ = ["KnownTree", "Touched"]

_OPAQUE: Final = "user.overlay.opaque"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class KnownTree(NamedTuple):
    """A tree that was saved, and where to look for what is otherwise now.

    Attributes:
        tree: its digest, in hexadecimal.
        report: what is in it, and what could not be saved.
        above: absolute paths of the layers that it does not tell of, the uppermost first.
    """

    tree: str
    report: ArchiveReport
    above: tuple[str, ...]


class _Seen(NamedTuple):
    """A directory as layers show it together.

    Attributes:
        path: it.
        layers: numbers of the layers that have something in it, the uppermost first.
        shown: whether what is beneath these layers shows as well.
    """

    path: Path
    layers: tuple[int, ...]
    shown: bool


class Touched:
    """Directories in which something may be otherwise, and what in each; the others are as they were.

    Args:
        above: absolute paths of the layers in which that stands, the uppermost first.
        excluded: paths that are looked at in any case.

    Raises:
        OSError: a layer can't be read.
    """

    def __init__(self, above: tuple[str, ...], excluded: frozenset[Path]) -> None:
        self._names: dict[Path, set[bytes] | None] = {}
        with ExitStack() as stack:
            tops: list[Directories] = []
            for place in above:
                top = os.open(place, _DIRECTORY)
                stack.callback(os.close, top)
                tops.append(stack.enter_context(Directories(top, readable=True)))
            pending = [_Seen((), tuple(range(len(tops))), True)]
            while pending:
                pending += self._look(tops, pending.pop())
        for path in excluded:
            self._touch(path)

    def names(self, path: Path) -> set[bytes] | None:
        """What in a directory may be otherwise; None if that is all of it."""
        return self._names.get(path)

    def keeps(self, path: Path) -> int:
        """How much of a path leads to what is as it was; 0 where the end may be otherwise."""
        for depth, name in enumerate(path):
            names = self._names.get(path[:depth])
            if names is None:
                return 0
            if name not in names:
                return depth + 1
        return 0

    def _look(self, tops: list[Directories], seen: _Seen) -> list[_Seen]:
        """Note what layers have in a directory; return the directories in it that they have."""
        found: dict[bytes, list[tuple[int, bool | None]]] = {}
        for number in seen.layers:
            try:
                with os.scandir(tops[number].at(seen.path)) as listed:
                    entries = [
                        (os.fsencode(each.name), each.is_dir(follow_symlinks=False))
                        for each in listed
                    ]
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                self._names[seen.path] = None  # somebody changes it just now
                return []
            for name, is_directory in entries:
                hides = _hides(tops[number], (*seen.path, name)) if is_directory else None
                found.setdefault(name, []).append((number, hides))
        self._names[seen.path] = set(found) if seen.shown else None
        below = (_below(seen, name, kinds) for name, kinds in found.items())
        return [each for each in below if each.layers]

    def _touch(self, path: Path) -> None:
        for depth, name in enumerate(path):
            names = self._names.setdefault(path[:depth], set())
            if names is None:
                return
            names.add(name)


def _below(seen: _Seen, name: bytes, kinds: list[tuple[int, bool | None]]) -> _Seen:
    """A directory in a directory, as layers show it; no layers if the uppermost has none there."""
    layers: list[int] = []
    shown = seen.shown
    for number, hides in kinds:
        if hides is not None:
            layers.append(number)
        if hides is not False:  # nothing beneath shows
            shown = False
            break
    return _Seen((*seen.path, name), tuple(layers), shown)


def _hides(layer: Directories, path: Path) -> bool | None:
    """Whether a directory of a layer hides what is beneath; None if it is none any more."""
    try:
        return os.getxattr(layer.at(path), _OPAQUE) == b"y"
    except OSError as error:
        if error.errno in _GONE:
            return None
        if error.errno != errno.ENODATA:
            raise
        return False
