"""Owns one late mount on its way: the program that makes it, what it is told, and its answer.

Mounting and unmounting blocks, and is done in threads.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final, Self

from sandyard.limits import MOUNT_END_TIMEOUT_S, MOUNT_TIMEOUT_S
from sandyard.process.channel import send_message
from sandyard.process.ending import reap_soon
from sandyard.process.late_wire import encode_late, encode_removal
from sandyard.process.launching import open_pidfd, spawn_program
from sandyard.process.passing import close_all, take_passed
from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Failure,
    Mounted,
    ProtocolError,
    Request,
    StartFailed,
    decode_event,
)

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.plan import LateMount

__all__ = ["LatePlace", "open_source"]


NAMESPACE_PLACE: Final = 15
"""The descriptor by which the outer process holds the sandbox's mount namespace."""


class LatePlace:
    """A sandbox that something is mounted in: its mount namespace, held open.

    It is a context manager; leaving it closes the descriptor.
    """

    def __init__(self, namespace: int, user: tuple[int, int], *, leased: bool) -> None:
        """Take over a descriptor; use ``open`` instead."""
        self._namespace = namespace
        self._user = user
        self.leased = leased

    @classmethod
    def open(cls, pid: int, user: tuple[int, int], *, leased: bool) -> Self:
        """Find a sandbox by its outer process.

        Args:
            pid: a child of this program that was not waited for.
            user: uid and gid of the sandbox, as they are known where its mounts are made.
            leased: whether its identity is leased.

        Raises:
            OSError: it has ended, there is no descriptor left, or /proc is not mounted.
        """
        path = f"/proc/{pid}/fd/{NAMESPACE_PLACE}"
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), user, leased=leased)

    def mount(self, late: LateMount, source: int | None) -> int | Failure | None:
        """Mount something.

        Args:
            late: what.
            source: descriptor of the directory that it shows, or None.

        Returns:
            What the kernel knows the mount by; or the step that failed; or None if the program ended
            or fell silent without a word. Then nothing is mounted, unless it fell silent.

        Raises:
            OSError: there is no room for a process or a descriptor.
            ConfinementUnavailableError: the program can't be started.
        """
        return self._ask(encode_late(late, self._user, leased=self.leased), source)

    def unmount(self, target: str, mount: int) -> int | Failure | None:
        """Take out what ``mount`` put in, if it still stands there; the answers are the same.

        Raises:
            OSError, ConfinementUnavailableError: as ``mount``.
        """
        return self._ask(encode_removal(target, mount, self._user, leased=self.leased), None)

    def close(self) -> None:
        """Let go of the sandbox; doing it again does nothing."""
        namespace, self._namespace = self._namespace, -1
        if namespace >= 0:
            os.close(namespace)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the sandbox."""
        self.close()

    def _ask(self, body: bytes, source: int | None) -> int | Failure | None:
        fds = [self._namespace] if source is None else [self._namespace, source]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                pidfd = open_pidfd(spawn_program(theirs.fileno()))
            try:
                ours.settimeout(MOUNT_TIMEOUT_S)
                send_message(ours, Request.MOUNT, 0, body, fds)
                event = decode_event(ours.recv(DATAGRAM_LIMIT + 1))
            except (TimeoutError, ProtocolError):
                return None
            finally:
                reap_soon(pidfd, MOUNT_END_TIMEOUT_S)
        if isinstance(event, Mounted):
            return event.mount
        return event.failure if isinstance(event, StartFailed) else None


def open_source(path: str) -> int | Failure | None:
    """Open a directory of the host's, wherever it lies (blocking, but never for ever).

    A program is sent to do it: a thread that waits for a file server gone silent could never be got
    back, and would keep this program from ending.

    Returns:
        Its descriptor (O_PATH), the caller's to close; or the step that failed; or None if there was
        no answer in time.

    Raises:
        OSError: there is no room for a process or a descriptor.
        ConfinementUnavailableError: the program can't be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    passed: list[int] = []
    with ours:
        with theirs:
            pidfd = open_pidfd(spawn_program(theirs.fileno(), path))
        try:
            ours.settimeout(MOUNT_TIMEOUT_S)
            failure = take_passed(ours, 0, passed)
            return passed.pop() if failure is None else failure
        except (TimeoutError, ProtocolError):
            return None
        finally:
            close_all(passed)
            reap_soon(pidfd, MOUNT_END_TIMEOUT_S)
