"""The events of one session: its numbering, and the spans of its operations."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import JsonValue

from sandyard.errors import OpName
from sandyard.events.delivery import within_sink
from sandyard.events.describing import (
    Arguments,
    Outcome,
    describe_error,
    describe_result,
    written_output,
)
from sandyard.events.instrumentation import Instrumentation, Outlet
from sandyard.events.model import (
    SandboxSessionEvent,
    SandboxSessionFinishEvent,
    SandboxSessionStartEvent,
    Unmade,
    made_event,
)
from sandyard.events.sinks import SinkSession
from sandyard.observing import Operation

__all__ = ["SessionEvents"]

_SPAN: Final = contextvars.ContextVar["_Name | None"]("sandyard_span", default=None)


class SessionEvents:
    """Tells what one session does; owns the way of its events to the sinks.

    Numbers are given in the order in which events are queued, without gaps: both happen in one turn
    of the loop.

    Args:
        session: which sinks may ask.
        session_id: its id.
        instrumentation: its sinks.
        standing: tells what held at the last start, which the end of a start is told with.
    """

    def __init__(
        self,
        session: SinkSession,
        session_id: UUID,
        instrumentation: Instrumentation,
        standing: Callable[[], Mapping[str, str] | None] = lambda: None,
    ) -> None:
        self.session_id = session_id
        self.standing = standing
        self.outlet: Outlet = instrumentation.outlet(session)
        self._numbers = itertools.count(1)

    async def begin(
        self,
        op: OpName,
        verb: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        nests: bool = True,
        ends: bool = False,
    ) -> Operation:
        """Tells that an operation begins; no sink can keep one that ``ends`` from going on.

        Raises:
            EventSinkError: a sink failed that is marked to fail operations.
        """
        if within_sink():
            return _Silent()
        span = _Span(self, op, Arguments(verb, args, kwargs), ends=ends)
        await span.begin(nests=nests)
        return span

    async def close(self) -> None:
        """Hands over what is queued, within some seconds."""
        await self.outlet.close()

    def next_number(self) -> int:
        """The place of the next event among those of this session."""
        return next(self._numbers)


class _Silent:
    """An operation that is not told of: a sink does it."""

    async def finish(self, result: object) -> None:
        """Tells nothing."""

    async def fail(self, error: BaseException) -> None:
        """Tells nothing."""


class _Name:
    """Of whom an event tells; the operation's id is made when it is first asked for."""

    __slots__ = ("_span_id", "op", "parent", "session_id")

    def __init__(self, session_id: UUID, op: OpName) -> None:
        self.session_id = session_id
        self.op = op
        outer = _SPAN.get()
        inside = outer is not None and outer.session_id == session_id
        self.parent = outer.span_id if outer is not None and inside else None
        self._span_id: str | None = None

    @property
    def span_id(self) -> str:
        if self._span_id is None:
            self._span_id = f"sandbox_op_{os.urandom(16).hex()}"
        return self._span_id

    def fields(self, seq: int, ts: datetime, data: dict[str, JsonValue]) -> dict[str, object]:
        """What both events have."""
        return {
            "ts": ts,
            "session_id": self.session_id,
            "seq": seq,
            "op": self.op,
            "span_id": self.span_id,
            "parent_span_id": self.parent,
            "data": data,
        }


class _Begun(Unmade):
    """The event of an operation that begins."""

    __slots__ = ("_arguments", "_name", "_seq")

    def __init__(self, name: _Name, seq: int, arguments: Arguments) -> None:
        super().__init__(name.op)
        self._name, self._seq, self._arguments = name, seq, arguments

    def _make(self, ts: datetime) -> SandboxSessionEvent:
        fields = self._name.fields(self._seq, ts, dict(self._arguments.told()))
        return made_event(SandboxSessionStartEvent, fields)


class _Ended(_Begun):
    """The event of an operation's end."""

    __slots__ = ("_duration_s", "_outcome", "_output")

    def __init__(
        self,
        name: _Name,
        seq: int,
        arguments: Arguments,
        outcome: Outcome,
        output: tuple[bytes, bytes] | None,
        duration_s: float,
    ) -> None:
        super().__init__(name, seq, arguments)
        self._outcome, self._output, self._duration_s = outcome, output, duration_s

    def _make(self, ts: datetime) -> SandboxSessionEvent:
        outcome = self._outcome
        data = {**self._arguments.told(), **outcome.data}
        fields = self._name.fields(self._seq, ts, data)
        fields |= {
            "ok": outcome.ok,
            "duration_ms": self._duration_s * 1_000,
            "error_code": outcome.error_code,
            "error_type": outcome.error_type,
            "error_message": outcome.error_message,
            "error_retryable": outcome.error_retryable,
        }
        if self._output is not None:
            fields["stdout_bytes"], fields["stderr_bytes"] = self._output
        return made_event(SandboxSessionFinishEvent, fields)


class _Span:
    """One operation: two events with the same span."""

    __slots__ = ("_arguments", "_began", "_events", "_inside", "_name", "_waits")

    def __init__(
        self, events: SessionEvents, op: OpName, arguments: Arguments, *, ends: bool
    ) -> None:
        self._events = events
        self._name = _Name(events.session_id, op)
        self._waits = not ends
        self._arguments = arguments
        self._began = time.monotonic()
        self._inside: contextvars.Token[_Name | None] | None = None

    async def begin(self, *, nests: bool) -> None:
        """Tells that it begins; what is called until it ends is a part of it, if it nests."""
        events = self._events
        event = _Begun(self._name, events.next_number(), self._arguments)
        if waiting := events.outlet.put(event, wait=self._waits):
            await events.outlet.taken(waiting)
        if nests:
            self._inside = _SPAN.set(self._name)

    async def finish(self, result: object) -> None:
        """Tells how it ended well.

        Raises:
            EventSinkError: a sink failed that is marked to fail operations.
        """
        op = self._name.op
        outcome = describe_result(op, result)
        held = self._events.standing() if op == "start" else None
        if held is not None:
            outcome = outcome._replace(data={**outcome.data, "confinement": dict(held)})
        await self._end(outcome, result, wait=True)

    async def fail(self, error: BaseException) -> None:
        """Tells why it failed; the operation's own error stays the one that is raised."""
        # Who was cancelled, or leaves because the program ends, is not kept waiting by a sink.
        wait = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        try:
            await self._end(describe_error(error), error, wait=wait)
        except Exception as failure:  # noqa: BLE001  # a border: the operation's error matters more
            error.add_note(f"besides, its event was not delivered: {failure}")

    async def _end(self, outcome: Outcome, came: object, *, wait: bool) -> None:
        if self._inside is not None:
            _SPAN.reset(self._inside)
        events, name = self._events, self._name
        output = written_output(came) if events.outlet.tells_output(name.op) else None
        taken = time.monotonic() - self._began
        event = _Ended(name, events.next_number(), self._arguments, outcome, output, taken)
        if waiting := events.outlet.put(event, wait=wait and self._waits):
            await events.outlet.taken(waiting)
