"""Owns a sandbox's birth in the host: the outer process, the channel to it, and what they are given."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.errors import ConfinementUnavailableError
from sandyard.plan import HostIdentity, LaunchPlan
from sandyard.platform.fixes import REINSTALL
from sandyard.process.cgroup import Cgroup
from sandyard.process.channel import send_message
from sandyard.process.ending import kill_both, reap_killed
from sandyard.process.identity import IdentityLease
from sandyard.process.wire import Request, encode_records

if TYPE_CHECKING:
    from sandyard.process.layering import LayeredTree

__all__ = ["Launched", "discard", "launch", "open_pidfd", "program_path", "spawn_program"]


def program_path() -> str:
    """Where the native program lies: beside the package's modules."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(package, "_bin", "sandyard-init")


@dataclass(frozen=True, slots=True)
class Launched:
    """What a launch leaves behind in the host; ``InitProcess`` or ``discard`` gives it back.

    Attributes:
        plan: what was asked for.
        records: the plan as it was sent.
        channel: our end of the channel.
        pid: of the outer process, our child; ``pidfd`` likewise.
        owner: uid and gid of the sandbox on the host, or None where that is the caller itself.
        group: its control groups, or None.
    """

    plan: LaunchPlan
    records: list[bytes]
    channel: socket.socket
    pid: int
    pidfd: int
    owner: tuple[int, int] | None
    group: Cgroup | None


def launch(make_plan: Callable[[], LaunchPlan], layered: LayeredTree | None = None) -> Launched:
    """Spawns the outer process and hands it the plan (blocking: runs in a thread).

    Args:
        make_plan: gives the plan.
        layered: the tree that a bind of the plan shows, or None; the sandbox has its identity.

    Raises:
        ConfinementUnavailableError: the program can't be started, or has no ids for its users.
        OSError: this program or the machine is short of something.
    """
    plan = make_plan()
    with ExitStack() as stack:
        trees: list[int] = []
        if layered is not None:
            trees.append(layered.show())
            stack.callback(os.close, trees[0])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(theirs)
        with ExitStack() as on_failure:
            on_failure.enter_context(ours)
            group = None
            if plan.cgroup is not None:
                group = on_failure.enter_context(Cgroup.create(plan.cgroup))
            ours.setblocking(False)
            host = os.pidfd_open(os.getpid())
            stack.callback(os.close, host)
            pid = spawn_program(theirs.fileno())
            pidfd = open_pidfd(pid)
            on_failure.callback(reap_killed, pidfd)
            if group is not None:
                group.add(pid)  # it waits for its plan: nothing of the session is born outside
            # The rest is done while it comes up.
            owner = None
            leases: list[int] = []
            host_uid, host_gid = os.geteuid(), os.getegid()
            if plan.identity.host is HostIdentity.LEASED:
                lease = None if layered is None else layered.lease
                if lease is None:
                    lease = stack.enter_context(IdentityLease.take(1 + plan.identity.further))
                host_uid = host_gid = lease.uid
                owner = (lease.uid, lease.uid)
                leases.append(lease.fd)
            records = encode_records(plan, host_uid, host_gid)
            send_message(ours, Request.START, 0, b"".join(records), [host, *trees, *leases])
            if plan.identity.host is HostIdentity.SUBORDINATE:
                from sandyard.process.subordinates import map_subordinates  # noqa: PLC0415  # few do

                map_subordinates(ours, plan, host_uid, host_gid)
            on_failure.pop_all()
        return Launched(plan, records, ours, pid, pidfd, owner, group)


def discard(launched: Launched) -> None:
    """Ends a sandbox that nobody will use (blocking: runs in a thread)."""
    launched.channel.close()
    kill_both(launched.pid, launched.pidfd)
    reap_killed(launched.pidfd)
    if launched.group is not None:
        launched.group.close()


_FIRST_FREE: Final = 3
"""The first descriptor that is no standard one."""


def spawn_program(channel: int, path: str | None = None) -> int:
    """Starts the program, which is told over ``channel`` what to do; returns its number.

    Args:
        channel: descriptor of its end.
        path: a directory that it opens and passes, and does nothing else (default: none).

    Raises:
        ConfinementUnavailableError: it can't be started.
        OSError: there are too many processes or descriptors.
    """
    if channel >= _FIRST_FREE:
        return _spawn(channel, path)
    # A host that closed its standard streams gets their numbers for what it opens next.
    moved = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    try:
        return _spawn(moved, path)
    finally:
        os.close(moved)


def _spawn(channel: int, path: str | None) -> int:
    program = program_path()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
        (os.POSIX_SPAWN_DUP2, channel, channel),  # onto itself: no longer close-on-exec
    ]
    try:
        # vfork underneath, so the size of the host program does not matter; never fork(2), which
        # a program with threads can't do safely.
        words = ["sandyard-init", str(channel), *([] if path is None else [path])]
        return os.posix_spawn(program, words, {}, file_actions=actions)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            raise  # no fault of the program's
        raise ConfinementUnavailableError(
            "the sandbox's first process could not be started",
            dimension="processes",
            cause_text=f"{program}: {error.strerror}",
            fix=REINSTALL,
            cause=error,
        ) from error


def open_pidfd(pid: int) -> int:
    """A pidfd of our child; without one the child is ended, since nothing could own it."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
