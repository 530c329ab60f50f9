"""Owns threads that read in a loop's place, and that no loop ever waits for."""

from __future__ import annotations

import _thread  # noqa: PLC2701  # which has a start that does not wait
import asyncio
import enum
import threading
from abc import ABC, abstractmethod
from contextlib import suppress

from sandyard.limits import READING_LOOK_S

__all__ = ["Places", "ReadingThread"]


class Places:
    """What is left of the threads that may read at once, in the whole program.

    Args:
        count: of threads.

    Attributes:
        taken: how many there are now.
    """

    __slots__ = ("_count", "_lock", "taken")

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self.taken = 0

    def take(self) -> bool:
        """Takes one, if one is left."""
        with self._lock:
            if self.taken == self._count:
                return False
            self.taken += 1
            return True

    def give(self) -> None:
        """Gives one back."""
        with self._lock:
            self.taken -= 1


class _Stage(enum.Enum):
    STARTED = enum.auto()  # the kernel may not have run it yet
    RUNS = enum.auto()
    ENDED = enum.auto()


class ReadingThread(ABC):
    """A thread that reads until there is nothing more to read, or its loop wants to.

    ``threading.Thread.start`` waits until the new thread says that it runs, and one that finds no memory for
    its first call never does: a loop would stand still for good. So this one is started by what is beneath
    that, and looked at from time to time; who ends without a word, or never began, is found so. The place
    of one that never began stays taken until it does, so that such a lack is met only so often.

    Args:
        places: what it has taken one of.
        loop: what it reads for, and what starts it.
    """

    __slots__ = ("_held", "_lock", "_look", "_loop", "_places", "_stage")

    def __init__(self, places: Places, loop: asyncio.AbstractEventLoop) -> None:
        self._places, self._loop = places, loop
        self._lock = threading.Lock()  # of who may read, and of the stage
        self._stage = _Stage.STARTED
        self._held = True  # what ``_release`` gives back
        self._look: asyncio.TimerHandle | None = None

    def start(self) -> bool:
        """Starts it; False, and its place given back, where there is no room for one more thread."""
        try:
            self._watch()
            _thread.start_new_thread(self._main, ())
        except (MemoryError, RuntimeError):  # a thread would be faster, no more
            self._let_go()
            self._places.give()
            self._forget()
            return False
        return True

    @abstractmethod
    def _run(self) -> None:
        """Reads, in the thread."""

    @abstractmethod
    def _finish(self) -> None:
        """Tells whom it concerns, on the loop, that the thread has come to its end by itself."""

    def _release(self) -> None:
        """Gives back what is its own; once, when it reads nothing any more."""
        return

    def _main(self) -> None:
        try:
            if self._may_run():
                self._run()
        except MemoryError:  # the loop goes on, and sees for itself
            pass
        finally:
            self._stage = _Stage.ENDED
            self._let_go()
            self._places.give()
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._end)

    def _may_run(self) -> bool:
        """Whether it was not given up meanwhile, and the loop reads again."""
        with self._lock:
            given_up = self._stage is not _Stage.STARTED
            self._stage = _Stage.RUNS
        return not given_up

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, False
        if held:
            self._release()

    def _watch(self) -> None:
        self._look = self._loop.call_later(READING_LOOK_S, self._look_at)

    def _look_at(self) -> None:
        with self._lock:
            if self._stage is _Stage.STARTED:
                self._stage = _Stage.ENDED
        if self._stage is _Stage.RUNS:
            self._watch()
        else:
            self._let_go()
            self._end()

    def _end(self) -> None:
        if self._look is not None:
            self._forget()
            self._finish()

    def _forget(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
