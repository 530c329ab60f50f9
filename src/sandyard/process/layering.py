"""Owns layered trees: several directories seen as one, of which only the uppermost is changed.

A tree is made before the sandbox that shows it, so the host's side sees what commands will see. It
stands in a mount namespace of its own, to which nothing but two descriptors leads; when they are
closed, or this program ends in whatever way, it is gone. It blocks, and is called in threads.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from sandyard.errors import ConfinementUnavailableError, SandboxError
from sandyard.limits import MOUNT_TIMEOUT_S
from sandyard.process.channel import send_message
from sandyard.process.ending import reap_killed
from sandyard.process.identity import IdentityLease
from sandyard.process.late_wire import encode_layers
from sandyard.process.launching import open_pidfd, spawn_program
from sandyard.process.passing import close_all, take_passed
from sandyard.process.refusal import launch_refusal
from sandyard.process.wire import (
    Failure,
    ProtocolError,
    Request,
    Step,
)

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.plan import Layer

__all__ = ["LAYERS_MOST", "LayeredTree"]

LAYERS_MOST: Final = 64
"""Directories beneath the one that is changed; the kernel is told of all in one option."""

_INSIDE: Final = 1000
"""Who an ordinary user is in the user namespace of the tree: anybody but root."""


class _Asked(NamedTuple):
    """What the program passed, or the step that failed; neither where it ended or fell silent."""

    passed: list[int]
    failure: Failure | None


class LayeredTree:
    """Several directories seen as one. It is a context manager; leaving it closes the descriptors.

    What is mounted within a layer is not part of the tree. A directory of a lower layer can't be
    renamed (EXDEV), and of a file with several names, the one that is written to becomes another.

    Attributes:
        top: descriptor of its top directory; it stays this object's.
        lease: the identity that its files appear as, as root; None where that is the caller's own.
    """

    def __init__(self, top: int, namespace: int, lease: IdentityLease | None) -> None:
        """Take over descriptors; use ``make`` instead."""
        self.top = top
        self.lease = lease
        self._namespace = namespace

    @classmethod
    def make(cls, changes: Layer, lowers: tuple[Layer, ...]) -> Self:
        """Lay directories upon each other (blocking).

        As root, the owner of each appears as the session's leased user, and what is made in the tree
        is on disk the owner's of ``changes``.

        Args:
            changes: a directory with the directories ``upper`` and ``work``, of which the kernel
                makes use; nobody else may change them while the tree stands, nor use them for
                another one.
            lowers: what is seen beneath, the uppermost first; at most ``LAYERS_MOST``.

        Raises:
            ConfinementUnavailableError: the kernel refuses it; nothing is left.
            ResourceLimitError: this program or the machine has no descriptor left.
        """
        try:
            with ExitStack() as undo:
                lease = None
                user = _INSIDE
                if os.geteuid() == 0:
                    lease = undo.enter_context(IdentityLease.take())
                    user = lease.uid
                body = encode_layers((changes, *lowers), user, leased=lease is not None)
                top, namespace = _asked(body, [], 2)
                undo.pop_all()
                return cls(top, namespace, lease)
        except OSError as error:
            raise launch_refusal(error) from error

    def show(self) -> int:
        """The tree as a mount that stands nowhere yet, for one sandbox; it is the caller's to close.

        Raises:
            ConfinementUnavailableError: the kernel refuses it.
            OSError: this program or the machine is short of something.
        """
        user = _INSIDE if self.lease is None else self.lease.uid
        body = encode_layers((), user, leased=self.lease is not None)
        (tree,) = _asked(body, [self._namespace, self.top], 1)
        return tree

    def close(self) -> None:
        """Let go of it; doing it again does nothing. What is open in it stays until it is closed."""
        fds, self.top, self._namespace = (self.top, self._namespace), -1, -1
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.close()
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self.close()


def _asked(body: bytes, fds: list[int], count: int) -> list[int]:
    """Ask the program for so many descriptors.

    Raises:
        ConfinementUnavailableError: it can't give them.
        OSError: there is no room for a process or a descriptor.
    """
    answer = _ask(body, fds, count)
    if len(answer.passed) == count and answer.failure is None:
        return answer.passed
    close_all(answer.passed)
    raise _refusal(answer.failure)


def _ask(body: bytes, fds: list[int], count: int) -> _Asked:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    passed: list[int] = []
    with ours:
        with theirs:
            pidfd = open_pidfd(spawn_program(theirs.fileno()))
        try:
            ours.settimeout(MOUNT_TIMEOUT_S)
            send_message(ours, Request.LAYERS, 0, body, fds)
            for number in range(count):
                failure = take_passed(ours, number, passed)
                if failure is not None:
                    return _Asked(passed, failure)
        except (TimeoutError, ProtocolError):
            close_all(passed)
        except BaseException:
            close_all(passed)
            raise
        finally:
            reap_killed(pidfd)
    return _Asked(passed, None)


_FIXES: Final = {
    Step.IDMAP: "use directories on a file system that can show its files as another user's (an "
    "idmapped mount), such as ext4, xfs or btrfs, and Linux 5.19 or newer; or run as the user who owns "
    "them",
    Step.LATE_SOURCE: "check that the directory is still where it was",
    Step.LATE_MAKE: "keep the state directory ($XDG_STATE_HOME) on a file system that overlayfs can "
    "write to, such as ext4, xfs, btrfs, or tmpfs since Linux 6.6, and not on an overlay or a network; "
    "or work on a copy",
}
_ANY_FIX: Final = "allow user namespaces and mounts for this program ('sandyard doctor' says how), or work on a copy"


def _refusal(failure: Failure | None) -> SandboxError:
    if failure is None:
        return ConfinementUnavailableError(
            "an overlay could not be mounted",
            dimension="write",
            cause_text="the program that mounts it ended or fell silent",
            fix="look for an out-of-memory kill in the kernel's log",
        )
    if failure.error in {errno.EMFILE, errno.ENFILE}:
        return launch_refusal(OSError(failure.error, os.strerror(failure.error)))
    step = failure.step.name.lower()
    error = ConfinementUnavailableError(
        "an overlay could not be mounted",
        dimension="write",
        cause_text=f"{os.strerror(failure.error)} ({failure.text}) [{step}, errno {failure.error}]",
        fix=_FIXES.get(failure.step, _ANY_FIX),
    )
    error.context |= {"step": step, "errno": failure.error, "path": failure.text}
    return error
