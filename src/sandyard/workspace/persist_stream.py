"""WorkspaceArchive: a workspace as a stream, read while it is saved, by a thread of its own."""

from __future__ import annotations

import errno
import io
import os
import threading
from typing import TYPE_CHECKING, Self

from sandyard.archive.report import Tally
from sandyard.errors import (
    ResourceLimitError,
    SandboxError,
    WorkspaceArchiveReadError,
    shown,
)
from sandyard.finishing import in_thread
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as, rightful_owner
from sandyard.workspace.faults import translated
from sandyard.workspace.persist import Saving

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.archive.naming import Path
    from sandyard.archive.report import ArchiveReport
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["WorkspaceArchive", "persist_workspace"]


class WorkspaceArchive(io.BufferedReader):
    """A workspace that is being saved, as a stream of an uncompressed tar archive.

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


class _Pipe(io.RawIOBase):
    """Owns the pipe between the thread that saves and whoever reads; and that thread."""

    def __init__(self, root: WorkspaceRoot, excluded: frozenset[Path]) -> None:
        super().__init__()
        self.report: ArchiveReport | None = None
        self._root = root
        self._excluded = excluded
        self._error: SandboxError | None = None
        self._owner: Owner | None = rightful_owner(root)
        # It starts with the first read: an archive that nobody reads costs no thread, and can be
        # closed without waiting for one.
        self._thread: threading.Thread | None = None
        self._top = os.dup(root.fd)
        try:
            self._fd, self._end = os.pipe()
        except OSError:
            os.close(self._top)
            raise

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
        tally = Tally()
        try:
            with translated("persist_workspace", self._root.inside, self._root):
                with acting_as(self._owner):
                    ward = self._root.ward
                    Saving(self._top, self._give, self._excluded, tally, ward).run()
                if os.fstat(self._top).st_nlink == 0:
                    raise _gone(self._root.inside)
            self.report = tally.report()
        except BrokenPipeError:
            pass  # nobody reads on
        except SandboxError as error:
            if not isinstance(error.cause, BrokenPipeError):
                self._error = error
        finally:
            self._close_ends()

    def _give(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[os.write(self._end, left) :]

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
        raise _gone(root.inside)
    with translated("persist_workspace", root.inside, root):
        return WorkspaceArchive(_Pipe(root, excluded))


def _gone(path: str) -> WorkspaceArchiveReadError:
    return WorkspaceArchiveReadError(
        path=path,
        message=f"the workspace {shown(path)} could not be saved: somebody removed its directory",
        context={"reason": "workspace_root_not_found"},
        retryable=False,
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
