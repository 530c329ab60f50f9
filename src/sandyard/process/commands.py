"""Owns running commands: pipes, deadline, tree; leaving a command for any reason ends it whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandyard.finishing import finished, finishing
from sandyard.limits import (
    DESCRIPTORS_PER_COMMAND,
    DESCRIPTORS_PER_LEFTOVER,
    DESCRIPTORS_PER_PROCESS,
    DESCRIPTORS_RETRIES,
    DESCRIPTORS_RETRY_S,
    OUTPUT_LIMIT_BYTES,
    READ_DELAY_S,
    START_TIMEOUT_S,
)
from sandyard.plan import Spawn
from sandyard.process.budget import descriptor_budget, has_room
from sandyard.process.capture import Capture, Captured, Sink
from sandyard.process.cgroup import CgroupCounts
from sandyard.process.failures import (
    channel_full,
    no_descriptor,
    no_memory,
    no_turn,
    not_begun,
    not_sent,
    stdin_failed,
    unwatched_output,
)
from sandyard.process.init import SandboxEndedError
from sandyard.process.interactive import Interactive
from sandyard.process.job import CapturedJob, Job
from sandyard.process.latch import Latch
from sandyard.process.pipes import InputPipe, StdinSource, Streams
from sandyard.process.results import exec_result, gone_error, timeout_error, unborn_result
from sandyard.process.trees import LeftoverOutputs, end_leftovers, end_patiently, end_whole
from sandyard.process.watch import LimitWatch, output_hits, own_hits
from sandyard.process.wire import Exited, Failure, SignalTarget
from sandyard.resources import EnforcedLimit
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from sandyard.process.pipes import OutputPipe
    from sandyard.process.starter import Capturing, Starter

__all__ = ["CommandCall", "Commands", "RunningCommand"]

_STDIN, _OUTPUT = 1, 6  # bits of a spawn's fd_mask
_NOTHING_COUNTED = CgroupCounts()


@dataclass(slots=True, kw_only=True)
class CommandCall:
    """One call of ``exec`` or ``stream``, ready to run.

    Attributes:
        words: the command as errors name it.
        spawn: what runs.
        stdin: what it reads; None is nothing at all.
        timeout_s: seconds it may run, or None.
        limit: bytes kept of each of stdout and stderr.
        wall_time: True if ``timeout_s`` is the session's own limit, and not the caller's.
        lasting: True for a command of the background: its number inside is asked for, and it is
            not waited for.
        typed: True gives it a pipe to read that is written by hand.
        held: limits of its own, lower than the session's.
    """

    words: tuple[str, ...]
    spawn: Spawn
    stdin: StdinSource | None = None
    timeout_s: float | None = None
    limit: int = OUTPUT_LIMIT_BYTES
    wall_time: bool = False
    lasting: bool = False
    typed: bool = False
    held: tuple[EnforcedLimit, ...] = ()


class RunningCommand:
    """One command, from its pipes' birth to its tree's end.

    ``end()`` must be awaited whatever happens; it is safe to await it more than once.

    Args:
        stdout: what reads its standard output; ``stderr`` likewise.
    """

    def __init__(
        self,
        commands: Commands,
        call: CommandCall,
        stdout: Sink,
        stderr: Sink,
    ) -> None:
        self._commands = commands
        self._init = commands.init
        self._call = call
        self._streams = Streams((stdout, stderr))
        self._job: Job | None = None
        self._captured: CapturedJob | None = None  # the same, where the sandbox has the pipes
        self._taken = 0
        self._began = 0.0
        self._duration = 0.0
        self._ended: Latch[None] | None = None
        self._read_error: OSError | None = None
        self._no_room = False  # for its pipes
        self._giving_up: asyncio.Task[None] | None = None
        self._input_error: BaseException | None = None
        self._counted = _NOTHING_COUNTED  # when it began
        self._size_over = 0  # the size of the workspace for which it was ended

    async def start(self, captures: tuple[Capture, Capture] | None = None) -> None:
        """Makes the pipes and sends the command off.

        Args:
            captures: what reads its output, where that is wanted only at its end. Then it is read from
                ``wait_lazily`` on, or comes with its exit.

        Raises:
            ExecTransportError: if the sandbox is gone.
            ResourceLimitError: if the host program has no descriptor left, or the workspace is too
                large.
        """
        watch, call = self._commands.watch, self._call
        if watch is not None:
            await watch.check(call.words)
            self._counted = watch.count()
        if not descriptor_budget.take_now(DESCRIPTORS_PER_COMMAND):
            await self._wait_turn()
        self._taken = DESCRIPTORS_PER_COMMAND
        await self._send_off(captures)
        if call.lasting:
            self._give_some_back()
        if watch is not None and watch.quota is not None and self._job is not None:
            watch.quota.watch(self._job, self._end_over)
        if captures is None:
            self.resume()
        if self._streams.input is not None and call.stdin is not None:
            self._streams.input.feed(call.stdin)

    async def _send_off(self, captures: tuple[Capture, Capture] | None) -> None:
        call, init = self._call, self._init
        # A pipe of another user's own is made here: the sandbox's are the session's own user's.
        capturing = init.capturing if captures is not None and call.spawn.user is None else None
        reads = call.stdin is not None or call.typed
        theirs: list[int] = []
        if reads or capturing is None:
            theirs = await self._streams.make(
                call.words, call.spawn, init.owner, reads=reads, writes=capturing is None
            )
        self._began = time.monotonic()
        try:
            if captures is None or capturing is None:
                self._job = await init.spawn(
                    call.spawn,
                    theirs,
                    _OUTPUT | _STDIN if reads else _OUTPUT,
                    report=call.lasting,
                    timeout_s=call.timeout_s,
                )
            else:
                self._job = self._captured = await capturing.spawn_captured(
                    call.spawn, captures, theirs, call.timeout_s
                )
        except TimeoutError as error:
            raise channel_full(call.words, call.timeout_s, error) from error
        except SandboxEndedError:
            raise gone_error(call.words, born=False) from None
        except OSError as error:
            raise not_sent(self._call.words, error) from error
        finally:
            for fd in theirs:
                os.close(fd)

    @property
    def exited(self) -> bool:
        """Whether it has ended, or was never born, or the sandbox is gone."""
        return self._job is not None and self._job.exited.is_set

    @property
    def outcome(self) -> Exited | Failure | None:
        """How it ended; None while it has not, and where the sandbox ended first."""
        return None if self._job is None else self._job.exited.get()

    async def wait(self, timeout_s: float | None) -> bool:
        """Waits until the command has ended, or was never born, or the sandbox is gone.

        Returns:
            False if that took longer than ``timeout_s`` seconds.
        """
        return self._job is None or await self._job.exited.wait(timeout_s)

    async def wait_lazily(self, timeout_s: float | None) -> bool:
        """Waits as ``wait`` does, and reads the output from a moment on.

        Within that moment most commands end, and are then read in one go.
        """
        moment = READ_DELAY_S if timeout_s is None else min(READ_DELAY_S, timeout_s)
        if self._job is None or await self._job.exited.wait(moment):
            return True
        end = None if timeout_s is None else time.monotonic() + timeout_s - moment
        if self._captured is not None and (capturing := self._init.capturing) is not None:
            await self._fetch_pipes(capturing, self._captured, end)
        self.resume()
        return await self.wait(_time_left(end))

    async def _fetch_pipes(self, init: Capturing, job: CapturedJob, end: float | None) -> None:
        """Asks for the pipes until they have come, or the command has ended, or its time is over."""
        patience = time.monotonic() + DESCRIPTORS_RETRIES * DESCRIPTORS_RETRY_S
        while time.monotonic() < patience:
            if has_room(DESCRIPTORS_PER_LEFTOVER + 1):  # each is opened anew
                come = job.expect()
                try:
                    await init.ask_pipes(job)
                except SandboxEndedError:
                    return
                except OSError as error:
                    self._give_up(error)
                    return
                if not await come.wait(_time_left(end)) or self._adopt(job):
                    return
            left = _time_left(end)
            pause = DESCRIPTORS_RETRY_S if left is None else min(DESCRIPTORS_RETRY_S, left)
            if await self.wait(pause) or left == 0:  # others of ours may close
                return
        self._no_room = True
        self._give_up(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    def _adopt(self, job: CapturedJob) -> bool:
        """Takes the pipes over that have come; False if none have."""
        pipes = job.take_pipes()
        if pipes is not None:
            self._streams.take_over(pipes)
        return pipes is not None

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` when the command has ended, which may be now."""
        if self._job is not None:
            self._job.exited.then(callback)

    async def born(self) -> int | None:
        """Waits until a lasting command runs: its number inside, or None if it never will.

        Raises:
            ExecTransportError: nothing was heard of it.
        """
        if self._job is None or self._job.pid is None:
            return None
        if not await self._job.pid.wait(START_TIMEOUT_S):
            raise not_begun(self._call.words, START_TIMEOUT_S)
        return self._job.pid.get()

    @property
    def input(self) -> InputPipe | None:
        """The pipe that it reads from; None where there is none."""
        return self._streams.input

    @property
    def outputs(self) -> list[OutputPipe]:
        """The pipes that its output is read from."""
        return self._streams.outputs

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left: neither the command nor what it started."""
        return self._job is None or self._job.gone.is_set

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` when nothing of it is left, which may be now."""
        if self._job is not None:
            self._job.gone.then(callback)

    async def end_rest(self) -> None:
        """Ends the command, if it runs, and what it left running; ``end`` comes after."""
        if self._job is not None and not self._job.gone.is_set:
            await finished(end_patiently(self._init, self._job))

    def release(self) -> None:
        """Gives all back at once, where there is no loop any more on which to ``end``."""
        self.stop_clock()
        if self._ended is None:
            self._ended = Latch()
            self.drain()
            if self._streams.input is not None:
                self._streams.input.end()
            self._give_back()
            self._ended.set(None)

    def stop_clock(self) -> None:
        """Takes the time that it took."""
        self._duration = self._duration or time.monotonic() - self._began

    def drain(self) -> None:
        """Reads what is in the pipes now."""
        self._streams.drain()

    async def signal(self, number: int, *, tree: bool) -> None:
        """Sends a signal to the command, or to each process of its tree."""
        if self._job is not None and not (self._job.gone if tree else self._job.exited).is_set:
            with contextlib.suppress(SandboxEndedError):  # then it has ended as well
                target = SignalTarget.TREE if tree else SignalTarget.COMMAND
                await self._init.signal(self._job, number, target)

    def pause(self) -> None:
        """Lets the command wait until ``resume``."""
        self._streams.pause()

    def resume(self) -> None:
        """Goes on reading; a command whose output can't be watched is ended."""
        try:
            self._streams.resume()
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Ends a command of which the output can't be read."""
        self._read_error = error
        if self._job is not None and self._giving_up is None:
            self._giving_up = finishing(end_whole(self._init, self._job))

    async def end(self) -> None:
        """Ends what still runs of the tree, reads what is left in the pipes, gives all back."""
        if self._ended is not None:
            await finished(self._ended.wait())
            return
        ended = self._ended = Latch()
        try:
            born = self._job is not None and not self._job.exited.is_set
            if not born and self._streams.input is None and self._giving_up is None:
                self._finish_reading()  # most commands: nothing to wait for
            else:
                await finished(self._end_all())
        finally:
            self._give_back()
            ended.set(None)

    def _give_some_back(self) -> None:
        """Gives back what a lasting command does not hold once it was sent off."""
        held = DESCRIPTORS_PER_PROCESS if self.input else DESCRIPTORS_PER_LEFTOVER
        taken, self._taken = self._taken, held
        descriptor_budget.give(taken - held)

    async def _end_all(self) -> None:
        if self._job is not None and not self._job.exited.is_set:
            await end_whole(self._init, self._job)
        if self._giving_up is not None:
            await self._giving_up
        self._finish_reading()
        if self._streams.input is not None:
            self._input_error = await self._streams.input.close()

    def _finish_reading(self) -> None:
        self.stop_clock()
        if self._captured is not None and self._captured.come is not None:
            self._adopt(self._captured)  # where nobody waited for them any more
        self._streams.drain()

    def result(self, stdout: Captured, stderr: Captured, *, timed_out: bool) -> ExecResult:
        """What is told of it; ``end`` comes first.

        Raises:
            ExecTimeoutError: if it took too long; with what it had written.
            ExecTransportError: if the sandbox ended, or could not run it, or its stdin failed.
            ArgumentError: if its directory can't be entered.
            ResourceLimitError: if there was no room for its process, or it was ended because the
                workspace was too large.
        """
        outcome, call, watch = self.outcome, self._call, self._commands.watch
        if outcome is None and not self._init.alive:
            full = None if watch is None else watch.memory_error(call.words, self._counted)
            raise full or gone_error(call.words, born=True)
        if isinstance(outcome, Failure):
            return unborn_result(outcome, call.words, os.fsdecode(call.spawn.cwd))
        self._check_reading()
        result = exec_result(outcome, stdout, stderr, self._duration)
        if result.stdout_dropped or result.stderr_dropped:
            result.limit_hits = output_hits(result, call.limit)
        if call.held:
            result.limit_hits += own_hits(result, call.held)
        if watch is not None:
            reached = {hit.limit for hit in result.limit_hits}  # a lower limit of its own counts
            found = watch.hits(result, self._counted)
            result.limit_hits += tuple(hit for hit in found if hit.limit not in reached)
            if self._size_over:
                raise watch.size_error(call.words, result, self._size_over)
        if timed_out:
            raise timeout_error(
                call.words,
                call.timeout_s,
                result,
                wall_time=call.wall_time,
                ended=outcome is not None,
            )
        if self._input_error is not None:
            raise stdin_failed(call.words, self._input_error) from self._input_error
        return result

    def _check_reading(self) -> None:
        """Refuses to tell a result of which output is missing that nobody counted."""
        job = self._captured
        lost = (None if job is None else job.failed) or self._streams.failure()
        if lost is not None:
            raise no_memory(self._call.words, self._call.limit, lost) from lost
        if job is not None and (job.missed or self._no_room):
            raise no_descriptor(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        if self._read_error is not None:
            raise unwatched_output(self._call.words, self._read_error) from self._read_error

    async def _wait_turn(self) -> None:
        try:
            async with asyncio.timeout(self._call.timeout_s):
                await descriptor_budget.take(DESCRIPTORS_PER_COMMAND)
        except TimeoutError as error:
            raise no_turn(descriptor_budget.limit(), error) from error

    async def _end_over(self, size: int) -> None:
        """Ends it, or what it left running, because the workspace is too large."""
        if self._job is None or self._ended is not None or self.exited:
            with contextlib.suppress(SandboxEndedError):
                if self._job is not None:
                    await self._init.kill(self._job)
            return
        self._size_over = size
        await self.end()

    def _give_back(self) -> None:
        job = self._job
        if self._captured is not None and self._captured.come is not None:
            self._captured.forsake()
        outputs = self._streams.outputs
        still_written = [output for output in outputs if output.open]
        if still_written and job is not None and not job.gone.is_set:
            # What was left running may go on writing: it is read, or its next write would end it.
            self._taken -= DESCRIPTORS_PER_LEFTOVER
            try:
                self._commands.leftovers.drain(job, still_written)
            except OSError as error:  # as in ``resume``
                self._read_error = error
                self._giving_up = finishing(end_whole(self._init, job))
        elif outputs:
            self._streams.close()
        descriptor_budget.give(self._taken)
        self._taken = 0


class Commands:
    """The commands of one sandbox, and the pipes of what they left running.

    Args:
        init: the sandbox's first process; it outlives this object.
        watch: what is looked at around each command; None where no limit needs that.
    """

    def __init__(self, init: Starter, watch: LimitWatch | None = None) -> None:
        self.init = init
        self.watch = watch
        self.leftovers = LeftoverOutputs()
        self.interactive = Interactive(self)

    async def run(self, call: CommandCall) -> ExecResult:
        """Runs a command to its exit.

        Raises:
            ExecTimeoutError: if it took too long; with what it had written.
            ExecTransportError: if the sandbox ended, or could not run it.
            ArgumentError: if its directory can't be entered.
            ResourceLimitError: if there is no room for a process or a descriptor.
        """
        stdout, stderr = Capture(call.limit), Capture(call.limit)
        command = RunningCommand(self, call, stdout, stderr)
        timed_out = False
        try:
            await command.start((stdout, stderr))
            timed_out = not await command.wait_lazily(call.timeout_s)
        finally:
            await command.end()
        return command.result(stdout.result(), stderr.result(), timed_out=timed_out)

    async def end_leftovers(self) -> None:
        """Ends what commands that have exited left running."""
        await finished(end_leftovers(self.init))

    def close(self) -> None:
        """Closes what is still held for leftovers; the sandbox is ended by its own owner."""
        self.interactive.leave("the session has ended, and the command with it")
        self.leftovers.close()


def _time_left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
