"""Tells what has appeared or changed that programs outside would run or obey."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sandyard.limits import REVIEW_ENTRIES, REVIEW_FILES
from sandyard.planted import GIT_PARTS, PLANTED, PROTECTED_NAMES
from sandyard.platform import is_within
from sandyard.workspace.gitconfig import executing_keys
from sandyard.workspace.survey import Survey, Tree, locate, survey_trees

if TYPE_CHECKING:
    from sandyard.workspace.names import Names

__all__ = ["Baseline", "Finding", "Review", "compare_surveys", "take_baseline"]

FindingKind = Literal["repository", "hook", "configuration", "planted"]

_READERS: Final = {each.name: each.reader for each in PLANTED}
_GIT: Final = "Git: runs it, or reads from it what to run"
_LINK: Final = "link "


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a workspace that a program outside would run or obey, and that is new.

    Attributes:
        path: where it is inside, absolute.
        kind: ``"repository"``, ``"hook"``, ``"configuration"`` (of Git) or ``"planted"``.
        reader: who would run or obey it.
        detail: what it is and what it names.
    """

    path: str
    kind: FindingKind
    reader: str
    detail: str


@dataclass(frozen=True, slots=True)
class Review:
    """What to look at before anything of a workspace is used outside.

    Attributes:
        findings: what appeared or changed since the session's first start, sorted by path.
        notes: what could not be looked at or kept as it was, and why.
        complete: False if the workspace has more entries than are looked at.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Baseline:
    """What there was at a moment.

    Attributes:
        survey: what was found.
        prints: of each file that matters, by its path inside, what it held.
        keys: of each Git configuration, the keys that make Git run or obey something.
    """

    survey: Survey
    prints: Mapping[str, str]
    keys: Mapping[str, tuple[tuple[str, str], ...]]


def take_baseline(trees: Sequence[Tree], survey: Survey | None = None) -> Baseline:
    """Look at what there is now.

    Blocks on the file system. What is kept read-only is read too: it may have another name, through
    which it can be changed.

    Args:
        trees: what commands can write to.
        survey: a survey of these trees at this moment (default: make one).
    """
    if survey is None:
        survey = survey_trees(trees, PROTECTED_NAMES, entries=REVIEW_ENTRIES)
    prints: dict[str, str] = {}
    keys: dict[str, tuple[tuple[str, str], ...]] = {}
    for repository in survey.repositories:
        if repository.directory is None:
            continue
        for part in GIT_PARTS:
            prints.update(_prints(trees, posixpath.join(repository.directory, part)))
        config = posixpath.join(repository.directory, "config")
        keys[config] = executing_keys(_text(trees, config))
    for path in survey.planted:
        prints.update(_prints(trees, path))
    return Baseline(survey, prints, keys)


def compare_surveys(before: Baseline, now: Baseline, notes: Sequence[str] = ()) -> Review:
    """Tell what is new.

    Args:
        before: what there was.
        now: what there is.
        notes: what else is to be said.
    """
    known = {repository.path: repository.directory for repository in before.survey.repositories}
    findings = []
    for repository in now.survey.repositories:
        new = repository.path not in known or known[repository.path] != repository.directory
        if new:
            keys = now.keys.get(f"{repository.directory}/config", ())
            findings.append(Finding(repository.path, "repository", _GIT, _told(keys)))
    for path, print_now in now.prints.items():
        print_before = before.prints.get(path)
        if print_now == print_before:
            continue
        what = "is new" if print_before is None else "has changed"
        findings.append(_finding(path, what, before, now))
    return Review(
        findings=tuple(sorted(findings, key=lambda finding: (finding.path, finding.kind))),
        notes=tuple(dict.fromkeys((*before.survey.notes, *now.survey.notes, *notes))),
        complete=before.survey.complete and now.survey.complete,
    )


def _finding(path: str, what: str, before: Baseline, now: Baseline) -> Finding:
    for repository in now.survey.repositories:
        directory = repository.directory
        if directory is None or not is_within(path, directory):
            continue
        if is_within(path, f"{directory}/hooks"):
            return Finding(path, "hook", _GIT, f"a hook that {what}")
        old = before.keys.get(path, ())
        added = tuple(pair for pair in now.keys.get(path, ()) if pair not in old)
        return Finding(path, "configuration", _GIT, f"{what}; {_told(added)}")
    name = next((part for part in reversed(path.split("/")) if part in _READERS), "")
    return Finding(path, "planted", _READERS.get(name, "programs outside"), what)


def _told(keys: tuple[tuple[str, str], ...]) -> str:
    if not keys:
        return "names nothing to run"
    return "names what to run or obey: " + ", ".join(f"{key}={value}" for key, value in keys)


# --- what a file holds ----------------------------------------------------------------------------


def _prints(trees: Sequence[Tree], path: str) -> Iterator[tuple[str, str]]:
    """What a file holds, or each file of a directory; samples of hooks are left out."""
    found = locate(trees, path)
    if found is None:
        return
    tree, names = found
    room = REVIEW_FILES
    pending = [names]
    while pending and room > 0:
        at = pending.pop()
        if at and at[-1].endswith(".sample"):
            continue
        told = _print(tree, at)
        if told is None:
            pending += [(*at, name) for name in sorted(_names(tree, at), reverse=True)]
        elif told:
            room -= 1
            yield tree.path(at), told


def _print(tree: Tree, names: Names) -> str | None:
    """What something holds; None for a directory, nothing for what is not there."""
    try:
        facts, target = tree.look(names)
    except OSError:
        return ""
    if target is not None:
        return _LINK + target
    if stat.S_ISDIR(facts.st_mode):
        return None
    import hashlib  # noqa: PLC0415  # most workspaces have nothing to compare

    digest = hashlib.sha256(tree.read(names)).hexdigest()
    return f"{facts.st_mode & 0o7777:o} {facts.st_size} {digest}"


def _names(tree: Tree, at: Names) -> Iterable[str]:
    try:
        return tree.list(at, REVIEW_FILES)
    except OSError:
        return ()


def _text(trees: Sequence[Tree], path: str) -> str:
    found = locate(trees, path)
    return "" if found is None else found[0].text(found[1])
