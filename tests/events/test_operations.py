"""Every operation is told: once at its beginning, once at its end, in order, whatever ends it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import JsonValue

from sandyard import (
    ArgumentError,
    CallbackSink,
    EventPayloadPolicy,
    ExecTimeoutError,
    Instrumentation,
    SandboxError,
    SandboxSessionEvent,
    SandboxSessionFinishEvent,
    TmpfsMount,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceReadNotFoundError,
)
from sandyard.events import delivery, describing
from sandyard.events.limits import TOLD_CHARS, TOLD_ITEMS
from sandyard.events.model import event_to_json_line
from sandyard.observing import Followed
from sandyard.policy import DIMENSIONS
from tests.events.telling import Told, finished, keep, telling


async def test_each_verb_is_told() -> None:  # noqa: PLR0915  # a line for each
    told: Told = []
    async with telling(keep(told)) as session:
        await session.exec("exit 3")
        await session.write("d/a.txt", b"12345")
        await session.append("d/a.txt", b"6")
        await session.read_bounded("d/a.txt", max_bytes=9)
        await session.ls("d")
        await session.mkdir("e")
        await session.copy("d/a.txt", "e/b.txt")
        await session.mv("e/b.txt", "e/c.txt")
        await session.rm("e", recursive=True)
        await session.stat("d/a.txt")
        await session.glob("**/*.txt")
        async with session.stream("echo hi") as stream:
            async for _ in stream:
                pass
        assert [chunk async for chunk in session.read_chunks("d/a.txt")] == [b"123456"]
        async with session.watch("d"):
            pass
        async with await session.terminal("exit 4") as terminal:
            await terminal.wait()
        process = await session.start_process("true")
        await process.wait()
        await session.extract("x.tar", bytes(1024))
        await session.mount("mounted", TmpfsMount())
        await session.unmount("mounted")
        await session.running()
        await session.review()
    names = [
        "start",
        "exec",
        "exec",
        "write",
        "append",
        "read",
        "read",
        "ls",
        "mkdir",
        "copy",
        "mv",
        "rm",
        "stat",
        "glob",
        "watch",
        "terminal",
        "start_process",
        "extract",
        "mount",
        "unmount",
        "running",
        "review",
    ]
    begun = Counter(event.op for event in told if event.phase == "start")
    assert {name: begun[name] for name in names} == dict(Counter(names))
    assert begun == Counter(event.op for event in told if event.phase == "finish")
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    spans = Counter(event.span_id for event in told)
    assert set(spans.values()) == {2}
    assert {event.session_id for event in told} == {session.state.session_id}
    command = next(event for event in told if event.op == "exec" and event.phase == "finish")
    assert isinstance(command, SandboxSessionFinishEvent)
    assert not command.ok
    assert command.data["command"] == ["exit 3"]
    assert command.data["exit_code"] == command.data["process.exit.code"] == 3
    assert finished(told, "write").data == {"path": "d/a.txt", "user": None, "bytes": 5}
    held = finished(told, "start").data["confinement"]
    assert isinstance(held, dict)
    assert held["rung"] == "full"
    assert {name: held[name] for name in DIMENSIONS} == dict.fromkeys(DIMENSIONS, "enforced")


async def test_failures_are_told() -> None:
    told: Told = []
    begun = asyncio.Event()

    def hear(event: SandboxSessionEvent, _: object) -> None:
        told.append(event)
        if event.data.get("command") == ["sleep 1000"]:
            begun.set()

    async with telling(CallbackSink(hear)) as session:
        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read("missing")
        with pytest.raises(ExecTimeoutError):
            await session.exec("echo so far; sleep 100", timeout=0.2)
        running = asyncio.ensure_future(session.exec("sleep 1000"))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    read = finished(told, "read")
    assert (read.ok, read.error_code) == (False, "workspace_read_not_found")
    assert read.error_type == "WorkspaceReadNotFoundError"
    assert read.error_message is not None
    assert "missing" in read.error_message
    late, cancelled = [e for e in told if e.op == "exec" and e.phase == "finish"]
    assert isinstance(late, SandboxSessionFinishEvent)
    assert isinstance(cancelled, SandboxSessionFinishEvent)
    assert (late.error_code, late.stdout) == ("exec_timeout", None)
    assert (cancelled.ok, cancelled.error_type) == (False, "CancelledError")


async def test_output_is_told_if_wanted() -> None:
    told: Told = []
    frugal: Told = []
    wants = EventPayloadPolicy(include_exec_output=True, max_stdout_chars=3)
    sink = CallbackSink(lambda event, _: told.append(event), payload_policy=wants)
    silent = CallbackSink(
        lambda event, _: frugal.append(event),
        payload_policy=EventPayloadPolicy(include_write_len=False),
    )
    async with telling(sink, silent) as session:
        await session.exec("printf 12345; printf '\\377' >&2")
        await session.write("a", b"12345")
        with pytest.raises(ExecTimeoutError):
            await session.exec("echo so far; sleep 100", timeout=0.2)
    command, late = [e for e in told if e.op == "exec" and e.phase == "finish"]
    assert isinstance(command, SandboxSessionFinishEvent)
    assert isinstance(late, SandboxSessionFinishEvent)
    assert (command.stdout, command.stderr, late.stdout) == ("123…", "\ufffd", "so …")
    assert "bytes" not in finished(frugal, "write").data
    assert all("stdout" not in e.model_dump(exclude_none=True) for e in frugal)


async def test_denial_is_told() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        await session.exec("touch /etc/new")
    denials = finished(told, "exec").data["denials"]
    assert isinstance(denials, list)
    assert "/etc/new" in str(denials[0])


async def test_part_knows_its_whole() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        await session.write("a", b"needle\n")
        await session.grep("needle")
        async with session.stream("true"):
            await session.exists("a")
    start = {event.op: event for event in told if event.phase == "start"}
    assert start["exists"].parent_span_id is None  # the caller's own code asked for it
    parents = {event.parent_span_id for event in told} - {None}
    assert parents == {start["grep"].span_id}


async def test_order_holds_among_many() -> None:
    told: Told = []

    async def slowly(event: SandboxSessionEvent, _: object) -> None:
        await asyncio.sleep(0.002 if event.seq % 3 else 0)
        told.append(event)

    second: Told = []
    async with telling(CallbackSink(slowly), keep(second)) as session:
        await asyncio.gather(*(session.exec("true") for _ in range(30)))
    for events in (told, second):
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(told) == len(second)


async def test_sessions_do_not_mix() -> None:
    heard: list[tuple[object, object]] = []

    def hear(event: SandboxSessionEvent, session: UnixLocalSandboxSession) -> None:
        heard.append((event.session_id, session.state.session_id))

    sink = CallbackSink(hear)
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=[sink]))
    first, second = await client.create(), await client.create()
    try:
        async with first, second:
            await asyncio.gather(*(s.exec("true") for s in (first, second, first, second)))
    finally:
        await client.delete(first)
        await client.delete(second)
    assert {pair[0] for pair in heard} == {first.state.session_id, second.state.session_id}
    assert all(told == bound for told, bound in heard)


async def test_strange_words_are_told() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        await session.exec("printf", "%s", "\udcff", "x" * 9_000, shell=False)
        with pytest.raises(SandboxError):
            await session.read(10**5_000)  # type: ignore[arg-type]
    command = finished(told, "exec").data["command"]
    assert isinstance(command, list)
    assert command[2] == "\\udcff"
    assert len(str(command[3])) == 4_001


async def test_archives_are_told() -> None:
    """They are files without a descriptor, and without a size before they were read."""
    told: Told = []
    async with telling(keep(told)) as session:
        await session.write("d/a", b"1")
        for archive in (await session.pack("d"), await session.persist_workspace()):
            async with archive:
                assert b"".join([piece async for piece in archive])
    assert finished(told, "pack").ok
    assert finished(told, "persist_workspace").ok


async def test_odd_numbers_are_json() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        with pytest.raises(ArgumentError):
            await session.exec("true", timeout=float("inf"))
    event = finished(told, "exec")
    assert event.data["timeout_s"] == "inf"
    assert "Infinity" not in event_to_json_line(event)


async def test_closing_is_a_stop_and_a_shutdown() -> None:
    told: Told = []
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=[keep(told)]))
    idle = await client.create()
    await idle.aclose()  # nothing was made that could be saved
    assert [event.op for event in told if event.phase == "start"] == ["shutdown"]
    told.clear()
    session = await client.create()
    session.register_pre_stop_hook(lambda: session.write("note", b""))
    async with session:
        pass
    await session.aclose()
    began = [event.op for event in told if event.phase == "start"]
    assert began == ["start", "write", "stop", "shutdown"]
    assert all(event.ok for event in told if isinstance(event, SandboxSessionFinishEvent))
    await client.delete(session)
    await client.delete(idle)


async def test_ends_are_told_once() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        process = await session.start_process("exit 3", name="short")
        await process.wait()
        terminal = await session.terminal("cat /etc/shadow", name="shown")
        (result, again) = await asyncio.gather(terminal.result(), terminal.result())
        assert result is again
        await session.start_process("sleep 600", name="server")
        await session.terminal("sleep 600", name="shell")
        await session.shutdown()
    first, last = [at for at, event in enumerate(told) if event.op == "shutdown"][:2]
    ended = [event for event in told[first:last] if isinstance(event, SandboxSessionFinishEvent)]
    assert {event.data["name"] for event in ended} == {"server", "shell"}
    assert not any(event.ok for event in ended)
    runs = [event for event in told if event.op in {"process_run", "terminal_run"}]
    assert Counter((event.data["name"], event.phase) for event in runs) == Counter(
        (name, phase)
        for name in ("short", "shown", "server", "shell")
        for phase in ("start", "finish")
    )
    short = next(event for event in runs if event.phase == "finish")
    assert (short.data["name"], short.data["exit_code"]) == ("short", 3)
    assert (short.data["process_id"], short.data["command"]) == ("p1", list(process.command))
    began = next(event for event in told if event.op == "start_process")
    assert short.parent_span_id == began.span_id
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert told[-1].op == "delete"


async def test_old_verbs_tell_ends() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        began = [await session.pty_exec_start("exit 3", tty=tty) for tty in (True, False)]
        assert [update.exit_code for update in began] == [3, 3]
        late = await session.pty_exec_start("sleep 600", timeout=0.1, yield_time_s=30)
        assert late.exit_code == -9
        lasting = [
            await session.pty_exec_start("sleep 600", tty=tty, yield_time_s=0.25)
            for tty in (True, False)
        ]
        await session.pty_exec_start("sleep 600", yield_time_s=0.25)
        await session.pty_terminate_all()
        lasting.append(await session.pty_exec_start("sleep 600", yield_time_s=0.25))
        await session.shutdown()
    runs = [event for event in told if event.op in {"process_run", "terminal_run"}]
    assert Counter((event.op, event.phase) for event in runs) == Counter(
        {
            ("terminal_run", "start"): 2,
            ("terminal_run", "finish"): 2,
            ("process_run", "start"): 5,
            ("process_run", "finish"): 5,
        }
    )
    ended = {
        event.data["process_id"]: event
        for event in runs
        if isinstance(event, SandboxSessionFinishEvent)
    }
    assert [event.data.get("exit_code") for event in [*ended.values()][:3]] == [3, 3, -9]
    for update in lasting[:2]:
        event = ended[str(update.process_id)]
        assert (event.ok, event.data["exit_code"]) == (False, -9)
    assert "exit_code" not in ended[str(lasting[2].process_id)].data  # the sandbox ended first
    starts = [event for event in told if event.op == "pty_exec_start"]
    assert [event.data.get("exit_code") for event in starts[1::2]][:3] == [3, 3, -9]
    assert starts[7].data["process_id"] == lasting[0].process_id
    assert runs[0].parent_span_id == starts[0].span_id
    assert [event.seq for event in told] == list(range(1, len(told) + 1))


async def test_refused_leftovers_are_told() -> None:
    told: Told = []
    async with telling(keep(told)) as session:
        # What it leaves running is refused when the command has long been told of.
        text = "(read line < fifo; unshare --user true) & exit 0"
        await session.exec("mkfifo fifo")
        await session.exec(text)
        await session.exec("echo go > fifo; while pgrep unshare; do :; done")
        while not session.refused_calls:
            await session.exec("true")
    event = finished(told, "refused_calls")
    assert event.ok
    assert event.parent_span_id is None
    assert event.data["refused_calls"] == 1
    calls = event.data["calls"]
    assert isinstance(calls, list)
    assert [call["program"] for call in calls if isinstance(call, dict)] == ["unshare"]


async def test_lost_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard.observing.ENDS_TOLD_S", 0)
    told: Told = []
    async with telling(keep(told)) as session:
        assert session.observer is not None
        followed = Followed()
        about = ("p1", "stuck", ("stuck",))
        await followed.follow(session.observer, "process_run", about, asyncio.Event().wait)
        await followed.settle()
    event = finished(told, "process_run")
    assert (event.ok, event.error_type) == (False, "CancelledError")


async def test_arguments_are_told_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LINGER_S", 60)
    told: Told = []
    sink = CallbackSink(lambda event, _: told.append(event), mode="best_effort")
    async with telling(sink) as session:
        shell = ["sh", "-c"]
        await session.exec("true", shell=shell)
        shell.clear()  # before the sink has any of it
        assert "exec" not in {event.op for event in told}
    assert [event.data["shell"] for event in told if event.op == "exec"] == [["sh", "-c"]] * 2


def test_only_what_is_small_and_lasts_is_described_later(monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[object] = []

    def describe(_: object, args: tuple[object, ...], __: object) -> dict[str, JsonValue]:
        described.append(args)
        return {}

    monkeypatch.setattr(describing, "describe_arguments", describe)
    verb = UnixLocalSandboxSession.exec
    given = describing.Arguments(verb, ("true", None), {"shell": False, "timeout": 1.5})
    assert not described
    assert given.told() is given.told()
    assert len(described) == 1
    long, many = "x" * (TOLD_CHARS + 1), ("x",) * (TOLD_ITEMS + 1)
    at_once: list[tuple[object, ...]] = [(long,), many, (bytearray(),), ([],)]
    for args in at_once:
        describing.Arguments(verb, args, {})
        assert described[-1] is args
