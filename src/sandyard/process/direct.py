"""Owns commands that are children of this program: what an init does, where there can't be one.

It is for macOS, where each command is put behind its wall by ``sandbox-exec``. Nothing here asks for
Linux. Each command leads a session and a process group of its own, and the group ends with it: there is
no PID namespace, so what leaves the group is lost, and nobody ends what runs when this program is
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from sandyard.errors import ConfinementUnavailableError
from sandyard.finishing import finished
from sandyard.limits import CLOSE_TIMEOUT_S
from sandyard.plan import Spawn
from sandyard.process.init import SandboxEndedError
from sandyard.process.job import Job, TerminalJob, UnownedRefusals
from sandyard.process.wire import Exited, Failure, SignalTarget, Step, Usage

if TYPE_CHECKING:
    from resource import struct_rusage  # which Windows lacks

__all__ = ["DirectSpawner", "Wrap", "found_command"]

Wrap = Callable[[Sequence[str]], Sequence[str]]
"""Puts a command behind a wall: takes its words, gives those that are run instead."""

_SHELL: Final = "/bin/sh"
_LOOK_UP: Final = """\
case $1 in -*) echo "$0: $1: not found" >&2; exit 127;; esac
exec "$@"
"""
"""A name that begins with a dash would be an option, and not every shell knows an end of them."""

_MICROSECONDS: Final = 1_000_000
_RSS_UNIT: Final = 1024 if sys.platform == "darwin" else 1
"""How much of what getrusage(2) tells of memory is a KiB: macOS tells bytes."""


def found_command(argv: Sequence[str]) -> tuple[str, ...]:
    """The words that look a program up inside the wall, and tell of a missing one as a shell does.

    What wraps a command has exit codes of its own for that, which could be the command's as well.
    """
    return (_SHELL, "-c", _LOOK_UP, _SHELL, *argv)


class DirectSpawner:
    """Runs commands as children of this program, each with a thread that waits for it.

    Leave it by ``await close()``, or use it as an async context manager. It belongs to the loop on
    which it was made.

    Args:
        wrap: puts each command behind its wall, as ``confined_command`` with a profile does.

    Attributes:
        owner: None: commands are the caller's on the host.
        unowned: empty: nobody counts what was refused.

    Raises:
        ConfinementUnavailableError: this Python can't wait for a child without forgetting its number,
            which somebody else's process could have by the time that its group is ended.

    Example:
        >>> async with DirectSpawner(partial(confined_command, profile)) as spawner:
        ...     await Commands(spawner).run(call)
    """

    def __init__(self, wrap: Wrap) -> None:
        if not hasattr(os, "waitid"):
            raise ConfinementUnavailableError(
                "commands can't be ended safely by this Python",
                dimension="processes",
                cause_text="it has no os.waitid",
                fix="run Python 3.13 or newer, which has it on macOS",
            )
        self.owner: tuple[int, int] | None = None
        self.unowned = UnownedRefusals()
        self._wrap = wrap
        self._loop = asyncio.get_running_loop()
        self._children: dict[int, _Child] = {}
        self._last = 0
        self._ended = False

    @property
    def capturing(self) -> None:
        """None: a command's pipes are made by who asks for it, and nobody reads them here."""
        return None

    @property
    def alive(self) -> bool:
        """Whether it can start commands."""
        return not self._ended

    async def spawn(
        self,
        spawn: Spawn,
        fds: list[int],
        fd_mask: int,
        *,
        report: bool = False,
        timeout_s: float | None = None,  # no channel is waited for here
    ) -> Job:
        """Starts a command; its descriptors may be closed when this returns.

        Args:
            spawn: the command; of what narrows it, and of a user, nothing can be had here.
            fds: descriptors for the bits of ``fd_mask``, in ascending order.
            fd_mask: bit n set for a descriptor that becomes the command's fd n.
            report: True asks for the command's number, as soon as it runs.
            timeout_s: not used.

        Raises:
            SandboxEndedError: if it was closed.
            OSError: if there is no descriptor left.
        """
        if self._ended:
            raise SandboxEndedError
        self._last += 1
        job = Job(self._last, report=report)
        if spawn.narrowed is not None or spawn.user is not None:
            step = Step.SPAWN_USER if spawn.narrowed is None else Step.SPAWN_NARROW
            _end(job, Failure(step, None, errno.ENOSYS, ""))
            return job
        words = self._wrap(found_command([os.fsdecode(word) for word in spawn.argv]))
        child = _Child(job, words, spawn, _copied(fds, fd_mask), self._loop, self._forget)
        self._children[job.number] = child
        try:
            child.start()
        except RuntimeError:  # "can't start new thread"
            del self._children[job.number]
            _end(job, Failure(Step.SPAWN_FORK, None, errno.EAGAIN, ""))
        return job

    async def spawn_terminal(self, spawn: Spawn) -> TerminalJob:  # as an init has it
        """Refuses: a command gets its terminal between fork and exec, where Python must not run."""
        if self._ended:
            raise SandboxEndedError
        self._last += 1
        job = TerminalJob(self._last)
        _end(job, Failure(Step.SPAWN_TERMINAL, None, errno.ENOSYS, ""))
        return job

    async def signal(
        self, job: Job, number: int, target: SignalTarget = SignalTarget.COMMAND
    ) -> None:
        """Sends a signal to a command, or to its group; to one that has exited nothing is sent.

        Raises:
            SandboxEndedError: if it was closed.
        """
        if self._ended:
            raise SandboxEndedError
        child = self._children.get(job.number)
        if child is not None:
            child.signal(number, whole=target is not SignalTarget.COMMAND)

    async def kill(self, job: Job, *, force: bool = False) -> None:  # as an init has it
        """Ends a command and its group; its exit is told when that is done."""
        child = self._children.get(job.number)
        if child is not None:
            child.kill()

    def leftovers(self) -> list[Job]:
        """None: a command's group ends with it."""
        return []

    async def close(self) -> None:
        """Ends all commands, and waits until they are gone. Doing it again does nothing."""
        self._ended = True
        await finished(self._end_all())

    async def _end_all(self) -> None:
        children = list(self._children.values())
        for child in children:
            child.kill()
        for child in children:
            # One that waits for a disk that does not answer has no end; its thread waits on.
            await child.job.gone.wait(CLOSE_TIMEOUT_S)

    def _forget(self, child: _Child, outcome: Exited | Failure | None) -> None:
        self._children.pop(child.job.number, None)
        _end(child.job, outcome)

    async def __aenter__(self) -> Self:
        """Holds it for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        await self.close()


class _Child:
    """One command, and the thread that starts it and waits for it."""

    def __init__(
        self,
        job: Job,
        words: Sequence[str],
        spawn: Spawn,
        fds: dict[int, int],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[_Child, Exited | Failure | None], None],
    ) -> None:
        self.job = job
        self._words = words
        self._environment = dict(spawn.environment)
        self._cwd = spawn.cwd
        self._fds = fds
        self._loop = loop
        self._ended = ended
        # Whoever sends a signal holds it, and so does the thread when it forgets the number: as long as
        # the child was not waited for, the number is the child's and its group's, and nobody else's.
        self._known = threading.Lock()
        self._pid: int | None = None
        self._doomed = False

    def start(self) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: there can be none; the descriptors are closed.
        """
        name = f"sandyard-command-{self.job.number}"
        try:
            threading.Thread(target=self._live, name=name, daemon=True).start()
        except RuntimeError:
            self._close_all()
            raise

    def signal(self, number: int, *, whole: bool) -> None:
        """Sends a signal to the command, or to its whole group, if it runs."""
        with self._known:
            if self._pid is not None:
                _send(os.killpg if whole else os.kill, self._pid, number)

    def kill(self) -> None:
        """Ends its group, or itself as soon as it is born."""
        with self._known:
            self._doomed = True
            if self._pid is not None:
                _send(os.killpg, self._pid, signal.SIGKILL)

    # --- in the thread ----------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            process = self._bear()
        except OSError as error:
            self._tell(self._ended, self, self._failure(error))
            return
        finally:
            self._close_all()
        if self.job.pid is not None:
            self._tell(self.job.pid.set, process.pid)
        outcome = self._wait(process)
        self._tell(self._ended, self, outcome)

    def _bear(self) -> subprocess.Popen[bytes]:
        # No preexec_fn: between fork and exec no Python runs.
        process = subprocess.Popen(  # it is what a caller asked for
            list(self._words),
            stdin=self._fds.get(0, subprocess.DEVNULL),
            stdout=self._fds.get(1, subprocess.DEVNULL),
            stderr=self._fds.get(2, subprocess.DEVNULL),
            cwd=self._cwd,
            env=self._environment,
            start_new_session=True,
        )
        with self._known:
            self._pid = process.pid
            if self._doomed:
                _send(os.killpg, process.pid, signal.SIGKILL)
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> Exited | None:
        """Waits for the command, and ends what it left in its group."""
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._known:
                _send(os.killpg, process.pid, signal.SIGKILL)
                self._pid = None
                _, status, usage = os.wait4(process.pid, 0)
        except ChildProcessError:  # the host ignores SIGCHLD, or waits for every child itself
            with self._known:
                self._pid = None
            process.returncode = -signal.SIGKILL
            return None
        process.returncode = os.waitstatus_to_exitcode(status)
        killed = self._doomed
        return Exited(self.job.number, status, killed, False, _usage(usage), 0, ())

    def _failure(self, error: OSError) -> Failure:
        step = Step.SPAWN_FORK
        if error.filename == self._cwd:
            step = Step.SPAWN_CWD
        elif error.errno == errno.E2BIG:
            step = Step.SPAWN_EXEC
        return Failure(step, None, error.errno or errno.EIO, "")

    def _tell(self, told: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(told, *values)

    def _close_all(self) -> None:
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)


def _send(send: Callable[[int, int], None], to: int, number: int) -> None:
    # PermissionError: on macOS a group of which only an unwaited child is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(to, number)


def _end(job: Job, outcome: Exited | Failure | None) -> None:
    job.gone.set(None)
    job.end(outcome)


def _copied(fds: list[int], mask: int) -> dict[int, int]:
    """Copies of descriptors, by what each becomes in the command."""
    copies: dict[int, int] = {}
    try:
        for number, fd in zip(_bits(mask), fds, strict=True):
            copies[number] = os.dup(fd)
    except OSError:
        for fd in copies.values():
            os.close(fd)
        raise
    return copies


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _usage(told: struct_rusage) -> Usage:
    return Usage(
        round(told.ru_utime * _MICROSECONDS),
        round(told.ru_stime * _MICROSECONDS),
        told.ru_maxrss // _RSS_UNIT,
        told.ru_minflt,
        told.ru_majflt,
        told.ru_inblock,
        told.ru_oublock,
        told.ru_nvcsw,
        told.ru_nivcsw,
    )
