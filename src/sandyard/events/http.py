"""Events sent to a receiver by HTTP, with a file for those that it can't take now."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sandyard.errors import ArgumentError, EventSinkError, shown
from sandyard.events.limits import HTTP_TIMEOUT_S, SPOOL_BYTES
from sandyard.events.model import EventPayloadPolicy, SandboxSessionEvent, event_to_json_line
from sandyard.events.outbox import append_whole, checked_file, locked_outbox, write_all
from sandyard.events.sinks import DeliveryMode, EventSink, OnErrorPolicy, checked_modes
from sandyard.finishing import finished, finishing, in_thread

__all__ = ["HttpProxySink"]

_FAILURES: Final = (OSError, HTTPException)  # URLError is an OSError


class HttpProxySink(EventSink):
    """Posts each event as JSON, one request an event, in order.

    With a spool, events that the receiver did not take wait in that file and go first when it
    answers again, also when another program of yours has left them there. An event may then come
    twice, with the same ``event_id``.

    Args:
        endpoint: an ``http://`` or ``https://`` URL; redirections are not followed.
        headers: sent with each request; ``Content-Type`` is set.
        timeout_s: seconds that one request may take (default: 5).
        spool_path: the file for events that could not be sent, 16 MiB at most; None (default) for
            none: they are lost, and the error says so.
        mode: see ``EventSink``; ``"best_effort"`` by default.
        on_error: see ``EventSink``; ``"log"`` by default.
        payload_policy: see ``EventSink``.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = HTTP_TIMEOUT_S,
        spool_path: Path | None = None,
        mode: DeliveryMode = "best_effort",
        on_error: OnErrorPolicy = "log",
        payload_policy: EventPayloadPolicy | None = None,
    ) -> None:
        self.endpoint = _checked_endpoint(endpoint)
        self.headers = {**(headers or {}), "Content-Type": "application/json"}
        if isinstance(timeout_s, bool) or not 0 < timeout_s < float("inf"):
            raise ArgumentError(
                f"timeout_s is a number of seconds above 0, not {shown(timeout_s)}",
                op="events",
                argument="timeout_s",
                value=timeout_s,
            )
        self.timeout_s = timeout_s
        self.spool_path = None if spool_path is None else checked_file("spool_path", spool_path)
        self.mode, self.on_error = checked_modes(mode, on_error)
        self.payload_policy = payload_policy
        self._opener = build_opener(_NoRedirection)

    async def handle(self, event: SandboxSessionEvent) -> None:
        """Send one event."""
        await self.handle_many((event,))

    async def handle_many(self, events: Sequence[SandboxSessionEvent]) -> None:
        """Send several, one after the other; cancelled, it ends with the one under way."""
        lines = [event_to_json_line(event).encode() for event in events]
        stopped = threading.Event()
        work = finishing(in_thread(self._deliver, lines, stopped))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            stopped.set()
            await finished(_ended(work))
            raise

    def _deliver(self, lines: list[bytes], stopped: threading.Event) -> None:
        sent = 0
        try:
            self._send_spooled(stopped)
            for line in lines:
                self._post(line, stopped)
                sent += 1
        except _FAILURES as error:
            self._keep(lines[sent:], error)

    def _keep(self, lines: list[bytes], error: Exception) -> None:
        """Puts what was not sent into the spool, and says what happened."""
        kept = "they are lost"
        if self.spool_path is not None:
            size = self.spool_path.stat().st_size if self.spool_path.exists() else 0
            if size + sum(map(len, lines)) <= SPOOL_BYTES:
                kept = _spooled(self.spool_path, lines)
            else:
                kept = f"they are lost, as {self.spool_path} is full"
        raise EventSinkError(
            f"{len(lines)} events could not be sent to {self.endpoint}: {error}; {kept}",
            sink=self.name,
            cause=error,
        ) from error

    def _send_spooled(self, stopped: threading.Event) -> None:
        """Sends what waits in the spool, oldest first; what can't be sent stays in it."""
        path = self.spool_path
        if path is None or not path.exists():
            return
        descriptor = locked_outbox(path)
        try:
            lines = os.pread(descriptor, 2 * SPOOL_BYTES, 0).splitlines(keepends=True)
            for done, line in enumerate(lines):
                try:
                    self._post(line, stopped)
                except _FAILURES:
                    if done:
                        _replace(path, b"".join(lines[done:]))
                    raise
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)  # and its lock with it

    def _post(self, line: bytes, stopped: threading.Event) -> None:
        if stopped.is_set():
            raise OSError(errno.ECANCELED, "the session has ended")
        request = Request(self.endpoint, data=line, headers=self.headers, method="POST")  # noqa: S310  # the scheme was checked
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                answer.read(1)
        except HTTPError as error:
            error.close()
            raise


class _NoRedirection(HTTPRedirectHandler):
    """Events, and the headers that go with them, are for one receiver."""

    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer is an error."""


async def _ended(work: asyncio.Task[None]) -> None:
    """Wait for the end of what nobody waits for any more, and take note of its error."""
    await asyncio.wait([work])
    work.exception()


def _spooled(path: Path, lines: list[bytes]) -> str:
    """Puts lines into the spool, and says where they are."""
    try:
        append_whole(path, b"".join(lines), None, 0)
    except OSError as error:
        return f"they are lost, as {path} can't be written ({error.strerror})"
    return f"they wait in {path}"


def _replace(path: Path, content: bytes) -> None:
    """Writes a file anew, whole or not at all; its lock is the caller's."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, content)
        finally:
            os.close(descriptor)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _checked_endpoint(endpoint: object) -> str:
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
        known = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        raise ArgumentError(
            f"endpoint is an http:// or https:// URL, not {shown(endpoint)}",
            op="events",
            argument="endpoint",
            value=endpoint,
        )
    return str(endpoint)
