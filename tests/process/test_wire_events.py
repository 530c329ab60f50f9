"""Events: whatever bytes come from init are a whole event or a ProtocolError, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandyard.process.capture import Captured
from sandyard.process.events import Pipes, SocketMade, Stilled, Written
from sandyard.process.results import exec_result
from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Done,
    Event,
    Exited,
    Failure,
    Gone,
    LeftRunning,
    ProtocolError,
    Spawned,
    SpawnFailed,
    Started,
    StartFailed,
    Step,
    Unmapped,
    Usage,
    decode_event,
)
from sandyard.types import RefusedCall
from tests.process.protocol import (
    EXITED,
    GONE,
    MAGIC,
    NO_RECORD,
    PIPES,
    SPAWN_FAILED,
    SPAWNED,
    START_FAILED,
    STARTED,
    WRITTEN,
    encode_datagram,
    encode_event,
    packed,
)

NOTHING = Captured(b"", 0, 0)
USAGE = Usage(*range(1, 10))

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
jobs, i32 = u32, st.integers(-(2**31), 2**31 - 1)
steps = st.sampled_from(Step)
records = st.none() | st.integers(0, NO_RECORD - 1)
failures = st.builds(Failure, steps, records, i32, st.text(max_size=60))
# The wait status of something that has ended: an exit code, or a signal and perhaps a core.
statuses = st.integers(0, 255).map(lambda code: code << 8) | st.builds(
    lambda number, core: number | core, st.integers(1, 126), st.sampled_from([0, 128])
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=16).filter(
    lambda name: len(name.encode()) <= 16
)
calls = st.lists(st.builds(RefusedCall, u64, u32, i32, names), max_size=8).map(tuple)
exits = st.builds(
    Exited,
    jobs,
    statuses,
    st.booleans(),
    st.booleans(),
    st.builds(Usage, *[u64] * 9),
    u32,
    st.lists(st.builds(LeftRunning, u32, names), max_size=64).map(tuple),
    u64,
    calls,
    st.binary(max_size=200),
    st.binary(max_size=200),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Started, st.lists(st.builds(Done, steps, u32, u16), max_size=30).map(tuple)),
    st.builds(StartFailed, failures),
    st.builds(SpawnFailed, jobs, failures),
    st.builds(Spawned, jobs, u32),
    st.builds(Gone, jobs, u64, calls),
    st.builds(Unmapped, u32),
    st.builds(SocketMade, jobs, i32),
    st.builds(Stilled, jobs, i32),
    st.builds(Written, jobs, st.integers(0, 1), st.binary(min_size=1, max_size=200)),
    st.builds(Pipes, jobs),
    exits,
)


@given(events)
def test_event_comes_back(event: Event) -> None:
    back = decode_event(encode_event(event))
    assert (type(back), back) == (type(event), event)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with suppress(ProtocolError):
        decode_event(data)


@given(st.sampled_from([*range(62, 75), 0, 1, 2**16 - 1]), jobs, st.binary(max_size=300))
def test_any_body_is_refused_or_read(kind: int, job: int, body: bytes) -> None:
    with suppress(ProtocolError):
        decode_event(encode_datagram(kind, job, body))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An event with some bytes changed, and perhaps cut or prolonged."""
    data = bytearray(encode_event(draw(events)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(data)) | st.just(len(data)))
    return bytes(data[:cut]) + draw(st.binary(max_size=20))


@given(mutated())
def test_mutants_are_refused_or_read(data: bytes) -> None:
    with suppress(ProtocolError):
        decode_event(data)


@given(events, st.data())
def test_no_event_is_read_in_part(event: Event, data: st.DataObject) -> None:
    datagram = encode_event(event)
    cut = data.draw(st.integers(0, len(datagram) - 1))
    with pytest.raises(ProtocolError):
        decode_event(datagram[:cut])
    with pytest.raises(ProtocolError):
        decode_event(datagram + data.draw(st.binary(min_size=1, max_size=30)))


def exited(
    status: int = 0,
    flags: int = 0,
    listed: int = 0,
    tail: bytes = b"",
    *,
    kinds: int = 0,
    sizes: tuple[int, int] = (0, 0),
) -> bytes:
    return packed("exited", status, flags, *USAGE, 70, listed, 30 * kinds, kinds, 0, *sizes) + tail


LEFTOVER = packed("leftover", 7, b"sleep")
REFUSED = packed("refused", 30, 165, 1, b"mount")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0, b""),
        (1, b""),
        (63, b""),
        (70, b""),
        (2**16 - 1, b""),
        (STARTED, bytes(7)),
        (STARTED, packed("done", 0, 0, 0)),
        (STARTED, packed("done", 21, 0, 0)),
        (START_FAILED, b""),
        (START_FAILED, packed("failure", 99, 0, 1, 0, 0)),
        (START_FAILED, packed("failure", 1, 0, 1, 0, 1)),
        (SPAWN_FAILED, packed("failure", 1, 0, 1, 0, 2**32 - 1) + b"text"),
        (SPAWN_FAILED, packed("failure", 1, 0, 1, 0, 3) + b"text"),
        (SPAWNED, b""),
        (SPAWNED, bytes(7)),
        (SPAWNED, bytes(9)),
        (EXITED, exited()[:-1]),
        (EXITED, exited(listed=1)),
        (EXITED, exited(listed=0, tail=LEFTOVER)),
        (EXITED, exited(listed=2, tail=LEFTOVER)),
        (EXITED, exited(listed=65, tail=LEFTOVER * 65)),
        (EXITED, exited(listed=2**32 - 1)),
        (EXITED, exited(kinds=1)),
        (EXITED, exited(kinds=1, tail=REFUSED[:-1])),
        (EXITED, exited(listed=1, kinds=1, tail=LEFTOVER)),
        (EXITED, exited(kinds=9, tail=REFUSED * 9)),
        (EXITED, exited(kinds=2**32 - 1)),
        (EXITED, exited(sizes=(1, 1), tail=b"o")),
        (EXITED, exited(sizes=(1, 0), tail=b"oo")),
        (EXITED, exited(sizes=(2**32 - 1, 1))),
        (EXITED, exited(sizes=(16 * 1024, 1), tail=bytes(16 * 1024 + 1))),
        (WRITTEN, packed("written", 0, 0)),
        (WRITTEN, packed("written", 2, 0) + b"o"),
        (PIPES, b"\0"),
        (GONE, b"\0"),
    ],
)
def test_malformed_body_is_refused(kind: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(encode_datagram(kind, 1, body))


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(15),
        bytes(16),
        packed("message", MAGIC + 1, GONE, 0, 1, 0),
        packed("message", MAGIC, GONE, 1, 1, 0),
        packed("message", MAGIC, GONE, 2, 1, 0),
        packed("message", MAGIC, GONE, 0, 1, 1),
        packed("message", MAGIC, GONE, 0, 1, 2**32 - 1),
        packed("message", MAGIC, STARTED, 0, 1, 0) + packed("done", 1, 0, 0),
    ],
)
def test_malformed_head_is_refused(datagram: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(datagram)


def test_whole_list_is_read() -> None:
    out, err = b"o" * 10_000, b"e" * (16 * 1024 - 10_000)
    tail = REFUSED * 8 + LEFTOVER * 64 + out + err
    body = exited(flags=1, listed=64, tail=tail, kinds=8, sizes=(len(out), len(err)))
    event = decode_event(encode_datagram(EXITED, 9, body))
    running, calls = LeftRunning(7, "sleep"), RefusedCall(30, 165, 1, "mount")
    assert event == Exited(
        9, 0, True, False, USAGE, 70, (running,) * 64, 240, (calls,) * 8, out, err
    )
    assert len(encode_event(event)) < DATAGRAM_LIMIT


def test_texts_that_are_no_utf8_are_read() -> None:
    body = packed("failure", Step.SOURCE, 0, 2, NO_RECORD, 3) + b"/\xff\0"
    event = decode_event(encode_datagram(START_FAILED, 0, body))
    assert event == StartFailed(Failure(Step.SOURCE, None, 2, "/\ufffd\0"))
    tail = packed("leftover", 1, b"\xff" * 16)
    event = decode_event(encode_datagram(EXITED, 1, exited(listed=1, tail=tail)))
    assert isinstance(event, Exited)
    assert event.listed == (LeftRunning(1, "\ufffd" * 16),)


@given(i32, u32)
@example(0x137F, 0)  # stopped, which no ended process is
@example(0xFFFF, 0)
@example(-1, 0)
def test_exit_that_is_read_can_be_told(status: int, flags: int) -> None:
    # Whoever speaks for init may say any number; what is accepted must not fail further on.
    with suppress(ProtocolError):
        event = decode_event(encode_datagram(EXITED, 1, exited(status, flags)))
        assert isinstance(event, Exited)
        exec_result(event, NOTHING, NOTHING, 0.0)
