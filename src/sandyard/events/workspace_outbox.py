"""A file of events in the session's own workspace, where its commands can read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from sandyard.errors import EventSinkError
from sandyard.events.limits import QUEUED_EVENTS
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent, event_to_json_line
from sandyard.events.outbox import checked_file, checked_size
from sandyard.events.sinks import (
    DeliveryMode,
    EventSink,
    OnErrorPolicy,
    SinkSession,
    checked_modes,
)

__all__ = ["WorkspaceJsonlSink"]


class WorkspaceJsonlSink(EventSink):
    """Appends events to a file of the workspace, while the session runs.

    What commands of the session can write they can forge: for a log to rely on, use a
    ``JsonlOutboxSink``. Events from before the start are kept back, 1,000 at most, and written
    with the first that comes while the session runs.

    Args:
        workspace_relpath: where; ``{session_id}`` in it is the session's.
        mode: see ``EventSink``; ``"best_effort"`` by default.
        on_error: see ``EventSink``; ``"log"`` by default.
        payload_policy: see ``EventSink``.
        flush_every: events that are written together (default: 1, at most 1,000).
        max_bytes: what the sink writes at most; beyond it one error is raised, and nothing is
            written any more. None (default) for no limit.
    """

    def __init__(
        self,
        *,
        workspace_relpath: str | PurePosixPath = "logs/events-{session_id}.jsonl",
        mode: DeliveryMode = "best_effort",
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
        flush_every: int = 1,
        max_bytes: int | None = None,
    ) -> None:
        self.workspace_relpath = str(checked_file("workspace_relpath", workspace_relpath))
        self.mode, self.on_error = checked_modes(mode, on_error)
        self.payload_policy = payload_policy
        self.flush_every = checked_size("flush_every", flush_every, 1)
        self.max_bytes = None if max_bytes is None else checked_size("max_bytes", max_bytes, 1)
        self._session: SinkSession | None = None
        self._waiting: list[bytes] = []
        self._written = 0
        self._full = False

    def bind(self, session: SinkSession) -> None:
        """Say whose workspace it is."""
        self._session = session
        self._waiting = []

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Write one event, or keep it until there are enough."""
        await self.handle_many((event,))

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Write several."""
        if self._session is None:
            raise EventSinkError(
                "the sink serves no session; give it to the Instrumentation of a client",
                sink=self.name,
            )
        if self._full:
            return
        self._waiting += [event_to_json_line(event).encode() for event in events]
        del self._waiting[:-QUEUED_EVENTS]
        last = events[-1]
        due = len(self._waiting) >= min(self.flush_every, QUEUED_EVENTS)
        due = due or (
            last.phase == "start" and last.op in {"persist_workspace", "stop", "shutdown"}
        )
        if due and await self._session.running():
            await self._write(self._session, str(last.session_id))

    async def _write(self, session: SinkSession, session_id: str) -> None:
        lines, self._waiting = b"".join(self._waiting), []
        if self.max_bytes is not None and self._written + len(lines) > self.max_bytes:
            self._full = True
            raise EventSinkError(
                f"{self.max_bytes} bytes of events are written, as many as max_bytes allows; no more "
                "are written for this session",
                sink=self.name,
            )
        self._written += len(lines)
        await session.append(self.workspace_relpath.replace("{session_id}", session_id), lines)
