"""Owns the end of a first process that does not go by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable

from sandyard.finishing import in_thread
from sandyard.process.latch import Latch

__all__ = [
    "await_readable",
    "kill_both",
    "kill_init",
    "reap",
    "reap_killed",
    "reap_soon",
    "take_leave",
    "wait_readable",
]


def kill_init(pid: int, pidfd: int) -> None:
    """Kills init and what has lost it: the outer process lives on to end the rest (blocking).

    For sandboxes without a PID namespace, in which nothing ends by the end of its first process.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        for child in _children_of(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)


def kill_both(pid: int, pidfd: int) -> None:
    """Kills the outer process and init, which may have given up dying with its parent (blocking)."""
    with contextlib.suppress(ProcessLookupError):
        # Stopped, it waits for nobody, so that the number of its child stays its child's.
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        for child in _children_of(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _children_of(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN: then it is as it was
        return []


def reap(pidfd: int) -> None:
    """Takes note of the end of a child that has ended."""
    # ECHILD: the host ignores SIGCHLD, or something in it waits for every child.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def reap_killed(pidfd: int) -> None:
    """Kills a child, waits for its end and closes the descriptor (blocking)."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)


def reap_soon(pidfd: int, timeout_s: float) -> None:
    """Kills a child, and waits for its end no longer than that (blocking).

    One that waits for a file server can't end before that answers or goes itself, whatever signal
    it gets. Then a thread of its own waits for it, which holds up nothing, not even the end of this
    program.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if wait_readable(pidfd, timeout_s):
        reap_killed(pidfd)
        return
    try:
        threading.Thread(
            target=reap_killed, args=(pidfd,), name="sandyard-reaper", daemon=True
        ).start()
    except RuntimeError:  # no thread can be started: then init, or whoever is above us, reaps it
        os.close(pidfd)


def wait_readable(fd: int, timeout_s: float) -> bool:
    """Waits until a descriptor is readable (blocking), where no loop can watch it."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


async def await_readable(fd: int, timeout: float) -> bool:
    """Waits at most so many seconds until a descriptor is readable; says whether it is."""
    loop = asyncio.get_running_loop()
    ready: Latch[None] = Latch()
    try:
        loop.add_reader(fd, ready.set, None)
    except OSError:  # epoll_ctl(2): ENOMEM, ENOSPC
        return await in_thread(wait_readable, fd, timeout)
    try:
        return await ready.wait(timeout)
    finally:
        loop.remove_reader(fd)


async def take_leave(
    pid: int, pidfd: int, timeout_s: float, after: Callable[[], None] | None, *, sweeps: bool
) -> None:
    """Waits until an outer process is gone, reaps it, and closes the descriptor.

    Args:
        pid: its number.
        pidfd: its descriptor.
        timeout_s: seconds after which it is made to go, and as many that it has for that.
        after: what blocks and is to be done when it is gone.
        sweeps: whether it ends what init leaves, and so has to live on.
    """
    try:
        if not await await_readable(pidfd, timeout_s):
            await in_thread(kill_init if sweeps else kill_both, pid, pidfd)
            await await_readable(pidfd, timeout_s)
    finally:
        reap(pidfd)
        os.close(pidfd)
        if after is not None:
            await in_thread(after)
