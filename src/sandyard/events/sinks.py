"""What takes events: the contract of a sink, and those that call and combine."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Literal, Protocol, Self, TypeVar, get_args

from sandyard.errors import ArgumentError, ArgumentTypeError, EventSinkError, shown
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent

__all__ = [
    "CallbackSink",
    "ChainedSink",
    "DeliveryMode",
    "EventSink",
    "OnErrorPolicy",
    "SinkSession",
    "sink_failure",
]

DeliveryMode = Literal["sync", "async", "best_effort"]
"""Whether an operation waits until a sink has its event."""

OnErrorPolicy = Literal["raise", "log", "ignore"]
"""What becomes of an error that a sink raises."""

C = TypeVar("C")


class SinkSession(Protocol):
    """What a sink may ask of the session whose events it takes."""

    async def running(self) -> bool:
        """Tell whether commands can run."""

    async def append(self, path: str | PurePath, data: bytes) -> object:
        """Add to the end of a file of the workspace."""


class EventSink(ABC):
    """Takes events, one after the other, in the order in which a session tells them.

    Subclass it and write ``handle``; a sink serves every session of the client that has it. What a
    sink does with its session while it handles an event makes no events.

    Attributes:
        mode: ``"sync"``: an operation waits until the sink has its event. ``"async"``: it does not,
            unless 1,000 events wait already. ``"best_effort"`` (default): it never waits; events
            that find 1,000 waiting are dropped and counted.
        on_error: what an error of the sink does: ``"log"`` (default), ``"ignore"``, or ``"raise"``,
            which fails the operation that waits for the sink, even if it has succeeded. Where no
            operation waits it is logged instead.
        payload_policy: how much the sink is told, laid over its ``Instrumentation``'s.
        immediate: True if ``handle`` never waits for anything; then it is called where the event
            is made.
    """

    mode: DeliveryMode = "best_effort"
    on_error: OnErrorPolicy = "log"
    payload_policy: EventPayloadPolicy | None = None
    immediate: bool = False

    @property
    def name(self) -> str:
        """What messages call the sink: its class."""
        return type(self).__name__

    @abstractmethod
    async def handle(self, event: SandboxSessionEvent) -> None:
        """Takes one event."""

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Takes several; each gets its turn, then the first error is raised."""
        first: Exception | None = None
        for event in events:
            try:
                await self.handle(event)
            except Exception as error:  # noqa: BLE001  # a border: raised below, the others go on
                first = first or error
        if first is not None:
            raise first

    def for_session(self, session: SinkSession) -> EventSink:
        """The sink as one session uses it: itself, or a copy that ``bind`` was called on.

        A sink whose class has a method ``bind(session)`` is told in this way which session it
        serves; copies share what is not set by ``bind``.
        """
        bind = getattr(type(self), "bind", None)
        if bind is None:
            return self
        bound = copy.copy(self)
        bind(bound, session)
        return bound


class CallbackSink(EventSink):
    """Calls a function, or awaits a coroutine function, with each event and its session.

    Args:
        callback: takes the event and the session.
        mode: see ``EventSink``; here ``"sync"`` by default.
        on_error: see ``EventSink``; ``"log"`` by default.
        payload_policy: see ``EventSink``.
        name: what messages call it; by default the function's name.

    Example:
        >>> CallbackSink(lambda event, session: print(event.op, event.phase))
    """

    def __init__(
        self,
        callback: Callable[[SandboxSessionEvent, C], object],
        *,
        mode: DeliveryMode = "sync",
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(callback):
            raise ArgumentTypeError(
                f"callback is a function of an event and a session, not {shown(callback)}",
                op="events",
                argument="callback",
                value=callback,
            )
        self.mode, self.on_error = checked_modes(mode, on_error)
        self.payload_policy = payload_policy
        self.immediate = not inspect.iscoroutinefunction(callback)
        self._callback = callback
        self._name = name or getattr(callback, "__name__", None) or type(self).__name__
        self._session: SinkSession | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    def bind(self, session: SinkSession) -> None:
        """Say which session the callback is given."""
        self._session = session

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Call the function, and await what it returns if that can be awaited."""
        if self._session is None:
            raise EventSinkError(
                "the sink serves no session; give it to the Instrumentation of a client",
                sink=self.name,
            )
        told: Callable[[SandboxSessionEvent, SinkSession], object] = self._callback  # type: ignore[assignment]  # the caller's function knows its own sessions
        returned = told(event, self._session)
        if inspect.isawaitable(returned):
            await returned


class ChainedSink(EventSink):
    """Hands each event to several sinks, one after the other, whatever their own modes.

    Each is tried although another failed. ``mode`` is the strictest of theirs, ``on_error`` too.

    Args:
        sinks: in the order in which they are handed events.
    """

    def __init__(self, *sinks: EventSink) -> None:
        for sink in sinks:
            check_sink(sink)
        self.sinks = sinks
        modes, errors = get_args(DeliveryMode), get_args(OnErrorPolicy)
        self.mode = min((s.mode for s in sinks), key=modes.index, default="best_effort")
        self.on_error = min((s.on_error for s in sinks), key=errors.index, default="log")
        self.immediate = all(sink.immediate for sink in sinks)

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Hand it to each, cut to what each may be told; the first error is raised at the end."""
        await self.handle_many((event,))

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Hand all of them to each."""
        first: EventSinkError | None = None
        for sink in self.sinks:
            try:
                await sink.handle_many(events)
            except Exception as error:  # noqa: BLE001  # a border: raised below, the others go on
                first = first or sink_failure(sink, error)
        if first is not None:
            raise first

    def for_session(self, session: SinkSession) -> Self:
        """A chain of what each of them is for that session."""
        return type(self)(*(sink.for_session(session) for sink in self.sinks))


def check_sink(sink: object) -> None:
    """Refuses what is no sink.

    Raises:
        ArgumentTypeError: if it is none.
    """
    if not isinstance(sink, EventSink):
        raise ArgumentTypeError(
            f"a sink is an EventSink, not {shown(sink)}", op="events", argument="sinks", value=sink
        )


def checked_modes(
    mode: DeliveryMode, on_error: OnErrorPolicy
) -> tuple[DeliveryMode, OnErrorPolicy]:
    """The two words, if they are such.

    Raises:
        ArgumentError: if one is not.
    """
    for argument, given, known in (
        ("mode", mode, get_args(DeliveryMode)),
        ("on_error", on_error, get_args(OnErrorPolicy)),
    ):
        if given not in known:
            words = ", ".join(repr(word) for word in known)
            raise ArgumentError(
                f"{argument} is one of {words}, not {shown(given)}",
                op="events",
                argument=argument,
                value=given,
            )
    return mode, on_error


def sink_failure(sink: EventSink, error: Exception) -> EventSinkError:
    """The error of a sink, with the sink's name."""
    if isinstance(error, EventSinkError):
        return error
    return EventSinkError(
        f"the sink {sink.name} failed: {type(error).__name__}: {error}", sink=sink.name, cause=error
    )
