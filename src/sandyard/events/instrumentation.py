"""Instrumentation: the sinks of a client, and how much each of them is told."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

from sandyard.errors import ArgumentTypeError, EventSinkError, OpName, shown
from sandyard.events.delivery import Delivery, Queued
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent, Unmade
from sandyard.events.sinks import EventSink, SinkSession, check_sink

__all__ = ["Instrumentation", "Outlet"]


class Instrumentation:
    """Where the events of a client's sessions go.

    Each session has its own line to each sink: its events arrive in order, and those of one session
    never carry the name of another.

    Args:
        sinks: in the order in which they are told.
        payload_policy: how much of contents is told (default: no output, sizes of writes).
        payload_policy_by_op: for some operations, laid over ``payload_policy``; a sink's own is
            laid over both.

    Example:
        >>> told = Instrumentation(sinks=[JsonlOutboxSink(Path("events.jsonl"))])
        >>> client = UnixLocalSandboxClient(instrumentation=told)
    """

    def __init__(
        self,
        *,
        sinks: Sequence[EventSink] | None = None,
        payload_policy: EventPayloadPolicy | None = None,
        payload_policy_by_op: Mapping[OpName, EventPayloadPolicy] | None = None,
    ) -> None:
        self.payload_policy = payload_policy or EventPayloadPolicy()
        self.payload_policy_by_op = dict(payload_policy_by_op or {})
        for policy in (self.payload_policy, *self.payload_policy_by_op.values()):
            if not isinstance(policy, EventPayloadPolicy):
                raise ArgumentTypeError(
                    f"a payload policy is an EventPayloadPolicy, not {shown(policy)}",
                    op="events",
                    argument="payload_policy",
                    value=policy,
                )
        self._sinks: tuple[EventSink, ...] = ()
        self._outlets: weakref.WeakSet[Outlet] = weakref.WeakSet()
        for sink in sinks or ():
            self.add_sink(sink)
        self._own = Outlet(self, None)

    @property
    def sinks(self) -> tuple[EventSink, ...]:
        """The sinks, in the order in which they are told."""
        return self._sinks

    def add_sink(self, sink: EventSink) -> None:
        """Add a sink; sessions that run already tell it too, from their next event on.

        Raises:
            ArgumentTypeError: it is no sink.
        """
        check_sink(sink)
        self._sinks = (*self._sinks, sink)

    async def emit(self, event: SandboxSessionEvent) -> None:
        """Tell all sinks an event of your own; those that need a session refuse it.

        Raises:
            EventSinkError: a sink failed that is marked to fail operations.
        """
        await self._own.emit(event)

    async def flush(self) -> None:
        """Wait until all sinks have all events of all sessions. A sink that hangs makes this hang."""
        for outlet in list(self._outlets):
            await outlet.flush()

    def policy_for(self, op: str, sink: EventSink) -> EventPayloadPolicy:
        """How much a sink is told of an operation."""
        policy = self.payload_policy
        if sink.payload_policy is None and not self.payload_policy_by_op:
            return policy
        for special in (
            next((own for name, own in self.payload_policy_by_op.items() if name == op), None),
            sink.payload_policy,
        ):
            if special is not None:
                policy = special.over(policy)
        return policy

    def outlet(self, session: SinkSession) -> Outlet:
        """The way of one session's events to all sinks."""
        return Outlet(self, session)

    def register(self, outlet: Outlet) -> None:
        """Remember an outlet, for ``flush``, as long as it is used."""
        self._outlets.add(outlet)


class Outlet:
    """The deliveries of one session, one for each sink; owns them until it is closed."""

    def __init__(self, instrumentation: Instrumentation, session: SinkSession | None) -> None:
        self._instrumentation = instrumentation
        self._session = session
        self._deliveries: list[Delivery] = []
        instrumentation.register(self)

    async def emit(self, event: SandboxSessionEvent | Unmade, *, wait: bool = True) -> None:
        """Hands an event to each sink, cut to what that sink may know.

        Each is told although another failed; then the first failure is raised, if its sink is
        marked to fail operations.
        """
        if waiting := self.put(event, wait=wait):
            await self.taken(waiting)

    def put(
        self, event: SandboxSessionEvent | Unmade, *, wait: bool = True
    ) -> list[tuple[Delivery, Queued]]:
        """Queues an event for each sink; returns what is to be waited for by ``taken``, mostly nothing."""
        waiting: list[tuple[Delivery, Queued]] = []
        present = self._present()
        alone = len(present) == 1
        for delivery in present:
            policy = self._instrumentation.policy_for(event.op, delivery.sink)
            queued = delivery.put(event, policy, alone=alone, wait=wait)
            if queued is not None:
                waiting.append((delivery, queued))
        return waiting

    async def taken(self, waiting: list[tuple[Delivery, Queued]]) -> None:
        """Waits for sinks, as ``emit`` does."""
        first: EventSinkError | None = None
        for delivery, queued in waiting:
            try:
                await delivery.taken(queued)
            except EventSinkError as error:
                first = first or error
        if first is not None:
            raise first

    def tells_output(self, op: str) -> bool:
        """Whether any sink is told the output of such an operation."""
        for one in self._present():
            if self._instrumentation.policy_for(op, one.sink).include_exec_output:
                return True
        return False

    async def flush(self) -> None:
        """Waits until each sink has what is queued for it."""
        for delivery in self._deliveries:
            await delivery.flush()

    async def close(self) -> None:
        """Hands over what is left within some seconds; sinks that are slower lose it, and are named."""
        for delivery in self._deliveries:
            await delivery.close()

    def _present(self) -> list[Delivery]:
        sinks = self._instrumentation.sinks
        if len(sinks) != len(self._deliveries):
            for sink in sinks[len(self._deliveries) :]:
                bound = sink if self._session is None else sink.for_session(self._session)
                self._deliveries.append(Delivery(bound))
        return self._deliveries
