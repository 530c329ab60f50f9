"""Owns a session's first process: its birth, the channel to it, what it tells, and its end.

The outer process is our child; init, its child, is PID 1 of the session's pid namespace. Closing
the channel ends both and everything inside.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sandyard.errors import ConfinementUnavailableError
from sandyard.finishing import finished
from sandyard.limits import (
    CLOSE_TIMEOUT_S,
    START_TIMEOUT_S,
    TRAVEL_RETRIES,
    TRAVEL_RETRY_S,
)
from sandyard.plan import HostIdentity, LaunchPlan, Spawn
from sandyard.process.identity import IdentityLease
from sandyard.process.latch import Latch
from sandyard.process.refusal import launch_refusal, start_refusal
from sandyard.process.wire import (
    BODY_LIMIT,
    DATAGRAM_LIMIT,
    INLINE_LIMIT,
    Event,
    Exited,
    Failure,
    Gone,
    ProtocolError,
    Request,
    Spawned,
    SpawnFailed,
    Started,
    StartFailed,
    Step,
    decode_event,
    encode_kill,
    encode_message,
    encode_plan,
    encode_signal,
    encode_spawn,
)

__all__ = ["InitProcess", "Job", "SandboxEndedError", "program_path"]

_PASSING = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
"""What a send fails with when the machine is short of something for a moment."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def program_path() -> str:
    """Where the native program lies: beside the package's modules."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(package, "_bin", "sandyard-init")


class SandboxEndedError(Exception):
    """The sandbox has ended; a caller of the library is told in the words of its own operation."""


class Job:
    """One command as init knows it.

    Attributes:
        number: its number on the channel.
        exited: its exit, or the failure of its birth, or None if the sandbox ended first.
        gone: set when nothing that it left running is left.
    """

    __slots__ = ("exited", "gone", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.exited: Latch[Exited | Failure | None] = Latch()
        self.gone: Latch[None] = Latch()


@dataclass(frozen=True, slots=True)
class _Launched:
    """What a launch leaves behind in the host."""

    plan: LaunchPlan
    channel: socket.socket
    pid: int
    pidfd: int
    owner: tuple[int, int] | None


class InitProcess:
    """A running sandbox, from the first process's birth to its end.

    Use ``await InitProcess.start(plan)`` and leave it by ``await close()``, or as an async context
    manager. It belongs to the loop that started it.

    Attributes:
        report: the steps of the start, in order.
        owner: uid and gid of the sandbox on the host, or None where that is the caller itself.
    """

    def __init__(self, launched: _Launched) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = launched.channel
        self._pid = launched.pid
        self._pidfd = launched.pidfd
        self.owner = launched.owner
        self.report: Started = Started(())
        self._jobs: dict[int, Job] = {}
        self._last_job = 0
        self._started: Latch[Started | Failure | None] = Latch()
        self._writable: asyncio.Future[None] | None = None
        self._ended = False  # the channel is closed, by init or by us
        self._loop.add_reader(self._channel.fileno(), self._receive)

    # --- life -------------------------------------------------------------------------------------

    @classmethod
    async def start(cls, plan: Callable[[], LaunchPlan]) -> Self:
        """Starts a sandbox and waits until its walls are up.

        Args:
            plan: gives the plan; it is called in the thread that launches, and may block.

        Raises:
            ConfinementUnavailableError: if the kernel refuses a step of the plan; nothing is left.
            ResourceLimitError: if this program or the machine has no descriptor left.
        """
        launch = asyncio.ensure_future(asyncio.to_thread(_launch, plan))
        try:
            launched = await asyncio.shield(launch)
        except asyncio.CancelledError:
            await finished(cls._abandon(launch))
            raise
        except OSError as error:
            raise launch_refusal(error) from error
        init = cls(launched)
        try:
            await init._wait_started(launched.plan)
        except BaseException:
            await init.close()
            raise
        return init

    @classmethod
    async def _abandon(cls, launch: asyncio.Future[_Launched]) -> None:
        """Ends what a cancelled start had set off."""
        await asyncio.wait([launch])
        if not launch.cancelled() and launch.exception() is None:
            await cls(launch.result()).close()

    @property
    def alive(self) -> bool:
        """Whether the sandbox still stands."""
        return not self._ended

    async def close(self) -> None:
        """Ends the sandbox and everything in it, and waits until it is gone.

        It may be called on another loop once the one that started it is closed.
        """
        self._end_channel()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            await finished(self._wait_gone(pidfd))

    async def _wait_gone(self, pidfd: int) -> None:
        try:
            if not await _wait_readable(pidfd, CLOSE_TIMEOUT_S):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await _wait_readable(pidfd, CLOSE_TIMEOUT_S)
        finally:
            _reap(pidfd)
            os.close(pidfd)

    async def __aenter__(self) -> Self:
        """Holds the sandbox for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the sandbox."""
        await self.close()

    async def _wait_started(self, plan: LaunchPlan) -> None:
        await self._started.wait(START_TIMEOUT_S)
        answer = self._started.get()
        if isinstance(answer, Started):
            self.report = answer
            return
        raise start_refusal(answer, plan)

    # --- commands ---------------------------------------------------------------------------------

    async def spawn(self, spawn: Spawn, fds: list[int], fd_mask: int) -> Job:
        """Sends a command off; its descriptors may be closed when this returns.

        Args:
            spawn: the command.
            fds: descriptors for the bits of ``fd_mask``, in ascending order.
            fd_mask: bit n set for a descriptor that becomes the command's fd n.

        Raises:
            SandboxEndedError: if it is.
            OSError: if there is no descriptor for a large command, or no room for one to travel.
        """
        self._last_job = self._last_job % 0xFFFFFFFF + 1
        job = Job(self._last_job)
        body = encode_spawn(spawn, fd_mask)
        if len(body) > BODY_LIMIT:  # far above what execve(2) takes
            job.exited.set(Failure(Step.SPAWN_EXEC, None, errno.E2BIG, ""))
            job.gone.set(None)
            return job
        self._jobs[job.number] = job
        try:
            await self._send(Request.SPAWN, job.number, body, fds)
        except BaseException:
            del self._jobs[job.number]
            raise
        return job

    async def signal(self, job: Job, number: int, *, tree: bool = False) -> None:
        """Sends a signal to a job's command, or to each process of its tree."""
        await self._send(Request.SIGNAL, job.number, encode_signal(number, tree=tree), [])

    async def kill(self, job: Job, *, force: bool = False) -> None:
        """Ends a job's whole tree; its exit is told when nothing of it is left."""
        await self._send(Request.KILL, job.number, encode_kill(force=force), [])

    async def _send(self, kind: Request, job: int, body: bytes, fds: list[int]) -> None:
        retries = TRAVEL_RETRIES
        while not self._ended:
            try:
                send_message(self._channel, kind, job, body, fds)
                return
            except BlockingIOError:
                await self._wait_writable()
            except (BrokenPipeError, ConnectionResetError):
                break
            except OSError as error:
                if error.errno not in _PASSING or retries == 0:
                    raise
                retries -= 1
                await asyncio.sleep(TRAVEL_RETRY_S)
        raise SandboxEndedError

    async def _wait_writable(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()
            self._loop.add_writer(self._channel.fileno(), self._wake_writers)
        await asyncio.shield(self._writable)

    def _wake_writers(self) -> None:
        self._loop.remove_writer(self._channel.fileno())
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- events -----------------------------------------------------------------------------------

    def _receive(self) -> None:
        while not self._ended:
            try:
                datagram = self._channel.recv(DATAGRAM_LIMIT)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._end_channel()
                return
            try:
                self._handle(decode_event(datagram))
            except ProtocolError:
                # Whatever speaks there is not our init: nothing that it says counts any more.
                self._end_channel()
            if not self._jobs:  # nobody is waiting: what else comes will wake us again
                return

    def _handle(self, event: Event) -> None:
        match event:
            case Exited():
                self._resolve(event.job, event, left=event.left)
            case SpawnFailed():
                self._resolve(event.job, event.failure)
            case Spawned():
                pass  # asked for by nobody yet
            case Gone():
                job = self._jobs.pop(event.job, None)
                if job is not None:
                    job.gone.set(None)
            case Started():
                self._started.set(event)
            case StartFailed():
                self._started.set(event.failure)

    def _resolve(self, number: int, outcome: Exited | Failure, *, left: int = 0) -> None:
        job = self._jobs.get(number)
        if job is None:
            return
        if left == 0:  # otherwise the job stays known until the last process is gone
            del self._jobs[number]
            job.gone.set(None)
        job.exited.set(outcome)

    def _end_channel(self) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._channel.fileno())
        if self._writable is not None:
            self._wake_writers()
        # Also where a forked worker of the host holds a copy of the socket.
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self._started.set(None)
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.exited.set(None)
            job.gone.set(None)


# --- effects in the host -------------------------------------------------------------------------


def _launch(make_plan: Callable[[], LaunchPlan]) -> _Launched:
    """Spawns the outer process and hands it the plan (blocking: runs in a thread)."""
    plan = make_plan()
    with ExitStack() as stack:
        owner = None
        leases: list[int] = []
        host_uid, host_gid = os.geteuid(), os.getegid()
        if plan.identity.host is HostIdentity.LEASED:
            lease = stack.enter_context(IdentityLease.take())
            host_uid = host_gid = lease.uid
            owner = (lease.uid, lease.uid)
            leases.append(lease.fd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(theirs)
        with ExitStack() as on_failure:
            on_failure.enter_context(ours)
            ours.setblocking(False)
            host = os.pidfd_open(os.getpid())
            stack.callback(os.close, host)
            body = encode_plan(plan, host_uid, host_gid)
            pid = _spawn_outer(theirs.fileno())
            pidfd = _open_pidfd(pid)
            on_failure.callback(_reap_killed, pidfd)
            send_message(ours, Request.START, 0, body, [host, *leases])
            on_failure.pop_all()
        return _Launched(plan, ours, pid, pidfd, owner)


def _spawn_outer(channel: int) -> int:
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
        return os.posix_spawn(program, ["sandyard-init", str(channel)], {}, file_actions=actions)
    except OSError as error:
        raise ConfinementUnavailableError(
            "the sandbox's first process could not be started",
            dimension="processes",
            cause_text=f"{program}: {error.strerror}",
            fix="reinstall sandyard so that its native program is built and executable "
            "(and not on a file system mounted noexec)",
            cause=error,
        ) from error


def _open_pidfd(pid: int) -> int:
    """A pidfd of our child; without one the child is ended, since nothing could own it."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def send_message(
    channel: socket.socket, kind: Request, job: int, body: bytes, fds: list[int]
) -> None:
    """Sends one message with its descriptors, a large body in a sealed memfd.

    Raises:
        BlockingIOError: if the channel is full.
        OSError: ENOBUFS, ETOOMANYREFS, EPIPE and the like, as sendmsg(2) tells them.
    """
    if len(body) <= INLINE_LIMIT:
        _send_datagram(channel, [encode_message(kind, job, len(body)), body], fds)
        return
    memfd = os.memfd_create("sandyard-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(memfd, rest) :]
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
        head = encode_message(kind, job, len(body), in_memfd=True)
        _send_datagram(channel, [head], [memfd, *fds])
    finally:
        os.close(memfd)


def _send_datagram(channel: socket.socket, parts: list[bytes], fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg(parts, rights, socket.MSG_NOSIGNAL)


async def _wait_readable(fd: int, timeout: float) -> bool:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        async with asyncio.timeout(timeout):
            await ready
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


def _reap(pidfd: int) -> None:
    # ECHILD: the host ignores SIGCHLD, or something in it waits for every child.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def _reap_killed(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
