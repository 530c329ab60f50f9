"""Freezer: holds still all that commands of a sandbox have started, and lets it go on.

Everything is stopped by SIGSTOP, which nothing can catch, but init and its keepers: they stay able to
end it all when this program dies, which a frozen control group would keep them from.

That is done one by one, parents first, so that no shell sees a child that is stopped. Where so much runs
that it would take seconds, init stops all of it by one signal, and lets it go on; what had been stopped
before then has that signal still to come, which tells it apart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sandyard.errors import ResourceLimitError
from sandyard.finishing import finished, in_thread
from sandyard.limits import FREEZE_CROWD, FREEZE_PAUSE_S, FREEZE_SINGLY_S, FREEZE_TIMEOUT_S
from sandyard.process.channel import SandboxEndedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sized

    from sandyard.process.latch import Stillness

__all__ = ["Freezer", "held_still"]

T = TypeVar("T")

_STOPPED: Final = frozenset("TtZX")
_WAITS: Final = "D"
"""Also where a process waits for the child that has its memory (vfork(2)), and runs nothing itself."""

_COMMANDS: Final = 3
"""How far below the outer process commands are: it has init, that has keepers, and these have them."""

_STAT_BYTES: Final = 1024
_STATUS_BYTES: Final = 8192
_STOP_BIT: Final = 1 << signal.SIGSTOP - 1
_STARTED_AT: Final = 19
"""Place of the start's time behind the name in proc_pid_stat(5)."""


class _Seen(NamedTuple):
    """A process as it was seen.

    Attributes:
        pid: its number here.
        parent: its parent's.
        state: a letter of proc_pid_stat(5).
        started: when; with the number, this tells it from any other.
    """

    pid: int
    parent: int
    state: str
    started: int


class Freezer:
    """Stops the processes of one sandbox, and lets those go on that it stopped.

    Its methods block for a moment; they are for threads, one after the other.

    Args:
        outer: number of the sandbox's outer process.

    Attributes:
        busy: how many keepers had a command at the last look.
        told_all: whether init was asked to stop all.
    """

    def __init__(self, outer: int) -> None:
        self._outer = outer
        self.busy = 0
        self.told_all = False
        self._frozen: list[_Seen] = []

    def freeze(self, until: float) -> bool:
        """Stop what runs. It is called again and again until it found nothing to do.

        Args:
            until: when it gives up, in the seconds of ``time.monotonic``.

        Returns:
            Whether nothing ran any more, not even a thread.

        Raises:
            TimeoutError: it took longer; what it has stopped is to be let go on.
            OSError: processes can't be seen, or not be stopped.
        """
        levels = _descendants(self._outer, until)
        keepers = {each.pid for level in levels[_COMMANDS - 1 : _COMMANDS] for each in level}
        commands = [each for level in levels[_COMMANDS:] for each in level]
        busy = {each.parent for each in commands} & keepers
        self.busy = len(busy) if levels else sys.maxsize  # where the sandbox has ended, all have
        parents = {each.parent for each in commands if each.state in _STOPPED}
        running = [each for each in commands if not _is_held(each, parents, until)]
        known = {(each.pid, each.started) for each in self._frozen}
        # Parents before their children; again, if another has let one go on.
        for each in _in_time(running, until):
            if self.told_all and _is_stopping(each):
                continue  # another signal would look like one that came before init's
            with suppress(ProcessLookupError):
                _signal(each, signal.SIGSTOP)
                if (each.pid, each.started) not in known:
                    self._frozen.append(each)
        return not running

    def thaw(self) -> None:
        """Let all go on that was stopped: children first, so that no shell sees one that is stopped."""
        while self._frozen:
            each = self._frozen.pop()
            try:
                _signal(each, signal.SIGCONT)
            except ProcessLookupError:
                continue
            except OSError:  # no descriptor is left to tell it by; going on harms no other either
                with suppress(OSError):
                    os.kill(each.pid, signal.SIGCONT)


def _is_held(process: _Seen, parents: set[int], until: float) -> bool:
    """Whether no thread of a process can run a thing, or it waits for a child that can't either."""
    try:
        threads = os.listdir(f"/proc/{process.pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return True
    waits = process.pid in parents
    found = (_look(f"/proc/{process.pid}/task/{each}/stat") for each in _in_time(threads, until))
    return all(
        each is None or each.state in _STOPPED or (waits and each.state == _WAITS) for each in found
    )


def _is_stopping(process: _Seen) -> bool:
    """Whether it has a SIGSTOP to come, and only no processor yet to take it on."""
    said = _read(f"/proc/{process.pid}/status", _STATUS_BYTES) or b""
    pending = said.partition(b"\nShdPnd:")[2].split(maxsplit=1)
    return bool(pending) and bool(int(pending[0], 16) & _STOP_BIT)


def is_crowded() -> bool:
    """Whether so many want a processor that our share of it is gone before all of them are looked at."""
    try:
        said = _read("/proc/loadavg", _STAT_BYTES) or b""
        running = int(said.split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):  # then the first look tells, if later
        return False
    return running > FREEZE_CROWD * (os.cpu_count() or 1)


def _signal(process: _Seen, number: int) -> None:
    """Send a signal to that very process, and to none that has its number since.

    Raises:
        ProcessLookupError: it has gone.
        OSError: it may not be signalled, or there is no descriptor.
    """
    handle = os.pidfd_open(process.pid)
    try:
        now = _look(f"/proc/{process.pid}/stat")
        if now is None or now.started != process.started:
            raise ProcessLookupError
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def _read(path: str, most: int) -> bytes | None:
    """What a file of a process says; None if it has gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return os.read(file, most)
    except ProcessLookupError:
        return None
    finally:
        os.close(file)


def _look(path: str) -> _Seen | None:
    """Read one process or thread; None if it has gone."""
    said = _read(path, _STAT_BYTES)
    if said is None:
        return None
    head, _, rest = said.rpartition(b")")  # the name before it is the process's own to choose
    words = rest.split()
    if len(words) <= _STARTED_AT:
        return None
    state = words[0].decode("ascii", "replace")
    return _Seen(int(head.split(b" ", 1)[0]), int(words[1]), state, int(words[_STARTED_AT]))


def _in_time(items: Iterable[T], until: float) -> Iterator[T]:
    """Iterate over them; one look at thousands that want every processor takes many seconds.

    Raises:
        TimeoutError: it is later.
    """
    for each in items:
        if time.monotonic() > until:
            raise TimeoutError
        yield each


def _processes(until: float) -> Iterator[_Seen]:
    for name in _in_time(os.listdir("/proc"), until):
        if name.isdigit():
            seen = _look(f"/proc/{name}/stat")
            if seen is not None:
                yield seen


def _descendants(outer: int, until: float) -> list[list[_Seen]]:
    """What descends from a process, by how far below it is; itself is the first."""
    children: dict[int, list[_Seen]] = {}
    for each in _processes(until):
        children.setdefault(each.parent, []).append(each)
    itself = _look(f"/proc/{outer}/stat")
    levels: list[list[_Seen]] = []
    ours = itself is not None and itself.parent == os.getpid()  # else it has ended
    level = [itself] if itself is not None and ours else []
    while level:
        levels.append(level)
        level = [child for each in level for child in children.pop(each.pid, ())]
    return levels


@asynccontextmanager
async def held_still(stillness: Stillness) -> AsyncIterator[None]:
    """Hold a sandbox still in the block; however that is left, all goes on.

    Raises:
        TimeoutError: something did not stop.
        OSError: processes can't be seen, or not be stopped.
        ResourceLimitError: there is no thread.
    """
    freezer = Freezer(stillness.outer)
    async with stillness.turn:
        stillness.over = over = asyncio.Event()
        try:
            await _freeze(freezer, stillness)
            yield
        finally:
            try:
                await finished(_thaw(freezer, stillness))
            finally:
                stillness.over = None
                over.set()


async def _freeze(freezer: Freezer, stillness: Stillness) -> None:
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    tell_all = stillness.tell_all
    if tell_all is None:
        await _stop_each(freezer, stillness.jobs, deadline)
        return
    async with asyncio.timeout(FREEZE_TIMEOUT_S):
        if stillness.told is not None:  # what was held before may not go on in the midst of this
            await stillness.told.answered()
        if not is_crowded():  # in a thread, which has to wait for its turn, it would take seconds
            singly = min(deadline, time.monotonic() + FREEZE_SINGLY_S)
            with suppress(TimeoutError):
                await _stop_each(freezer, stillness.jobs, singly)
                return
        with suppress(SandboxEndedError):  # then there is nothing to stop
            stillness.told = await tell_all(True)
            freezer.told_all = True
            await stillness.told.answered()
    await _stop_each(freezer, stillness.jobs, deadline)


async def _stop_each(freezer: Freezer, jobs: Sized, until: float) -> None:
    # A command that was sent and is not seen yet is waited for: each has a keeper of its own.
    while not await in_thread(freezer.freeze, until) or freezer.busy < len(jobs):
        if time.monotonic() > until:
            raise TimeoutError
        await asyncio.sleep(FREEZE_PAUSE_S)


async def _thaw(freezer: Freezer, stillness: Stillness) -> None:
    try:
        await in_thread(freezer.thaw)
    except ResourceLimitError:  # there is no thread: then it is done here
        freezer.thaw()
    if freezer.told_all and stillness.tell_all is not None:
        # Its answer is for who comes next: amid what goes on we would have to wait for our turn.
        with suppress(SandboxEndedError, OSError):  # then all of it has ended
            stillness.told = await stillness.tell_all(False)
