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

from sandyard.errors import ExecTimeoutError
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
from sandyard.process.budget import descriptor_budget
from sandyard.process.capture import Capture, Captured
from sandyard.process.cgroup import CgroupCounts
from sandyard.process.failures import (
    channel_full,
    no_descriptor,
    no_memory,
    no_pipe,
    no_turn,
    not_begun,
    not_sent,
    stdin_failed,
    unwatched_output,
)
from sandyard.process.identity import owner_outside
from sandyard.process.init import SandboxEndedError
from sandyard.process.interactive import Interactive
from sandyard.process.job import Job
from sandyard.process.latch import Latch
from sandyard.process.pipes import (
    InputPipe,
    LeftoverOutputs,
    OutputPipe,
    Sink,
    StdinSource,
    open_pipe,
)
from sandyard.process.results import exec_result, gone_error, unborn_result
from sandyard.process.trees import end_leftovers, end_patiently, end_whole
from sandyard.process.watch import LimitWatch, output_hits, own_hits, wall_time_hit
from sandyard.process.wire import Exited, Failure, SignalTarget
from sandyard.resources import EnforcedLimit
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from sandyard.process.starter import Starter

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
        self._sinks = (stdout, stderr)
        self._job: Job | None = None
        self._outputs: list[OutputPipe] = []
        self._input: InputPipe | None = None
        self._taken = 0
        self._began = 0.0
        self._duration = 0.0
        self._ended: Latch[None] | None = None
        self._read_error: OSError | None = None
        self._giving_up: asyncio.Task[None] | None = None
        self._input_error: BaseException | None = None
        self._counted = _NOTHING_COUNTED  # when it began
        self._size_over = 0  # the size of the workspace for which it was ended

    async def start(self, *, lazily: bool = False) -> None:
        """Makes the pipes and sends the command off.

        Args:
            lazily: True reads nothing before ``wait_lazily``.

        Raises:
            ExecTransportError: if the sandbox is gone.
            ResourceLimitError: if the host program has no descriptor left, or the workspace is too
                large.
        """
        watch = self._commands.watch
        if watch is not None:
            await watch.check(self._call.words)
            self._counted = watch.count()
        if not descriptor_budget.take_now(DESCRIPTORS_PER_COMMAND):
            await self._wait_turn()
        self._taken = DESCRIPTORS_PER_COMMAND
        theirs = await self._open_pipes()
        mask = _OUTPUT if self._input is None else _OUTPUT | _STDIN
        self._began = time.monotonic()
        try:
            self._job = await self._init.spawn(
                self._call.spawn,
                theirs,
                mask,
                report=self._call.lasting,
                timeout_s=self._call.timeout_s,
            )
        except TimeoutError as error:
            raise channel_full(self._call.words, self._call.timeout_s, error) from error
        except SandboxEndedError:
            raise gone_error(self._call.words, born=False) from None
        except OSError as error:
            raise not_sent(self._call.words, error) from error
        finally:
            for fd in theirs:
                os.close(fd)
        self._give_some_back()
        if watch is not None and watch.quota is not None:
            watch.quota.watch(self._job, self._end_over)
        if not lazily:
            self.resume()
        if self._input is not None and self._call.stdin is not None:
            self._input.feed(self._call.stdin)

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
        if await self.wait(moment):
            return True
        self.resume()
        return await self.wait(None if timeout_s is None else timeout_s - moment)

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
        return self._input

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
            if self._input is not None:
                self._input.end()
            self._give_back()
            self._ended.set(None)

    def stop_clock(self) -> None:
        """Takes the time that it took."""
        self._duration = self._duration or time.monotonic() - self._began

    def drain(self) -> None:
        """Reads what is in the pipes now."""
        for output in self._outputs:
            output.drain()

    async def signal(self, number: int, *, tree: bool) -> None:
        """Sends a signal to the command, or to each process of its tree."""
        if self._job is not None and not (self._job.gone if tree else self._job.exited).is_set:
            with contextlib.suppress(SandboxEndedError):  # then it has ended as well
                target = SignalTarget.TREE if tree else SignalTarget.COMMAND
                await self._init.signal(self._job, number, target)

    def pause(self) -> None:
        """Lets the command wait until ``resume``."""
        for output in self._outputs:
            output.pause()

    def resume(self) -> None:
        """Goes on reading; a command whose output can't be watched is ended."""
        try:
            for output in self._outputs:
                output.resume()
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            self._read_error = error
            if self._job is not None and self._giving_up is None:
                ending = end_whole(self._init, self._job)
                self._giving_up = finishing(ending)

    async def end(self) -> None:
        """Ends what still runs of the tree, reads what is left in the pipes, gives all back."""
        if self._ended is not None:
            await finished(self._ended.wait())
            return
        ended = self._ended = Latch()
        try:
            born = self._job is not None and not self._job.exited.is_set
            if not born and self._input is None and self._giving_up is None:
                self._finish_reading()  # most commands: nothing to wait for
            else:
                await finished(self._end_all())
        finally:
            self._give_back()
            ended.set(None)

    def _give_some_back(self) -> None:
        """Gives back what a lasting command does not hold once it was sent off."""
        if self._call.lasting:
            held = DESCRIPTORS_PER_LEFTOVER if self._input is None else DESCRIPTORS_PER_PROCESS
            descriptor_budget.give(self._taken - held)
            self._taken = held

    async def _end_all(self) -> None:
        if self._job is not None and not self._job.exited.is_set:
            await end_whole(self._init, self._job)
        if self._giving_up is not None:
            await self._giving_up
        self._finish_reading()
        if self._input is not None:
            self._input_error = await self._input.close()

    def _finish_reading(self) -> None:
        self.stop_clock()
        self.drain()

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
            raise _timeout_error(call, result, ended=outcome is not None)
        if self._input_error is not None:
            raise stdin_failed(call.words, self._input_error) from self._input_error
        return result

    def _check_reading(self) -> None:
        """Refuses to tell a result of which output is missing that nobody counted."""
        for output in self._outputs:
            if output.failed is not None:
                raise no_memory(
                    self._call.words, self._call.limit, output.failed
                ) from output.failed
        if self._read_error is not None:
            raise unwatched_output(self._call.words, self._read_error) from self._read_error

    async def _wait_turn(self) -> None:
        try:
            async with asyncio.timeout(self._call.timeout_s):
                await descriptor_budget.take(DESCRIPTORS_PER_COMMAND)
        except TimeoutError as error:
            raise no_turn(descriptor_budget.limit(), error) from error

    async def _open_pipes(self) -> list[int]:
        """Makes the pipes; returns the command's ends in the order of its descriptors."""
        for attempt in range(DESCRIPTORS_RETRIES):
            try:
                return self._try_pipes()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise no_pipe(self._call.words, error) from error
                # The budget can't know what the host program opens. Others of ours may close.
                if (
                    descriptor_budget.used <= DESCRIPTORS_PER_COMMAND
                    or attempt + 1 == DESCRIPTORS_RETRIES
                ):
                    raise no_descriptor(error) from error
            await asyncio.sleep(DESCRIPTORS_RETRY_S)
        raise AssertionError("unreachable")

    def _try_pipes(self) -> list[int]:
        opened: list[int] = []
        user = self._call.spawn.user
        owner = owner_outside(self._init.owner, user)
        others = owner is None and user is not None and user.number > 0
        try:
            if self._call.stdin is not None or self._call.typed:
                opened += open_pipe(owner, open_to_all=others)
            opened += open_pipe(owner, open_to_all=others)
            opened += open_pipe(owner, open_to_all=others)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        loop = asyncio.get_running_loop()
        *stdin, out_read, out_write, err_read, err_write = opened
        stdout, stderr = self._sinks
        self._outputs = [OutputPipe(out_read, stdout, loop), OutputPipe(err_read, stderr, loop)]
        if stdin:
            self._input = InputPipe(stdin[1], loop)
        return [*stdin[:1], out_write, err_write]

    async def _end_over(self, size: int) -> None:
        """Ends it, or what it left running, because the workspace is too large."""
        if self._job is None or self._ended is not None or self.exited:
            with contextlib.suppress(SandboxEndedError):
                if self._job is not None:
                    await self._init.kill(self._job)
            return
        self._size_over = size
        await self.end()

    async def _end_tree(self, job: Job) -> None:
        await end_whole(self._init, job)

    def _give_back(self) -> None:
        job = self._job
        left = job is not None and not job.gone.is_set
        still_written = [output for output in self._outputs if output.open] if left else []
        if job is not None and still_written:
            # What was left running may go on writing: it is read, or its next write would end it.
            self._taken -= DESCRIPTORS_PER_LEFTOVER
            try:
                self._commands.leftovers.drain(job, still_written)
            except OSError as error:  # as in ``resume``
                self._read_error = error
                self._giving_up = finishing(end_whole(self._init, job))
        else:
            for output in self._outputs:
                output.close()
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
            await command.start(lazily=True)
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


def _timeout_error(call: CommandCall, result: ExecResult, *, ended: bool) -> ExecTimeoutError:
    """The error for a command that took too long.

    Args:
        ended: whether its tree is known to be gone.
    """
    context: dict[str, object] = {} if ended else {"still_running": True}
    if call.wall_time and call.timeout_s is not None:
        context["limit"] = "wall_time"
        result.limit_hits += (wall_time_hit(call.timeout_s),)
    return ExecTimeoutError(
        command=call.words, timeout_s=call.timeout_s, result=result, context=context
    )
