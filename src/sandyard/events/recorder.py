"""The events of one session: its numbering, and the spans of its operations."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Final
from uuid import UUID

from pydantic import JsonValue

from sandyard.errors import OpName
from sandyard.events.delivery import within_sink
from sandyard.events.describing import (
    Outcome,
    describe_arguments,
    describe_error,
    describe_result,
)
from sandyard.events.instrumentation import Instrumentation, Outlet
from sandyard.events.model import (
    SandboxSessionFinishEvent,
    SandboxSessionStartEvent,
    made_event,
)
from sandyard.events.sinks import SinkSession
from sandyard.observing import Operation

__all__ = ["SessionEvents"]

_SPAN: Final = contextvars.ContextVar[tuple[UUID, str] | None]("sandyard_span", default=None)


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
        span = _Span(self, op, describe_arguments(verb, args, kwargs), ends=ends)
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


class _Span:
    """One operation: two events with the same span."""

    def __init__(
        self, events: SessionEvents, op: OpName, data: Mapping[str, JsonValue], *, ends: bool
    ) -> None:
        self._events = events
        self._op = op
        self._waits = not ends
        self._data = dict(data)
        self._id = f"sandbox_op_{token_hex(16)}"
        outer = _SPAN.get()
        self._parent = outer[1] if outer is not None and outer[0] == events.session_id else None
        self._began = time.monotonic()
        self._inside: contextvars.Token[tuple[UUID, str] | None] | None = None

    async def begin(self, *, nests: bool) -> None:
        """Tells that it begins; what is called until it ends is a part of it, if it nests."""
        events = self._events
        event = made_event(SandboxSessionStartEvent, self._fields(dict(self._data)))
        await events.outlet.emit(event, wait=self._waits)
        if nests:
            self._inside = _SPAN.set((events.session_id, self._id))

    async def finish(self, result: object) -> None:
        """Tells how it ended well.

        Raises:
            EventSinkError: a sink failed that is marked to fail operations.
        """
        outcome = describe_result(self._op, result)
        held = self._events.standing() if self._op == "start" else None
        if held is not None:
            outcome = replace(outcome, data={**outcome.data, "confinement": dict(held)})
        await self._end(outcome, wait=True)

    async def fail(self, error: BaseException) -> None:
        """Tells why it failed; the operation's own error stays the one that is raised."""
        # Who was cancelled, or leaves because the program ends, is not kept waiting by a sink.
        wait = isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError)
        try:
            await self._end(describe_error(error), wait=wait)
        except Exception as failure:  # noqa: BLE001  # a border: the operation's error matters more
            error.add_note(f"besides, its event was not delivered: {failure}")

    async def _end(self, outcome: Outcome, *, wait: bool) -> None:
        if self._inside is not None:
            _SPAN.reset(self._inside)
        events = self._events
        fields = self._fields(self._data | dict(outcome.data))
        fields |= {
            "ok": outcome.ok,
            "duration_ms": (time.monotonic() - self._began) * 1_000,
            "error_code": outcome.error_code,
            "error_type": outcome.error_type,
            "error_message": outcome.error_message,
            "error_retryable": outcome.error_retryable,
        }
        if events.outlet.tells_output(self._op):
            fields |= {"stdout_bytes": outcome.stdout, "stderr_bytes": outcome.stderr}
        event = made_event(SandboxSessionFinishEvent, fields)
        await events.outlet.emit(event, wait=wait and self._waits)

    def _fields(self, data: dict[str, JsonValue]) -> dict[str, object]:
        """What both events have."""
        events = self._events
        return {
            "session_id": events.session_id,
            "seq": events.next_number(),
            "op": self._op,
            "span_id": self._id,
            "parent_span_id": self._parent,
            "data": data,
        }
