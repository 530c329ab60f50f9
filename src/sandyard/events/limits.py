"""The numbers of events, each with its reason."""

from __future__ import annotations

from typing import Final

QUEUED_EVENTS: Final = 1_000
"""Events that wait for one sink of one session, at most: about a megabyte."""

EVENT_BATCH: Final = 100
"""Events that a sink is handed at once, at most."""

LINGER_S: Final = 0.02
"""How long an event that nobody waits for may be kept back, so that several go together."""

FLUSH_S: Final = 5.0
"""How long the end of a session waits for sinks that are slow."""

TOLD_CHARS: Final = 4_000
"""Characters of one argument in an event, such as a command; the rest is cut, and "…" says so."""

TOLD_ITEMS: Final = 100
"""Words of a command, and denials of a result, in one event."""

OUTPUT_CHARS: Final = 8_000
"""Characters of each output stream in an event, where output is told at all."""

OUTBOX_BYTES: Final = 64 * 1024**2
"""A file of events is put aside when it is larger than this."""

OUTBOX_KEPT: Final = 3
"""Files of events that are kept beside the one that is written."""

LOCK_S: Final = 5.0
"""How long a file of events may be locked by another program before that is an error."""

LOCK_PAUSE_S: Final = 0.01
"""How often that is looked at: flock(2) itself has no limit."""

SPOOL_BYTES: Final = 16 * 1024**2
"""Events that wait in a file for a receiver that can't be reached."""

HTTP_TIMEOUT_S: Final = 5.0
"""How long one delivery to a receiver may take."""

OPEN_SPANS: Final = 10_000
"""Operations whose span is open at a time; of more the oldest are let go, and told when they end."""

AUDIT_KEY_BYTES: Final = 16
"""Bytes of a key of an audit log, at least: what can't be guessed."""

AUDIT_BLOCK_BYTES: Final = 64 * 1024
"""How much of an audit log is read at a time to find where its last line begins."""

AUDIT_LINE_BYTES: Final = 64 * 1024**2
"""A line of an audit log that is longer was written by nobody; it is not read into memory."""
