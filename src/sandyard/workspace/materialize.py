"""A manifest made real beneath a root: its plan carried out, several steps at a time."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandyard.errors import (
    SandboxError,
)
from sandyard.limits import (
    MANIFEST_GROUP,
    MANIFEST_PARALLEL,
    MANIFEST_WORKERS,
)
from sandyard.manifest.paths import ROOT_KEY
from sandyard.workspace.acting import rightful_owner
from sandyard.workspace.copying import (
    Abandoned,
    Copied,
    Materialized,
    Origin,
)
from sandyard.workspace.entry_plan import (
    CopyClone,
    CopyTree,
    Step,
    UnpackArchive,
    WriteFile,
    in_waves,
    plan_entries,
)
from sandyard.workspace.entry_steps import Job, carry_out, wrote_new
from sandyard.workspace.faults import translated, typed_error
from sandyard.workspace.names import split_names
from sandyard.workspace.placing import (
    made_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from threading import Event

    from sandyard.manifest import Manifest
    from sandyard.workspace.progress import Tracker
    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["Attempt", "Ledger", "apply_manifest", "origin_of"]


@dataclass(slots=True)
class Ledger:
    """What of a manifest has been made, so that a second attempt goes on where the first failed.

    Attributes:
        made: the steps that were carried out, each with what it did.
    """

    made: dict[Step, Copied] = field(default_factory=dict)

    def missing(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """Those steps that were not carried out yet."""
        return tuple(step for step in steps if step not in self.made)

    def result(self, steps: Iterable[Step]) -> Materialized:
        """What all of the steps did, in their order."""
        done = [self.made[step] for step in steps if step in self.made]
        return Materialized(
            tuple(path for each in done for path in each.written),
            tuple(skipped for each in done for skipped in each.skipped),
            tuple(file for each in done for file in each.files),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one application of a manifest is given, apart from the manifest.

    Attributes:
        ledger: what earlier attempts have made; it hears of what this one makes.
        clones: where repositories were cloned to on the host, by the paths of their entries.
        only_ephemeral: True makes ephemeral entries alone, with all that is in them.
        direct: True if nobody looks at the workspace yet, so that new files may be written under
            their own names.
        stopped: set by whoever wants no more of it.
        tracker: hears how far it is (default: nobody does).
        workers: threads that make it, at most.
    """

    ledger: Ledger = field(default_factory=Ledger)
    clones: Mapping[str, str] = field(default_factory=dict)
    only_ephemeral: bool = False
    direct: bool = False
    stopped: Event | None = None
    tracker: Tracker | None = None
    workers: int = MANIFEST_WORKERS


def origin_of(manifest: Manifest, base_dir: str | None) -> Origin:
    """Where sources of a manifest's entries may lie.

    Args:
        manifest: it, with its grants.
        base_dir: absolute directory that relative sources start at (default: the working directory
            of this program).
    """
    grants = tuple(grant.host_path or grant.path for grant in manifest.extra_path_grants)
    return Origin(_working_directory() if base_dir is None else base_dir, grants)


def _working_directory() -> str | None:
    """This program's; None if somebody removed it."""
    try:
        return os.getcwd()
    except OSError:
        return None


def apply_manifest(
    root: WorkspaceRoot,
    manifest: Manifest,
    *,
    base_dir: str | None = None,
    attempt: Attempt | None = None,
) -> Materialized:
    """Make those entries of a manifest real that the attempt's ledger does not have yet.

    What exists is replaced file by file, each whole or not at all; what the manifest does not name
    is left alone. When a step fails, those that were carried out stay, and are in the ledger; none
    is begun after that.

    Args:
        root: the workspace.
        manifest: what should exist.
        base_dir: absolute directory that relative sources start at (default: the working directory
            of this program).
        attempt: what else is known (default: a first attempt at all of it).

    Raises:
        ManifestError: an entry can't be applied; nothing was written.
        LocalFileReadError, LocalDirReadError, LocalChecksumError: a source can't be copied.
        GitSubpathError: a repository has no such directory.
        InvalidManifestPathError: a symlink in the workspace leads an entry out of it.
        WorkspaceArchiveWriteError: something can't be written. These all name the entry in their
            context.
        WorkspaceRootNotFoundError: somebody removed the workspace.
    """
    given = attempt or Attempt()
    steps = plan_entries(manifest, only_ephemeral=given.only_ephemeral)
    with translated("materialize", ROOT_KEY, root):
        job = Job(
            root=root,
            origin=origin_of(manifest, base_dir),
            owner=rightful_owner(root),
            clones=given.clones,
            direct=given.direct,
            stopped=given.stopped,
        )
    course = _Course(job, given)
    missing = given.ledger.missing(steps)
    if given.tracker is not None:
        given.tracker.begin(len(missing))
    with ExitStack() as stack:
        threads = None
        if given.workers > 1 and (len(missing) >= MANIFEST_PARALLEL or _weighty(missing)):
            threads = stack.enter_context(
                ThreadPoolExecutor(given.workers - 1, thread_name_prefix="sandyard-entries")
            )
        for wave in in_waves(missing):
            _run_wave(course, wave, threads)
    return given.ledger.result(steps)


def _weighty(steps: Iterable[Step]) -> bool:
    """Tell whether there are several steps that each may take long."""
    return sum(isinstance(step, CopyTree | CopyClone | UnpackArchive) for step in steps) > 1


def _run_wave(course: _Course, wave: list[Step], threads: ThreadPoolExecutor | None) -> None:
    """Carry out steps in any order; the first error is raised when those under way have ended."""
    groups = _groups(wave, together=course.given.direct)
    if threads is None or len(groups) == 1:
        for group in groups:
            _run_group(course, group)
        return
    waiting = iter(groups)

    def work() -> None:
        for (
            group
        ) in waiting:  # the interpreter's lock makes each step of the iterator one operation
            _run_group(course, group)

    helpers: list[Future[None]] = []
    try:
        with suppress(RuntimeError):  # no thread can be started: then there are fewer
            while len(helpers) < min(course.given.workers, len(groups)) - 1:
                helpers.append(threads.submit(work))
        work()
    finally:
        wait(helpers)
    errors = [error for helper in helpers if (error := helper.exception()) is not None]
    if errors:
        raise errors[0]


def _groups(wave: list[Step], *, together: bool) -> list[list[Step]]:
    """Put files of one directory together, so that it is opened once for many of them."""
    if not together:
        return [[step] for step in wave]
    groups: list[list[Step]] = []
    files: dict[str, list[Step]] = {}
    for step in wave:
        above = step.path.rpartition("/")[0]
        group = files.get(above) if isinstance(step, WriteFile) else None
        if group is not None and len(group) < MANIFEST_GROUP:
            group.append(step)
            continue
        groups.append([step])
        if isinstance(step, WriteFile):
            files[above] = groups[-1]
    return groups


def _run_group(course: _Course, group: list[Step]) -> None:
    """Carry out steps one after the other; several are files of one directory."""
    beside = None
    if len(group) > 1:
        above = split_names(group[0].path)[:-1]
        with suppress(OSError):  # each of them will say what is wrong
            beside = made_directory(course.job.root, above, course.job.owner)
    try:
        for step in group:
            _run_step(course, step, beside)
    finally:
        if beside is not None:
            os.close(beside)


@dataclass(slots=True)
class _Course:
    """One attempt under way.

    Attributes:
        job: what stays the same for all steps.
        given: what it was given.
        failed: whether a step has failed, so that no other is begun.
    """

    job: Job
    given: Attempt
    failed: bool = False


def _run_step(course: _Course, step: Step, beside: int | None = None) -> None:
    """Carry out one step, unless another has failed or nobody wants it any more.

    Args:
        course: the attempt that it belongs to.
        step: the step.
        beside: descriptor of the directory that a file is to stand in, if it is open.
    """
    if course.failed:
        return
    if course.given.stopped is not None and course.given.stopped.is_set():
        raise Abandoned
    tracker = course.given.tracker
    done = Copied(tell=None if tracker is None else tracker.wrote)
    try:
        job = course.job
        if beside is None or not isinstance(step, WriteFile) or not wrote_new(job, step, beside):
            carry_out(job, step, done)
        else:
            done.wrote(step.path, len(step.content))
    except BaseException as error:
        course.failed = True
        if isinstance(error, OSError) and not isinstance(error, SandboxError):
            raise _placed(
                typed_error("materialize", step.path, course.job.root, error), step
            ) from error
        if isinstance(error, SandboxError):
            _placed(error, step)
        raise
    course.given.ledger.made[step] = done
    if tracker is not None:
        tracker.finished(step.path)


def _placed(error: SandboxError, step: Step) -> SandboxError:
    """Name the entry in an error's context."""
    error.context.setdefault("entry", step.path)
    return error
