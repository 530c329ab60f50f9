"""Files and receivers of events: whole lines, in order, bounded, and nothing lost silently."""

from __future__ import annotations

import asyncio
import fcntl
import http.server
import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    EventSinkError,
    HttpProxySink,
    Instrumentation,
    JsonlOutboxSink,
    SandboxSessionFinishEvent,
    SandboxSessionStartEvent,
    WorkspaceJsonlSink,
    event_to_json_line,
    validate_sandbox_session_event,
)
from sandyard.events.limits import QUEUED_EVENTS
from sandyard.events.outbox import append_whole
from tests.events.telling import telling

SESSION = UUID(int=7)


def start(number: int, **data: str) -> SandboxSessionStartEvent:
    return SandboxSessionStartEvent(
        session_id=SESSION, seq=number, op="exec", span_id="s", data=dict(data)
    )


def numbers(content: bytes) -> list[int]:
    return [json.loads(line)["seq"] for line in content.splitlines()]


def found(directory: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in directory.iterdir()}


async def test_file_has_events_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with telling(JsonlOutboxSink(path)) as session:
        await asyncio.gather(*(session.exec("true") for _ in range(20)))
    content = path.read_bytes()
    assert numbers(content) == list(range(1, len(content.splitlines()) + 1))
    assert len(numbers(content)) >= 42
    assert path.stat().st_mode & 0o777 == 0o600


async def test_large_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlOutboxSink(path, mode="sync", on_error="raise", max_bytes=1_000, keep=2)
    told = Instrumentation(sinks=[sink])
    for number in range(1, 21):
        await told.emit(start(number, text="x" * 200))
    files = found(tmp_path)
    assert sorted(files) == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    kept = numbers(b"".join(files[f"events.jsonl{part}"] for part in (".2", ".1", "")))
    assert kept == list(range(kept[0], 21))
    assert max(map(len, files.values())) <= 1_000


def test_torn_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"half":')  # a program was killed here
    append_whole(path, b"1\n2\n", None, 0)
    assert path.read_bytes() == b'{"half":\n1\n2\n'


def test_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def write(letter: bytes) -> None:
        for _ in range(50):
            append_whole(path, letter * 99 + b"\n", 3_000, 1_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = b"".join(found(tmp_path).values()).splitlines()
    assert sorted(set(lines)) == [b"a" * 99, b"b" * 99, b"c" * 99]
    assert len(lines) == 150


async def test_workspace_has_its_events() -> None:
    sink = WorkspaceJsonlSink(workspace_relpath="log/{session_id}.jsonl")
    async with telling(sink) as session:
        await session.exec("true")
        name = f"log/{session.state.session_id}.jsonl"
        await session.exec(f"while ! grep -q exit_code {name}; do sleep 0.05; done", timeout=60)
        lines = numbers(await session.read_bounded(name, max_bytes=100_000))
    assert lines == list(range(1, len(lines) + 1))


async def test_none_is_lost_of_many_together() -> None:
    written: list[int] = []

    class Session:
        async def running(self) -> bool:
            return True

        async def append(self, _: str | PurePath, data: bytes) -> None:
            written.extend(numbers(data))

    sink = WorkspaceJsonlSink(flush_every=3 * QUEUED_EVENTS).for_session(Session())
    for number in range(1, QUEUED_EVENTS + 501, 100):
        await sink.handle_many([start(each) for each in range(number, number + 100)])
    assert written == list(range(1, QUEUED_EVENTS + 1))


async def test_workspace_file_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    sink = WorkspaceJsonlSink(workspace_relpath="log.jsonl", max_bytes=2_000, mode="sync")
    async with telling(sink) as session:
        for _ in range(20):
            await session.exists("a")
        assert 0 < (await session.stat("log.jsonl")).size <= 2_000
    assert caplog.text.count("as many as max_bytes allows") == 1


class _Receiver(http.server.BaseHTTPRequestHandler):
    taken: list[dict[str, object]]
    answers: list[int]

    def do_POST(self) -> None:  # http.server's word
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.taken.append({**json.loads(body), "key": self.headers["X-Key"]})
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name for it
        """Say nothing."""


@contextmanager
def receiving(*answers: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A receiver that gives some answers, then only 200."""
    kind = type("Receiver", (_Receiver,), {"taken": [], "answers": list(answers)})
    with http.server.HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/events", kind.taken  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


async def test_receiver_gets_events() -> None:
    with receiving() as (url, taken):
        sink = HttpProxySink(url, headers={"X-Key": "k"}, mode="sync", on_error="raise")
        told = Instrumentation(sinks=[sink])
        await told.emit(start(1))
        await told.emit(start(2))
    assert [(event["seq"], event["key"]) for event in taken] == [(1, "k"), (2, "k")]


@pytest.mark.parametrize("status", [500, 307])
async def test_spool_goes_first(tmp_path: Path, status: int) -> None:
    spool = tmp_path / "spool.jsonl"
    with receiving(status, status, 200, status) as (url, taken):
        sink = HttpProxySink(url, spool_path=spool, mode="sync", on_error="raise")
        told = Instrumentation(sinks=[sink])
        for number in (1, 2):
            with pytest.raises(EventSinkError, match=r"1 events could not be sent.*wait in"):
                await told.emit(start(number))
        assert numbers(spool.read_bytes()) == [1, 2]
        with pytest.raises(EventSinkError):
            await told.emit(start(3))  # the first goes, the second does not
        assert numbers(spool.read_bytes()) == [2, 3]
        await told.emit(start(4))
        assert spool.read_bytes() == b""
    assert [event["seq"] for event in taken] == [1, 2, 3, 4]


async def test_slow_receiver_is_given_up(tmp_path: Path) -> None:
    """What was not sent by then waits in the spool."""
    spool = tmp_path / "spool.jsonl"
    with receiving() as (url, taken):
        sink = HttpProxySink(url, spool_path=spool)
        sending = asyncio.ensure_future(sink.handle_many([start(each) for each in range(1, 501)]))
        for _ in range(10_000):
            if taken:
                break
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    seen = [int(str(event["seq"])) for event in taken]
    assert len(seen) < 500
    assert seen + numbers(spool.read_bytes()) == list(range(1, 501))


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_disk_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    told = Instrumentation(sinks=[JsonlOutboxSink(path, mode="sync", on_error="raise")])
    await told.emit(start(1))
    whole = path.read_bytes()
    with small_files(len(whole) + 10), pytest.raises(EventSinkError, match="File too large"):
        await told.emit(start(2))
    assert path.read_bytes() == whole
    await told.emit(start(3))
    assert numbers(path.read_bytes()) == [1, 3]


async def test_full_spool_says_what_is_lost(tmp_path: Path) -> None:
    spool = tmp_path / "spool.jsonl"
    with receiving(500, 500, 200, 500) as (url, taken):
        sink = HttpProxySink(url, spool_path=spool, mode="sync", on_error="raise")
        told = Instrumentation(sinks=[sink])
        for number in (1, 2):
            with pytest.raises(EventSinkError, match="wait in"):
                await told.emit(start(number))
        kept = found(tmp_path)
        # One of those that wait is sent, the next one not; what is left can't be written anew.
        with small_files(10), pytest.raises(EventSinkError, match=r"they are lost, as .* can't be"):
            await told.emit(start(3))
        assert found(tmp_path) == kept
        await told.emit(start(4))
    assert [event["seq"] for event in taken] == [1, 1, 2, 4]


async def test_lock_of_others_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard.events.outbox.LOCK_S", 0.05)
    path = tmp_path / "events.jsonl"
    told = Instrumentation(sinks=[JsonlOutboxSink(path, mode="sync", on_error="raise")])
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EventSinkError, match="another program has had it locked"):
            await told.emit(start(1))
    await told.emit(start(2))
    assert numbers(path.read_bytes()) == [2]


async def test_missing_receiver_is_told() -> None:
    sink = HttpProxySink("http://127.0.0.1:1/", mode="sync", on_error="raise", timeout_s=5)
    with pytest.raises(EventSinkError, match="they are lost"):
        await Instrumentation(sinks=[sink]).emit(start(1))


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "127.0.0.1", "http://[", 3):
        with pytest.raises(ArgumentError, match="endpoint is"):
            HttpProxySink(url)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="timeout_s"):
        HttpProxySink("http://a", timeout_s=0)
    with pytest.raises(ArgumentError, match="max_bytes is at least 1"):
        JsonlOutboxSink(tmp_path / "a", max_bytes=0)
    with pytest.raises(ArgumentTypeError, match="path is a path"):
        JsonlOutboxSink(3)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(st.text(), st.integers(1, 2**40), st.floats(0, 1e9), st.none() | st.text())
def test_events_are_read_back(text: str, seq: int, took: float, error: str | None) -> None:
    clean = text.encode("utf-8", "replace").decode()
    message = None if error is None else error.encode("utf-8", "replace").decode()
    for event in (
        start(seq, text=clean),
        SandboxSessionFinishEvent(
            session_id=uuid4(),
            seq=seq,
            op="read",
            span_id="s",
            ok=error is None,
            duration_ms=took,
            error_message=message,
            stdout_bytes=b"never told",
        ),
    ):
        line = event_to_json_line(event)
        assert line.endswith("\n")
        assert len(line.splitlines()) >= 1
        assert "stdout_bytes" not in line
        read = validate_sandbox_session_event(line)
        assert read == event.model_copy(
            update={"stdout_bytes": None} if event.phase == "finish" else {}
        )
        assert validate_sandbox_session_event(json.loads(line)) == read


@pytest.mark.parametrize("payload", ["", "[]", "{}", b"\xff", {"phase": "start"}])
def test_no_event_is_refused(payload: object) -> None:
    with pytest.raises(ArgumentError, match="no event can be read"):
        validate_sandbox_session_event(payload)
    with pytest.raises(ArgumentTypeError):
        validate_sandbox_session_event(3)
