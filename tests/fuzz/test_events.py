"""Events that are nearly right: a value or a ProtocolError, after work that grows with their size."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.process import events as told
from sandyard.process import wire
from sandyard.process.wire import DATAGRAM_LIMIT, INLINE_LIMIT, Event, ProtocolError, decode_event
from tests.fuzz.seconds import fuzz_seconds
from tests.process.protocol import EXITED, STARTED, encode_datagram, encode_event, packed
from tests.process.test_wire_events import events

ODD = (0, 1, 7, 8, 16, 19, 63, 64, 65, 99, 0x7F, 0x7FFF, 0xFFFF, 0x10000, 2**31, 2**32 - 1)
HEAD = 16
LINES_FOR_EACH = 40
"""Lines of Python for one piece of an event, at most; it is ten now."""


def with_honest_size(data: bytes) -> bytes:
    """An event whose head says how long it is, so that what is wrong with it lies deeper."""
    return data[:12] + struct.pack("=I", len(data) - HEAD) + data[HEAD:]


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """An event with odd numbers where numbers are, pieces twice or gone, or two in one."""
    data = bytearray(encode_event(draw(events)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, (len(data) - 4) // 4)) * 4
        width = draw(st.sampled_from("HIQ"))
        if at + struct.calcsize("=" + width) <= len(data):
            number = draw(st.sampled_from(ODD)) % 2 ** (8 * struct.calcsize("=" + width))
            struct.pack_into("=" + width, data, at, number)
    if draw(st.booleans()):
        size, at = draw(st.sampled_from((4, 8, 16, 20))), draw(st.integers(HEAD, len(data)))
        piece = bytes(data[at : at + size])
        data[at : at + draw(st.sampled_from((0, size)))] = piece * draw(st.integers(0, 70))
    if draw(st.booleans()):
        data += encode_event(draw(events))[draw(st.sampled_from((0, HEAD))) :]
    return with_honest_size(bytes(data)) if draw(st.booleans()) else bytes(data)


def decoded(data: bytes) -> Event | None:
    """The event, or None where it is refused; any other exception passes."""
    with suppress(ProtocolError):
        return decode_event(data)
    return None


@given(nearly_right())
def test_event_is_read_or_refused(data: bytes) -> None:
    event = decoded(data)
    # What is read says all that it was told, and is told the same way again.
    assert event is None or decoded(data) == event


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_events_are_read_for_long() -> None:
    end = time.monotonic() + fuzz_seconds(soak=True)
    while time.monotonic() < end:  # other examples each time
        test_event_is_read_or_refused()


def count_lines(data: bytes) -> int:
    """The lines of the decoder that run for one event."""
    lines = 0

    def trace(frame: FrameType, what: str, _: object) -> object:
        nonlocal lines
        if frame.f_code.co_filename not in (wire.__file__, told.__file__):
            return None
        lines += what == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]  # it is called with more than one kind of argument
    try:
        decoded(data)
    finally:
        sys.settrace(before)
    return lines


def started(count: int) -> bytes:
    return encode_datagram(STARTED, 0, packed("done", 8, 0, 1) * count)


def exited(count: int) -> bytes:
    body = packed("exited", 0, 0, *range(1, 10), count, count, *[0] * 5)
    return encode_datagram(EXITED, 1, body + packed("leftover", 7, b"\xff" * 16) * count)


@pytest.mark.parametrize(("make", "few", "many"), [(started, 8, 4096), (exited, 8, 64)])
def test_work_grows_with_size(make: Callable[[int], bytes], few: int, many: int) -> None:
    pieces = many - few
    assert 0 < count_lines(make(many)) - count_lines(make(few)) <= LINES_FOR_EACH * pieces


@given(nearly_right())
def test_no_work_beyond_size(data: bytes) -> None:
    assert count_lines(data) <= LINES_FOR_EACH * (1 + len(data) // 8)


@pytest.mark.parametrize("size", [INLINE_LIMIT, INLINE_LIMIT - 8])
def test_largest_event_is_read(size: int) -> None:
    event = started(size // 8)
    assert len(event) <= DATAGRAM_LIMIT
    assert decoded(event) is not None
