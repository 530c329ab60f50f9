"""The way of a session's events to one sink: a bounded queue, in order, handed over by one task."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import Final

from sandyard.errors import EventSinkError
from sandyard.events.describing import readable
from sandyard.events.limits import EVENT_BATCH, FLUSH_S, LINGER_S, QUEUED_EVENTS
from sandyard.events.model import (
    EventPayloadPolicy,
    SandboxSessionEvent,
    SandboxSessionFinishEvent,
    Unmade,
)
from sandyard.events.sinks import EventSink, sink_failure

__all__ = ["Delivery", "Queued", "within_sink"]

_LOG: Final = logging.getLogger("sandyard.events")

_HANDING: Final = contextvars.ContextVar("sandyard_sink_hands", default=False)


def within_sink() -> bool:
    """Tell whether a sink is handling an event here: what it does makes no events."""
    return _HANDING.get()


class Queued:
    """An event in the queue, what its sink may know of it, and who waits for it."""

    __slots__ = ("_alone", "_event", "_policy", "taken")

    def __init__(
        self,
        event: SandboxSessionEvent | Unmade,
        policy: EventPayloadPolicy,
        taken: asyncio.Future[EventSinkError | None] | None,
        *,
        alone: bool,
    ) -> None:
        self._event = event
        self._policy = policy
        self._alone = alone
        self.taken = taken

    def event(self) -> SandboxSessionEvent:
        """The event as the sink may know it."""
        event = self._event
        made = event.made() if isinstance(event, Unmade) else event
        return _cut(made, self._policy, alone=self._alone)

    def settle(self, failure: EventSinkError | None) -> None:
        """Let who waits go on; the failure is a result, as nobody may wait any more."""
        if self.taken is not None and not self.taken.done():
            self.taken.set_result(failure)


class Delivery:
    """Hands one session's events to one sink, in order; owns the queue and the task that empties it.

    The task exists only while something is queued. The queue is bounded: where it is full, an
    operation waits for room, or the event is dropped and counted, as the sink's mode says.
    """

    def __init__(self, sink: EventSink) -> None:
        self.sink = sink
        self.dropped = 0
        self._queue: deque[Queued] = deque()
        self._room: asyncio.Event | None = None
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _raises(self) -> bool:
        return self.sink.on_error == "raise" and self.sink.mode != "best_effort"

    def put(
        self,
        event: SandboxSessionEvent | Unmade,
        policy: EventPayloadPolicy,
        *,
        alone: bool,
        wait: bool = True,
    ) -> Queued | None:
        """Queues an event; the order of these calls is the order of events.

        A queue that is full drops it, unless an operation is going to wait.

        Args:
            event: what is told.
            policy: how much of it this sink may know.
            alone: True if no other sink is told it.
            wait: False if the operation can't wait for anything: it was cancelled.

        Returns:
            What ``taken`` takes; None where there is nothing to wait for.
        """
        loop = self._enter_loop()
        mode, full = self.sink.mode, len(self._queue) >= QUEUED_EVENTS
        if full and (not wait or mode == "best_effort"):
            self._drop()
            return None
        waits = wait and (mode == "sync" or self._raises)
        taken = loop.create_future() if waits else None
        queued = Queued(event, policy, taken, alone=alone)
        self._queue.append(queued)
        if waits:
            return queued
        if self._timer is None or len(self._queue) >= EVENT_BATCH:
            self._hurry(LINGER_S)
        return queued if full and wait else None

    async def taken(self, queued: Queued) -> None:
        """Waits until the sink has an event, or at least until the queue is not too long.

        Raises:
            EventSinkError: the sink failed, and is marked to fail the operation.
        """
        if queued.taken is not None:
            try:
                if self.sink.immediate:
                    await self._empty()  # here and now: a task would cost more than the sink does
            finally:
                self._hurry(0.0)  # others may wait for what is left
            failure = await queued.taken
            if failure is not None:
                raise failure
        while len(self._queue) > QUEUED_EVENTS and self.sink.mode == "async":
            if self._room is None:
                self._room = asyncio.Event()
            self._hurry(0.0)
            await self._room.wait()

    async def flush(self) -> None:
        """Waits until the sink has been handed all that is queued now or meanwhile."""
        if within_sink():
            return  # it would wait for itself
        self._enter_loop()
        while self._queue or self._busy:
            self._hurry(0.0)
            if self._worker is not None and not self._worker.done():
                await asyncio.wait([self._worker])
            else:  # an operation empties the queue itself
                await asyncio.sleep(LINGER_S)

    async def close(self) -> None:
        """Flushes for some seconds, then gives up what is left, and says how much."""
        try:
            async with asyncio.timeout(FLUSH_S):
                await self.flush()
        except TimeoutError:
            pass
        finally:
            await self._give_up()

    async def _give_up(self) -> None:
        self._stop_timer()
        worker, self._worker = self._worker, None
        # A sink may close its session itself; then this is the worker, which ends by itself.
        if worker is not None and not worker.done() and worker is not asyncio.current_task():
            worker.cancel()
            await asyncio.wait([worker])
        self.dropped += len(self._queue)
        while self._queue:
            self._queue.popleft().settle(None)
        self._make_room()
        if self.dropped:
            _LOG.warning("%d events never reached the sink %s", self.dropped, self.sink.name)

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:  # once; the end says how many
            _LOG.warning(
                "the sink %s is too slow: %d events wait, others are dropped",
                self.sink.name,
                len(self._queue),
            )

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def _hurry(self, delay: float) -> None:
        """Sees to it that the queue is emptied, soon or at once."""
        if not self._queue or self._busy or (self._worker is not None and not self._worker.done()):
            return
        if delay and len(self._queue) < EVENT_BATCH:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(delay, self._begin)
            return
        self._begin()

    def _begin(self) -> None:
        self._stop_timer()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._empty())

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def _empty(self) -> None:
        while self._queue and not self._busy:
            batch = self._next_batch()
            self._make_room()
            failure: EventSinkError | None = None
            heard = self._raises and batch[0].taken is not None
            try:
                failure = await self._hand([waiting.event() for waiting in batch], heard=heard)
            except asyncio.CancelledError:
                self.dropped += len(batch)
                raise
            finally:
                for waiting in batch:
                    waiting.settle(failure if self._raises else None)

    def _next_batch(self) -> list[Queued]:
        """Takes the next event for which an operation waits alone, others together."""
        batch = [self._queue.popleft()]
        while batch[0].taken is None and self._queue and len(batch) < EVENT_BATCH:
            if self._queue[0].taken is not None:
                break
            batch.append(self._queue.popleft())
        return batch

    def _enter_loop(self) -> asyncio.AbstractEventLoop:
        """Forgets the task and the timer of a loop that has ended: a session may outlive it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._worker, self._timer, self._room = loop, None, None, None
        return loop

    async def _hand(
        self, events: list[SandboxSessionEvent], *, heard: bool
    ) -> EventSinkError | None:
        """Hands events to the sink; its failure is returned, and logged unless it is heard of."""
        self._busy = True
        handing = _HANDING.set(True)
        try:
            if len(events) == 1:
                await self.sink.handle(events[0])
            else:
                await self.sink.handle_many(events)
        except Exception as error:  # noqa: BLE001  # a border: a sink is the caller's code
            failure = sink_failure(self.sink, error)
            if self.sink.on_error != "ignore" and not heard:
                _LOG.warning("%s", failure)
            return failure
        finally:
            _HANDING.reset(handing)
            self._busy = False
        return None


def _cut(
    event: SandboxSessionEvent, policy: EventPayloadPolicy, *, alone: bool
) -> SandboxSessionEvent:
    """An event of a sink's own, without what it may not know."""
    update: dict[str, object] = {}
    if not policy.include_write_len and event.op in {"write", "append"}:
        update["data"] = {name: each for name, each in event.data.items() if name != "bytes"}
    if isinstance(event, SandboxSessionFinishEvent):
        out, err = event.stdout_bytes, event.stderr_bytes
        if policy.include_exec_output:
            update |= {
                "stdout": _text(out, policy.max_stdout_chars),
                "stderr": _text(err, policy.max_stderr_chars),
            }
        elif out is not None or err is not None:
            update |= {"stdout_bytes": None, "stderr_bytes": None}
    # A sink may do to its event what it likes; so one that is alone needs no copy.
    if alone and not update:
        return event
    return event.model_copy(update={"data": dict(event.data), **update})


def _text(output: bytes | None, limit: int) -> str | None:
    """Output as text, cut; four bytes are the longest character."""
    if output is None:
        return None
    return readable(output[: 4 * (limit + 1)].decode("utf-8", "replace"), limit)
