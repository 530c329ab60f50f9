"""Sinks: what fails, what is slow, what asks back; none of it harms an operation unless it is to."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    CallbackSink,
    ChainedSink,
    EventSink,
    EventSinkError,
    Instrumentation,
    SandboxSessionEvent,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.events.limits import LINGER_S, QUEUED_EVENTS
from tests.events.telling import Told, keep, telling
from tests.session.host import open_descriptors


def fail(event: SandboxSessionEvent, _: object) -> None:
    if event.op == "exec":
        raise OSError("no more room")


async def test_failing_sink_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: Told = []
    async with telling(CallbackSink(fail), keep(told)) as session:
        assert (await session.exec("echo hi")).stdout == b"hi\n"
    assert [event.phase for event in told if event.op == "exec"] == ["start", "finish"]
    assert caplog.text.count("the sink fail failed: OSError: no more room") == 2


async def test_failing_sink_fails_if_marked() -> None:
    told: Told = []
    async with telling(CallbackSink(fail, on_error="raise"), keep(told)) as session:
        with pytest.raises(EventSinkError, match="no more room") as raised:
            await session.exec("touch done")
        assert isinstance(raised.value, RuntimeError)
        assert raised.value.context == {"sink": "fail"}
        assert not await session.exists("done")  # it was refused before it began
    assert [event.phase for event in told if event.op == "exec"] == ["start"]


async def test_result_nobody_gets_is_closed() -> None:
    def fail_ends(event: SandboxSessionEvent, _: object) -> None:
        if event.phase == "finish" and event.op in {"read", "pack"}:
            raise OSError("full")

    async with telling(CallbackSink(fail_ends, on_error="raise")) as session:
        await session.write("file", b"x")
        before = open_descriptors()
        for verb in (session.read, session.pack):
            with pytest.raises(EventSinkError) as raised:
                await verb("file")
            del raised
            assert open_descriptors() == before


async def test_operations_error_comes_first() -> None:
    def fail_ends(event: SandboxSessionEvent, _: object) -> None:
        if event.phase == "finish" and event.op == "read":
            raise OSError("full")

    async with telling(CallbackSink(fail_ends, on_error="raise")) as session:
        with pytest.raises(FileNotFoundError) as raised:
            await session.read("missing")
    assert "full" in "".join(raised.value.__notes__)


async def test_slow_sink_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    going_on = asyncio.Event()
    told: Told = []

    async def hang(event: SandboxSessionEvent, _: object) -> None:
        await going_on.wait()
        told.append(event)

    async with telling(CallbackSink(hang, mode="best_effort")) as session:
        for _ in range(QUEUED_EVENTS):
            await session.exists("a")
        going_on.set()
    # 100 were in the sink's hands, or 1,000 waited: the rest was dropped, and that is said.
    numbers = [event.seq for event in told]
    assert numbers == sorted(numbers)
    assert QUEUED_EVENTS <= len(told) < 2 * QUEUED_EVENTS
    assert "is too slow" in caplog.text
    assert "never reached the sink hang" in caplog.text


async def test_waiting_sink_makes_wait() -> None:
    going_on = asyncio.Event()

    async def hang(event: SandboxSessionEvent, _: object) -> None:
        if event.op == "exists":
            await going_on.wait()

    async with telling(CallbackSink(hang)) as session:
        asking = asyncio.ensure_future(session.exists("a"))
        done, _ = await asyncio.wait([asking], timeout=0.1)
        assert not done
        going_on.set()
        assert await asking is False


async def test_cancelled_operation_waits_for_no_sink() -> None:
    hanging = asyncio.Event()

    async def hang(event: SandboxSessionEvent, _: object) -> None:
        if event.op == "exec":
            hanging.set()
            await asyncio.sleep(1_000)

    told: Told = []
    async with telling(keep(told)) as session:
        session.observer = None  # only what follows is about the sink
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=[CallbackSink(hang)]))
    session = await client.create()
    async with asyncio.timeout(60):
        async with session:
            running = asyncio.ensure_future(session.exec("true"))
            await hanging.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        await client.delete(session)


async def test_sink_may_ask_its_session() -> None:
    told: Told = []

    async def look(event: SandboxSessionEvent, session: UnixLocalSandboxSession) -> None:
        if event.phase == "finish" and event.op == "write":
            told.append(event)
            assert await session.read_bounded("a", max_bytes=9) == b"1"

    silent: Told = []
    async with telling(CallbackSink(look, on_error="raise"), keep(silent)) as session:
        await session.write("a", b"1")
    assert len(told) == 1
    assert "read" not in {event.op for event in silent}


async def test_sink_may_close_its_session() -> None:
    ended = asyncio.Event()

    async def close(event: SandboxSessionEvent, session: UnixLocalSandboxSession) -> None:
        if event.phase == "finish" and event.op == "exec":
            await session.aclose()
            ended.set()

    async with asyncio.timeout(60), telling(CallbackSink(close, mode="async")) as session:
        await session.exec("true")
        await ended.wait()


async def test_chain_tries_all(caplog: pytest.LogCaptureFixture) -> None:
    told: Told = []
    chain = ChainedSink(CallbackSink(fail), keep(told))
    assert (chain.mode, chain.on_error, chain.immediate) == ("sync", "log", True)
    with caplog.at_level(logging.WARNING):
        async with telling(chain) as session:
            await session.exec("true")
    assert [event.phase for event in told if event.op == "exec"] == ["start", "finish"]
    assert "no more room" in caplog.text


class Bound(EventSink):
    """A sink of a user's own, in the old form."""

    mode = "sync"

    def __init__(self) -> None:
        self.told: Told = []
        self.bound: list[object] = []
        self.session: UnixLocalSandboxSession | None = None

    def bind(self, session: UnixLocalSandboxSession) -> None:
        self.session = session
        self.bound.append(session.state.session_id)

    async def handle(self, event: SandboxSessionEvent) -> None:
        assert self.session is not None
        assert self.session.state.session_id == event.session_id
        self.told.append(event)


async def test_sink_is_bound_per_session() -> None:
    sink = Bound()
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=[sink]))
    first, second = await client.create(), await client.create()
    try:
        async with first, second:
            await first.exec("true")
            await second.exec("true")
    finally:
        await client.delete(first)
        await client.delete(second)
    assert sink.session is None
    assert set(sink.bound) == {first.state.session_id, second.state.session_id}
    assert len([event for event in sink.told if event.op == "exec"]) == 4


async def test_sink_can_come_later() -> None:
    told: Told = []
    instrumentation = Instrumentation()
    client = UnixLocalSandboxClient(instrumentation=instrumentation)
    session = await client.create()
    try:
        async with session:
            await session.exec("true")
            instrumentation.add_sink(keep(told))
            await session.exec("true")
            await instrumentation.flush()
            assert [event.phase for event in told] == ["start", "finish"]
    finally:
        await client.delete(session)


def test_wrong_words_are_refused() -> None:
    with pytest.raises(ArgumentError, match="mode is one of"):
        CallbackSink(fail, mode="later")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="callback is a function"):
        CallbackSink("print")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="a sink is an EventSink"):
        Instrumentation(sinks=[print])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match="instrumentation is Instrumentation"):
        UnixLocalSandboxClient(instrumentation=[])  # type: ignore[arg-type]


async def test_told_later_as_it_was() -> None:
    first: Told = []
    second: Told = []
    sinks = [keep(told) for told in (first, second)]
    for sink in sinks:
        sink.mode = "best_effort"  # nothing waits until it has an event
    shell = ["sh", "-c"]
    async with telling(*sinks) as session:
        before = datetime.now(UTC)
        result = await session.exec("echo hi", shell=shell)
        after = datetime.now(UTC)
        shell[:] = ["changed"]
        result.exit_code = 7
        await asyncio.sleep(10 * LINGER_S)
    start, finish = (event for event in first if event.op == "exec")
    assert before <= start.ts <= finish.ts <= after
    assert start.data["shell"] == ["sh", "-c"]
    assert finish.data["exit_code"] == 0
    assert start.span_id == finish.span_id
    assert len({event.span_id for event in first}) * 2 == len(first)
    assert [event.event_id for event in first] == [event.event_id for event in second]
    assert len({event.event_id for event in first}) == len(first)
    start.data.clear()  # each sink's own
    assert next(event for event in second if event.op == "exec").data["shell"] == ["sh", "-c"]
