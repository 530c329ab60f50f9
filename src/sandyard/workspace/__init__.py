"""The root directory of one session: safe paths, the files API, and manifests made real.

``Workspace`` is the face that a session uses. Its calls run in threads, never on the event loop;
a call that is cancelled waits for its thread before the cancellation goes on, so that nothing
still changes files when the caller believes that it was stopped.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from sandyard.errors import ResourceLimitError, SessionClosedError
from sandyard.finishing import Work, finished, in_thread, start_thread
from sandyard.limits import WORKSPACE_THREADS
from sandyard.workspace import files
from sandyard.workspace.acting import acting_for
from sandyard.workspace.faults import translated
from sandyard.workspace.root import Inode, Owner, WorkspaceRoot

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import PurePath

    from sandyard.archive import SandboxArchiveLimits
    from sandyard.archive.report import ArchiveReport
    from sandyard.errors import OpName
    from sandyard.manifest import Manifest
    from sandyard.workspace.copying import Materialized
    from sandyard.workspace.events import FileChange
    from sandyard.workspace.materialize import Attempt
    from sandyard.workspace.persist_stream import WorkspaceArchive
    from sandyard.workspace.transfer import Errand, Transferred
    from sandyard.workspace.watching import Hand, Watcher

__all__ = ["Inode", "Owner", "Workspace", "WorkspaceRoot"]

_Result = TypeVar("_Result")


@runtime_checkable
class Closeable(Protocol):
    """What a call may return that has to be closed."""

    def close(self) -> object:
        """Let go of it."""


class Workspace:
    """The files of one session, without blocking the event loop.

    It owns its root, and a few threads that start with the first call. ``close`` ends both.

    Attributes:
        root: the directory.
    """

    def __init__(self, root: WorkspaceRoot) -> None:
        """Take over a root."""
        self.root = root
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def acting_for(self, user: int, groups: tuple[int, ...]) -> Workspace:
        """These files, as another user of the session's may use them; nothing is opened.

        Args:
            user: the user's id on disk, and its own group's.
            groups: those of its other groups.
        """
        acting = _ActingWorkspace if os.geteuid() == 0 else _DeputedWorkspace
        return acting(self, Owner(user, user), groups)

    async def apply(
        self, manifest: Manifest, attempt: Attempt | None = None, *, base_dir: str | None = None
    ) -> Materialized:
        """Make a manifest's entries real; see ``materialize.apply_manifest``."""
        work = partial(_applied, self.root, manifest, base_dir, attempt)
        stopped = None if attempt is None else attempt.stopped
        return await self.in_thread("materialize", work, stopped)

    async def read(self, path: str | PurePath) -> io.BufferedReader:
        """Open a regular file for reading; see ``files.read``."""
        return await self.in_thread("read", partial(files.read, self.root, path))

    async def write(
        self,
        path: str | PurePath,
        data: bytes | bytearray | memoryview | files.BinarySource,
    ) -> None:
        """Write a file as a whole; see ``files.write``. A stream is read in another thread."""
        stopped = threading.Event()
        await self.in_thread("write", partial(files.write, self.root, path, data, stopped), stopped)

    async def mkdir(self, path: str | PurePath, *, parents: bool = False) -> None:
        """Make a directory; see ``files.make_directory``."""
        work = partial(files.make_directory, self.root, path, parents=parents)
        await self.in_thread("mkdir", work)

    async def run(
        self,
        op: OpName,
        verb: Callable[[WorkspaceRoot], _Result],
        stopped: threading.Event | None = None,
    ) -> _Result:
        """Do a file verb of this room in a thread; ``stopped`` is set if the caller is cancelled."""
        return await self.in_thread(op, partial(verb, self.root), stopped)

    async def run_whole(
        self,
        op: OpName,
        verb: Callable[[WorkspaceRoot], _Result],
        stopped: threading.Event | None = None,
    ) -> _Result:
        """Do what is about all of it, whosever it is, in a thread; ``stopped`` as ``run`` has it."""
        root = self.root
        if not root.names or os.geteuid() == 0:
            return await self.run(op, verb, stopped)

        def deputed() -> _Result:
            with translated(op, root.inside, root):
                deputy = root.deputies.of("whole")
            return deputy.do(partial(verb, root), stopped=stopped)

        return await self.in_thread(op, deputed, stopped)

    async def read_piece(self, step: Callable[[], _Result], path: str | PurePath) -> _Result:
        """Do a step of reading an open file in a thread; errors become typed ones."""

        def work() -> _Result:
            with translated("read", str(path), self.root):
                return step()

        return await self.in_thread("read", work)

    async def rm(self, path: str | PurePath, *, recursive: bool = False) -> None:
        """Remove a file, symlink or directory; see ``files.remove``."""
        work = partial(files.remove, self.root, path, recursive=recursive)
        await self.in_thread("rm", work)

    async def upload(
        self, source: str | PurePath, path: str | PurePath, errand: Errand
    ) -> Transferred:
        """Copy a file or a tree of the host in; see ``transfer.upload``."""
        from sandyard.workspace import transfer  # noqa: PLC0415  # not all use it

        work = partial(transfer.upload, self.root, source, path, errand)
        return await self.in_thread("upload", work, errand.stopped)

    async def download(
        self, path: str | PurePath, destination: str | PurePath, errand: Errand
    ) -> Transferred:
        """Copy a file or a tree out to the host; see ``transfer.download``."""
        from sandyard.workspace import transfer  # noqa: PLC0415  # not all use it

        work = partial(transfer.download, self.root, path, destination, errand)
        return await self.in_thread("download", work, errand.stopped)

    async def watch(self, path: str | PurePath, *, recursive: bool) -> Watcher:
        """Watch a directory from now on; see ``watching.Watcher``."""
        work = partial(_watched, self.root, path, recursive=recursive, hand=None)
        return await self.in_thread("watch", work)

    async def changes(self, watcher: Watcher) -> list[FileChange]:
        """What a watcher has seen since it was asked last."""
        return await self.in_thread("watch", watcher.take)

    async def extract(
        self,
        path: str | PurePath,
        data: object,
        *,
        form: str | None = None,
        limits: SandboxArchiveLimits | None = None,
        keep: bool = True,
    ) -> ArchiveReport:
        """Unpack an archive; see ``extract.extract_archive``."""
        from sandyard.workspace import extract  # noqa: PLC0415  # few sessions unpack archives

        asked = extract.Extraction(form=form, keep=keep)
        if limits is not None:
            asked.limits = limits

        def work(source: object) -> ArchiveReport:
            return extract.extract_archive(self.root, path, source, asked)

        return await self._from_source("extract", data, work, asked.stopped, asked.limits)

    async def hydrate(
        self, data: object, limits: SandboxArchiveLimits | None, *, finish: bool = False
    ) -> ArchiveReport:
        """Restore what was saved; see ``extract.hydrate_workspace``."""
        from sandyard.workspace import extract  # noqa: PLC0415  # few sessions unpack archives

        stopped = threading.Event()

        def work(source: object) -> ArchiveReport:
            return extract.hydrate_workspace(self.root, source, limits, stopped, finish=finish)

        return await self._from_source("hydrate_workspace", data, work, stopped, limits)

    async def unpack(
        self, path: str | PurePath, data: object, limits: SandboxArchiveLimits | None = None
    ) -> ArchiveReport:
        """Unpack an archive into a directory; see ``extract.unpack_into``."""
        from sandyard.workspace import extract  # noqa: PLC0415  # few sessions unpack archives

        stopped = threading.Event()

        def work(source: object) -> ArchiveReport:
            return extract.unpack_into(self.root, path, source, limits, stopped)

        return await self._from_source("unpack", data, work, stopped, limits)

    async def pack(
        self, path: str | PurePath, name: str | None = None, *, outer_links: bool = True
    ) -> WorkspaceArchive:
        """Begin to save a file or a tree; see ``persist_stream.pack_part``."""
        from sandyard.workspace import persist_stream  # noqa: PLC0415  # few sessions are saved

        work = partial(persist_stream.pack_part, self.root, path, name, outer_links=outer_links)
        return await self.in_thread("pack", work)

    async def persist(self, excluded: frozenset[tuple[str, ...]]) -> WorkspaceArchive:
        """Begin to save all of it; see ``persist_stream.persist_workspace``."""
        from sandyard.workspace import persist_stream  # noqa: PLC0415  # few sessions are saved

        paths = frozenset(tuple(os.fsencode(name) for name in path) for path in excluded)
        work = partial(persist_stream.persist_workspace, self.root, paths)
        return await self.in_thread("persist_workspace", work)

    async def _from_source(
        self,
        op: OpName,
        data: object,
        work: Callable[[object], _Result],
        stopped: threading.Event,
        limits: SandboxArchiveLimits | None,
    ) -> _Result:
        """Do work with what a caller gave; pieces that come asynchronously are put into a file."""
        if not isinstance(data, AsyncIterable) or isinstance(data, io.IOBase):
            return await self.in_thread(op, partial(work, data), stopped)
        from sandyard.workspace.extract_source import Spool  # noqa: PLC0415  # for these alone

        spool = Spool(self.root.inside, limits)
        try:
            async for piece in data:
                await self.in_thread(op, partial(spool.add, piece))
            return await self.in_thread(op, lambda: work(spool.rewound()), stopped)
        finally:
            await finished(in_thread(spool.close))

    async def measure(self, stopped: threading.Event) -> int:
        """Count the bytes that it takes on disk; see ``usage.measure_usage``."""
        return await self.run_whole("exec", partial(_measured, stopped=stopped), stopped)

    async def delete(self) -> bool:
        """Remove the directory if the library made it; see ``WorkspaceRoot.delete``.

        Returns:
            True if it is gone.
        """
        return await self.in_thread("delete", self.root.delete)

    async def close(self) -> None:
        """Wait for calls under way, then close the root; doing it again does nothing."""
        threads, self._threads = self._threads, None
        self._closed = True
        if threads is None:  # there was no call: nothing to wait for
            self.root.close()
            return
        # Waiting for threads blocks, so it too is done in one: the loop's own.
        try:
            await _settled(start_thread(partial(_end, threads, self.root)))
        except ResourceLimitError:  # there is none: then what is under way is waited for here
            _end(threads, self.root)

    async def in_thread(
        self, op: OpName, work: Callable[[], _Result], stopped: threading.Event | None = None
    ) -> _Result:
        """Run blocking work in a thread, and stay until it has ended.

        Args:
            op: the operation, for errors.
            work: what is to be done.
            stopped: set when the caller is cancelled, for work that may take long.
        """
        if self._closed:
            raise SessionClosedError(op=op, state="closed")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                WORKSPACE_THREADS, thread_name_prefix="sandyard-files"
            )
        task = Work(work)
        with task.withdrawn_without_thread(op):
            submitted = self._threads.submit(task)
        return await _settled(asyncio.wrap_future(submitted), submitted, stopped)


class _ActingWorkspace(Workspace):
    """The files of a session, as another user than their owner may use them.

    It owns nothing: the threads and the root are those of the whole.
    """

    def __init__(self, whole: Workspace, user: Owner, groups: tuple[int, ...]) -> None:
        super().__init__(whole.root)
        self._whole = whole
        self._user = user
        self._groups = groups

    async def in_thread(
        self, op: OpName, work: Callable[[], _Result], stopped: threading.Event | None = None
    ) -> _Result:
        """Do blocking work as the user."""

        def acting() -> _Result:
            with acting_for(self._user, self._groups):
                return work()

        return await self._whole.in_thread(op, acting, stopped)


class _DeputedWorkspace(_ActingWorkspace):
    """The same for a program that is not root, and can't become another: a deputy does the work."""

    async def in_thread(
        self, op: OpName, work: Callable[[], _Result], stopped: threading.Event | None = None
    ) -> _Result:
        """Have blocking work done as the user."""
        return await self._whole.in_thread(op, partial(self._deputed, op, work, stopped), stopped)

    async def upload(
        self, source: str | PurePath, path: str | PurePath, errand: Errand
    ) -> Transferred:
        """Copy a file or a tree in that is opened as this program."""
        from sandyard.workspace import transfer  # noqa: PLC0415  # not all use it
        from sandyard.workspace.deputy_wire import Passed  # noqa: PLC0415  # likewise

        def uploaded() -> Transferred:
            opened, is_dir = transfer.opened_source(source)
            try:
                put = partial(
                    transfer.put,
                    self.root,
                    (Passed(opened), is_dir),
                    path,
                    source=str(source),
                    errand=errand,
                )
                return self._deputed("upload", put, errand.stopped)
            finally:
                os.close(opened)

        return await self._whole.in_thread("upload", uploaded, errand.stopped)

    async def download(
        self, path: str | PurePath, destination: str | PurePath, errand: Errand
    ) -> Transferred:
        """Copy a file or a tree out to where this program means, wherever the deputy stands."""
        from sandyard.workspace import transfer  # noqa: PLC0415  # not all use it

        def downloaded() -> Transferred:
            place = os.path.abspath(destination)
            work = partial(transfer.download, self.root, path, place, errand)
            return self._deputed("download", work, errand.stopped)

        return await self._whole.in_thread("download", downloaded, errand.stopped)

    async def watch(self, path: str | PurePath, *, recursive: bool) -> Watcher:
        """Watch a directory that the user may read."""

        def hand(work: Callable[[], _Result]) -> _Result:
            return self._deputed("watch", work, None)

        work = partial(_watched, self.root, path, recursive=recursive, hand=hand)
        return await self._whole.in_thread("watch", work)

    async def changes(self, watcher: Watcher) -> list[FileChange]:
        """What a watcher has seen, which asks for the user's rights by itself."""
        return await self._whole.changes(watcher)

    def _deputed(
        self, op: OpName, work: Callable[[], _Result], stopped: threading.Event | None
    ) -> _Result:
        """Have work done as the user (blocking)."""
        root = self.root
        with translated(op, root.inside, root):
            deputy = root.deputies.of("user")
        return deputy.do(work, uid=self._user.uid, groups=self._groups, stopped=stopped)

    async def read_piece(self, step: Callable[[], _Result], path: str | PurePath) -> _Result:
        """Do a step of reading a file that is open already, and so needs nobody's rights."""
        return await self._whole.read_piece(step, path)


def _applied(
    root: WorkspaceRoot, manifest: Manifest, base_dir: str | None, attempt: Attempt | None
) -> Materialized:
    from sandyard.workspace.materialize import apply_manifest  # noqa: PLC0415  # not all have one

    return apply_manifest(root, manifest, base_dir=base_dir, attempt=attempt)


def _watched(
    root: WorkspaceRoot, path: str | PurePath, *, recursive: bool, hand: Hand | None
) -> Watcher:
    # Loaded when it is needed, from files that may have become unreadable since.
    with translated("watch", root.inside, root):
        from sandyard.workspace.watching import Watcher  # noqa: PLC0415  # seldom needed

    return Watcher.open(root, path, recursive=recursive, hand=hand)


def _measured(root: WorkspaceRoot, stopped: threading.Event) -> int:
    from sandyard.workspace.usage import measure_usage  # noqa: PLC0415  # only a limit asks for it

    return measure_usage(root.fd, stopped)


def _end(threads: ThreadPoolExecutor, root: WorkspaceRoot) -> None:
    """Wait for all work under way, then close the root."""
    threads.shutdown(wait=True)
    root.close()


async def _settled(
    waiter: asyncio.Future[_Result],
    work: Future[_Result] | None = None,
    stopped: threading.Event | None = None,
) -> _Result:
    """Return what a thread's work returns.

    When the caller is cancelled, work that has not begun is dropped; for work that has, the
    cancellation waits.
    """
    try:
        return await asyncio.shield(waiter)
    except asyncio.CancelledError:
        if stopped is not None:
            stopped.set()
        if work is None or not work.cancel():
            await _outlast(waiter)
            _discard(waiter)
        raise


async def _outlast(waiter: asyncio.Future[_Result]) -> None:
    """Wait until a future is done, however often the waiting is cancelled."""
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError:
            continue


def _discard(waiter: asyncio.Future[_Result]) -> None:
    """Close what nobody will receive any more, and take note of an error."""
    if waiter.cancelled() or waiter.exception() is not None:
        return
    result = waiter.result()
    if isinstance(result, Closeable):
        result.close()
