"""Where a log's bytes lie: whatever is written, lost and dropped, each byte is told of once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard.limits import LOG_LIMIT_MIN_BYTES
from sandyard.process.logs_layout import (
    LineSearch,
    LogLayout,
    Piece,
    RecordParser,
    Segment,
    header,
)

LEAST = LOG_LIMIT_MIN_BYTES

CHUNK = st.tuples(st.integers(0, 1), st.integers(1, 9_000))
BATCH = st.lists(CHUNK, min_size=1, max_size=12)
STINT = st.tuples(st.integers(0, 1), st.integers(0, 6 * LEAST // 16), st.booleans())
"""A stream, how many bytes a thread brings into the log behind a batch, and whether that fails."""

STORY = st.lists(
    st.tuples(BATCH, st.one_of(st.none(), st.integers(0, 12)), st.one_of(st.none(), STINT)),
    max_size=25,
)
"""Batches of chunks, after how many pieces writing fails, if it does, and what a thread does then."""


def stuff(stream: int, begin: int, size: int) -> bytes:
    """Bytes of a stream that tell where in it they stand."""
    period = 251 - stream
    return bytes((begin + n) % period for n in range(size))


class Written:
    """A file in memory, and the streams as their writer knows them."""

    def __init__(self, limit: int) -> None:
        self.layout = LogLayout(limit)
        self.file = bytearray(limit)
        self.sizes = [0, 0]

    def write(self, batch: list[tuple[int, int]], fails: int | None) -> None:
        """Writes a batch; from piece ``fails`` on, nothing is written."""
        chunks = []
        for stream, size in batch:
            chunks.append((stream, stuff(stream, self.sizes[stream], size)))
            self.sizes[stream] += size
        pieces = self.layout.plan(chunks)
        for piece in pieces[:fails]:
            self.put(piece)
            self.layout.commit(piece)
        for piece in pieces[len(pieces) if fails is None else fails :]:
            self.layout.lose(piece.stream, piece.size)

    def fill(self, stream: int, size: int, *, fails: bool) -> None:
        """Does what a thread does that brings bytes of a stream behind those that were planned."""
        spaces = self.layout.spaces_after([])
        for space in spaces:
            part = min(size, space.size)
            data = stuff(stream, self.sizes[stream], part)
            self.sizes[stream] += part
            size -= part
            self.file[space.at : space.at + part] = data
            if fails:
                self.layout.lose(stream, part)
            else:
                self.file[space.head_at : space.at] = header(stream, part)
                self.layout.commit_space(space, stream, part)
                if size:
                    spaces.append(self.layout.space_behind(spaces[-1]))

    def put(self, piece: Piece) -> None:
        """Writes one piece."""
        if piece.at is not None:
            raw = piece.head + piece.body
            assert piece.at + len(raw) <= len(self.file)
            self.file[piece.at : piece.at + len(raw)] = raw

    def segment(self, segment: Segment) -> bytes:
        """What a segment holds."""
        at = self.layout.place(segment.number)
        return bytes(self.file[at : at + segment.length])


def read_kept(written: Written) -> Iterator[tuple[int, int, bytes]]:
    """All that is kept, as stream, position and bytes."""
    for segment in written.layout.segments.values():
        come = list(segment.base)
        for stream, body in RecordParser().feed(written.segment(segment)):
            if isinstance(body, int):
                assert body >= come[stream]
                come[stream] = body
            else:
                yield stream, come[stream], body
                come[stream] += len(body)


@settings(max_examples=150)
@given(story=STORY, limit=st.sampled_from([LEAST, LEAST + 1, 3 * LEAST]))
def test_every_byte_has_its_place(
    story: list[tuple[list[tuple[int, int]], int | None, tuple[int, int, bool] | None]], limit: int
) -> None:
    written = Written(limit)
    for batch, fails, stint in story:
        written.write(batch, fails)
        if stint is not None and fails is None:
            written.fill(stint[0], stint[1], fails=stint[2])
        layout = written.layout
        assert layout.totals == written.sizes
        last, held = [0, 0], 0
        for stream, position, body in read_kept(written):
            assert body == stuff(stream, position, len(body))
            assert position >= last[stream]
            last[stream] = position + len(body)
            held += len(body)
        assert layout.dropped + layout.lost + held == sum(written.sizes)


@settings(max_examples=50)
@given(batches=st.lists(BATCH, min_size=1, max_size=40))
def test_head_and_tail_are_kept(batches: list[list[tuple[int, int]]]) -> None:
    written = Written(LEAST)
    for batch in batches:
        written.write(batch, None)
    kept = sum(len(body) for _, _, body in read_kept(written))
    total = sum(written.sizes)
    assert kept == total or kept > LEAST * 0.85 - 5 * sum(map(len, batches))
    first = next(read_kept(written))
    assert first[1] == 0
    *_, (stream, position, body) = read_kept(written)
    assert position + len(body) == written.sizes[stream]


@given(
    raw=st.lists(st.tuples(st.integers(0, 1), st.binary(min_size=1, max_size=40)), max_size=12),
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
)
def test_portions_do_not_matter(raw: list[tuple[int, bytes]], cuts: list[int]) -> None:
    written = Written(LEAST)
    pieces = written.layout.plan(raw)
    for piece in pieces:
        written.put(piece)
        written.layout.commit(piece)
    parser, told, at = RecordParser(), [b"", b""], 0
    data = b"".join(written.segment(one) for one in written.layout.segments.values())
    while at < len(data):
        size = cuts[at % len(cuts)]
        for stream, body in parser.feed(data[at : at + size]):
            assert isinstance(body, bytes)
            told[stream] += body
        at += size
    assert told == [b"".join(body for stream, body in raw if stream == n) for n in (0, 1)]


@given(
    raw=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([b"a\n", b"b", b"\n\n", b"long\nline"])),
        max_size=14,
    ),
    streams=st.sampled_from([(0,), (1,), (0, 1)]),
    count=st.integers(1, 6),
    share=st.integers(0, 10),
)
def test_last_lines_are_those(
    raw: list[tuple[int, bytes]], streams: tuple[int, ...], count: int, share: int
) -> None:
    written = Written(LEAST)
    for chunk in raw:
        for piece in written.layout.plan([chunk]):
            written.put(piece)
            written.layout.commit(piece)
    text = b"".join(body for stream, body in raw if stream in streams)
    end = len(text) * share // 10
    search, found = LineSearch(streams, count, end), None
    for segment in reversed(written.layout.segments.values()):
        found = search.look(segment, written.segment(segment))
    lines = text[:end].splitlines(keepends=True)
    assert text[found or 0 : end] == b"".join(lines[-count:])


@settings(max_examples=30)
@given(batches=st.lists(BATCH, max_size=12))
def test_space_behind_what_is_planned(batches: list[list[tuple[int, int]]]) -> None:
    written = Written(LEAST)
    for batch in batches:
        chunks = [(stream, b"x" * size) for stream, size in batch]
        pieces = written.layout.plan(chunks)
        spaces = written.layout.spaces_after(pieces)
        places = [(piece.at, len(piece.head) + len(piece.body)) for piece in pieces]
        places += [(space.head_at, space.at - space.head_at + space.size) for space in spaces]
        ranges = sorted((at, at + size) for at, size in places if at is not None)
        assert spaces or sum(size for _, size in batch) > LEAST // 2
        assert all(end <= begin for (_, end), (begin, _) in pairwise(ranges))
        begun = {pieces[0].number, *(space.number for space in spaces)}
        for kept in written.layout.segments.values():
            if kept.number not in begun:
                at = written.layout.place(kept.number)
                assert all(end <= at or begin >= at + kept.length for begin, end in ranges)
        for piece in pieces:
            written.layout.commit(piece)


def test_a_full_log_keeps_its_share() -> None:
    written = Written(LEAST)
    for _ in range(100):
        written.fill(0, 3 * LEAST // 16, fails=False)
        kept = sum(len(body) for _, _, body in read_kept(written))
        written.layout.spaces_after([])  # and nothing comes
        assert sum(len(body) for _, _, body in read_kept(written)) >= kept - LEAST // 8
    assert sum(len(body) for _, _, body in read_kept(written)) >= LEAST * 7 // 8 - 16 * 5


def test_large_logs_have_small_parts() -> None:
    for limit in (2**16, 2**24, 2**30, 2**33):
        layout = LogLayout(limit)
        assert layout.segment_bytes <= 4 * 1024 * 1024
        places = {layout.place(number) for number in range(limit // layout.segment_bytes)}
        assert len(places) == limit // layout.segment_bytes
        assert max(places) + layout.segment_bytes <= limit
        assert all(layout.place(number) in places for number in range(10_000, 20_000))
