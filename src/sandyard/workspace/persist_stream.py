"""WorkspaceArchive: a workspace, or a part of it, as a stream that is made while it is read."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from sandyard.archive.report import Tally
from sandyard.errors import (
    ArgumentError,
    ResourceLimitError,
    SandboxError,
    WorkspaceArchiveReadError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.deputy import Deputy, needs_deputies
from sandyard.workspace.deputy_wire import Passed
from sandyard.workspace.faults import translated
from sandyard.workspace.kernel import PATH_ONLY
from sandyard.workspace.persist import Saving
from sandyard.workspace.reach import Spot, at_path

if TYPE_CHECKING:
    from pathlib import PurePath
    from types import TracebackType

    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.errors import OpName
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["WorkspaceArchive", "gone_root", "pack_part", "persist_workspace"]


class WorkspaceArchive(io.BufferedReader):
    """A workspace that is being saved, or a part of it, as a stream of an uncompressed tar archive.

    Reading it blocks, as reading a file does; in a coroutine use ``async for``. Files are read as the
    stream is, and a pipe is all that lies between. Close it, or use it as a context manager, plain
    or asynchronous: closed early, the saving ends. It stays readable when the session is closed.

    Attributes:
        report: what was saved and what could not be; None until the stream was read to its end.

    Raises (while it is read):
        WorkspaceArchiveReadError: the workspace can't be read, or was removed. A stream that ends
            without an error is whole.
        ResourceLimitError: no thread can be started.

    Example:
        >>> async with await session.persist_workspace() as archive:
        ...     with open("saved.tar", "wb") as file:
        ...         async for piece in archive:
        ...             file.write(piece)
        >>> archive.report.skipped
        ()
    """

    def __init__(self, raw: _Pipe) -> None:
        """Use ``persist_workspace`` instead."""
        super().__init__(raw, COPY_CHUNK_BYTES)
        self._pipe = raw

    @property
    def report(self) -> ArchiveReport | None:
        """What was saved and what could not be; None until the stream was read to its end."""
        return self._pipe.report

    def __aiter__(self) -> Self:
        """Read it piece by piece."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            WorkspaceArchiveReadError: as reading does.
        """
        piece = await in_thread(self.read, COPY_CHUNK_BYTES)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Close it without blocking the loop."""
        await in_thread(self.close)

    async def __aenter__(self) -> Self:
        """Return this object."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()


class _Part(NamedTuple):
    """What is saved.

    Attributes:
        op: the operation, for errors.
        path: as the caller gave it, for errors.
        excluded: paths beneath it that are left out.
        name: what the archive calls it.
        outer_links: whether symlinks that may lead out of it are in it.
    """

    op: OpName
    path: str
    excluded: frozenset[Path] = frozenset()
    name: bytes = b""
    outer_links: bool = True


class _Pipe(io.RawIOBase):
    """Owns the pipe between the thread that saves and whoever reads; and that thread.

    Args:
        root: the tree that it lies in.
        top: descriptor of what is saved; it is this object's once the object is made.
        part: what else is known of it.
    """

    def __init__(self, root: WorkspaceRoot, top: int, part: _Part) -> None:
        super().__init__()
        self.report: ArchiveReport | None = None
        self._root = root
        self._part = part
        self._error: SandboxError | None = None
        self._owner: Owner | None = rightful_owner(root)
        # It starts with the first read: an archive that nobody reads costs no thread, and can be
        # closed without waiting for one.
        self._thread: threading.Thread | None = None
        self._fd, self._end = os.pipe()
        self._top = top

    def _start(self) -> None:
        thread = threading.Thread(target=self._save, name="sandyard-persist", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise _no_thread(error) from error
        self._thread = thread

    def _close_ends(self) -> None:
        for descriptor in (self._end, self._top):
            os.close(descriptor)

    # --- in the thread ------------------------------------------------------------------------

    def _save(self) -> None:
        part = self._part
        try:
            with translated(part.op, part.path, self._root):
                report = self._saved()
                facts = os.fstat(self._top)
                if stat.S_ISDIR(facts.st_mode) and facts.st_nlink == 0:
                    raise gone_root(part.path)
            self.report = report
        except BrokenPipeError:
            pass  # nobody reads on
        except SandboxError as error:
            if not isinstance(error.cause, BrokenPipeError):
                self._error = error
        finally:
            self._close_ends()

    def _saved(self) -> ArchiveReport:
        root = self._root
        if not needs_deputies(root):
            with acting_as(self._owner):
                return _written(root, self._top, self._end, self._part)
        with Deputy("whole") as deputy:  # one of its own: whoever reads may take long
            ends = Passed(self._top), Passed(self._end)
            return deputy.do(partial(_written, root, *ends, self._part))

    # --- for who reads ------------------------------------------------------------------------

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # as its base calls it
        """Take what is in the pipe; 0 when all was saved.

        Raises:
            WorkspaceArchiveReadError: it could not be.
        """
        if self._thread is None:
            self._start()
        got = os.readv(self._fd, [buffer])
        if not got and self._thread is not None:
            self._thread.join()
            if self._error is not None:
                raise self._error
            if self.report is None:  # the thread has died of what nobody foresaw
                raise _cut_short(self._part.path)
        return got

    def close(self) -> None:
        """Let the saving end, and wait for that; doing it again does nothing."""
        if not self.closed:
            super().close()
            os.close(self._fd)
            if self._thread is None:
                self._close_ends()
            else:
                self._thread.join()


def persist_workspace(root: WorkspaceRoot, excluded: frozenset[Path]) -> WorkspaceArchive:
    """Begin to save a workspace.

    Args:
        root: the workspace.
        excluded: paths beneath it that are left out, with all in them.

    Returns:
        The archive, the caller's to close.

    Raises:
        WorkspaceArchiveReadError: the workspace was removed, or this program has no descriptor left.
    """
    if root.gone:
        raise gone_root(root.inside)
    part = _Part("persist_workspace", root.inside, excluded)
    with translated(part.op, part.path, root):
        return _begun(root, os.dup(root.fd), part)


def pack_part(
    root: WorkspaceRoot, path: str | PurePath, name: str | None, *, outer_links: bool = True
) -> WorkspaceArchive:
    """Begin to save a file or a tree of a workspace, or of what is granted besides.

    Args:
        root: the workspace.
        path: what is saved; a symlink is followed here, and not within a tree.
        name: what the archive calls it (default: the path's last name); empty makes a directory the
            archive's own root.
        outer_links: False leaves out symlinks that may lead out of the tree.

    Raises:
        ArgumentError: the name is none of a single file or directory.
        WorkspaceArchiveReadError: it does not exist, or can't be read.
        PolicyDeniedError: the policy closes it.
        InvalidManifestPathError: the path leaves the workspace and what is granted.
    """

    def work(spot: Spot) -> WorkspaceArchive:
        part = _Part("pack", str(path), name=_checked_name(path, name), outer_links=outer_links)
        top = spot.tree.opener.open(spot.names, PATH_ONLY | os.O_CLOEXEC)
        return _begun(spot.tree, top, part)

    return at_path(root, path, "pack", work)


def _checked_name(path: str | PurePath, name: str | None) -> bytes:
    """What the archive calls it; empty for a directory's own root."""
    called = posixpath.basename(str(path).rstrip("/")) if name is None else name
    if name is None and called in {".", ".."}:
        return b""
    try:
        raw = os.fsencode(called)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        raw = b"\0"
    if b"/" in raw or b"\0" in raw or raw in {b".", b".."}:
        raise ArgumentError(
            f"{shown(called)} can't be the name of a file", op="pack", argument="name", value=name
        )
    return raw


def _written(root: WorkspaceRoot, top: int, end: int, part: _Part) -> ArchiveReport:
    """Write an archive of what ``top`` leads to into a pipe."""
    tally = Tally()

    def give(piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[os.write(end, left) :]

    asked = top, give, part.excluded, tally, root.ward
    Saving(*asked, name=part.name, outer_links=part.outer_links).run()
    return tally.report()


def _begun(root: WorkspaceRoot, top: int, part: _Part) -> WorkspaceArchive:
    """Begin with what a descriptor leads to, which is taken over."""
    try:
        if not part.name and not stat.S_ISDIR(os.fstat(top).st_mode):
            raise ArgumentError(
                "a file has a name in an archive", op="pack", argument="name", value=""
            )
        pipe = _Pipe(root, top, part)
    except BaseException:
        os.close(top)
        raise
    return WorkspaceArchive(pipe)


def gone_root(path: str) -> WorkspaceArchiveReadError:
    """Say that a workspace was removed while, or before, it was saved."""
    return WorkspaceArchiveReadError(
        path=path,
        message=f"{shown(path)} could not be saved: somebody removed the directory",
        context={"reason": "workspace_root_not_found"},
        retryable=False,
    )


def _cut_short(path: str) -> WorkspaceArchiveReadError:
    """Say that an archive ends before its end: no reader may take it for a whole one."""
    return WorkspaceArchiveReadError(
        path=path,
        message=f"{shown(path)} could not be saved: the thread that saves it has failed",
        context={"reason": "unknown"},
    )


def _no_thread(error: RuntimeError) -> ResourceLimitError:
    return ResourceLimitError(
        "no thread can be started to save the workspace; end some of this user's processes, or "
        "raise its limit on processes (ulimit -u) or on memory",
        limit="processes",
        value=errno.EAGAIN,
        unit="errno",
        op="persist_workspace",
        cause=error,
        retryable=True,
    )
