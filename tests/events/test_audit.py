"""The audit log: whole lines that follow each other, and whatever is done to them shows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from sandyard import (
    ArgumentError,
    AuditSink,
    EventSinkError,
    SandboxSessionStartEvent,
    verify_audit,
)
from tests.events.telling import telling

KEY = b"0123456789abcdef"


def event(number: int) -> SandboxSessionStartEvent:
    return SandboxSessionStartEvent(
        session_id=UUID(int=7), seq=number, op="exec", span_id="s", data={"n": "x" * 40_000}
    )


async def written(path: Path, count: int, key: bytes | None = None) -> AuditSink:
    sink = AuditSink(path, key=key)
    for number in range(1, count + 1):
        await sink.handle(event(number))
    return sink


@pytest.mark.parametrize("key", [None, KEY])
async def test_sessions_are_written_down(tmp_path: Path, key: bytes | None) -> None:
    """Two sessions at once, by two sinks of one file."""
    path = tmp_path / "audit.jsonl"
    sinks = AuditSink(path, key=key), AuditSink(path, key=key, durable=True)
    async with telling(sinks[0]) as one, telling(sinks[1]) as other:
        done = await asyncio.gather(*(s.exec("true") for s in (one, other) for _ in range(5)))
        assert all(result.ok() for result in done)
        assert (await one.exec(f"cat {path}")).exit_code == 1
        early = verify_audit(path, key=key)
        assert early.ok, str(early)
    report = verify_audit(path, key=key, head=early.head)
    assert report.ok, str(report)
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    assert report.records == len(documents) > early.records > 20
    assert (report.head, report.cut) == (documents[-1]["hash"], 0)
    for session in (one, other):
        own = str(session.state.session_id)
        told = [d["event"]["seq"] for d in documents if d["event"]["session_id"] == own]
        assert told == list(range(1, len(told) + 1))
    assert path.stat().st_mode & 0o777 == 0o600
    wrong = verify_audit(path, key=b"another key, as long")
    assert (wrong.records, wrong.line) == (0, 1)


CHANGES: dict[str, tuple[Callable[[list[bytes]], object], int, str]] = {
    "changed": (
        lambda lines: lines.insert(2, lines.pop(2).replace(b"exec", b"read")),
        3,
        "changed",
    ),
    "removed": (lambda lines: lines.pop(2), 3, "does not follow"),
    "added": (lambda lines: lines.insert(2, lines[1]), 3, "does not follow"),
    "moved": (lambda lines: lines.insert(2, lines.pop(3)), 3, "does not follow"),
    "first": (lambda lines: lines.pop(0), 1, "does not follow"),
    "foreign": (lambda lines: lines.append(b'{"hash":"x"}\n'), 6, "none of an audit log"),
    "cut": (lambda lines: lines.append(lines.pop()[:-3]), 5, "not ended"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_changes_show(tmp_path: Path, name: str) -> None:
    path = tmp_path / "audit.jsonl"
    await written(path, 5, KEY)
    lines = path.read_bytes().splitlines(keepends=True)
    change, line, says = CHANGES[name]
    change(lines)
    path.write_bytes(b"".join(lines))
    report = verify_audit(path, key=KEY)
    assert not report.ok
    assert (report.line, report.records) == (line, line - 1)
    assert says in str(report.broken), report


async def test_missing_end_shows(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    await written(path, 5)
    head = verify_audit(path).head
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert verify_audit(path).ok  # nobody can tell without a hash from then
    report = verify_audit(path, head=head)
    assert not report.ok
    assert "missing at the end" in str(report)


@pytest.mark.parametrize("left", [1, 100, 39_000])
@pytest.mark.parametrize("before", [0, 3])
async def test_goes_on_after_a_kill(tmp_path: Path, before: int, left: int) -> None:
    """What is left of a line is cut, and that is told."""
    path = tmp_path / "audit.jsonl"
    sink = await written(path, before + 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:before]) + lines[before][:left])
    await sink.handle(event(9))
    report = verify_audit(path)
    assert report.ok, str(report)
    assert (report.records, report.cut) == (before + 1, left)


async def test_cut_is_told_later(tmp_path: Path) -> None:
    """Where the next line can't be written, the one after it tells what was cut."""
    path = tmp_path / "audit.jsonl"
    sink = await written(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole), kept[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            await sink.handle(event(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    await sink.handle(event(4))
    report = verify_audit(path)
    first = whole.index(b"\n") + 1
    assert (report.ok, report.records, report.cut) == (True, 2, len(whole) - 100 - first)


async def test_forged_event_is_not_read(tmp_path: Path) -> None:
    """Without a key anybody who may write the file can hash anything, such as what no parser gets out of."""
    path = tmp_path / "audit.jsonl"
    forged = b"[" * 200_000
    zeros = b"0" * 64
    own = hashlib.sha256(zeros + b"\n" + forged).hexdigest().encode()
    path.write_bytes(
        b'{"hash":"' + own + b'","previous":"' + zeros + b'","event":' + forged + b"}\n"
    )
    report = verify_audit(path)
    assert (report.ok, report.records, report.head) == (True, 1, own.decode())


async def test_follows_nothing_foreign(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("notes of somebody's\n")
    with pytest.raises(EventSinkError, match="none of an audit log"):
        await AuditSink(path).handle(event(1))
    assert path.read_text() == "notes of somebody's\n"
    with pytest.raises(EventSinkError, match="can't be read"):
        verify_audit(tmp_path / "missing")


async def test_nothing_undone_unwritten(tmp_path: Path) -> None:
    """With on_error="raise" what can't be written down is not done."""
    path = tmp_path / "audit.jsonl"
    async with telling(AuditSink(path, on_error="raise")) as session:
        kept = path.read_bytes()
        path.write_text("not ours\n")
        with pytest.raises(EventSinkError):
            await session.exec("echo x > made")
        path.write_bytes(kept)
        assert not await session.exists("made")


@pytest.mark.parametrize(
    "odd",
    [{"key": b"short"}, {"key": "text"}, {"head": "x"}, {"head": 10**63}, {"head": b"0" * 61}],
)
def test_odd_ones_are_refused(tmp_path: Path, odd: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        verify_audit(tmp_path / "a", **odd)  # type: ignore[arg-type]  # on purpose
