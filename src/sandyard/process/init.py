"""Owns a session's first process: its birth, the channel to it, what it tells, and its end.

The outer process is our child; init, its child, is PID 1 of the session's pid namespace. Closing
the channel ends both and everything inside.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from sandyard.finishing import finished, in_thread, start_thread
from sandyard.limits import CLOSE_TIMEOUT_S, EVENTS_PER_TURN, START_TIMEOUT_S
from sandyard.plan import LaunchPlan, Spawn
from sandyard.process.capture import Capture
from sandyard.process.channel import Channel, SandboxEndedError
from sandyard.process.ending import take_leave
from sandyard.process.events import SocketMade
from sandyard.process.failures import untold_signal
from sandyard.process.job import CapturedJob, Job, TerminalJob, UnownedRefusals
from sandyard.process.latch import Latch, Stillness
from sandyard.process.launching import Launched, discard, launch
from sandyard.process.refusal import launch_refusal, start_refusal
from sandyard.process.report import untold_step
from sandyard.process.wire import (
    BODY_LIMIT,
    DATAGRAM_LIMIT,
    Event,
    Exited,
    Failure,
    Gone,
    Mounted,
    Passed,
    Pipes,
    ProtocolError,
    Request,
    SignalTarget,
    Spawned,
    SpawnFailed,
    Started,
    StartFailed,
    Step,
    Stilled,
    Unmapped,
    Written,
    decode_event,
    encode_kill,
    encode_signal,
    encode_spawn,
    encode_variables,
)

if TYPE_CHECKING:
    from sandyard.process.layering import LayeredTree
    from sandyard.process.mounting import LatePlace
    from sandyard.process.sockets import SocketOrder
    from sandyard.process.stilling import StillOrder

    _Born = TerminalJob | SocketOrder | StillOrder | CapturedJob

__all__ = ["InitProcess", "SandboxEndedError"]

J = TypeVar("J", bound=Job)

_BRINGING = (Spawned, SocketMade, Pipes, Stilled)
_ANSWERS = (Mounted, Passed, SocketMade, Pipes, Stilled, Unmapped)
"""Events that somebody waits for, and those that come to nobody who did not ask for them here."""


class InitProcess:
    """A running sandbox, from the first process's birth to its end.

    Use ``await InitProcess.start(plan)`` and leave it by ``await close()``, or as an async context
    manager. It belongs to the loop that started it.

    Attributes:
        report: the steps of the start, in order.
        owner: uid and gid of the sandbox on the host, or None where that is the caller itself.
        group: its control groups, or None where no limit needed one.
        unowned: what processes were refused whose command had exited.
        stillness: what commands wait for where somebody holds all still.
    """

    def __init__(self, launched: Launched) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(launched.channel, self._receive, self._end_channel)
        self._pid, self._pidfd = launched.pid, launched.pidfd
        self.owner = launched.owner
        identity = launched.plan.identity
        self._user = launched.owner or (identity.uid, identity.gid)
        self.group = launched.group
        self._sweeps = not launched.plan.namespaces  # the outer process ends what init leaves
        self.report: Started = Started(())
        self.unowned = UnownedRefusals()
        self._jobs: dict[int, Job] = {}
        self.stillness = Stillness(launched.pid, self._jobs, None if self._sweeps else self.hold)
        # Terminals whose master, orders whose answer, and commands whose pipes have not come yet.
        self._births: dict[int, _Born] = {}
        self._last_job = 0
        # Of the last two: mostly the session's own, with pipes and on terminals.
        self._encoded = lru_cache(maxsize=2)(encode_variables)
        self._started: Latch[Started | Failure | None] = Latch()
        self._closer: asyncio.AbstractEventLoop | None = None
        self._gone: Latch[None] = Latch()

    # --- life -------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls, plan: Callable[[], LaunchPlan], layered: LayeredTree | None = None
    ) -> Self:
        """Starts a sandbox and waits until its walls are up.

        Args:
            plan: gives the plan; it is called in the thread that launches, and may block.
            layered: the tree that a bind of the plan shows, or None.

        Raises:
            ConfinementUnavailableError: if the kernel refuses a step of the plan; nothing is left.
            ResourceLimitError: if this program or the machine has no descriptor or thread left.
        """
        launching = start_thread(partial(launch, plan, layered))
        try:
            launched = await asyncio.shield(launching)
        except asyncio.CancelledError:
            await finished(cls._abandon(launching))
            raise
        except OSError as error:
            raise launch_refusal(error) from error
        try:
            init = cls(launched)
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            await in_thread(discard, launched)
            raise launch_refusal(error) from error
        try:
            await init._wait_started(launched)
        except BaseException:
            await init.close()
            raise
        return init

    @classmethod
    async def _abandon(cls, launching: asyncio.Future[Launched]) -> None:
        """Ends what a cancelled start had set off."""
        await asyncio.wait([launching])
        if not launching.cancelled() and launching.exception() is None:
            await in_thread(discard, launching.result())

    @property
    def capturing(self) -> Self:
        """This: what a command writes can come with its exit."""
        return self

    @property
    def alive(self) -> bool:
        """Whether the sandbox still stands."""
        return not self._channel.ended

    async def close(self) -> None:
        """Ends the sandbox and everything in it, and waits until it is gone, whoever ends it.

        It may be called on another loop once the one that started it is closed.
        """
        self._end_channel()
        if self._pidfd >= 0:
            pidfd, self._pidfd = self._pidfd, -1
            self._closer = asyncio.get_running_loop()
            await finished(self._wait_gone(pidfd))
        elif self._closer is not None and not self._closer.is_closed():
            await self._gone.wait()

    async def _wait_gone(self, pidfd: int) -> None:
        after = None if self.group is None else self.group.close
        try:
            await take_leave(self._pid, pidfd, CLOSE_TIMEOUT_S, after, sweeps=self._sweeps)
        finally:
            self._gone.set(None)

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

    async def _wait_started(self, launched: Launched) -> None:
        await self._started.wait(START_TIMEOUT_S)
        answer = self._started.get()
        if isinstance(answer, Started):
            self.report = answer
            answer = untold_step(launched.records, answer)
            if answer is None:
                return
        raise start_refusal(answer, launched.plan)

    # --- commands ---------------------------------------------------------------------------------

    async def spawn(
        self,
        spawn: Spawn,
        fds: list[int],
        fd_mask: int,
        *,
        report: bool = False,
        timeout_s: float | None = None,
    ) -> Job:
        """Sends a command off; its descriptors may be closed when this returns.

        Args:
            spawn: the command.
            fds: descriptors for the bits of ``fd_mask``, in ascending order.
            fd_mask: bit n set for a descriptor that becomes the command's fd n.
            report: True asks for the command's number inside, as soon as it runs.
            timeout_s: seconds to wait for room on the channel, or None.

        Raises:
            SandboxEndedError: if it is.
            TimeoutError: if there was no room in time.
            OSError: if there is no descriptor for a large command, or no room for one to travel.
        """
        job = Job(self._next_number(), report=report)
        body = encode_spawn(spawn, fd_mask, report=report)
        return await self._spawn(job, body, fds, timeout_s)

    async def spawn_captured(
        self,
        spawn: Spawn,
        captures: tuple[Capture, Capture],
        fds: list[int],
        timeout_s: float | None = None,
    ) -> CapturedJob:
        """Sends a command off of which the output comes with its exit.

        Args:
            spawn: the command.
            captures: what takes its stdout and its stderr.
            fds: a descriptor for its stdin, or none.
            timeout_s: seconds to wait for room on the channel, or None.

        Raises:
            SandboxEndedError, TimeoutError, OSError: as ``spawn``.
        """
        job = CapturedJob(self._next_number(), captures)
        variables = self._encoded(spawn.environment)
        body = encode_spawn(spawn, len(fds), captured=True, variables=variables)
        return await self._spawn(job, body, fds, timeout_s)

    async def ask_pipes(self, job: CapturedJob) -> None:
        """Asks for a command's pipes, from which its output is to be read from here on.

        They come to ``job``, unless it ends before.

        Raises:
            SandboxEndedError: if it is.
            OSError: if the machine has no room for the message.
        """
        await self._order(Request.OUTPUT, job)

    async def _order(self, kind: Request, born: _Born, body: bytes = b"") -> None:
        self._births[born.number] = born
        try:
            await self._channel.send(kind, born.number, body, [])
        except BaseException:
            self._births.pop(born.number, None)  # it never left
            raise

    async def spawn_terminal(self, spawn: Spawn) -> TerminalJob:
        """Sends a command off that gets a terminal; its master comes with the job's birth.

        Raises:
            SandboxEndedError, OSError: as ``spawn``.
        """
        job = TerminalJob(self._next_number())
        self._births[job.number] = job
        try:
            body = encode_spawn(spawn, 0, variables=self._encoded(spawn.environment))
            return await self._spawn(job, body, [])
        except BaseException:
            self._births.pop(job.number, None)
            raise

    def _next_number(self) -> int:
        self._last_job = self._last_job % 0xFFFFFFFF + 1
        return self._last_job

    async def _spawn(
        self, job: J, body: bytes, fds: list[int], timeout_s: float | None = None
    ) -> J:
        if len(body) > BODY_LIMIT:  # far above what execve(2) takes
            self._births.pop(job.number, None)
            job.end(Failure(Step.SPAWN_EXEC, None, errno.E2BIG, ""))
            job.gone.set(None)
            return job
        if self.stillness.over is not None:
            await self.stillness.wait_over()
        self._jobs[job.number] = job
        try:
            if self._channel.send_now(Request.SPAWN, job.number, body, fds) is not None:
                async with asyncio.timeout(timeout_s):
                    await self._channel.send(Request.SPAWN, job.number, body, fds)
        except BaseException:
            self._jobs.pop(job.number, None)  # gone already where the sandbox ended meanwhile
            raise
        return job

    async def signal(
        self, job: Job, number: int, target: SignalTarget = SignalTarget.COMMAND
    ) -> None:
        """Sends a signal to a job's command, to its tree, or to who has its terminal.

        Raises:
            SandboxEndedError: if it is.
            ResourceLimitError: if the machine has no room for the message.
        """
        try:
            await self._channel.send(Request.SIGNAL, job.number, encode_signal(number, target), [])
        except OSError as error:
            raise untold_signal(error) from error

    async def kill(self, job: Job, *, force: bool = False) -> None:
        """Ends a job's whole tree; its exit is told when nothing of it is left.

        Raises:
            SandboxEndedError: if it is; also where it can't be told, for then what has to end
                would live on, and the sandbox is ended instead.
        """
        try:
            await self._channel.send(Request.KILL, job.number, encode_kill(force=force), [])
        except OSError as error:
            self._end_channel()
            raise SandboxEndedError from error

    def late_place(self) -> LatePlace:
        """What a late mount needs to find the sandbox; closing it is the caller's.

        Raises:
            SandboxEndedError: if it is.
            OSError: there is no descriptor left, or /proc is not mounted.
        """
        from sandyard.process.mounting import LatePlace  # noqa: PLC0415  # few sessions mount

        if self._channel.ended or self._pidfd < 0:
            raise SandboxEndedError
        # The number is our child's own until we wait for it, which only this loop does.
        return LatePlace.open(self._pid, self._user, leased=self.owner is not None)

    async def make_socket(self, family: int) -> socket.socket:
        """A TCP socket of the sandbox's network, not connected yet; it is the caller's to close.

        Raises:
            SandboxEndedError: if it is.
            OSError: it can't be made there, or this program has no descriptor left for it.
        """
        from sandyard.process.sockets import SocketOrder  # noqa: PLC0415  # few sessions have ports

        order = SocketOrder(family, self._next_number())
        await self._order(Request.SOCKET, order, order.body)
        return await order.taken()

    async def hold(self, on: bool) -> StillOrder:  # as ``Stillness`` calls it
        """Has init stop all that runs at once, or let go on what it stopped, or else end.

        Raises:
            SandboxEndedError, OSError: as ``ask_pipes``.
        """
        from sandyard.process.stilling import StillOrder  # noqa: PLC0415  # few saves need it

        order = StillOrder(self._next_number(), on=on)
        try:
            await self._order(Request.STILL, order, order.body)
        except OSError:
            if not on:
                self._end_channel()
            raise
        return order

    @property
    def quiet_since(self) -> int | None:
        """The number of the last command, if of none anything is alive; else None."""
        return None if self._jobs or self._channel.ended else self._last_job

    def leftovers(self) -> list[Job]:
        """The jobs whose commands have exited, and of which something is left."""
        return [job for job in self._jobs.values() if job.exited.is_set]

    # --- events -----------------------------------------------------------------------------------

    def _receive(self) -> None:
        # Then the loop has its turn, however much there is to hear; what is left wakes us again.
        for _ in range(EVENTS_PER_TURN):
            if self._channel.ended:
                return
            passed: list[int] | None = []
            try:
                if self._births:
                    datagram, passed = TerminalJob.receive(self._channel.socket)
                else:  # what comes with it is closed by the kernel
                    datagram = self._channel.socket.recv(DATAGRAM_LIMIT + 1)  # cut off is not whole
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            try:
                if not datagram:
                    raise ProtocolError("the end, or nothing at all")  # whatever came with it
                self._handle(decode_event(datagram), passed)
            except ProtocolError:
                # Whatever speaks there is not our init: nothing that it says counts any more.
                while passed:
                    os.close(passed.pop())
                self._end_channel()
            if not self._jobs:  # nobody is waiting: what else comes will wake us again
                return

    def _handle(self, event: Event, passed: list[int] | None) -> None:
        if isinstance(event, Exited) and not passed:  # most of what there is to hear
            self._resolve(event.job, event, left=event.left)
        else:
            self._handle_other(event, passed)

    def _handle_other(self, event: Event, passed: list[int] | None) -> None:
        if (born := self._awaited(event)) is not None:
            born.arrive(event, passed)
            return
        if passed or isinstance(event, _ANSWERS):
            raise ProtocolError("descriptors, or an answer, that nobody waits for")
        match event:
            case SpawnFailed():
                self._resolve(event.job, event.failure)
            case Written():
                self._hand_on(event)
            case Spawned():
                job = self._jobs.get(event.job)
                if job is not None and job.pid is not None:
                    job.pid.set(event.pid)
            case Gone():
                self._forget(event)
            case Started():
                self._started.set(event)
            case StartFailed():
                self._started.set(event.failure)

    def _awaited(self, event: Event) -> _Born | None:
        """What an event comes to."""
        if not self._births or not isinstance(event, _BRINGING):
            return None
        if isinstance(self._births.get(event.job), CapturedJob) != isinstance(event, Pipes):
            return None
        return self._births.pop(event.job, None)

    def _hand_on(self, event: Written) -> None:
        job = self._jobs.get(event.job)
        if job is None:
            return
        if not isinstance(job, CapturedJob) or job.exited.is_set:
            raise ProtocolError("output of a command whose output is not captured")
        job.take(event)

    def _forget(self, event: Gone) -> None:
        job = self._jobs.get(event.job)
        if job is None:
            return
        if not job.exited.is_set:  # whoever waits for it must hear of its end, or of the sandbox's
            raise ProtocolError("a job is gone that has not ended")
        self.unowned.add(job.exited.get(), event)
        del self._jobs[event.job]
        job.gone.set(None)

    def _resolve(self, number: int, outcome: Exited | Failure, *, left: int = 0) -> None:
        job = self._jobs.get(number)
        if job is None:
            return
        self._births.pop(number, None)
        if left == 0:  # otherwise the job stays known until the last process is gone
            del self._jobs[number]
            job.gone.set(None)
        job.end(outcome)

    def _end_channel(self) -> None:
        if not self._channel.close():
            return
        self._started.set(None)
        jobs, self._jobs = self._jobs, {}
        while self._births:
            self._births.popitem()[1].end(None)
        for job in jobs.values():
            job.end(None)
            job.gone.set(None)
