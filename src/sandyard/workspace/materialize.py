"""A manifest made real: a pure plan of steps, and their execution beneath a root."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.errors import (
    LocalDirReadError,
    LocalFileReadError,
    ManifestError,
    SandboxError,
    shown,
)
from sandyard.manifest import Dir, File, LocalDir, LocalFile
from sandyard.manifest.paths import ROOT_KEY
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.copying import (
    Copied,
    Origin,
    Skipped,
    Tree,
    copy_file,
    copy_tree,
    open_source,
)
from sandyard.workspace.faults import translated, typed_error
from sandyard.workspace.names import split_names
from sandyard.workspace.placing import (
    Look,
    finish_directory,
    found_target,
    made_directory,
    put_file,
    unlock,
    write_all,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sandyard.manifest import BaseEntry, Manifest
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = [
    "CopyFile",
    "CopyTree",
    "MakeDirectory",
    "Materialized",
    "SetMode",
    "Step",
    "WriteFile",
    "apply_manifest",
    "plan_entries",
]

_PERMISSIONS: Final = 0o777


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory, with its parents; one that exists is fine."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a file, with its parents.

    Attributes:
        path: where, beneath the root.
        content: its bytes.
        mode: its permission bits.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class CopyFile:
    """Copy a file of the host; a mode of None keeps the source's."""

    path: str
    src: Path
    mode: int | None


@dataclass(frozen=True, slots=True)
class CopyTree:
    """Copy a directory of the host with all in it; a mode of None keeps the source's."""

    path: str
    src: Path
    mode: int | None


@dataclass(frozen=True, slots=True)
class SetMode:
    """Set the permissions of a directory, once everything in it is there."""

    path: str
    mode: int


Step = MakeDirectory | WriteFile | CopyFile | CopyTree | SetMode


@dataclass(frozen=True, slots=True)
class Materialized:
    """What applying a manifest did.

    Attributes:
        written: files and symlinks that were written, beneath the root, in the order written.
        skipped: what was left out of copied directories.
    """

    written: tuple[str, ...]
    skipped: tuple[Skipped, ...]


# --- the plan ---------------------------------------------------------------------------------


def plan_entries(manifest: Manifest) -> tuple[Step, ...]:
    """List the steps that make a manifest's entries real; nothing is read or written.

    Entries come in declared order; permissions of directories come last, deepest first, since a
    read-only directory takes no files. The root itself keeps its permissions.

    Args:
        manifest: what should exist.

    Raises:
        ManifestError: an entry is of a kind, or has a field, that can't be applied.
    """
    steps: list[Step] = []
    modes: list[Step] = []
    for path, entry in manifest.walk():
        if entry.group is not None:
            raise ManifestError(
                f"entry {shown(path)} has a group, which a local sandbox can't give it: everything "
                "in it belongs to its one user; leave 'group' out",
                field="group",
                entry=path,
            )
        steps.append(_step(path, entry))
        if isinstance(steps[-1], MakeDirectory) and path != ROOT_KEY:
            modes.append(SetMode(path, _bits(entry)))
    return (*steps, *reversed(modes))


def _step(path: str, entry: BaseEntry) -> Step:
    """Choose the step that makes one entry."""
    if isinstance(entry, File):
        return WriteFile(path, entry.content, _bits(entry))
    if isinstance(entry, LocalFile):
        given = entry.given_permissions()
        return CopyFile(path, entry.src, None if given is None else _bits(entry))
    if isinstance(entry, LocalDir) and entry.src is not None:
        given = entry.given_permissions()
        return CopyTree(path, entry.src, None if given is None else _bits(entry))
    if isinstance(entry, Dir | LocalDir):
        return MakeDirectory(path)
    raise ManifestError(
        f"entry {shown(path)} is of type {shown(entry.type)}, which a local sandbox can't make",
        field="type",
        entry=path,
    )


def _bits(entry: BaseEntry) -> int:
    return entry.permissions.to_mode() & _PERMISSIONS


# --- the effect -------------------------------------------------------------------------------


def _working_directory() -> str | None:
    """This program's; None if somebody removed it."""
    try:
        return os.getcwd()
    except OSError:
        return None


def apply_manifest(
    root: WorkspaceRoot, manifest: Manifest, *, base_dir: str | None = None
) -> Materialized:
    """Make a manifest's entries real beneath a root.

    What exists is replaced file by file, each whole or not at all; what the manifest does not name
    is left alone. When a step fails, those before it stay.

    Args:
        root: the workspace.
        manifest: what should exist.
        base_dir: absolute directory that relative sources start at (default: the working directory
            of this program).

    Raises:
        ManifestError: an entry can't be applied; nothing was written.
        LocalFileReadError, LocalDirReadError: a source can't be copied.
        InvalidManifestPathError: a symlink in the workspace leads an entry out of it.
        WorkspaceArchiveWriteError: something can't be written. These three name the entry in their
            context.
        WorkspaceRootNotFoundError: somebody removed the workspace.
    """
    steps = plan_entries(manifest)
    grants = tuple(grant.host_path or grant.path for grant in manifest.extra_path_grants)
    origin = Origin(_working_directory() if base_dir is None else base_dir, grants)
    with translated("materialize", ROOT_KEY, root):
        job = _Job(root, origin, rightful_owner(root), Copied())
    for step in steps:
        try:
            _run_step(job, step)
        except OSError as error:
            if isinstance(error, SandboxError):
                raise
            raise _placed(typed_error("materialize", step.path, root, error), step) from error
        except SandboxError as error:
            _placed(error, step)
            raise
    return Materialized(tuple(job.done.written), tuple(job.done.skipped))


@dataclass(frozen=True, slots=True)
class _Job:
    """What stays the same while a plan is carried out.

    Attributes:
        root: the workspace.
        origin: where sources may lie.
        owner: whom everything is made as; sources are read as this program.
        done: where to report.
    """

    root: WorkspaceRoot
    origin: Origin
    owner: Owner | None
    done: Copied


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


def _write_file(job: _Job, step: WriteFile) -> None:
    content = memoryview(step.content)
    look = Look(owner=job.owner, mode=step.mode)
    with found_target(job.root, split_names(step.path), job.owner) as target:
        put_file(target, lambda opened: write_all(opened, content), look)
    job.done.written.append(step.path)


def _copy_file(job: _Job, step: CopyFile) -> None:
    path = job.origin.located(step.src, LocalFileReadError)
    source = open_source(path, step.src, LocalFileReadError)
    try:
        with found_target(job.root, split_names(step.path), job.owner) as target:
            copy_file(source, target, job.owner, step.mode)
    finally:
        os.close(source)
    job.done.written.append(step.path)


def _copy_tree(job: _Job, step: CopyTree) -> None:
    path = job.origin.located(step.src, LocalDirReadError)
    source = open_source(path, step.src, LocalDirReadError)
    try:
        top = made_directory(job.root, split_names(step.path), job.owner)
        try:
            above = "" if step.path == ROOT_KEY else step.path
            if above:
                unlock(top, job.owner)
            into = os.fstat(top)
            own = frozenset({(into.st_dev, into.st_ino), job.root.inode})
            copy_tree(Tree(step.src, job.owner, job.done, own), source, top, above)
            if above:
                facts = os.fstat(source)
                bits = facts.st_mode & _PERMISSIONS if step.mode is None else step.mode
                finish_directory(top, job.owner, bits, facts)
        finally:
            os.close(top)
    finally:
        os.close(source)


def _set_mode(job: _Job, step: SetMode) -> None:
    opened = made_directory(job.root, split_names(step.path), job.owner)
    try:
        with acting_as(job.owner):
            os.fchmod(opened, step.mode)
    finally:
        os.close(opened)


def _run_step(job: _Job, step: Step) -> None:
    """Carry out one step."""
    if isinstance(step, WriteFile):
        _write_file(job, step)
    elif isinstance(step, MakeDirectory):
        _make_directory(job, step)
    elif isinstance(step, SetMode):
        _set_mode(job, step)
    elif isinstance(step, CopyFile):
        _copy_file(job, step)
    else:
        _copy_tree(job, step)
