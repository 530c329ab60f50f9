"""What is kept of a stream, against the simplest model of it: all bytes, cut in the middle."""

from __future__ import annotations

import gc
import os
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandyard.limits import OUTPUT_HEAD_SHARE
from sandyard.process.capture import Capture, Captured

chunks = st.lists(st.binary(max_size=40), max_size=30)
limits = st.integers(0, 200) | st.sampled_from([0, 1, 2, 3, 4, 5])
large_limits = st.integers(0, 60_000)
# Below and above what a ring holds.
sizes = st.lists(st.integers(0, 50) | st.integers(0, 30_000), max_size=30)


def modelled(whole: bytes, limit: int) -> Captured:
    """Everything, or the first quarter of the limit and then the end."""
    if len(whole) <= limit:
        return Captured(whole, 0, len(whole))
    head = int(limit * OUTPUT_HEAD_SHARE)
    tail = limit - head
    return Captured(whole[:head] + whole[len(whole) - tail :], len(whole) - limit, len(whole))


def kept_buffers(capture: Capture) -> list[bytes]:
    """What a capture keeps alive."""
    return [bytes(held) for held in gc.get_referents(capture) if isinstance(held, bytearray)]


def fed(limit: int, stream: list[bytes]) -> Capture:
    capture = Capture(limit)
    for chunk in stream:
        capture.feed(chunk)
    return capture


@given(limits, chunks)
@example(0, [])
@example(0, [b"abc"])
@example(1, [b"abc", b"d"])
@example(4, [b"a", b"b", b"c", b"d"])
@example(4, [b"a", b"b", b"c", b"d", b"e"])
def test_head_and_tail_are_kept(limit: int, stream: list[bytes]) -> None:
    assert fed(limit, stream).result() == modelled(b"".join(stream), limit)


@given(limits, chunks)
def test_asking_changes_nothing(limit: int, stream: list[bytes]) -> None:
    capture = Capture(limit)
    for size, chunk in enumerate(stream, 1):
        capture.feed(chunk)
        whole = b"".join(stream[:size])
        assert capture.result() == capture.result() == modelled(whole, limit)
        assert capture.total == len(whole)


@given(limits, chunks)
def test_chunking_does_not_matter(limit: int, stream: list[bytes]) -> None:
    whole = b"".join(stream)
    assert fed(limit, stream).result() == fed(limit, [whole]).result()


def numbered(lengths: list[int]) -> list[bytes]:
    """Chunks of these lengths, in which each place has its own bytes."""
    whole = b"".join(n.to_bytes(3, "big") for n in range(sum(lengths) // 3 + 1))
    stream, at = [], 0
    for length in lengths:
        stream.append(whole[at : at + length])
        at += length
    return stream


@given(large_limits, sizes)
def test_large_chunks_are_kept_likewise(limit: int, lengths: list[int]) -> None:
    stream = numbered(lengths)
    capture = Capture(limit)
    for chunk in stream:
        capture.feed(chunk)
        assert sum(map(len, kept_buffers(capture))) <= limit
    assert capture.result() == modelled(b"".join(stream), limit)


@given(large_limits, st.lists(st.integers(0, 3_000), max_size=20), st.integers(50, 4_000))
def test_reading_is_feeding(limit: int, lengths: list[int], size: int) -> None:
    stream = numbered(lengths)
    capture = Capture(limit)
    read_end, write_end = os.pipe()
    try:
        for chunk in stream:
            os.write(write_end, chunk)  # never more than a pipe holds
            left = len(chunk)
            while left:
                left -= capture.read(read_end, size)
            assert sum(map(len, kept_buffers(capture))) <= limit
    finally:
        os.close(write_end)
        at_end = capture.read(read_end, size)
        os.close(read_end)
    assert at_end == 0
    assert capture.result() == modelled(b"".join(stream), limit)


def test_nothing_to_read() -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        for stream in ([], [bytes(30)]):  # read by copy, and into the ring
            capture = fed(20, stream)
            before = capture.result()
            with pytest.raises(BlockingIOError):
                capture.read(read_end, 5)
            assert capture.result() == before
    finally:
        os.close(read_end)
        os.close(write_end)


def test_what_is_kept_is_seen() -> None:
    # Else the bounds above would hold for anything.
    assert sorted(kept_buffers(fed(8, [b"ab", b"cd", b"efgh"]))) == [b"ab", b"cdefgh"]


@pytest.mark.parametrize(("size", "count"), [(65536, 20), (1000, 200), (2, 40_000)])
def test_memory_is_bounded(size: int, count: int) -> None:
    # A program that writes without a buffer is read a few bytes at a time.
    limit = 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        capture = Capture(limit)
        for n in range(count):
            capture.feed(n.to_bytes(4, "big")[-2:] * (size // 2))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert capture.result().total == size * count
    assert used <= 2 * limit + 2 * size + 10_000
