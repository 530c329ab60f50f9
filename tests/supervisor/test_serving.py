"""The server's end of a call, over a real connection: hostile callers, and those that go."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from sandyard import ArgumentError, SessionNotFoundError
from sandyard.server import messages
from sandyard.server.answers import Server
from sandyard.server.connection import Connection, own_hello
from sandyard.server.framing import Channel, Frame
from sandyard.server.limits import INPUT_WINDOW_BYTES
from sandyard.server.messages import Hello
from sandyard.server.outcomes import (
    Done,
    Failed,
    FromServer,
    Result,
    Returned,
    SessionsInfo,
    parse_from_server,
)
from sandyard.server.serving import serve_connection
from sandyard.server.sessions import HeldSession, Sessions
from sandyard.server.verbs import VerbShape
from sandyard.server.wording import Message
from tests.archive.making import item, tar_of

PATIENCE_S = 30


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """The sessions of a server; they are ended with the test."""
    held = Sessions()
    yield held
    assert await held.close() == ()


async def make_session(sessions: Sessions) -> HeldSession:
    """A session of the server's."""
    return await sessions.create(messages.Create(environ={"PATH": "/usr/bin:/bin"}))


@asynccontextmanager
async def calling(sessions: Sessions) -> AsyncIterator[tuple[Connection, asyncio.Task[None]]]:
    """A caller's connection, and the task that serves it."""
    ours, theirs = socket.socketpair()
    served = Connection(*await asyncio.open_connection(sock=theirs))
    caller = Connection(*await asyncio.open_connection(sock=ours))

    async def serve() -> None:
        async with served:
            await serve_connection(served, Server(sessions, lambda: None))

    task = asyncio.create_task(serve())
    try:
        async with asyncio.timeout(PATIENCE_S), caller:
            yield caller, task
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await task


async def begin(caller: Connection, request: Message) -> None:
    """Say hello, and ask."""
    await caller.meet(await own_hello())
    await caller.say(request)


def asking(held: HeldSession, verb: str, **arguments: JsonValue) -> messages.CallVerb:
    """The request that calls a method."""
    return messages.CallVerb(session=held.id, verb=verb, arguments=arguments)


async def told(caller: Connection) -> FromServer:
    """The next message."""
    frame = await caller.receive()
    assert frame is not None
    assert frame.channel is Channel.CONTROL
    return parse_from_server(frame.payload)


async def refusal(caller: Connection) -> Failed:
    """The error that ends the call."""
    said = await told(caller)
    while not isinstance(said, Failed):
        said = await told(caller)
    return said


async def test_answers_and_ends(sessions: Sessions) -> None:
    async with calling(sessions) as (caller, task):
        await begin(caller, messages.ListSessions())
        assert await told(caller) == SessionsInfo(sessions=())
        await caller.close()
        await task


async def test_other_version_is_refused(sessions: Sessions) -> None:
    async with calling(sessions) as (caller, _):
        await caller.meet(Hello(protocol=99, version="9.9"))
        await caller.say(messages.ListSessions())
        said = await refusal(caller)
    assert said.code == "server_error"
    assert "sandyard supervisor stop" in said.message


async def test_any_version_may_end_it(sessions: Sessions) -> None:
    async with calling(sessions) as (caller, _):
        await caller.meet(Hello(protocol=99, version="9.9"))
        await caller.say(messages.Shut())
        assert await told(caller) == Done()


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Channel.OUTPUT, b"x"),
        Frame(Channel.INPUT, b"x"),
        Frame(Channel.CONTROL, b"{}"),
        Frame(Channel.CONTROL, b'{"type":"resize","rows":"many","columns":1}'),
    ],
)
async def test_nonsense_ends_call(sessions: Sessions, frame: Frame) -> None:
    held = await make_session(sessions)
    async with calling(sessions) as (caller, _):
        await begin(caller, messages.Exec(session=held.id, command=("sleep 60",)))
        await told(caller)
        await caller.send(frame.channel, frame.payload)
        assert (await refusal(caller)).code in {"server_error", "argument_invalid"}


async def test_input_beyond_credit(sessions: Sessions) -> None:
    held = await make_session(sessions)
    async with calling(sessions) as (caller, _):
        await begin(caller, messages.Exec(session=held.id, command=("sleep 60",), input=True))
        await caller.send(Channel.INPUT, bytes(INPUT_WINDOW_BYTES))
        await caller.send(Channel.INPUT, bytes(INPUT_WINDOW_BYTES))
        await caller.send(Channel.INPUT, bytes(INPUT_WINDOW_BYTES))
        assert "credit" in (await refusal(caller)).message


async def test_signal_passes_waiting_input(sessions: Sessions) -> None:
    held = await make_session(sessions)
    async with calling(sessions) as (caller, _):
        await begin(caller, messages.Exec(session=held.id, command=("sleep 60",), input=True))
        assert isinstance(await told(caller), messages.Started)
        credit = await told(caller)
        assert isinstance(credit, messages.Credit)
        await caller.send(Channel.INPUT, bytes(credit.bytes))
        await caller.say(messages.Signal(number=15, tree=True))
        said = await told(caller)
        while isinstance(said, messages.Credit):
            said = await told(caller)
    assert isinstance(said, Result)
    assert said.exit_code == -15


async def test_caller_that_goes_ends_command(sessions: Sessions) -> None:
    held = await make_session(sessions)
    async with calling(sessions) as (caller, task):
        await begin(caller, messages.Exec(session=held.id, command=("echo up; sleep 60",)))
        assert isinstance(await told(caller), messages.Started)
        assert await caller.receive() == Frame(Channel.OUTPUT, b"up\n")
        await caller.close()
        await task
    result = await held.session.exec("ps -e -o args= 2>/dev/null | grep -c '[s]leep 60'")
    assert result.stdout in {b"0\n", b""}


async def test_cut_write_leaves_old_file(sessions: Sessions) -> None:
    held = await make_session(sessions)
    await held.session.write("file", b"old")
    async with calling(sessions) as (caller, task):
        await begin(caller, asking(held, "write", path="file"))
        assert isinstance(await told(caller), messages.Credit)
        await caller.send(Channel.INPUT, b"new, but not all of it")
        await caller.close()
        await task
    with await held.session.read("file") as file:
        assert file.read() == b"old"
    assert [entry.path.rpartition("/")[2] for entry in await held.session.ls(".")] == ["file"]


async def test_cut_archive_leaves_nothing(sessions: Sessions) -> None:
    held = await make_session(sessions)
    async with calling(sessions) as (caller, task):
        await begin(caller, asking(held, "unpack", path="."))
        assert isinstance(await told(caller), messages.Credit)
        await caller.send(Channel.INPUT, tar_of(item("file", b"x" * 4096))[:2048])
        await caller.close()
        await task
    assert await held.session.ls(".") == []


async def test_results_leave_loop_alone(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of a million files takes long to be written down, and other calls go on meanwhile."""
    threads: list[threading.Thread] = []
    pack = VerbShape.pack_result

    def packed(shape: VerbShape, result: object) -> JsonValue:
        threads.append(threading.current_thread())
        return pack(shape, result)

    monkeypatch.setattr(VerbShape, "pack_result", packed)
    held = await make_session(sessions)
    await held.session.write("file", b"")
    async with calling(sessions) as (caller, _):
        await begin(caller, asking(held, "ls", path="."))
        said = await told(caller)
        assert isinstance(said, Returned)
        assert isinstance(said.value, list)
        assert len(said.value) == 1
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_slow_reader_of_archive(sessions: Sessions) -> None:
    held = await make_session(sessions)
    await held.session.exec("head -c 64M /dev/zero > big")
    async with calling(sessions) as (caller, task):
        await begin(caller, asking(held, "pack", path="big"))
        assert await caller.receive() is not None
        await caller.close()  # with most of it not taken
        await task
    result = await held.session.exec("rm big && echo gone")
    assert result.stdout == b"gone\n"


async def test_ended_sessions_are_remembered(sessions: Sessions) -> None:
    held = await sessions.create(messages.Create(name="one"))
    await sessions.delete(held)
    with pytest.raises(SessionNotFoundError, match="removed at") as caught:
        sessions.find("one")
    assert caught.value.context["reason"] == "removed"
    (gone,) = sessions.gone()
    assert (gone.state, gone.name, gone.processes) == ("removed", "one", 0)
    again = await sessions.create(messages.Create(name="one"))
    assert sessions.find("one") is again


async def test_odd_manifest_is_explained(sessions: Sessions) -> None:
    async with calling(sessions) as (caller, _):
        await begin(caller, messages.Create(manifest={"entries": {"../x": {"type": "dir"}}}))
        assert (await refusal(caller)).code in {"manifest_invalid", "invalid_manifest_path"}
    assert len(sessions) == 0


async def test_cancelled_create_leaves_nothing(sessions: Sessions) -> None:
    async with calling(sessions) as (caller, task):
        await begin(caller, messages.Create())
        await caller.close()
        await task
    # It was made before the caller went, or it was undone; nothing lies between.
    for info in await sessions.listed():
        assert info.state == "running"


@pytest.mark.once
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=4), st.booleans())
def test_noise_never_stops_server(noise: list[bytes], polite: bool) -> None:
    asyncio.run(_send_noise(noise, polite=polite))


async def _send_noise(noise: list[bytes], *, polite: bool) -> None:
    held = Sessions()
    async with calling(held) as (caller, _):
        if polite:
            await caller.meet(await own_hello())
        try:
            for data in noise:
                if data:
                    await caller.send(Channel.CONTROL, data)
        except ConnectionError:
            pass
        await caller.close()
    assert len(held) == 0


async def test_names_are_one_each(sessions: Sessions) -> None:
    one = await sessions.create(messages.Create(name="one"))
    with pytest.raises(ArgumentError, match="already"):
        await sessions.create(messages.Create(name="one"))
    assert sessions.find("one") is sessions.find(one.id) is sessions.find(one.id[:6]) is one
    with pytest.raises(SessionNotFoundError):
        sessions.find("")
    await sessions.delete(one)
    with pytest.raises(SessionNotFoundError):
        sessions.find("one")
