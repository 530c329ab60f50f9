"""A file of events that shows when it was changed: each line carries the hash of the one before."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from sandyard.errors import ArgumentError, ArgumentTypeError, EventSinkError, shown
from sandyard.events.limits import AUDIT_BLOCK_BYTES, AUDIT_KEY_BYTES, AUDIT_LINE_BYTES
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent, event_to_json_line
from sandyard.events.outbox import checked_file, locked_outbox, write_all
from sandyard.events.sinks import DeliveryMode, EventSink, OnErrorPolicy, checked_modes
from sandyard.finishing import in_thread

__all__ = ["AuditReport", "AuditSink", "verify_audit"]

_BEFORE: Final = (b'{"hash":"', b'","previous":"', b'","event":')
_AFTER: Final = b"}\n"
_DIGEST: Final = hashlib.sha256().digest_size * 2
"""Hexadecimal digits of a hash."""
_HEADER: Final = sum(map(len, _BEFORE)) + 2 * _DIGEST
_FIRST: Final = b"0" * _DIGEST
"""What stands for the hash of the line before the first."""
_CUT: Final = re.compile(rb'\{"cut": (\d{1,19})\}')
"""What says how much was cut, in the place of an event; what else stands there is not read."""


class AuditSink(EventSink):
    """Appends events to a file on your side, each line with the hash of the line before.

    A line that is changed, removed, added or moved later shows: ``verify_audit`` tells which. Lines cut
    off at the end show to who has kept a hash from then (``AuditReport.head``). Without a key, whoever
    may write the file can write all of it anew; with one, only who knows it can. Commands of sandboxes
    reach neither. Several programs may write one file; it is readable by its owner only, and never put
    aside.

    What a program that was killed left of a line is cut, and the next line says how much.

    Args:
        path: the file; its directory must exist, and commands must not be granted it.
        key: at least 16 secret bytes, for HMAC (default: plain SHA-256).
        durable: True waits until the disk has each event, so that a loss of power loses none (default:
            False).
        mode: see ``EventSink``; ``"sync"`` by default.
        on_error: see ``EventSink``; ``"log"`` by default. ``"raise"`` lets nothing be done that can't be
            written down.
        payload_policy: see ``EventSink``.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is impossible.

    Example:
        >>> told = Instrumentation(sinks=[AuditSink("/var/log/agents/audit.jsonl", key=key)])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes | None = None,
        durable: bool = False,
        mode: DeliveryMode = "sync",
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
    ) -> None:
        self.path = checked_file("path", path)
        self.durable = bool(durable)
        self.mode, self.on_error = checked_modes(mode, on_error)
        self.payload_policy = payload_policy
        self._key = _checked_key(key)

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Append one event."""
        await self.handle_many((event,))

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Append several at once."""
        documents = [event_to_json_line(event).encode().rstrip(b"\n") for event in events]
        await in_thread(_append, self.path, documents, self._key, durable=self.durable)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What ``verify_audit`` found.

    Attributes:
        records: events that are whole, from the beginning of the file.
        head: hash of the last of them; keep it elsewhere, and give it to a later ``verify_audit``.
        broken: what is wrong with the line after them, in words; None if nothing is.
        line: number of that line, from 1; None where the whole file is meant, or nothing.
        cut: bytes of lines that programs had not ended when they were killed.
    """

    records: int
    head: str
    broken: str | None = None
    line: int | None = None
    cut: int = 0

    @property
    def ok(self) -> bool:
        """Whether the file is as it was written."""
        return self.broken is None

    def __str__(self) -> str:
        """One line."""
        said = f"{self.records:,} events, head {self.head}"
        if self.broken is None:
            return said
        where = "" if self.line is None else f"line {self.line}: "
        return f"{said}; {where}{self.broken}"


def verify_audit(
    path: str | os.PathLike[str], *, key: bytes | None = None, head: str | None = None
) -> AuditReport:
    """Tell whether a file of an ``AuditSink`` is as it was written. It blocks while it reads the file.

    Args:
        path: the file. Nobody need have stopped writing it.
        key: that of the sink (default: none).
        head: ``AuditReport.head`` of an earlier time: its line has to be there still (default: lines
            that are missing at the end don't show).

    Raises:
        ArgumentError, ArgumentTypeError: an argument is impossible.
        EventSinkError: the file can't be read.
    """
    name, secret = checked_file("path", path), _checked_key(key)
    if head is not None and not isinstance(head, str):
        raise ArgumentTypeError(
            "head is a hash as text, or None", op="events", argument="head", value=head
        )
    if head is not None and len(head) != _DIGEST:
        raise ArgumentError(
            f"head is the hash that an AuditReport had, of {_DIGEST} digits",
            op="events",
            argument="head",
            value=head,
        )
    try:
        with name.open("rb") as file:
            return _verified(file, secret, head)
    except OSError as error:
        raise EventSinkError(
            f"the audit log {shown(str(name))} can't be read: {error.strerror}",
            sink="AuditSink",
            cause=error,
        ) from error


def _checked_key(key: object) -> bytes | None:
    if key is None:
        return None
    if not isinstance(key, bytes):
        given = type(key).__name__  # and not what may be a secret
        raise ArgumentTypeError("key is bytes, or None", op="events", argument="key", value=given)
    if len(key) < AUDIT_KEY_BYTES:
        raise ArgumentError(
            f"key has at least {AUDIT_KEY_BYTES} bytes, such as secrets.token_bytes(32)",
            op="events",
            argument="key",
            value=f"{len(key)} bytes",
        )
    return key


# --- lines ------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line taken apart: two hashes, and the event as it was hashed."""

    own: bytes
    previous: bytes
    event: bytes


def _hash(previous: bytes, event: bytes, key: bytes | None) -> bytes:
    hashed = previous + b"\n" + event
    if key is None:
        return hashlib.sha256(hashed).hexdigest().encode()
    return hmac.new(key, hashed, hashlib.sha256).hexdigest().encode()


def _line(previous: bytes, event: bytes, key: bytes | None) -> tuple[bytes, bytes]:
    """A line, and its hash."""
    own = _hash(previous, event, key)
    parts = zip(_BEFORE, (own, previous, event), strict=True)
    return b"".join(text + value for text, value in parts) + _AFTER, own


def _read_header(raw: bytes) -> tuple[bytes, bytes] | None:
    """The two hashes at the beginning of a line; None if it has none."""
    first, second, third = _BEFORE
    own = raw[len(first) :][:_DIGEST]
    previous = raw[len(first) + _DIGEST + len(second) :][:_DIGEST]
    expected = first + own + second + previous + third
    digits = all(part.isalnum() and len(part) == _DIGEST for part in (own, previous))
    return (own, previous) if digits and raw.startswith(expected) else None


def _parsed(raw: bytes) -> _Line | None:
    hashes = _read_header(raw)
    if hashes is None or not raw.endswith(_AFTER):
        return None
    return _Line(*hashes, raw[_HEADER : -len(_AFTER)])


# --- writing ----------------------------------------------------------------------------------


def _append(path: Path, events: Sequence[bytes], key: bytes | None, *, durable: bool) -> None:
    descriptor = locked_outbox(path)
    try:
        size = os.fstat(descriptor).st_size
        whole = _end_of_lines(descriptor, size)
        previous = _last_hash(descriptor, whole, path)
        cut = (b'{"cut": %d}' % (size - whole),) if whole < size else ()
        lines = bytearray()
        for event in (*cut, *events):
            line, previous = _line(previous, event, key)
            lines += line
        if whole < size:
            os.ftruncate(descriptor, whole)
        try:
            write_all(descriptor, bytes(lines))
            if durable:
                os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, whole)
            os.ftruncate(descriptor, size)  # who comes next says what was cut
            raise
    finally:
        os.close(descriptor)  # and its lock with it


def _end_of_lines(descriptor: int, size: int) -> int:
    """Where the last whole line ends: behind the last newline before ``size``."""
    while size:
        start = max(0, size - AUDIT_BLOCK_BYTES)
        at = os.pread(descriptor, size - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        size = start
    return 0


def _last_hash(descriptor: int, end: int, path: Path) -> bytes:
    if not end:
        return _FIRST
    start = _end_of_lines(descriptor, end - 1)
    hashes = _read_header(os.pread(descriptor, _HEADER, start))
    if hashes is None:
        raise EventSinkError(
            f"the last line of {shown(str(path))} is none of an audit log, so none can follow it; give "
            "another file, or put this one aside",
            sink="AuditSink",
        )
    return hashes[0]


# --- reading ----------------------------------------------------------------------------------


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines; one that is longer than any that is written is given in part."""
    while raw := file.readline(AUDIT_LINE_BYTES):
        yield raw


def _verified(file: BinaryIO, key: bytes | None, head: str | None) -> AuditReport:
    previous, records, cut = _FIRST, 0, 0
    seen = head is None or head.encode() == _FIRST
    for number, raw in enumerate(_raw_lines(file), start=1):
        broken = _problem(raw, previous, key)
        if broken is not None:
            return AuditReport(records, previous.decode(), broken, number, cut)
        line = _parsed(raw)
        assert line is not None  # noqa: S101  # it has no problem
        previous = line.own
        seen = seen or previous.decode() == head
        lost = _cut_bytes(line.event)
        records, cut = (records + 1, cut) if lost is None else (records, cut + lost)
    missing = None if seen else f"no line has the hash {head}: lines are missing at the end"
    return AuditReport(records, previous.decode(), missing, None, cut)


def _cut_bytes(event: bytes) -> int | None:
    """How much a line says was cut before it; None where it tells an event."""
    told = _CUT.fullmatch(event)
    return None if told is None else int(told[1])


def _problem(raw: bytes, previous: bytes, key: bytes | None) -> str | None:
    """What is wrong with a line; None if nothing is."""
    if not raw.endswith(b"\n"):
        return "it is not ended: it is being written, or its program was killed, or it was cut"
    line = _parsed(raw)
    if line is None:
        return "it is none of an audit log"
    if line.previous != previous:
        return "it does not follow the line before: one was removed, added or moved"
    if not hmac.compare_digest(line.own, _hash(line.previous, line.event, key)):
        return "it was changed, or the key is another"
    return None
