"""Owns where a log's bytes lie in its file: a head that stays, and segments that are used in turn.

All of it is arithmetic. A log is a sequence of numbered segments of one size. The first ones stay; the
later ones share the rest of the file, each new one in the place of the oldest. A segment holds whole
records, so it can be read without its neighbours, and knows how many bytes of each stream came before
it: what is missing between two segments is a difference.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sandyard.limits import LOG_CHUNK_MAX_BYTES, LOG_HEAD_SHARE, LOG_SEGMENT_MAX_BYTES, LOG_SEGMENTS

__all__ = [
    "STREAMS",
    "LineSearch",
    "LogLayout",
    "Piece",
    "RecordParser",
    "Segment",
    "Space",
    "header",
]

STREAMS: Final[tuple[Literal["stdout", "stderr"], ...]] = ("stdout", "stderr")
"""Streams by their numbers."""

_HEADER: Final = struct.Struct("<BI")
"""Before each record: its kind, and how many bytes follow."""

_POSITION: Final = struct.Struct("<Q")
_LOST: Final = 2
"""A stream's number is the kind of a record that holds bytes of it. With this added, it is the kind of
one that says how far the stream had come when bytes of it were lost."""

Chunks = Sequence[tuple[int, bytes | bytearray | memoryview]]


@dataclass(slots=True)
class Segment:
    """One segment, as far as it is written.

    Attributes:
        number: its place in the sequence.
        base: bytes of each stream that came before it.
        length: bytes of it that are written.
        held: bytes of the streams that it holds.
    """

    number: int
    base: tuple[int, ...]
    length: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One record, and where it is to be written.

    Attributes:
        number: its segment.
        at: where in the file it begins; None if a later piece takes its place, so that it need not
            be written.
        head: its header.
        body: what follows.
        stream: whose it is.
        size: bytes of the stream that it holds; 0 if it tells of a loss.
    """

    number: int
    at: int | None
    head: bytes
    body: memoryview
    stream: int
    size: int


@dataclass(frozen=True, slots=True)
class Space:
    """Where one record may be written, of which the length is not known yet.

    Attributes:
        number: its segment.
        head_at: where in the file its header goes.
        size: bytes of a stream that fit behind that.
    """

    number: int
    head_at: int
    size: int

    @property
    def at(self) -> int:
        """Where in the file its bytes begin."""
        return self.head_at + _HEADER.size


def header(stream: int, size: int) -> bytes:
    """The header of a record that holds so many bytes of a stream."""
    return _HEADER.pack(stream, size)


class LogLayout:
    """The layout of one log.

    Args:
        limit: bytes that its file may have.

    Attributes:
        segments: those that are kept, by number, oldest first.
        totals: bytes of each stream that were written or lost.
        lost: bytes that could not be written.
    """

    __slots__ = (
        "_at",
        "_head",
        "_held",
        "_number",
        "_oldest",
        "_ring",
        "_unsaid",
        "lost",
        "segment_bytes",
        "segments",
        "totals",
    )

    def __init__(self, limit: int) -> None:
        self.segment_bytes = min(limit // LOG_SEGMENTS, LOG_SEGMENT_MAX_BYTES)
        places = limit // self.segment_bytes
        self._head = int(places * LOG_HEAD_SHARE)
        self._ring = places - self._head
        self._oldest = self._head  # number of the segment that goes next
        self._number, self._at = 0, 0  # where the next record goes
        self._held = 0  # bytes of the streams in all segments
        self._unsaid = [False] * len(STREAMS)  # a loss that no record tells of yet
        self.segments: dict[int, Segment] = {}
        self.totals = [0] * len(STREAMS)
        self.lost = 0

    @property
    def dropped(self) -> int:
        """Bytes that were written, and whose place was taken by later ones."""
        return sum(self.totals) - self.lost - self._held

    def place(self, number: int) -> int:
        """Where in the file a segment begins."""
        turn = number if number < self._head else self._head + (number - self._head) % self._ring
        return turn * self.segment_bytes

    def plan(self, chunks: Chunks) -> list[Piece]:
        """Where the next chunks of the streams go.

        The segments whose places they take are given up at once, so that nobody reads what is being
        overwritten. Each piece counts when it is committed or lost, in their order.
        """
        number, at = self._next()
        cut: list[tuple[int, int, int, memoryview]] = []
        for kind, body in (*self._untold(), *chunks):
            rest = memoryview(body)
            least = len(rest) if kind >= _LOST else 1
            while rest:
                if self.segment_bytes - at < _HEADER.size + least:
                    number, at = number + 1, 0
                part = rest[: self.segment_bytes - at - _HEADER.size]
                rest = rest[len(part) :]
                cut.append((number, at, kind, part))
                at += _HEADER.size + len(part)
        self._give_up(number)
        return [self._piece(*record, last=number) for record in cut]

    def spaces_after(self, pieces: Sequence[Piece]) -> list[Space]:
        """Where records may go that are written behind some pieces, the last plan's.

        They are in two segments: to give up three at once would leave less than is promised. None are
        there behind pieces that fill the log, of which some would be given up before they are kept.
        """
        number, at = self._next()
        if pieces:
            last = pieces[-1].number
            at = at if last == number else 0
            at += sum(_length(piece) for piece in pieces if piece.number == last)
            number = last
        if self.segment_bytes - at <= _HEADER.size:
            number, at = number + 1, 0
        if any(self._is_taken(piece.number, number + 1) for piece in pieces):
            return []
        self._give_up(number + 1)
        return [self._space(number, at), self._space(number + 1, 0)]

    def space_behind(self, space: Space) -> Space:
        """Where one more record may go, behind one that is being written; all before that count."""
        self._give_up(space.number + 1)
        return self._space(space.number + 1, 0)

    def commit(self, piece: Piece) -> None:
        """A piece was written, or need not be."""
        if piece.at is not None:
            self._hold(piece.number, _length(piece), piece.size)
        self._go_past(piece.number, _length(piece))
        self.totals[piece.stream] += piece.size
        if not piece.size:
            self._unsaid[piece.stream] = False

    def commit_space(self, space: Space, stream: int, size: int) -> None:
        """So many bytes of a stream were written into a space, behind what was planned."""
        if not size:
            return
        self._hold(space.number, _HEADER.size + size, size)
        self._go_past(space.number, _HEADER.size + size)
        self.totals[stream] += size

    def lose(self, stream: int, size: int) -> None:
        """Bytes of a stream could not be written."""
        if size:
            self.totals[stream] += size
            self.lost += size
            self._unsaid[stream] = True

    def after(self, number: int) -> Segment | None:
        """The oldest segment that is kept behind that of a number."""
        if number + 1 in self.segments:
            return self.segments[number + 1]
        return next((one for one in self.segments.values() if one.number > number), None)

    def holding(self, position: int, streams: Sequence[int]) -> Segment | None:
        """The newest segment before which at most ``position`` bytes of some streams came."""
        for segment in reversed(self.segments.values()):
            if sum(segment.base[stream] for stream in streams) <= position:
                return segment
        return None

    def _next(self) -> tuple[int, int]:
        """Segment and place of the next record, if it fits there."""
        if self._at and self._number not in self.segments:
            return self._number + 1, 0  # given up by a plan that was not carried out
        return self._number, self._at

    def _space(self, number: int, at: int) -> Space:
        return Space(number, self.place(number) + at, self.segment_bytes - at - _HEADER.size)

    def _give_up(self, last: int) -> None:
        """Forgets the segments whose places others have by the time that ``last`` is written."""
        while self._is_taken(self._oldest, last):
            gone = self.segments.pop(self._oldest, None)
            self._held -= 0 if gone is None else gone.held
            self._oldest += 1

    def _hold(self, number: int, length: int, held: int) -> None:
        segment = self.segments.get(number)
        if segment is None:
            segment = self.segments[number] = Segment(number, tuple(self.totals))
        segment.length += length
        segment.held += held
        self._held += held

    def _go_past(self, number: int, length: int) -> None:
        self._at = self._at + length if self._number == number else length
        self._number = number

    def _untold(self) -> list[tuple[int, bytes]]:
        return [
            (stream + _LOST, _POSITION.pack(self.totals[stream]))
            for stream, unsaid in enumerate(self._unsaid)
            if unsaid
        ]

    def _is_taken(self, number: int, last: int) -> bool:
        """Whether a segment's place is another's by the time that ``last`` is written."""
        return self._head <= number <= last - self._ring

    def _piece(self, number: int, at: int, kind: int, body: memoryview, *, last: int) -> Piece:
        return Piece(
            number=number,
            at=None if self._is_taken(number, last) else self.place(number) + at,
            head=_HEADER.pack(kind, len(body)),
            body=body,
            stream=kind % _LOST,
            size=0 if kind >= _LOST else len(body),
        )


def _length(piece: Piece) -> int:
    return len(piece.head) + len(piece.body)


class RecordParser:
    """Reads the records of one segment, from its beginning, in portions of any size."""

    __slots__ = ("_kind", "_left", "_rest")

    def __init__(self) -> None:
        self._kind = 0
        self._left = 0  # of the record that was begun
        self._rest = b""

    def feed(self, portion: bytes) -> Iterator[tuple[int, bytes | int]]:
        """What a portion holds: bytes of a stream, or how far a stream had come at a loss."""
        data, at = self._rest + portion, 0
        while True:
            if not self._left:
                if len(data) - at < _HEADER.size:
                    break
                self._kind, self._left = _HEADER.unpack_from(data, at)
                at += _HEADER.size
            tells = self._kind >= _LOST
            have = min(self._left, len(data) - at, LOG_CHUNK_MAX_BYTES)
            if not have or (tells and have < self._left):
                break
            body = data[at : at + have]
            at += have
            self._left -= have
            yield self._kind % _LOST, _POSITION.unpack(body)[0] if tells else body
        self._rest = data[at:]


class LineSearch:
    """Looks for the beginning of the last lines of some streams, as they came, as one text.

    Args:
        streams: those that are looked at.
        count: how many lines; more than 0.
        end: how many bytes of these streams there are; what came later is not looked at.
    """

    __slots__ = ("_end", "_ends", "_nothing_yet", "_streams")

    def __init__(self, streams: Sequence[int], count: int, end: int) -> None:
        self._streams = streams
        self._end = end
        self._ends = count  # of lines, that are still to be found
        self._nothing_yet = True

    def look(self, segment: Segment, data: bytes) -> int | None:
        """Looks through the segment before those that were looked through.

        Args:
            segment: which it is.
            data: all of it.

        Returns:
            How many bytes of these streams come before the lines; None if they begin earlier.
        """
        base, records = list(segment.base), list[tuple[int, bytes]]()
        for stream, body in RecordParser().feed(data):
            if isinstance(body, int):
                base[stream] = body
            else:
                position = sum(base[one] for one in self._streams)
                if stream in self._streams and position < self._end:
                    records.append((position, body[: self._end - position]))
                base[stream] += len(body)
        for position, body in reversed(records):
            if self._nothing_yet:
                self._nothing_yet = False
                self._ends += body.endswith(b"\n")  # the end of the last line is before none
            ends = body.count(b"\n")
            if ends < self._ends:
                self._ends -= ends
                continue
            at = len(body)
            for _ in range(self._ends):
                at = body.rfind(b"\n", 0, at)
            return position + at + 1
        return None
