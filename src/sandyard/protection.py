"""What a session keeps as it is in what its commands may write to, and its review of the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from sandyard.errors import PolicyError
from sandyard.planted import LIBRARY
from sandyard.platform import is_within
from sandyard.workspace.opener import Opener

if TYPE_CHECKING:
    from sandyard.planted import ProtectedPart
    from sandyard.platform import Grant
    from sandyard.workspace import WorkspaceRoot
    from sandyard.workspace.review import Baseline, Review
    from sandyard.workspace.survey import Tree

__all__ = ["Protection"]

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Protection:
    """Repositories and planted files of one session.

    It blocks on the file system, so it is called in threads.

    Args:
        names: what is kept as it is (``Policy.protect``).
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._baseline: Baseline | None = None

    def survey(self, root: WorkspaceRoot, grants: tuple[Grant, ...]) -> tuple[ProtectedPart, ...]:
        """Find what is to be kept; the first time also what a review compares with.

        Args:
            root: the workspace.
            grants: what the policy grants besides; what is granted for writing is looked through.

        Raises:
            PolicyError: commands could write to nothing but this library.
        """
        from sandyard.workspace.review import take_baseline  # noqa: PLC0415  # with the first start
        from sandyard.workspace.survey import survey_trees  # noqa: PLC0415  # likewise

        with _trees(root, grants) as trees:
            for tree in trees:
                _refuse_library(tree.source)
            found = survey_trees(trees, self._names)
            if self._baseline is None:
                self._baseline = take_baseline(trees, found)
        return found.parts

    def review(self, root: WorkspaceRoot, grants: tuple[Grant, ...]) -> Review:
        """Tell what has appeared or changed since the first survey."""
        from sandyard.workspace.review import (  # noqa: PLC0415  # likewise
            compare_surveys,
            take_baseline,
        )

        with _trees(root, grants) as trees:
            now = take_baseline(trees)
        return compare_surveys(now if self._baseline is None else self._baseline, now)


def _refuse_library(source: str) -> None:
    if is_within(source, LIBRARY):
        raise PolicyError(
            f"{source} lies in {LIBRARY}, the library that makes this sandbox; work in another "
            "directory, or in one that holds all of it, where it is kept read-only",
            field="writes",
            value=source,
        )


@contextmanager
def _trees(root: WorkspaceRoot, grants: tuple[Grant, ...]) -> Iterator[list[Tree]]:
    from sandyard.workspace.survey import Tree  # noqa: PLC0415  # likewise

    trees = [Tree(root.inside, root.real_path, root.opener)]
    with ExitStack() as stack:
        for grant in grants:
            if not grant.writable:
                continue
            try:
                opened = os.open(grant.source, _OPEN)
            except OSError:  # a file, or gone: then the start refuses
                continue
            stack.callback(os.close, opened)
            facts = os.fstat(opened)
            if (facts.st_dev, facts.st_ino) == grant.inode:
                trees.append(Tree(grant.source, grant.source, Opener(opened, grant.source)))
        yield trees
