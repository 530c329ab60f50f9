"""Sessions of a client that tells, and what they told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandyard import (
    CallbackSink,
    EventSink,
    Instrumentation,
    Manifest,
    SandboxSessionEvent,
    SandboxSessionFinishEvent,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)

Told = list[SandboxSessionEvent]


def keep(told: Told) -> CallbackSink:
    """A sink that keeps events in a list."""
    return CallbackSink(lambda event, _: told.append(event))


@asynccontextmanager
async def telling(
    *sinks: EventSink, manifest: Manifest | None = None
) -> AsyncIterator[UnixLocalSandboxSession]:
    """A started session whose events go to sinks; deleted at the end."""
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=sinks))
    session = await client.create(manifest=manifest)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


def finished(told: Told, op: str) -> SandboxSessionFinishEvent:
    """The one finish event of an operation."""
    (event,) = [e for e in told if e.op == op and isinstance(e, SandboxSessionFinishEvent)]
    return event
