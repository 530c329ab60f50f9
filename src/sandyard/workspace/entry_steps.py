"""The steps of a manifest's plan, each carried out beneath a root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from sandyard.errors import (
    GitSubpathError,
    LocalChecksumError,
    LocalDirReadError,
    LocalFileReadError,
    shown,
)
from sandyard.manifest.paths import ROOT_KEY
from sandyard.manifest.selecting import compile_rules
from sandyard.workspace.acting import acting_as
from sandyard.workspace.copying import (
    PERMISSIONS,
    Copied,
    Digest,
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
    SetOwner,
    Step,
    UnpackArchive,
    WriteFile,
)
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
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

    from sandyard.workspace.root import WorkspaceRoot

__all__ = ["Job", "carry_out", "wrote_new"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FILE: Final = 0o600
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AS_IT_IS: Final = -1
"""An id that chown(2) leaves alone."""


@dataclass(slots=True)
class Job:
    """What stays the same while a plan is carried out.

    Attributes:
        root: the workspace.
        origin: where sources may lie.
        owner: whom everything is made as; sources are read as this program.
        clones: where repositories were cloned to on the host, by the paths of their entries.
        direct: whether new files may be written under their own names at once.
        stopped: set by whoever wants no more of it.
    """

    root: WorkspaceRoot
    origin: Origin
    owner: Owner | None
    clones: Mapping[str, str]
    direct: bool
    stopped: Event | None


def carry_out(job: Job, step: Step, done: Copied) -> None:
    """Carry out one step, and note in ``done`` what it did.

    Raises:
        SandboxError: a source can't be copied, or a repository has no such directory.
        OSError: something can't be written.
        Abandoned: nobody wants it any more.
    """
    match step:
        case WriteFile():
            _write_file(job, step, done)
        case MakeDirectory():
            _make_directory(job, step)
        case SetMode():
            _set_mode(job, step)
        case SetOwner():
            _set_owner(job, step)
        case CopyFile():
            _copy_file(job, step, done)
        case CopyTree():
            _copy_tree(job, step, done)
        case CopyClone():
            _copy_clone(job, step, done)
        case UnpackArchive():
            _unpack_archive(job, step, done)


def _make_directory(job: Job, step: MakeDirectory) -> None:
    opened = made_directory(job.root, split_names(step.path), job.owner)
    try:
        if step.path != ROOT_KEY:
            unlock(opened, job.owner)  # until SetMode, which comes last
    finally:
        os.close(opened)


def _write_file(job: Job, step: WriteFile, done: Copied) -> None:
    content = memoryview(step.content)
    look = Look(owner=job.owner, mode=step.mode)
    with found_target(job.root, split_names(step.path), job.owner) as target:
        put_file(target, lambda opened: write_all(opened, content), look)
    done.wrote(step.path, len(content))


def wrote_new(job: Job, step: WriteFile, beside: int) -> bool:
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


def _copy_file(job: Job, step: CopyFile, done: Copied) -> None:
    path = job.origin.located(step.src, LocalFileReadError)
    source, digest = open_source(path, step.src, LocalFileReadError), Digest()
    try:
        with found_target(job.root, split_names(step.path), job.owner) as target:
            copy_file(source, target, job.owner, step.mode, job.stopped, digest)
        done.sum(step.path, digest)
        done.wrote(step.path, os.fstat(source).st_size)
    finally:
        os.close(source)


def _copy_tree(job: Job, step: CopyTree, done: Copied) -> None:
    path = job.origin.located(step.src, LocalDirReadError)
    chosen = ALL
    if step.include or step.exclude or step.gitignore:
        chosen = Chosen(compile_rules(step.include), compile_rules(step.exclude), step.gitignore)
    source = open_source(path, step.src, LocalDirReadError)
    done.sums = True
    try:
        tree = partial(Tree, step.src, chosen=chosen)
        _fill_directory(job, step.path, tree, source, step.mode, done)
    finally:
        os.close(source)


def _copy_clone(job: Job, step: CopyClone, done: Copied) -> None:
    """Copy what a sandbox cloned: it is looked at as what somebody else made."""
    repository, top = step.repository, job.clones[step.path]
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
    job: Job,
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
        whole = tree(
            owner=job.owner,
            done=done,
            own=own,
            ward=job.root.ward,
            direct=job.direct,
            stopped=job.stopped,
        )
        copy_tree(whole, source, top, above, fresh=job.direct and not os.listdir(top))
        if above:
            facts = os.fstat(source)
            bits = facts.st_mode & PERMISSIONS if mode is None else mode
            finish_directory(top, job.owner, bits, facts)
    finally:
        os.close(top)


def _unpack_archive(job: Job, step: UnpackArchive, done: Copied) -> None:
    from sandyard.workspace import extract  # noqa: PLC0415  # few manifests have archives

    path = job.origin.located(step.src, LocalFileReadError)
    source = open_source(path, step.src, LocalFileReadError)
    with os.fdopen(source, "rb") as file:
        opened = made_directory(job.root, split_names(step.path), job.owner)
        try:
            if step.path != ROOT_KEY:
                unlock(opened, job.owner)
            asked = extract.Extraction(keep=False)
            if job.stopped is not None:
                asked.stopped = job.stopped
            data = file if step.sha256 is None else _Summed(step, file)
            report = extract.extract_archive(job.root, f"{step.path}/archive", data, asked)
            if step.path != ROOT_KEY and step.mode is not None:
                with acting_as(job.owner):
                    os.fchmod(opened, step.mode)
        finally:
            os.close(opened)
    done.wrote(step.path, report.size)
    above = "" if step.path == ROOT_KEY else f"{step.path}/"
    notes = (*report.skipped, *report.dropped)
    done.skipped.extend(Skipped(f"{above}{note.path}", note.reason) for note in notes)


class _Summed:
    """An archive whose checksum is compared at its end, before anything of what was read is unpacked.

    So it does not matter that somebody may change the file of the host meanwhile.
    """

    def __init__(self, step: UnpackArchive, file: IO[bytes]) -> None:
        import hashlib  # noqa: PLC0415  # few archives have a checksum

        self._step = step
        self._file = file
        self._sum = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            LocalChecksumError: there are no more, and it is another.
        """
        piece = self._file.read(size)
        self._sum.update(piece)
        if not piece:
            self._compare()
        return piece

    def _compare(self) -> None:
        found, wanted = self._sum.hexdigest(), self._step.sha256
        if found != wanted:
            raise LocalChecksumError(
                src=self._step.src,
                message=f"the archive {shown(str(self._step.src))} has the sha256 {found}, and not "
                f"{wanted}; nothing of it was unpacked",
                context={"expected": wanted, "actual": found},
            )


def _set_mode(job: Job, step: SetMode) -> None:
    opened = made_directory(job.root, split_names(step.path), job.owner)
    try:
        with acting_as(job.owner):
            os.fchmod(opened, step.mode)
    finally:
        os.close(opened)


def _set_owner(job: Job, step: SetOwner) -> None:
    """Give something away: as this program where it is root, else by a deputy."""
    from sandyard.workspace.deputy import needs_deputies  # noqa: PLC0415  # few have several users

    own, names = job.root.owner, {name: number for number, name in job.root.names.items()}
    uid = gid = _AS_IT_IS
    if step.owner is not None:
        uid = gid = names.get(step.owner, own.uid)
        if step.owner not in names:
            gid = own.gid
    if step.group is not None:
        gid = names.get(step.group, own.gid)
    give = partial(_give_away, job.root, step.path, Owner(uid, gid), deep=step.deep)
    if needs_deputies(job.root):
        job.root.deputies.of("whole").do(give)
    else:
        give()


def _give_away(root: WorkspaceRoot, given: str, owner: Owner, *, deep: bool) -> None:
    from sandyard.workspace.giving import give_below  # noqa: PLC0415  # few sessions have several

    path = split_names(given)
    above = root.opener.open_parent(path) if path else os.dup(root.fd)
    try:
        name = path[-1] if path else "."
        root.ward.check_entry(above, name)
        if deep:
            top = os.open(name, _DIRECTORY, dir_fd=above)
            try:
                give_below(top, os.fstat(top).st_dev, owner)
            finally:
                os.close(top)
        os.chown(name, owner.uid, owner.gid, dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)
