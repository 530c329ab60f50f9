"""A manifest made real beneath a root: its plan carried out, several steps at a time."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandyard.errors import (
    GitSubpathError,
    LocalChecksumError,
    LocalDirReadError,
    LocalFileReadError,
    SandboxError,
    shown,
)
from sandyard.limits import (
    COPY_CHUNK_BYTES,
    MANIFEST_GROUP,
    MANIFEST_PARALLEL,
    MANIFEST_WORKERS,
)
from sandyard.manifest.paths import ROOT_KEY
from sandyard.manifest.selecting import compile_rules
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.copying import (
    PERMISSIONS,
    Abandoned,
    Copied,
    Origin,
    Skipped,
    copy_file,
    open_source,
)
from sandyard.workspace.copying_trees import ALL, Chosen, Tree, copy_tree
from sandyard.workspace.entry_plan import (
    CopyClone,
    CopyFile,
    CopyTree,
    MakeDirectory,
    SetMode,
    Step,
    UnpackArchive,
    WriteFile,
    in_waves,
    plan_entries,
)
from sandyard.workspace.faults import translated, typed_error
from sandyard.workspace.names import split_names
from sandyard.workspace.placing import (
    Look,
    discard,
    finish_directory,
    found_target,
    made_directory,
    put_file,
    unlock,
    write_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from threading import Event

    from sandyard.manifest import Manifest
    from sandyard.workspace.progress import Tracker
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["Attempt", "Ledger", "Materialized", "apply_manifest", "origin_of"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FILE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Materialized:
    """What applying a manifest did.

    Attributes:
        written: files and symlinks that were written, beneath the root, in the order of the
            entries.
        skipped: what was left out of copied directories, and why.
    """

    written: tuple[str, ...]
    skipped: tuple[Skipped, ...]


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
    """

    ledger: Ledger = field(default_factory=Ledger)
    clones: Mapping[str, str] = field(default_factory=dict)
    only_ephemeral: bool = False
    direct: bool = False
    stopped: Event | None = None
    tracker: Tracker | None = None


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
        job = _Job(root, origin_of(manifest, base_dir), rightful_owner(root), given)
    missing = given.ledger.missing(steps)
    if given.tracker is not None:
        given.tracker.begin(len(missing))
    with ExitStack() as stack:
        threads = None
        if len(missing) >= MANIFEST_PARALLEL or _weighty(missing):
            threads = stack.enter_context(
                ThreadPoolExecutor(MANIFEST_WORKERS, thread_name_prefix="sandyard-entries")
            )
        for wave in in_waves(missing):
            _run_wave(job, wave, threads)
    return given.ledger.result(steps)


def _weighty(steps: Iterable[Step]) -> bool:
    """Tell whether there are several steps that each may take long."""
    return sum(isinstance(step, CopyTree | CopyClone | UnpackArchive) for step in steps) > 1


def _run_wave(job: _Job, wave: list[Step], threads: ThreadPoolExecutor | None) -> None:
    """Carry out steps in any order; the first error is raised when those under way have ended."""
    groups = _groups(wave, together=job.given.direct)
    if threads is None or len(groups) == 1:
        for group in groups:
            _run_group(job, group)
        return
    waiting = iter(groups)

    def work() -> None:
        for (
            group
        ) in waiting:  # the interpreter's lock makes each step of the iterator one operation
            _run_group(job, group)

    futures = [threads.submit(work) for _ in range(min(MANIFEST_WORKERS, len(groups)))]
    errors = [error for future in futures if (error := future.exception()) is not None]
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


def _run_group(job: _Job, group: list[Step]) -> None:
    """Carry out steps one after the other; several are files of one directory."""
    beside = None
    if len(group) > 1:
        above = split_names(group[0].path)[:-1]
        with suppress(OSError):  # each of them will say what is wrong
            beside = made_directory(job.root, above, job.owner)
    try:
        for step in group:
            _run_step(job, step, beside)
    finally:
        if beside is not None:
            os.close(beside)


@dataclass(slots=True)
class _Job:
    """What stays the same while a plan is carried out.

    Attributes:
        root: the workspace.
        origin: where sources may lie.
        owner: whom everything is made as; sources are read as this program.
        given: what else is known.
        failed: whether a step has failed, so that no other is begun.
    """

    root: WorkspaceRoot
    origin: Origin
    owner: Owner | None
    given: Attempt
    failed: bool = False


def _run_step(job: _Job, step: Step, beside: int | None = None) -> None:
    """Carry out one step, unless another has failed or nobody wants it any more.

    Args:
        job: what it belongs to.
        step: the step.
        beside: descriptor of the directory that a file is to stand in, if it is open.
    """
    if job.failed:
        return
    if job.given.stopped is not None and job.given.stopped.is_set():
        raise Abandoned
    tracker = job.given.tracker
    done = Copied(tell=None if tracker is None else tracker.wrote)
    try:
        if beside is None or not isinstance(step, WriteFile) or not _wrote_new(job, step, beside):
            _carry_out_step(job, step, done)
        else:
            done.wrote(step.path, len(step.content))
    except BaseException as error:
        job.failed = True
        if isinstance(error, OSError) and not isinstance(error, SandboxError):
            raise _placed(typed_error("materialize", step.path, job.root, error), step) from error
        if isinstance(error, SandboxError):
            _placed(error, step)
        raise
    job.given.ledger.made[step] = done
    if tracker is not None:
        tracker.finished(step.path)


def _carry_out_step(job: _Job, step: Step, done: Copied) -> None:
    match step:
        case WriteFile():
            _write_file(job, step, done)
        case MakeDirectory():
            _make_directory(job, step)
        case SetMode():
            _set_mode(job, step)
        case CopyFile():
            _copy_file(job, step, done)
        case CopyTree():
            _copy_tree(job, step, done)
        case CopyClone():
            _copy_clone(job, step, done)
        case UnpackArchive():
            _unpack_archive(job, step, done)


def _placed(error: SandboxError, step: Step) -> SandboxError:
    """Name the entry in an error's context."""
    error.context.setdefault("entry", step.path)
    return error


def _make_directory(job: _Job, step: MakeDirectory) -> None:
    opened = made_directory(job.root, split_names(step.path), job.owner)
    try:
        if step.path != ROOT_KEY:
            unlock(opened, job.owner)  # until SetMode, which comes last
    finally:
        os.close(opened)


def _write_file(job: _Job, step: WriteFile, done: Copied) -> None:
    content = memoryview(step.content)
    look = Look(owner=job.owner, mode=step.mode)
    with found_target(job.root, split_names(step.path), job.owner) as target:
        put_file(target, lambda opened: write_all(opened, content), look)
    done.wrote(step.path, len(content))


def _wrote_new(job: _Job, step: WriteFile, beside: int) -> bool:
    """Write a file under its own name; False, and nothing done, if something has that name."""
    name = step.path.rpartition("/")[2]
    with acting_as(job.owner):
        try:
            opened = os.open(name, _CREATE, _PRIVATE_FILE, dir_fd=beside)
        except FileExistsError:
            return False
    try:
        try:
            write_all(opened, memoryview(step.content))
            os.fchmod(opened, step.mode)
        finally:
            os.close(opened)
    except BaseException:
        discard(beside, name, job.owner)
        raise
    return True


def _copy_file(job: _Job, step: CopyFile, done: Copied) -> None:
    path = job.origin.located(step.src, LocalFileReadError)
    source = open_source(path, step.src, LocalFileReadError)
    try:
        with found_target(job.root, split_names(step.path), job.owner) as target:
            copy_file(source, target, job.owner, step.mode)
        done.wrote(step.path, os.fstat(source).st_size)
    finally:
        os.close(source)


def _copy_tree(job: _Job, step: CopyTree, done: Copied) -> None:
    path = job.origin.located(step.src, LocalDirReadError)
    chosen = ALL
    if step.include or step.exclude or step.gitignore:
        chosen = Chosen(compile_rules(step.include), compile_rules(step.exclude), step.gitignore)
    source = open_source(path, step.src, LocalDirReadError)
    try:
        tree = partial(Tree, step.src, chosen=chosen)
        _fill_directory(job, step.path, tree, source, step.mode, done)
    finally:
        os.close(source)


def _copy_clone(job: _Job, step: CopyClone, done: Copied) -> None:
    """Copy what a sandbox cloned: it is looked at as what somebody else made."""
    repository, top = step.repository, job.given.clones[step.path]
    path = top if repository.subpath is None else f"{top}/{repository.subpath}"
    try:
        source = open_source(path, Path(repository.url), LocalDirReadError)
    except LocalDirReadError as error:
        if repository.subpath is None:
            raise
        link = error.context.get("reason") == "symlink_not_supported"
        raise GitSubpathError(
            repo=repository.url,
            subpath=repository.subpath,
            reason="symlink_not_supported" if link else "not_found",
            cause=error,
        ) from error
    try:
        tree = partial(Tree, Path(repository.url))
        _fill_directory(job, step.path, tree, source, step.mode, done)
    finally:
        os.close(source)


def _fill_directory(
    job: _Job,
    path: str,
    tree: Callable[..., Tree],
    source: int,
    mode: int | None,
    done: Copied,
) -> None:
    """Copy an open directory to a path; the root itself keeps its permissions."""
    above = "" if path == ROOT_KEY else path
    top = made_directory(job.root, split_names(path), job.owner)
    try:
        if above:
            unlock(top, job.owner)
        into = os.fstat(top)
        own = frozenset({(into.st_dev, into.st_ino), job.root.inode})
        given = job.given
        whole = tree(
            owner=job.owner,
            done=done,
            own=own,
            ward=job.root.ward,
            direct=given.direct,
            stopped=given.stopped,
        )
        copy_tree(whole, source, top, above, fresh=given.direct and not os.listdir(top))
        if above:
            facts = os.fstat(source)
            bits = facts.st_mode & PERMISSIONS if mode is None else mode
            finish_directory(top, job.owner, bits, facts)
    finally:
        os.close(top)


def _unpack_archive(job: _Job, step: UnpackArchive, done: Copied) -> None:
    from sandyard.workspace import extract  # noqa: PLC0415  # few manifests have archives

    path = job.origin.located(step.src, LocalFileReadError)
    source = open_source(path, step.src, LocalFileReadError)
    with os.fdopen(source, "rb") as file:
        if step.sha256 is not None:
            _check_sum(step, file.fileno())
        opened = made_directory(job.root, split_names(step.path), job.owner)
        try:
            if step.path != ROOT_KEY:
                unlock(opened, job.owner)
            asked = extract.Extraction(keep=False)
            if job.given.stopped is not None:
                asked.stopped = job.given.stopped
            report = extract.extract_archive(job.root, f"{step.path}/archive", file, asked)
            if step.path != ROOT_KEY and step.mode is not None:
                with acting_as(job.owner):
                    os.fchmod(opened, step.mode)
        finally:
            os.close(opened)
    done.wrote(step.path, report.size)
    above = "" if step.path == ROOT_KEY else f"{step.path}/"
    notes = (*report.skipped, *report.dropped)
    done.skipped.extend(Skipped(f"{above}{note.path}", note.reason) for note in notes)


def _check_sum(step: UnpackArchive, source: int) -> None:
    """Read the archive once, before anything is unpacked of it.

    Raises:
        LocalChecksumError: it is another.
    """
    found = hashlib.sha256()
    while piece := os.read(source, COPY_CHUNK_BYTES):
        found.update(piece)
    os.lseek(source, 0, os.SEEK_SET)
    if found.hexdigest() != step.sha256:
        raise LocalChecksumError(
            src=step.src,
            message=f"the archive {shown(str(step.src))} has the sha256 {found.hexdigest()}, and "
            f"not {step.sha256}; nothing of it was unpacked",
            context={"expected": step.sha256, "actual": found.hexdigest()},
        )


def _set_mode(job: _Job, step: SetMode) -> None:
    opened = made_directory(job.root, split_names(step.path), job.owner)
    try:
        with acting_as(job.owner):
            os.fchmod(opened, step.mode)
    finally:
        os.close(opened)
