"""What is kept of a stream, against the simplest model of it: all bytes, cut in the middle."""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandyard.limits import CAPTURE_PIECE_BYTES, OUTPUT_HEAD_SHARE
from sandyard.process.capture import Capture, Captured

chunks = st.lists(st.binary(max_size=40), max_size=30)
limits = st.integers(0, 200) | st.sampled_from([0, 1, 2, 3, 4, 5])
# Sizes around those at which pieces are no longer joined.
sizes = st.lists(
    st.integers(0, 50)
    | st.integers(CAPTURE_PIECE_BYTES - 3, CAPTURE_PIECE_BYTES + 3)
    | st.integers(0, 5 * CAPTURE_PIECE_BYTES),
    max_size=30,
)
large_limits = st.integers(0, 12 * CAPTURE_PIECE_BYTES)


def modelled(whole: bytes, limit: int) -> Captured:
    """Everything, or the first quarter of the limit and then the end."""
    if len(whole) <= limit:
        return Captured(whole, 0, len(whole))
    head = int(limit * OUTPUT_HEAD_SHARE)
    tail = limit - head
    return Captured(whole[:head] + whole[len(whole) - tail :], len(whole) - limit, len(whole))


def kept_chunks(capture: Capture) -> dict[int, bytes]:
    """The pieces that a capture keeps alive, each once."""
    found: dict[int, bytes] = {}
    for holder in gc.get_referents(capture):
        if isinstance(holder, bytearray):
            found[id(holder)] = bytes(holder)
        elif isinstance(holder, deque):
            found.update({id(piece): bytes(piece) for piece in holder})
    return found


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
    stream, largest = numbered(lengths), 0
    capture = Capture(limit)
    for chunk in stream:
        capture.feed(chunk)
        largest = max(largest, len(chunk))
        kept = sum(map(len, kept_chunks(capture).values()))
        assert kept <= limit + 2 * max(largest, CAPTURE_PIECE_BYTES)
    assert capture.result() == modelled(b"".join(stream), limit)


@given(limits, chunks)
def test_kept_bytes_are_bounded(limit: int, stream: list[bytes]) -> None:
    capture, largest = Capture(limit), 0
    for chunk in stream:
        capture.feed(chunk)
        largest = max(largest, len(chunk))
        assert sum(map(len, kept_chunks(capture).values())) <= (
            limit + 2 * (largest + CAPTURE_PIECE_BYTES)
        )


def test_what_is_kept_is_seen() -> None:
    # Else the bound above would hold for anything.
    assert sorted(kept_chunks(fed(8, [b"ab", b"cd", b"efgh"])).values()) == [b"ab", b"cdefgh"]


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
    assert used <= 3 * limit + 2 * size + 10_000
