"""What a caller gives as an archive: bytes, or a stream of them, read piece by piece."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from sandyard.archive.bounds import UNLIMITED, ArchiveMeter, SandboxArchiveLimits
from sandyard.archive.model import ArchiveError
from sandyard.errors import WorkspaceArchiveWriteError, WorkspaceWriteTypeError, shown
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from sandyard.archive.model import Read

__all__ = ["ArchiveSource", "Spool", "refused_archive"]


class ArchiveSource:
    """The bytes that a caller gives.

    The first piece of a stream is read at once, so that what gives no bytes is refused before
    anything is touched.

    Args:
        data: bytes, or a binary stream; it is not closed.
        path: what is written, for errors.

    Attributes:
        whole: all of them, where they are in memory; else None.

    Raises:
        WorkspaceWriteTypeError: it is text or something else.
        WorkspaceArchiveWriteError: the stream can't be read.
    """

    def __init__(self, data: object, path: str) -> None:
        self._path = path
        self._read: Callable[[int], object] | None = None
        self.whole: memoryview | None = None
        if isinstance(data, bytes | bytearray | memoryview):
            view = memoryview(data)
            whole = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
            self.whole = self._left = whole
            return
        read_some = getattr(data, "read", None)
        if isinstance(data, io.TextIOBase) or not callable(read_some):
            raise WorkspaceWriteTypeError(path=path, actual_type=type(data).__name__)
        self._read = read_some
        self._left = self._piece()

    def read(self, size: int) -> memoryview:
        """The next bytes, at most so many; none at the end.

        Raises:
            WorkspaceWriteTypeError: the stream gives text.
            WorkspaceArchiveWriteError: it can't be read.
        """
        if not self._left and self._read is not None:
            self._left = self._piece()
            if not self._left:
                self._read = None
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    @property
    def head(self) -> memoryview:
        """How it begins, as far as the first piece tells; asked for before anything is read."""
        return self._left

    def reader(self, owner: Owner | None, meter: ArchiveMeter, stopped: Event) -> Read:
        """What reads it from beginning to end while the thread acts as ``owner``.

        The stream, a caller's code, is called as this program.

        Args:
            owner: whom the thread acts as.
            meter: counts the bytes.
            stopped: set by whoever wants no more of it.
        """

        def read(size: int) -> memoryview:
            if stopped.is_set():
                raise Abandoned
            as_caller = owner is not None and self._read is not None
            with acting_as(Owner(os.geteuid(), os.getegid()) if as_caller else None):
                piece = self.read(size)
            meter.take(len(piece))
            return piece

        return read

    def _piece(self) -> memoryview:
        assert self._read is not None  # noqa: S101  # asked only where there is a stream
        try:
            piece = self._read(COPY_CHUNK_BYTES)
        except OSError as error:
            raise WorkspaceArchiveWriteError(
                path=self._path,
                message=f"{shown(self._path)} could not be unpacked, because its source could not "
                f"be read: {error}; the workspace is unchanged",
                context={"reason": "source_unreadable"},
                cause=error,
            ) from error
        if not isinstance(piece, bytes | bytearray | memoryview):
            kind = f"a stream of {type(piece).__name__}"
            raise WorkspaceWriteTypeError(path=self._path, actual_type=kind)
        return memoryview(bytes(piece))


def refused_archive(path: str, error: ArchiveError) -> WorkspaceArchiveWriteError:
    """Say what of an archive is refused."""
    facts = {
        "reason": error.reason,
        "member": error.member,
        "limit": error.limit,
        "actual": error.actual,
    }
    return WorkspaceArchiveWriteError(
        path=path,
        message=f"the archive for {shown(path)} is refused: {error}; nothing was written",
        context={key: value for key, value in facts.items() if value is not None},
        cause=error,
        retryable=False,
    )


class Spool:
    """A file without a name that takes pieces as they come, and gives them as a stream.

    Args:
        path: what is written, for errors.
        limits: how much it may take (default: as much as the disk).
    """

    def __init__(self, path: str, limits: SandboxArchiveLimits | None = None) -> None:
        self._path = path
        self._meter = ArchiveMeter(limits or UNLIMITED)
        self._file: IO[bytes] | None = None

    def add(self, piece: object) -> None:
        """Write one more piece.

        Raises:
            WorkspaceWriteTypeError: it is no bytes.
            WorkspaceArchiveWriteError: it can't be written, or is too much.
        """
        if not isinstance(piece, bytes | bytearray | memoryview):
            kind = f"an iterable of {type(piece).__name__}"
            raise WorkspaceWriteTypeError(path=self._path, actual_type=kind)
        try:
            self._meter.take(memoryview(piece).nbytes)
        except ArchiveError as error:
            raise refused_archive(self._path, error) from error
        try:
            self._opened().write(piece)
        except OSError as error:
            raise self._full(error) from error

    def rewound(self) -> IO[bytes]:
        """All of it as a stream; it stays this object's.

        Raises:
            WorkspaceArchiveWriteError: what is left to write can't be written.
        """
        try:
            self._opened().seek(0)
        except OSError as error:
            raise self._full(error) from error
        return self._opened()

    def close(self) -> None:
        """Close the file, which removes it; doing it again does nothing."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what is lost was not wanted any more
                file.close()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        return self._file

    def _full(self, error: OSError) -> WorkspaceArchiveWriteError:
        return WorkspaceArchiveWriteError(
            path=self._path,
            message=f"the archive could not be put into a temporary file: {error}; free some space "
            f"in {shown(tempfile.gettempdir())}, or give the archive as a file",
            context={"reason": "no_space"},
            cause=error,
        )
