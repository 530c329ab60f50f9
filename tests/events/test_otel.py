"""Operations as spans, taken by OpenTelemetry's own SDK."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sandyard import (
    ArgumentTypeError,
    EventPayloadPolicy,
    EventSinkError,
    OpenTelemetrySink,
    SandboxSessionFinishEvent,
    WorkspaceReadNotFoundError,
    validate_sandbox_session_event,
)
from tests.events.telling import Told, keep, telling


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def the_span(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The first of an operation."""
    return next(each for each in exporter.get_finished_spans() if each.name == f"sandyard.{name}")


async def test_operations_are_spans(
    exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    told: Told = []
    sink = OpenTelemetrySink(provider, payload_policy=EventPayloadPolicy(include_exec_output=True))
    async with telling(keep(told), sink) as session:
        with provider.get_tracer("caller").start_as_current_span("agent") as outer:
            await session.exec("echo hi; exit 3")
        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read("missing")
        await session.write("a", b"needle\n")
        await session.grep("needle")
    ended = [event for event in told if isinstance(event, SandboxSessionFinishEvent)]
    spans = {
        span.attributes["sandyard.span_id"]: span
        for span in exporter.get_finished_spans()
        if span.attributes is not None and "sandyard.span_id" in span.attributes
    }
    assert len(spans) == len(ended) == len(told) / 2  # each ended once, and none is left open
    for event in ended:
        span = spans[event.span_id]
        assert span.name == f"sandyard.{event.op}"
        times = [each.ts for each in told if each.span_id == event.span_id]
        assert [span.start_time, span.end_time] == [
            round(ts.timestamp() * 1e6) * 1000 for ts in times
        ]
        if event.parent_span_id is not None:
            assert span.parent == spans[event.parent_span_id].get_span_context()
    assert any(event.parent_span_id for event in ended)

    command = the_span(exporter, "exec")
    assert command.parent == outer.get_span_context()
    assert command.attributes is not None
    assert command.attributes["process.exit.code"] == 3
    assert command.attributes["sandyard.stdout"] == "hi\n"
    assert command.attributes["sandyard.session_id"] == str(session.state.session_id)
    assert command.status.status_code is StatusCode.UNSET  # it did what it was told

    failed = the_span(exporter, "read")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "WorkspaceReadNotFoundError"
    assert failed.attributes["sandyard.error_code"] == "workspace_read_not_found"


async def test_late_ends_are_whole(
    exporter: InMemorySpanExporter, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, told = OpenTelemetrySink(provider), list[dict[str, object]]()
    for number, phase in enumerate(("start", "start", "finish", "finish")):
        told.append(
            {
                "session_id": "00000000-0000-0000-0000-000000000001",
                "seq": number + 1,
                "ts": "2030-01-01T00:00:01.000001Z",
                "op": "exec",
                "phase": phase,
                "span_id": f"span_{number % 2}",
                "ok": True,
                "duration_ms": 250.0,
            }
        )
    monkeypatch.setattr("sandyard.events.otel.OPEN_SPANS", 1)
    for document in told:
        await sink.handle(validate_sandbox_session_event(document))
    spans = exporter.get_finished_spans()
    assert [span.attributes and span.attributes["sandyard.span_id"] for span in spans] == [
        "span_0",  # it was let go, and is told by its end alone
        "span_1",
    ]
    assert spans[0].end_time == 1_893_456_001_000_001_000
    assert spans[0].start_time == spans[0].end_time - 250_000_000


def test_refuses_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentTypeError, match="TracerProvider"):
        OpenTelemetrySink(object())  # type: ignore[arg-type]  # that is the point
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(EventSinkError, match=r"sandyard\[otel\]"):
        OpenTelemetrySink()
