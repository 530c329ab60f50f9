"""Owns what a session adds to a command: its verbs and its life, and the events that are told of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.measure import Row, Series, interleaved, shown
from benchmarks.peers import TRUE
from sandyard import (
    Instrumentation,
    JsonlOutboxSink,
    Policy,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.plan import Spawn
from sandyard.platform import host_facts
from sandyard.process import CommandCall, Commands, InitProcess

__all__ = ["event_rows"]

COUNT = 500
BAR = 1.05


async def event_rows() -> list[Row]:
    """The same command by the process room alone, by a session, and by one that tells of it."""
    with tempfile.TemporaryDirectory() as place:
        async with AsyncExitStack() as stack:
            commands = await stack.enter_async_context(_room(place))
            silent = await stack.enter_async_context(_session(None))
            sink = JsonlOutboxSink(Path(place, "events.jsonl"))
            telling = await stack.enter_async_context(_session(Instrumentation(sinks=[sink])))
            call = _call(place)

            async def room() -> None:
                await commands.run(call)

            async def session() -> None:
                await silent.exec(TRUE, shell=False)

            async def told() -> None:
                await telling.exec(TRUE, shell=False)

            series = await interleaved({"room": room, "session": session, "told": told}, COUNT)
    return [
        _ratio("exec of a session, beside the process room alone", series, "session", "room"),
        _ratio("… with its events in a file, beside one without", series, "told", "session"),
    ]


def _ratio(what: str, series: Mapping[str, Series], one: str, other: str) -> Row:
    both = {name: series[name] for name in (one, other)}
    return Row(what, both[one].median / both[other].median, BAR, shown(both))


def _call(place: str) -> CommandCall:
    environment = ((b"PATH", b"/usr/bin:/bin"),)
    spawn = Spawn(argv=(TRUE.encode(),), environment=environment, cwd=place.encode())
    return CommandCall(words=(TRUE,), spawn=spawn)


@asynccontextmanager
async def _room(place: str) -> AsyncIterator[Commands]:
    """A sandbox of the usual kind, and nothing around it."""
    status = os.stat(place)
    root = WorkspaceRoot(place, place, (status.st_dev, status.st_ino))
    facts = host_facts(os.environ)
    async with await InitProcess.start(lambda: plan_session(Policy(), facts, root, ())) as init:
        commands = Commands(init)
        try:
            yield commands
        finally:
            commands.close()


@asynccontextmanager
async def _session(told: Instrumentation | None) -> AsyncIterator[UnixLocalSandboxSession]:
    client = UnixLocalSandboxClient(instrumentation=told)
    session = await client.create()
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)
