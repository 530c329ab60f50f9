"""Unpacking of archives into a workspace, and of a workspace that was saved: staged, then exchanged."""

from __future__ import annotations

import encodings.cp437  # noqa: F401  # of old zip archives; threads that read them may not see Python's files
import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Final, Self

from sandyard.archive.bounds import UNLIMITED, ArchiveMeter, SandboxArchiveLimits
from sandyard.archive.intake import ByteReader, expanded
from sandyard.archive.model import ArchiveError
from sandyard.archive.report import Tally
from sandyard.archive.tar_fields import BLOCK
from sandyard.archive.tar_reading import is_tar, read_runs
from sandyard.errors import ArgumentError, shown
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.extract_members import Abandoned, Unpacking
from sandyard.workspace.extract_publish import publish
from sandyard.workspace.extract_reading import read_as_program
from sandyard.workspace.extract_source import ArchiveSource, refused_archive
from sandyard.workspace.extract_stage import Stage
from sandyard.workspace.extract_tree import Directories
from sandyard.workspace.faults import translated
from sandyard.workspace.kernel import PATH_ONLY
from sandyard.workspace.names import names_beneath
from sandyard.workspace.placing import write_all
from sandyard.workspace.reach import Spot, at_path, spot_of
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import PurePath
    from types import TracebackType

    from sandyard.archive.model import Member, Part, Read
    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.archive.zip_reading import ReadAt
    from sandyard.errors import OpName
    from sandyard.workspace.extract_members import Look
    from sandyard.workspace.extract_reading import Reader
    from sandyard.workspace.names import Names
    from sandyard.workspace.opener import Place
    from sandyard.workspace.root import WorkspaceRoot
    from sandyard.workspace.ward import Ward

__all__ = ["Extraction", "extract_archive", "hydrate_workspace", "restore_members", "unpack_into"]

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = 0o666


@dataclass(slots=True)
class Extraction:
    """What is asked of one extraction.

    Attributes:
        form: ``tar`` or ``zip``; None looks at the content.
        limits: how much the archive may hold.
        keep: whether the archive itself comes to stand at its path.
        stopped: set by whoever wants no more of it.
    """

    form: str | None = None
    limits: SandboxArchiveLimits = field(default_factory=SandboxArchiveLimits)
    keep: bool = True
    stopped: Event = field(default_factory=Event)


def extract_archive(
    root: WorkspaceRoot,
    path: str | PurePath,
    data: object,
    asked: Extraction,
) -> ArchiveReport:
    """Put an archive at a path, and what is in it beside it; all of it, or nothing.

    Args:
        root: the workspace.
        path: of the archive.
        data: its content, or a binary stream that is read to its end.
        asked: what else is wanted.

    Raises:
        WorkspaceArchiveWriteError: the archive is refused, or can't be unpacked.
        WorkspaceWriteTypeError: the data is text or something else.
        InvalidManifestPathError: the path leaves the workspace.
        ArgumentError: it can't be a path.
    """
    names = names_beneath(path, root.inside, "extract")
    if not names or names[-1] == "..":
        raise ArgumentError(
            f"path {shown(str(path))} is, or ends in, a directory; name the archive's own file, "
            "beside which its members are to stand",
            op="extract",
            argument="path",
            value=path,
        )
    source = ArchiveSource(data, str(path))
    with _refusals("extract", str(path), root), ExitStack() as stack:
        owner = rightful_owner(root)
        with acting_as(owner):
            place = stack.enter_context(root.opener.place(names[:-1]))
            look = stack.enter_context(_RootLook(root))
            if place.real:  # nothing is made at the top itself
                look.mtime = look.before
            stage = stack.enter_context(_stage_near(root, place.directory, owner))
        return _Extracting(root, place, stage, names, asked).run(source, owner)


class _Extracting:
    """One extraction under way."""

    def __init__(
        self, root: WorkspaceRoot, place: Place, stage: Stage, names: Names, asked: Extraction
    ) -> None:
        self._root = root
        self._place = place
        self._stage = stage
        self._asked = asked
        self._beneath: Path = tuple(os.fsencode(name) for name in place.rest)
        self._name = os.fsencode(names[-1])
        self._meter = ArchiveMeter(asked.limits)
        self._tally = Tally()

    def run(self, source: ArchiveSource, owner: Owner | None) -> ArchiveReport:
        """Unpack and publish it."""
        admit = self._root.ward.refuse_foreign
        with ExitStack() as stack:
            with acting_as(owner):
                tree = stack.enter_context(Directories(self._stage.tree, admit))
                spool = self._open_spool(tree, source)
                if spool is not None:
                    stack.callback(os.close, spool)
            if spool is not None:
                self._fill(spool, source)  # as this program: it may be a caller's code
            with acting_as(owner):
                unpacking = Unpacking(
                    tree,
                    self._beneath,
                    self._meter,
                    self._tally,
                    strict=True,
                    stopped=self._asked.stopped,
                    ward=self._root.ward,
                )
                unpacking.add_all(self._members(spool, source, owner))
                directory, ward = self._place.directory, self._root.ward
                publish(self._stage, directory, unpacking.looks, self._tally, ward, strict=True)
        return self._tally.report()

    def _open_spool(self, tree: Directories, source: ArchiveSource) -> int | None:
        """Make the file that holds the archive; None if it is not kept, and in memory or read once."""
        if self._asked.keep:
            above = tree.at(self._beneath, make=True)
            return os.open(self._name, _CREATE, _NEW_FILE, dir_fd=above)
        if source.whole is not None or self._is_streamed(source):
            return None
        return os.open("archive", _CREATE, _NEW_FILE, dir_fd=self._stage.fd)

    def _fill(self, spool: int, source: ArchiveSource) -> None:
        """Write the archive to its file."""
        while piece := source.read(COPY_CHUNK_BYTES):
            self._meter.take(len(piece))
            write_all(spool, piece)
            if self._asked.stopped.is_set():
                raise Abandoned

    def _is_streamed(self, source: ArchiveSource) -> bool:
        """Whether one look is enough: at a tar archive that is not compressed, so known by its head."""
        from sandyard.archive.zip_reading import is_zip  # noqa: PLC0415  # where one may come

        head = bytes(source.head[:BLOCK])
        return self._asked.form != "zip" and is_tar(head) and not is_zip(head[:4])

    def _members(
        self, spool: int | None, source: ArchiveSource, owner: Owner | None
    ) -> Iterator[Part]:
        stopped = self._asked.stopped
        if spool is None and source.whole is None:
            return _tar_members(source.reader(owner, self._meter, stopped), self._meter)
        whole_at, size = self._reader(spool, source)

        def read_at(offset: int, size: int) -> bytes | memoryview:
            if stopped.is_set():  # what is passed over may take long, too
                raise Abandoned
            return whole_at(offset, size)

        return _members(read_at, size, self._asked.form, self._meter)

    def _reader(self, spool: int | None, source: ArchiveSource) -> tuple[ReadAt, int]:
        """What reads the archive at any place, and its length."""
        whole = source.whole
        if whole is None:
            assert spool is not None  # noqa: S101  # a stream is always written to a file
            return lambda offset, size: os.pread(spool, size, offset), self._meter.taken
        if spool is None:
            self._meter.take(len(whole))
        return lambda offset, size: whole[offset : offset + size], len(whole)


def hydrate_workspace(
    root: WorkspaceRoot,
    data: object,
    limits: SandboxArchiveLimits | None,
    stopped: Event,
    *,
    finish: bool = False,
) -> ArchiveReport:
    """Restore what ``persist`` saved, or another tar archive; all of it, or nothing.

    Names, targets of symlinks and sizes are taken as they are. Nothing is ever written through a
    symlink, whoever made it. What the archive does not have stays.

    Args:
        root: the workspace.
        data: the archive, compressed or not, or a binary stream that is read to its end.
        limits: how much it may hold; None is as much as the disk.
        stopped: set by whoever wants no more of it.
        finish: True leaves what is at the top already, since it came of a restoring that was killed.

    Raises:
        WorkspaceArchiveWriteError: the archive is refused, or can't be unpacked.
        WorkspaceWriteTypeError: the data is text or something else.
    """
    source = ArchiveSource(data, root.inside)

    def make(restoring: _Restoring, owner: Owner | None) -> Mapping[Path, Look]:
        return restoring.run(source, owner)

    return _restore_all(root, make, ArchiveMeter(limits or UNLIMITED), stopped, finish=finish)


def restore_members(
    root: WorkspaceRoot,
    members: Iterator[Member],
    stopped: Event,
    *,
    finish: bool = False,
    tally: Tally | None = None,
    reader: Reader | None = None,
) -> ArchiveReport:
    """Restore the members of a saved workspace; all of them, or nothing.

    Args:
        root: the workspace; what the members do not have stays.
        members: them, each directory before what is in it; they are read as this program.
        stopped: set by whoever wants no more of it.
        finish: as ``hydrate_workspace``.
        tally: counts what was made (default: one of its own).
        reader: what they are read from, if it becomes this program by itself (default: each piece of
            each member is read as this program, which costs more than to write it).

    Raises:
        WorkspaceArchiveWriteError: they can't be written.
    """

    def make(restoring: _Restoring, owner: Owner | None) -> Mapping[Path, Look]:
        ids = {name.encode(): number for number, name in root.names.items()}
        if reader is None or owner is None:
            return restoring.make(read_as_program(members, owner), ids)
        reader.as_program = partial(acting_as, Owner(os.geteuid(), os.getegid()))
        return restoring.make(members, ids)

    meter = ArchiveMeter(UNLIMITED)
    return _restore_all(root, make, meter, stopped, finish=finish, tally=tally)


def _restore_all(
    root: WorkspaceRoot,
    make: Callable[[_Restoring, Owner | None], Mapping[Path, Look]],
    meter: ArchiveMeter,
    stopped: Event,
    *,
    finish: bool,
    tally: Tally | None = None,
) -> ArchiveReport:
    """Make members apart, and then put them all into a workspace."""
    tally = Tally() if tally is None else tally
    with _refusals("hydrate_workspace", root.inside, root), ExitStack() as stack:
        owner = rightful_owner(root)
        stack.enter_context(acting_as(owner))
        look = stack.enter_context(_RootLook(root))
        stage = stack.enter_context(Stage(root.fd, owner, root.ward, root.marks))
        restoring = _Restoring(stage, root.ward, meter, tally, stopped)
        restoring.into_layer = root.is_layer
        looks = make(restoring, owner)
        if () in looks:  # set once the stage has gone as well
            look.mtime = looks[()].mtime
        publish(stage, root.fd, looks, tally, root.ward, strict=False, finish=finish)
    return tally.report()


def unpack_into(
    root: WorkspaceRoot,
    path: str | PurePath,
    data: object,
    limits: SandboxArchiveLimits | None,
    stopped: Event,
) -> ArchiveReport:
    """Unpack what ``pack`` made, or another tar archive, into a directory; all of it, or nothing.

    Names and targets of symlinks are taken as they are, and nothing is written through a symlink.

    Args:
        root: the workspace.
        path: the directory, of the workspace or of what is granted besides; it exists.
        data: the archive, compressed or not, or a binary stream that is read to its end.
        limits: how much it may hold; None is as much as the disk.
        stopped: set by whoever wants no more of it.

    Raises:
        WorkspaceArchiveWriteError: the archive is refused, or can't be unpacked.
        WorkspaceWriteTypeError: the data is text or something else.
        PolicyDeniedError: a rule of the policy closes what would be changed; nothing was.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """
    spot_of(root, path, "unpack")  # refuses what can't be a path, before a stream is read
    source = ArchiveSource(data, str(path))
    meter, tally = ArchiveMeter(limits or UNLIMITED), Tally()

    def work(spot: Spot) -> None:  # called anew for each tree that the path leads through
        tree, owner = spot.tree, rightful_owner(spot.tree)
        with ExitStack() as stack:
            stack.enter_context(acting_as(owner))
            target = tree.opener.open(spot.names, PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, target)
            tree.ward.check_directory(target)  # before a stage is made where nothing may be
            at_top = os.path.samestat(os.fstat(target), os.fstat(tree.fd))
            look = stack.enter_context(_RootLook(tree))
            stage = stack.enter_context(_stage_near(tree, target, owner))
            restoring = _Restoring(stage, tree.ward, meter, tally, stopped)
            looks = restoring.run(source, owner)
            if not at_top:
                look.mtime = look.before
            elif () in looks:
                look.mtime = looks[()].mtime
            publish(stage, target, looks, tally, tree.ward, strict=True)

    try:
        at_path(root, path, "unpack", work, acting=False)
    except ArchiveError as error:
        raise refused_archive(str(path), error) from error
    return tally.report()


class _Restoring:
    """Makes the members of a tar archive in a stage, exactly as it has them.

    Args:
        stage: where.
        ward: what may not be in it.
        meter: counts against the limits.
        tally: counts for the report.
        stopped: set by whoever wants no more of it.

    Attributes:
        into_layer: whether they come into a layer, which overlayfs reads.
    """

    def __init__(
        self, stage: Stage, ward: Ward, meter: ArchiveMeter, tally: Tally, stopped: Event
    ) -> None:
        self.into_layer = False
        self._stage = stage
        self._ward = ward
        self._meter = meter
        self._tally = tally
        self._stopped = stopped

    def run(self, source: ArchiveSource, owner: Owner | None) -> Mapping[Path, Look]:
        """Make them; returns what directories are to look like.

        Args:
            source: the archive.
            owner: whom this thread acts as.
        """
        read = source.reader(owner, self._meter, self._stopped)
        return self.make(_tar_members(read, self._meter))

    def make(
        self, members: Iterator[Part], ids: Mapping[bytes, int] | None = None
    ) -> Mapping[Path, Look]:
        """Make members, wherever they come from; ``ids`` are those of owners that they may have."""
        with Directories(self._stage.tree, self._ward.refuse_foreign) as tree:
            unpacking = Unpacking(
                tree,
                (),
                self._meter,
                self._tally,
                strict=False,
                stopped=self._stopped,
                ward=self._ward,
            )
            unpacking.ids, unpacking.as_program = ids or {}, self._stage.as_program
            unpacking.into_layer = self.into_layer
            unpacking.add_all(members)
            unpacking.give()
            return unpacking.looks


class _RootLook:
    """When the workspace's directory was changed, kept while a stage comes and goes in it.

    Attributes:
        before: when it was.
        mtime: what it is to be in the end, in ns; None leaves it.
    """

    def __init__(self, root: WorkspaceRoot) -> None:
        self._fd = root.fd
        self.before = os.fstat(root.fd).st_mtime_ns
        self.mtime: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mtime = self.mtime if kind is None else self.before
        if mtime is not None:
            with suppress(PermissionError):  # somebody else's directory
                os.utime(self._fd, ns=(mtime, mtime))


@contextmanager
def _refusals(op: OpName, path: str, root: WorkspaceRoot) -> Iterator[None]:
    """Turn a refused archive, and errors of the kernel, into typed errors.

    Raises:
        WorkspaceArchiveWriteError: the block raised one of either.
    """
    try:
        with translated(op, path, root):
            yield
    except ArchiveError as error:
        raise refused_archive(path, error) from error


def _stage_near(root: WorkspaceRoot, directory: int, owner: Owner | None) -> Stage:
    """A stage on the file system of the target: at the workspace's top, where a sweep looks."""
    if os.fstat(directory).st_dev == os.fstat(root.fd).st_dev:
        return Stage(root.fd, owner, root.ward, root.marks)
    return Stage(directory, owner, root.ward)


# --- formats ----------------------------------------------------------------------------------


def _members(read_at: ReadAt, size: int, form: str | None, meter: ArchiveMeter) -> Iterator[Part]:
    """Give the members of an archive of which any part can be read."""
    from sandyard.archive.zip_reading import is_zip, read_zip  # noqa: PLC0415  # where one comes

    is_a_zip = is_zip(bytes(read_at(0, 4)))
    if form is not None and is_a_zip != (form == "zip"):
        raise ArchiveError(f"the content is no {form} archive")
    if is_a_zip:
        return read_zip(read_at, size, meter)
    at = 0

    def read(most: int) -> bytes | memoryview:
        nonlocal at
        piece = read_at(at, most)
        at += len(piece)
        return piece

    return _tar_members(read, meter)


def _tar_members(read: Read, meter: ArchiveMeter) -> Iterator[Part]:
    """Give the members of a tar archive, compressed or not; all of it is read."""
    source = ByteReader(read)
    content = expanded(source, meter)
    if not is_tar(content.peek(BLOCK)):
        raise ArchiveError("the content is no archive of a known format")
    yield from read_runs(content)
    content.drain()
