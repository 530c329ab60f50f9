"""Owns the processes that callers of the old API know by a number: at most 64, each asked from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from sandyard.errors import (
    PtySessionNotFoundError,
    PtyStdinUnavailableError,
    ResourceLimitError,
    SandboxError,
    TerminalEndedError,
)
from sandyard.finishing import all_finished, finished
from sandyard.limits import (
    SLOT_ID_FIRST,
    SLOT_ID_LIMIT,
    SLOT_POLL_MIN_S,
    SLOT_START_YIELD_S,
    SLOT_TYPED_BYTES,
    SLOT_WRITE_YIELD_S,
    SLOT_YIELD_MAX_S,
    SLOT_YIELD_MIN_S,
    SLOTS,
    SLOTS_PROTECTED,
)
from sandyard.process.gathering import Gathering
from sandyard.process.piped import PipedProcess
from sandyard.process.terminal import Terminal, TerminalCall
from sandyard.process.updates import PtyExecUpdate
from sandyard.truncation import formatted_truncate_text_with_token_count

if TYPE_CHECKING:
    from sandyard.process.commands import CommandCall, Commands
    from sandyard.types import ExecResult

__all__ = ["Follow", "PtySlots", "choose_victim", "poll_yield", "start_yield", "write_yield"]

Follow = Callable[[str, "Callable[[], Awaitable[ExecResult]]"], Awaitable[None]]
"""Hears that a process runs: its number, and what waits for its end."""


def start_yield(seconds: float | None) -> float:
    """Seconds that a start collects output for."""
    return _clamped(SLOT_START_YIELD_S if seconds is None else seconds)


def write_yield(seconds: float | None) -> float:
    """Seconds that a write collects output for."""
    return _clamped(SLOT_WRITE_YIELD_S if seconds is None else seconds)


def poll_yield(seconds: float | None) -> float:
    """The same for a write of nothing, which only asks."""
    return max(SLOT_POLL_MIN_S, write_yield(seconds))


def _clamped(seconds: float) -> float:
    return min(max(seconds, SLOT_YIELD_MIN_S), SLOT_YIELD_MAX_S)


def choose_victim(ended: Sequence[bool | None]) -> int | None:
    """Which process makes room for another one; None if none can.

    Args:
        ended: whether each has exited, None for one that is being started; the one that was not used
            for longest comes first.

    Returns:
        The index of the oldest that has exited, else of the oldest; never of the last that were used.
    """
    able = ended[: max(0, len(ended) - SLOTS_PROTECTED)]
    return next((able.index(wanted) for wanted in (True, False) if wanted in able), None)


@dataclass(slots=True, eq=False)
class _Slot:
    """One process and who waits to be typed."""

    number: int
    gathering: Gathering
    process: Terminal | PipedProcess | None = None  # None while it is being started
    typing: set[asyncio.Task[None]] = field(default_factory=set)
    typed: int = 0  # bytes that wait to be taken

    @property
    def ended(self) -> bool:
        return self.gathering.ended.is_set

    def type(self, data: bytes) -> None:
        """Types in the background; the order is that of the calls."""
        if self.typed + len(data) > SLOT_TYPED_BYTES:
            raise ResourceLimitError(
                f"{self.typed} bytes wait to be read by process {self.number} already, and "
                f"{SLOT_TYPED_BYTES} is the most: let it read, or end it",
                limit="typed_bytes",
                value=SLOT_TYPED_BYTES,
                unit="bytes",
                retryable=True,
            )
        self.typed += len(data)
        task = asyncio.get_running_loop().create_task(self._type(data))
        self.typing.add(task)
        task.add_done_callback(partial(self._typed, len(data)))

    async def _type(self, data: bytes) -> None:
        if isinstance(self.process, Terminal):
            with contextlib.suppress(TerminalEndedError):  # the next update tells of its exit
                await self.process.write(data)

    def _typed(self, size: int, task: asyncio.Task[None]) -> None:
        self.typing.discard(task)
        self.typed -= size

    async def close(self, notice: str = "") -> None:
        """Ends it, and what waits to be typed."""
        if self.process is not None:
            await self.process.close(notice)
        for task in [*self.typing]:
            task.cancel()
        await asyncio.gather(*self.typing, return_exceptions=True)


class PtySlots:
    """The processes of one sandbox that are known by a number.

    Args:
        commands: the commands of the sandbox; they outlive this object.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._slots: dict[int, _Slot] = {}  # the least recently used first
        self._evicted: dict[int, None] = {}  # the newest of those that made room

    async def start(
        self,
        call: CommandCall,
        terminal: TerminalCall | None,
        yield_s: float,
        tokens: int | None,
        follow: Follow,
    ) -> PtyExecUpdate:
        """Starts a process and collects what it writes for a while.

        Args:
            call: the command, ``terminal`` the same on a terminal, or None for pipes.
            yield_s: seconds after which it is told of as it is, if it has not exited.
            tokens: what the output is shortened to; None for no limit.
            follow: hears that it runs.

        Raises:
            SandboxError: as ``exec`` and ``terminal`` raise it; nothing is left then.
        """
        victim = self._make_room()  # and the room is taken at once: others start as well
        slot = _Slot(self._free_number(), Gathering())
        self._slots[slot.number] = slot
        try:
            notice = b"" if victim is None else await _put_out(victim)
            slot.process = await self._started(slot, call, terminal)
            await follow(str(slot.number), slot.process.result)
            if slot.number not in self._slots:  # all were ended meanwhile, so this one, too
                await slot.close()
            await slot.gathering.ended.wait(yield_s)
            return self._update(slot, tokens, notice)
        except BaseException:
            self._slots.pop(slot.number, None)
            await finished(slot.close())
            raise

    async def write(
        self, number: int, data: bytes, yield_s: float, tokens: int | None
    ) -> PtyExecUpdate:
        """Types something, or nothing, and collects what the process writes for a while.

        Raises:
            PtySessionNotFoundError: there is no such process.
            PtyStdinUnavailableError: it has no terminal, and there is something to type.
            ResourceLimitError: it has not read what was typed before, which is very much.
            SandboxError: it could not be run, or the sandbox ended; then its number is free.
        """
        slot = self._slots.get(number)
        if slot is None or slot.process is None:
            raise self._unknown(number)
        self._slots[number] = self._slots.pop(number)  # the most recently used
        if data:
            if not isinstance(slot.process, Terminal):
                raise PtyStdinUnavailableError(session_id=number)
            slot.type(data)
        await slot.gathering.ended.wait(yield_s)
        return self._update(slot, tokens, b"")

    async def end_all(self) -> None:
        """Ends all of them, and forgets them."""
        slots, self._slots = self._slots, {}
        await all_finished(slot.close() for slot in slots.values())

    async def _started(
        self, slot: _Slot, call: CommandCall, terminal: TerminalCall | None
    ) -> Terminal | PipedProcess:
        if terminal is not None:
            terminal = replace(terminal, reader=slot.gathering, scrollback=0, listed=False)
            return await self._commands.interactive.terminals.open(terminal)
        process = PipedProcess(self._commands, call, slot.gathering)
        await process.start()
        return process

    def _update(self, slot: _Slot, tokens: int | None, notice: bytes) -> PtyExecUpdate:
        """What there is to tell; the number of an exited process is free afterwards.

        Raises:
            SandboxError: it failed; what it had written before was told.
        """
        code: int | None = None
        data = notice + slot.gathering.hand_out()
        if slot.ended and slot.process is not None:
            failure: SandboxError | None = slot.process.failure
            if failure is None:
                code = slot.process.exit_code
            if failure is None or not data:
                self._slots.pop(slot.number, None)
            if failure is not None and not data:
                raise failure
        text = data.decode("utf-8", "replace")
        shown, count = formatted_truncate_text_with_token_count(text, tokens)
        return PtyExecUpdate(
            process_id=slot.number if code is None else None,
            output=shown.encode(),
            exit_code=code,
            original_token_count=count,
        )

    def _make_room(self) -> _Slot | None:
        """Forgets one of the processes where there are too many, and returns it to be ended."""
        if len(self._slots) < SLOTS:
            return None
        slots = [*self._slots.values()]
        chosen = choose_victim([slot.ended if slot.process else None for slot in slots])
        if chosen is None:
            raise ResourceLimitError(
                f"{SLOTS} processes are being started at once; wait for some of them",
                limit="processes",
                value=SLOTS,
                unit="processes",
                retryable=True,
            )
        victim = slots[chosen]
        del self._slots[victim.number]
        self._evicted[victim.number] = None
        for number in [*self._evicted][:-SLOTS]:
            del self._evicted[number]
        return victim

    def _free_number(self) -> int:
        while True:
            number = SLOT_ID_FIRST + secrets.randbelow(SLOT_ID_LIMIT - SLOT_ID_FIRST)
            if number not in self._slots:
                self._evicted.pop(number, None)
                return number

    def _unknown(self, number: int) -> PtySessionNotFoundError:
        message = None
        if number in self._evicted:
            message = f"process {number} made room for a newer one: at most {SLOTS} are kept"
        return PtySessionNotFoundError(session_id=number, message=message)


async def _put_out(victim: _Slot) -> bytes:
    """Ends a process that made room; returns what is to be told of that."""
    what = "forgotten" if victim.ended else "ended"
    await finished(victim.close())
    return f"[sandyard: process {victim.number} was {what}: at most {SLOTS} are kept]\n".encode()
