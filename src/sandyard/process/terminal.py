"""Owns one terminal: a command on a pty of the sandbox, what it shows, what is typed, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal as signals
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from sandyard.errors import SandboxError, TerminalEndedError
from sandyard.finishing import finished, finishing
from sandyard.limits import BIRTH_TIMEOUT_S, TERMINAL_SCROLLBACK_BYTES
from sandyard.plan import Spawn
from sandyard.process.attachment import Attachment, Audience, Reader
from sandyard.process.capture import Capture, Captured
from sandyard.process.failures import (
    no_input_end,
    no_terminal,
    not_sent,
    unwatched_input,
    unwatched_output,
)
from sandyard.process.init import SandboxEndedError
from sandyard.process.job import TerminalJob
from sandyard.process.latch import Latch
from sandyard.process.master import Master
from sandyard.process.quota import WorkspaceQuota
from sandyard.process.results import exit_code, gone_error, unborn_result
from sandyard.process.signalling import checked_signal, checked_target
from sandyard.process.terminal_result import Account, Teller
from sandyard.process.trees import end_whole
from sandyard.process.watch import LimitWatch
from sandyard.process.windows import checked_input, checked_window
from sandyard.process.wire import Exited, Failure
from sandyard.resources import EnforcedLimit
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from sandyard.process.starter import Starter

__all__ = ["Terminal", "TerminalCall"]

SignalTo = Literal["command", "tree", "foreground"]

_KILLED = -signals.SIGKILL


@dataclass(slots=True, kw_only=True)
class TerminalCall:
    """One call of ``terminal``, ready to run.

    Attributes:
        words: the command as errors name it.
        spawn: what runs; it has a window.
        timeout_s: seconds it may run, or None.
        name: what it is called; None for its number.
        scrollback: bytes of its output that are kept.
        reader: who gets its output from its first byte on; None for nobody.
        listed: whether the session's list has it.
        held: limits that it has of its own.
        wall_time: whether ``timeout_s`` is the session's limit.
        teller: puts what was denied into its result.
    """

    words: tuple[str, ...]
    spawn: Spawn
    timeout_s: float | None = None
    name: str | None = None
    scrollback: int = TERMINAL_SCROLLBACK_BYTES
    reader: Reader | None = None
    listed: bool = True
    held: tuple[EnforcedLimit, ...] = ()
    wall_time: bool = False
    teller: Teller | None = None


class Terminal:
    r"""A command that runs on a terminal of its own, inside.

    Made by ``session.terminal``. It lives until its command exits, or until it is closed, by ``close``,
    by leaving it as an async context manager, or with the session; nobody has to read it. What it
    shows is kept, the newest 1 MiB unless ``scrollback`` says otherwise, and whoever attaches gets it
    replayed. It belongs to the loop that started the session.

    Attributes:
        id: its number in the session, from 1.
        name: its name, unique among the terminals that the session lists.
        command: its words, with the shell's.

    Example:
        >>> async with await session.terminal("bash", rows=40, columns=120) as terminal:
        ...     await terminal.write(b"make test; exit\n")
        ...     async with terminal.attach() as output:
        ...         async for chunk in output:
        ...             sys.stdout.buffer.write(chunk)
        >>> terminal.exit_code
        0
    """

    __slots__ = (
        "__weakref__",
        "_account",
        "_audience",
        "_capture",
        "_code",
        "_done",
        "_ending",
        "_expiry",
        "_explaining",
        "_failure",
        "_init",
        "_job",
        "_master",
        "_notice",
        "_on_end",
        "_result",
        "_size",
        "_teller",
        "_timeout_s",
        "_wall_time",
        "command",
        "id",
        "name",
    )

    def __init__(
        self,
        init: Starter,
        call: TerminalCall,
        number: int,
        on_end: Callable[[Terminal], None],
        watch: LimitWatch | None = None,
    ) -> None:
        """Prepare a terminal; use ``session.terminal`` instead."""
        self.id = number
        self.name = str(number) if call.name is None else call.name
        self.command = call.words
        self._init = init
        self._timeout_s = call.timeout_s
        self._wall_time = call.wall_time
        self._teller = call.teller
        self._explaining = asyncio.Lock()
        self._account = Account(call.words, call.held, watch)
        self._result: ExecResult | None = None
        self._size = call.spawn.window or (0, 0)
        self._on_end = on_end
        self._capture = Capture(call.scrollback, head_share=0.0)
        self._master: Master | None = None
        self._audience = Audience(self._hold, self._go_on)
        if call.reader is not None:
            self._audience.add(call.reader)
        self._done: Latch[None] = Latch()
        self._job: TerminalJob | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._code: int | None = None
        self._notice = ""  # why it was ended, for those who read it
        self._failure: SandboxError | None = None

    # --- life -------------------------------------------------------------------------------------

    async def start(self, spawn: Spawn) -> None:
        """Starts the command; ``session.terminal`` calls this.

        Args:
            spawn: what runs; it is not kept, because its environment may hold secrets.

        Raises:
            ExecTransportError: if the sandbox is gone, or gives no terminal.
            ResourceLimitError: if there is no room for a process, a terminal or a descriptor.
            ArgumentError: if its directory can't be entered.
        """
        began = time.monotonic()
        try:
            job = self._job = await self._init.spawn_terminal(spawn)
        except SandboxEndedError:
            raise gone_error(self.command, born=False) from None
        except OSError as error:
            raise not_sent(self.command, error) from error
        patience = min(BIRTH_TIMEOUT_S, self._timeout_s or BIRTH_TIMEOUT_S)
        if not await job.born.wait(patience) and patience == self._timeout_s:
            await self.close(self._too_long())
            return
        fd = job.take()
        if fd is None:
            self._take_failure(job, spawn)
            return
        master = self._master = Master(fd, self._show, self._go_on, asyncio.get_running_loop())
        try:
            master.resume(late=not self._audience.count)
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            raise unwatched_output(self.command, error) from error
        if self._timeout_s is not None:
            left = max(0.0, self._timeout_s - (time.monotonic() - began))
            self._expiry = asyncio.get_running_loop().call_later(left, self._expire)
        job.exited.then(self._finish)

    def _take_failure(self, job: TerminalJob, spawn: Spawn) -> None:
        """Ends a terminal that was not born, as a shell would tell of it, or raises."""
        outcome = job.exited.get()
        if outcome is None and not self._init.alive:
            raise gone_error(self.command, born=False)
        if job.missed:
            raise not_sent(self.command, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        if not isinstance(outcome, Failure):
            raise no_terminal(self.command)
        result = unborn_result(outcome, self.command, spawn.cwd.decode("utf-8", "replace"))
        self._show(result.stderr.replace(b"\n", b"\r\n"))
        self._end(result.exit_code)

    async def wait(self) -> int:
        """Waits until the command has exited; whoever waits may give up alone.

        Returns:
            Its exit code: -N where signal N ended it, so -9 after a timeout and after ``close``.

        Raises:
            ExecTransportError: if the sandbox ended under it.
        """
        await self._done.wait()
        if self._failure is not None:
            raise self._failure
        return _KILLED if self._code is None else self._code

    async def result(self) -> ExecResult:
        """Waits until the command has exited, and tells what ``exec`` would, but for the output.

        Returns:
            Its exit code, what it used and left running, the limits that it reached, the calls that
            were refused, and, if it failed, what was denied as far as the end of its output says so.
            What it showed is in ``scrollback``, and only counted here.

        Raises:
            ExecTransportError: if the sandbox ended under it.
        """
        await self.wait()
        if self._result is None:
            raise AssertionError("it is made when the command ends")
        async with self._explaining:  # whoever comes meanwhile wants what it finds, too
            if self._result.exit_code and self._teller is not None:
                await self._teller(self._result, self.scrollback().data)
            self._teller = None
        return self._result

    @property
    def exit_code(self) -> int | None:
        """The command's exit code, as ``wait`` tells it; None while it runs."""
        return self._code

    @property
    def failure(self) -> SandboxError | None:
        """What ``wait`` raises; None while all is well."""
        return self._failure

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._size

    async def close(self, notice: str = "") -> None:
        """Ends the command and all that descends from it; one that has exited is left alone.

        Args:
            notice: a sentence for those who read it, shown after its output; empty for none.
        """
        if self._done.is_set:
            return
        self._notice = self._notice or notice
        if self._ending is None:
            await finished(self._end_whole())
        else:
            await finished(_waited(self._ending))

    async def __aenter__(self) -> Self:
        """Holds the terminal for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        await self.close()

    def foretell(self, notice: str) -> None:
        """Says why it ends in a moment, for those who read it."""
        self._notice = self._notice or notice

    def watch_size(self, quota: WorkspaceQuota) -> None:
        """Lets it end, and what it leaves running, when the workspace is too large."""
        if self._job is not None:
            quota.watch(self._job, partial(self._end_over, quota.limit))

    async def _end_over(self, limit: int, size: int) -> None:
        if self._job is not None and self._done.is_set:
            with contextlib.suppress(SandboxEndedError):
                await self._init.kill(self._job)
        self._account.size_over = size
        await self.close(f"the workspace took {size} bytes, and its limit is {limit}: it was ended")

    # --- what is typed ----------------------------------------------------------------------------

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        r"""Types something: bytes, any number of them, control characters included.

        Returns when the terminal has taken all of it; a program that doesn't read makes this wait, and
        nothing else. A cancelled call may have typed a part. Calls take effect in their order.

        Args:
            data: what is typed; ``b"\x03"`` is Ctrl-C, ``b"\r"`` the Enter key.

        Raises:
            TerminalEndedError: if the command has exited, or exits before all is taken.
            ResourceLimitError: if the loop can't watch one more descriptor; a part may be typed.
            ArgumentTypeError: if ``data`` is no bytes.
        """
        checked_input(data)
        try:
            written = await self._open_master().write(data)
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            raise unwatched_input(self.command, error) from error
        if written < memoryview(data).nbytes:
            raise TerminalEndedError(name=self.name, exit_code=self._code, written=written)

    async def send_eof(self) -> None:
        """Types the character that ends the input: Ctrl-D, unless the program has chosen another.

        As on every terminal, it ends the input only at the beginning of a line; after other
        characters it hands them to the program, and the next one ends the input. A program that
        reads keys by itself decides what it means.

        Raises:
            TerminalEndedError: if the command has exited.
            ExecTransportError: if the program has switched the character off.
        """
        try:
            character = self._open_master().end_character()
        except OSError:
            raise TerminalEndedError(name=self.name, exit_code=self._code) from None
        if not character:
            raise no_input_end(self.command)
        await self.write(character)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the window; programs are told by SIGWINCH.

        After the command's exit this does nothing.

        Args:
            rows: lines of text, from 1 to 65,535.
            columns: characters of a line, likewise.

        Raises:
            ArgumentError, ArgumentTypeError: if the size is impossible.
        """
        self._size = checked_window(rows, columns)
        if self._master is not None and self._master.open:
            with contextlib.suppress(OSError):  # it ended in this moment
                self._master.resize(rows, columns)

    async def signal(
        self, number: int | str = signals.SIGTERM, *, to: SignalTo = "command"
    ) -> None:
        """Sends a signal; a command that has exited is left alone.

        Args:
            number: the signal's number or name, such as ``"INT"`` or ``"RTMIN+1"`` (default: SIGTERM).
            to: ``"command"`` (default), ``"tree"`` for each process that descends from it as well, or
                ``"foreground"`` for the process group that has the terminal, as Ctrl-C reaches it.

        Raises:
            ArgumentError, ArgumentTypeError: if there is no such signal or target.
        """
        target, checked = checked_target(to), checked_signal(number, "terminal", "number")
        if self._job is not None and not self._job.exited.is_set:
            with contextlib.suppress(SandboxEndedError):  # then it has ended as well
                await self._init.signal(self._job, checked, target)

    # --- what it shows ----------------------------------------------------------------------------

    def scrollback(self) -> Captured:
        """What it has shown, as far as it is kept: the newest bytes, and how many came before them."""
        return self._capture.result()

    def attach(self, *, replay: bool = True) -> Attachment:
        """A reader of what it shows, to be entered and iterated; leaving it detaches.

        Several may read at once, each gets everything, and the slowest sets the pace. Without any, the
        program never waits, and the oldest output is dropped and counted.

        Args:
            replay: True (default) begins with what is kept of earlier output; ``dropped`` of the
                reader counts what is not. False begins with what comes now.
        """
        return Attachment(
            self._audience,
            self.scrollback if replay else _nothing_kept,
            lambda: self._done.is_set,
        )

    def __repr__(self) -> str:
        """Its name, its command and how it is."""
        state = "running" if self._code is None else f"exit code {self._code}"
        return f"<Terminal {self.name!r} {' '.join(self.command)!r}: {state}>"

    # --- inside -----------------------------------------------------------------------------------

    def _open_master(self) -> Master:
        if self._master is None or not self._master.open:
            raise TerminalEndedError(name=self.name, exit_code=self._code)
        return self._master

    def _show(self, chunk: bytes) -> None:
        self._capture.feed(chunk)
        if self._audience.count:
            self._audience.take(chunk)

    def _hold(self) -> None:
        if self._master is not None:
            self._master.pause()

    def _go_on(self) -> None:
        if self._master is None:
            return
        try:
            self._master.resume()
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            self._failure = unwatched_output(self.command, error)
            self._begin_end(self._failure.message)

    def _expire(self) -> None:
        if self._wall_time and not self._done.is_set:
            self._account.too_long = self._timeout_s
        self._begin_end(self._too_long())

    def _too_long(self) -> str:
        return f"the command took longer than {self._timeout_s:g} s, and was ended"

    def _begin_end(self, notice: str) -> None:
        if self._done.is_set or self._ending is not None:
            return
        self._notice = notice
        self._ending = finishing(self._end_whole())

    async def _end_whole(self) -> None:
        job = self._job
        if job is not None:
            job.forsake()  # a master that is still to come
            if not job.exited.is_set:
                await end_whole(self._init, job)
        if not self._done.is_set:  # it hangs in the kernel, or was never born
            self._end(_KILLED)

    def _finish(self) -> None:
        """Takes note of the command's exit: what it had written is read first."""
        if self._done.is_set:  # it was given up, and has ended after all
            return
        outcome = None if self._job is None else self._job.exited.get()
        if isinstance(outcome, Exited):
            asked = bool(self._notice) and outcome.killed
            self._end(_KILLED if asked else exit_code(outcome.status))
            return
        if not self._notice:  # nobody here has ended it
            self._failure = self._failure or gone_error(self.command, born=True)
        self._end(_KILLED)

    def _end(self, code: int) -> None:
        if self._done.is_set:
            return
        if self._expiry is not None:
            self._expiry.cancel()
        if self._master is not None:
            self._master.drain()
            self._master.close()
        if self._notice:
            self._show(f"\r\nsandyard: {self._notice}\r\n".encode())
        self._code = code
        outcome = None if self._job is None else self._job.exited.get()
        exited = outcome if isinstance(outcome, Exited) else None
        self._result = self._account.result(exited, code, self._capture.total)
        self._done.set(None)
        self._audience.end()
        self._on_end(self)


async def _waited(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _nothing_kept() -> Captured:
    return Captured(b"", 0, 0)
