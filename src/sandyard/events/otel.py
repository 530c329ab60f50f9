"""Operations as OpenTelemetry spans; the only file that knows ``opentelemetry``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pydantic import JsonValue

from sandyard.errors import ArgumentTypeError, EventSinkError, shown
from sandyard.events.limits import OPEN_SPANS
from sandyard.events.model import (
    EventPayloadPolicy,
    SandboxSessionEvent,
    SandboxSessionFinishEvent,
)
from sandyard.events.sinks import EventSink, OnErrorPolicy, checked_modes

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetrySink"]

_Key = tuple[UUID, str]
_Attribute = str | bool | int | float | list[str]

_PREFIX: Final = "sandyard."
_TRACER: Final = "sandyard"


class OpenTelemetrySink(EventSink):
    """Makes a span of each operation, with ``pip install 'sandyard[otel]'``.

    A span has the operation's name, begins and ends when it did, and lies within that of the
    operation that it is part of; one that is part of no other lies within the span that is current
    where it is called. What failed has the status ``ERROR`` and the exception's type and message. A
    command that exits with another code than 0 has done what it was told: its span says the code, and
    is no error. Facts of an operation are attributes (``sandyard.command``), its session is
    ``sandyard.session_id``; output is among them where a payload policy asks for it.

    Spans are made where the event is, without waiting; sending them is the provider's business.

    Args:
        tracer_provider: whose spans they are; None (default) for the program's own
            (``opentelemetry.trace.get_tracer_provider()``).
        on_error: see ``EventSink``; ``"log"`` by default.
        payload_policy: see ``EventSink``.

    Raises:
        EventSinkError: ``opentelemetry-api`` is not installed.
        ArgumentTypeError: the provider is none.

    Example:
        >>> told = Instrumentation(sinks=[OpenTelemetrySink()])
        >>> client = UnixLocalSandboxClient(instrumentation=told)
    """

    immediate = True

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
    ) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415  # an extra
        except ModuleNotFoundError as error:
            raise EventSinkError(
                "spans need opentelemetry-api; install it with: pip install 'sandyard[otel]'",
                sink=self.name,
                cause=error,
            ) from error
        if tracer_provider is not None and not isinstance(tracer_provider, trace.TracerProvider):
            raise ArgumentTypeError(
                f"tracer_provider is a TracerProvider, not {shown(tracer_provider)}",
                op="events",
                argument="tracer_provider",
                value=tracer_provider,
            )
        self.mode, self.on_error = checked_modes("sync", on_error)
        self.payload_policy = payload_policy
        self._trace = trace
        self._tracer = trace.get_tracer(_TRACER, tracer_provider=tracer_provider)
        self._open: OrderedDict[_Key, Span] = OrderedDict()

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Begin a span, or end it."""
        key = event.session_id, event.span_id
        if isinstance(event, SandboxSessionFinishEvent):
            span = self._open.pop(key, None)
            # The sink may have been added, or the span let go, while the operation ran.
            self._end(self._begin(event) if span is None else span, event)
            return
        self._open[key] = self._begin(event)
        if len(self._open) > OPEN_SPANS:
            self._open.popitem(last=False)

    def _begin(self, event: SandboxSessionEvent) -> Span:
        outer = self._open.get((event.session_id, event.parent_span_id or ""))
        told = {
            f"{_PREFIX}session_id": str(event.session_id),
            f"{_PREFIX}span_id": event.span_id,
            **_attributes(event.data),
        }
        began = _nanoseconds(event.ts)
        if isinstance(event, SandboxSessionFinishEvent):
            began -= round(event.duration_ms * 1_000_000)
        return self._tracer.start_span(
            f"{_PREFIX}{event.op}",
            # None is the context in which the operation was called: the caller's own span.
            context=None if outer is None else self._trace.set_span_in_context(outer),
            attributes=told,
            start_time=began,
        )

    def _end(self, span: Span, event: SandboxSessionFinishEvent) -> None:
        span.set_attributes(_attributes(event.data))
        for stream in ("stdout", "stderr"):
            text: str | None = getattr(event, stream)
            if text is not None:
                span.set_attribute(f"{_PREFIX}{stream}", text)
        if event.error_type is not None:
            span.set_attribute("error.type", event.error_type)
            if event.error_code is not None:
                span.set_attribute(f"{_PREFIX}error_code", event.error_code)
            what = f"{event.error_type}: {event.error_message}"
            span.set_status(self._trace.StatusCode.ERROR, what)
        span.end(_nanoseconds(event.ts))


def _attributes(data: Mapping[str, JsonValue]) -> dict[str, _Attribute]:
    """Facts as OpenTelemetry takes them: it has lists of one type, and no nothing."""
    told: dict[str, _Attribute] = {}
    for fact, value in data.items():
        # One with a dot has the name that OpenTelemetry's conventions give it.
        name = fact if "." in fact else f"{_PREFIX}{fact}"
        if isinstance(value, list):
            told[name] = [str(part) for part in value]
        elif isinstance(value, str | bool | int | float):
            told[name] = value
        elif value is not None:
            told[name] = str(value)
    return told


def _nanoseconds(moment: datetime) -> int:
    # In whole numbers: a float of seconds since 1970 holds no microseconds.
    whole = int(moment.replace(microsecond=0).timestamp())
    return (whole * 1_000_000 + moment.microsecond) * 1_000
