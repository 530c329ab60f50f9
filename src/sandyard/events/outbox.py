"""A file of events, one JSON document a line: appended in order, put aside when it is large."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from sandyard.errors import ArgumentError, ArgumentTypeError, shown
from sandyard.events.limits import LOCK_PAUSE_S, LOCK_S, OUTBOX_BYTES, OUTBOX_KEPT
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent, event_to_json_line
from sandyard.events.sinks import DeliveryMode, EventSink, OnErrorPolicy, checked_modes
from sandyard.finishing import in_thread

__all__ = [
    "JsonlOutboxSink",
    "append_whole",
    "checked_file",
    "checked_size",
    "locked_outbox",
    "write_all",
]


class JsonlOutboxSink(EventSink):
    """Appends events to a file on your side, in order, whole lines only.

    Several programs may write one file. When it is larger than ``max_bytes`` it becomes
    ``NAME.1``, the one before that ``NAME.2``, and so on. The file is readable by its owner only.

    Args:
        path: the file; its directory must exist.
        mode: see ``EventSink``; ``"best_effort"`` by default, with which a program that is killed
            loses the events of its last 20 ms.
        on_error: see ``EventSink``; ``"log"`` by default.
        payload_policy: see ``EventSink``.
        max_bytes: size at which it is put aside (default: 64 MiB); None for never.
        keep: files that were put aside and are kept (default: 3).
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: DeliveryMode = "best_effort",
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
        max_bytes: int | None = OUTBOX_BYTES,
        keep: int = OUTBOX_KEPT,
    ) -> None:
        self.path = checked_file("path", path)
        self.mode, self.on_error = checked_modes(mode, on_error)
        self.payload_policy = payload_policy
        self.max_bytes = None if max_bytes is None else checked_size("max_bytes", max_bytes, 1)
        self.keep = checked_size("keep", keep, 0)

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Append one event."""
        await self.handle_many((event,))

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Append several at once."""
        lines = "".join(event_to_json_line(event) for event in events).encode()
        await in_thread(append_whole, self.path, lines, self.max_bytes, self.keep)


def append_whole(path: Path, lines: bytes, max_bytes: int | None, keep: int) -> None:
    """Appends whole lines to a file that others may append to; the last line of one that died is ended.

    Raises:
        OSError: the file can't be written; then none of the lines is in it.
    """
    descriptor = locked_outbox(path)
    try:
        size = os.fstat(descriptor).st_size
        if max_bytes is not None and size and size + len(lines) > max_bytes:
            _put_aside(path, keep)
            fresh = locked_outbox(path)
            os.close(descriptor)
            descriptor = fresh
            size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        try:
            write_all(descriptor, lines)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)  # and its lock with it


def locked_outbox(path: Path) -> int:
    """The file, locked, and still the one of that name once the lock is ours (blocking).

    Raises:
        OSError: it can't be opened, or another program keeps it locked.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            _lock(descriptor, path)
            if _same_file(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another program has put it aside meanwhile


def _lock(descriptor: int, path: Path) -> None:
    """Takes the lock, which others have for one batch, and a program that is stopped for ever."""
    patience = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                told = f"another program has had it locked for {LOCK_S:g} s"
                raise TimeoutError(errno.ETIMEDOUT, told, str(path)) from None
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _put_aside(path: Path, keep: int) -> None:
    """Moves the file to NAME.1, older ones one number up; the oldest goes."""
    if keep == 0:
        path.unlink()
        return
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of it, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def checked_file(argument: str, path: object) -> Path:
    """A path that a caller gave.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(
            f"{argument} is a path, not {shown(path)}", op="events", argument=argument, value=path
        )
    return Path(os.fsdecode(path))


def checked_size(argument: str, size: object, least: int) -> int:
    """A number that a caller gave.

    Raises:
        ArgumentError, ArgumentTypeError: it is none, or less than the least.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise ArgumentTypeError(
            f"{argument} is a whole number, not {shown(size)}",
            op="events",
            argument=argument,
            value=size,
        )
    if size < least:
        raise ArgumentError(
            f"{argument} is at least {least}, not {size}",
            op="events",
            argument=argument,
            value=size,
        )
    return size
