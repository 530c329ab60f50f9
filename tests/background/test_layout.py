"""Where a log's bytes lie: whatever is written, lost and dropped, each byte is told of once."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard.limits import LOG_LIMIT_MIN_BYTES
from sandyard.process.logs_layout import LineSearch, LogLayout, Piece, RecordParser, Segment

LEAST = LOG_LIMIT_MIN_BYTES

CHUNK = st.tuples(st.integers(0, 1), st.integers(1, 9_000))
BATCH = st.lists(CHUNK, min_size=1, max_size=12)
STORY = st.lists(st.tuples(BATCH, st.one_of(st.none(), st.integers(0, 12))), max_size=25)
"""Batches of chunks, and after how many pieces writing fails, if it does."""


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
    story: list[tuple[list[tuple[int, int]], int | None]], limit: int
) -> None:
    written = Written(limit)
    for batch, fails in story:
        written.write(batch, fails)
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


def test_large_logs_have_small_parts() -> None:
    for limit in (2**16, 2**24, 2**30, 2**33):
        layout = LogLayout(limit)
        assert layout.segment_bytes <= 4 * 1024 * 1024
        places = {layout.place(number) for number in range(limit // layout.segment_bytes)}
        assert len(places) == limit // layout.segment_bytes
        assert max(places) + layout.segment_bytes <= limit
        assert all(layout.place(number) in places for number in range(10_000, 20_000))
