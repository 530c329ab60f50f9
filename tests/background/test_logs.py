"""Logs as their readers see them: order, bounds, slow readers, and what is missing."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    LogChunk,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.background.reading import log_files, read_now, read_until, read_whole, text_of

Session = UnixLocalSandboxSession


async def test_streams_are_apart_and_in_order(session: Session) -> None:
    script = "for n in 1 2 3; do echo out $n; read line; echo err $n >&2; read line; done"
    process = await session.start_process(script, stdin=True)
    expected = []
    reader = process.logs()
    for n in (1, 2, 3):
        for name, word in (("stdout", b"out"), ("stderr", b"err")):
            chunk = await anext(reader)
            expected.append((name, b"%s %d\n" % (word, n)))
            assert (chunk.stream, chunk.data, chunk.missed) == (*expected[-1], 0)
            await process.stdin.write(b"\n")
    assert await read_whole(reader) == []
    whole = await read_whole(process.logs())
    assert text_of(whole) == b"".join(data for _, data in expected)
    assert text_of(await read_whole(process.logs(stream="stderr"))) == b"err 1\nerr 2\nerr 3\n"
    assert text_of(await read_whole(process.logs(stream="stdout"))) == b"out 1\nout 2\nout 3\n"


async def test_any_bytes_are_kept(session: Session) -> None:
    raw = bytes(range(256)) * 3
    await session.write("raw", raw)
    process = await session.start_process("cat raw; cat raw >&2; printf '\\303'")
    await process.wait()
    told = await read_whole(process.logs())
    assert (text_of(told, "stdout"), text_of(told, "stderr")) == (raw + b"\xc3", raw)


async def test_places_to_begin(session: Session) -> None:
    script = "echo one; echo two; echo three; read line; echo four; printf five"
    process = await session.start_process(script, stdin=True)
    await read_until(process, b"three\n")
    later = process.logs(start="now")
    assert await read_whole(process.logs(start="now", follow=False)) == []
    assert text_of(await read_whole(process.logs(last_bytes=8, follow=False))) == b"o\nthree\n"
    assert text_of(await read_whole(process.logs(last_lines=2, follow=False))) == b"two\nthree\n"
    followed = process.logs(last_lines=1)
    await process.stdin.write(b"\n")
    assert text_of(await read_whole(later)) == b"four\nfive"
    assert text_of(await read_whole(followed)) == b"three\nfour\nfive"
    for count, rest in ((0, b""), (1, b"five"), (2, b"four\nfive"), (99, None)):
        expected = b"one\ntwo\nthree\nfour\nfive" if rest is None else rest
        assert text_of(await read_whole(process.logs(last_lines=count))) == expected
    for count, rest in ((0, b""), (4, b"five"), (9999, None)):
        expected = b"one\ntwo\nthree\nfour\nfive" if rest is None else rest
        assert text_of(await read_whole(process.logs(last_bytes=count))) == expected


async def test_impossible_places(session: Session) -> None:
    process = await session.start_process("true")
    for wrong in (
        {"start": "end"},
        {"start": "now", "last_lines": 1},
        {"last_lines": 1, "last_bytes": 1},
        {"last_lines": -1},
        {"last_bytes": 2**60},
        {"stream": "stdin"},
    ):
        with pytest.raises(ArgumentError) as caught:
            process.logs(**wrong)
        assert caught.value.op == "logs"
    with pytest.raises(ArgumentTypeError):
        process.logs(last_lines="1")  # type: ignore[arg-type]


async def test_bounds_and_honest_count(session: Session) -> None:
    size = 3_000_000
    script = f"seq -f %09.0f {size // 10}; echo last >&2"
    process = await session.start_process(script, log_limit=256 * 1024)
    await process.wait(60)
    told = await read_whole(process.logs())
    (gap,) = [chunk for chunk in told if chunk.missed]
    assert (gap.stream, gap.data) == ("stdout", b"")
    before = text_of(told[: told.index(gap)], "stdout")
    behind = text_of(told[told.index(gap) :], "stdout")
    assert len(before) + gap.missed + len(behind) == size
    assert before.startswith(b"000000001\n000000002\n")
    assert behind.endswith(b"%09d\n" % (size // 10))
    assert text_of(told, "stderr") == b"last\n"
    assert len(before) > 60_000
    assert len(behind) > 140_000
    first = int(behind[behind.index(b"\n") + 1 :][:9])  # what lies behind is whole, too
    lines = behind[behind.index(b"\n") + 1 :].split()
    assert [int(line) for line in lines] == list(range(first, size // 10 + 1))
    status = process.log_status
    assert (status.stdout_total, status.stderr_total) == (size, 5)
    assert (status.dropped, status.lost, status.failure) == (gap.missed, 0, None)
    (name,) = log_files()
    assert file_of(name).stat().st_size <= 256 * 1024
    lines = text_of(await read_whole(process.logs(last_lines=3))).splitlines()
    assert lines == [b"%09d" % (size // 10 - 1), b"%09d" % (size // 10), b"last"]
    assert text_of(await read_whole(process.logs(last_bytes=6))) == b"\nlast\n"


def file_of(name: str) -> Path:
    """A log by the name that ``log_files`` gives it."""
    return Path(os.environ["XDG_STATE_HOME"], "sandyard", "sessions", name)


async def test_others_cannot_read_them(session: Session) -> None:
    process = await session.start_process("echo secret; sleep 60")
    await read_until(process, b"secret\n")
    (name,) = log_files()
    assert stat.S_IMODE(file_of(name).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(name).parent.stat().st_mode) == 0o700
    seen = await session.exec(f"cat '{file_of(name)}'; ls '{file_of(name).parent}'")
    assert seen.stdout == b""
    assert seen.stderr.count(b"No such file") == 2


async def test_slow_followers_are_told(session: Session) -> None:
    script = "echo first; read line; head -c 3000000 /dev/zero; echo; echo last"
    process = await session.start_process(script, stdin=True, log_limit=64 * 1024)
    slow = process.logs()
    assert (await anext(slow)).data == b"first\n"
    await process.stdin.write(b"\n")
    await process.wait(30)
    rest = await read_whole(slow)
    assert sum(chunk.missed + len(chunk.data) for chunk in rest) == 3_000_006
    assert sum(chunk.missed for chunk in rest) == process.log_status.dropped
    assert text_of(rest).endswith(b"\0\nlast\n")


async def test_many_followers(session: Session) -> None:
    script = "for n in $(seq 200); do echo $n; done; read line; seq 201 400"
    process = await session.start_process(script, stdin=True)
    followers = [asyncio.create_task(read_whole(process.logs())) for _ in range(40)]
    await read_until(process, b"\n200\n")
    cancelled, followers = followers[:10], followers[10:]
    for task in cancelled:
        task.cancel()
    late = [asyncio.create_task(read_whole(process.logs(last_lines=1))) for _ in range(10)]
    await asyncio.gather(*cancelled, return_exceptions=True)
    assert all(task.cancelled() for task in cancelled)
    await asyncio.gather(*(read_whole(process.logs(last_lines=1, follow=False)) for _ in range(5)))
    await process.stdin.write(b"\n")
    expected = b"".join(b"%d\n" % n for n in range(1, 401))
    assert {text_of(told) for told in await asyncio.gather(*followers)} == {expected}
    for told in await asyncio.gather(*late):
        assert expected.endswith(text_of(told))
        assert text_of(told).startswith(b"200\n")


async def test_reading_while_it_floods(session: Session) -> None:
    process = await session.start_process("yes 0123456789", log_limit=128 * 1024)
    for _ in range(20):
        last = text_of(await read_whole(process.logs(last_lines=2, follow=False)))
        assert set(last.splitlines()[:-1]) <= {b"0123456789"}
        written = process.log_status.stdout_total
        now = await read_whole(process.logs(follow=False))
        assert sum(chunk.missed + len(chunk.data) for chunk in now) == written
        for chunk in now:
            assert set(chunk.data) <= set(b"0123456789\n")
    assert (await session.exec("echo on")).stdout == b"on\n"
    await process.close()
    told = await read_whole(process.logs())
    total = sum(chunk.missed + len(chunk.data) for chunk in told)
    assert total == process.log_status.stdout_total


async def test_removed_while_it_is_read(session: Session) -> None:
    process = await session.start_process("echo up; sleep 60")
    reader = process.logs()
    assert (await anext(reader)).data == b"up\n"
    waiting = asyncio.create_task(read_whole(reader))
    await asyncio.sleep(0)
    await session.remove_process(process)
    # It may have heard of the end first: then it has ended well.
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert outcome == [] or isinstance(outcome, SessionClosedError)
    with pytest.raises(SessionClosedError, match="gone"):
        await read_whole(process.logs())


async def test_followers_end_with_the_session() -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        process = await session.start_process("echo up; sleep 60")
        following = asyncio.create_task(read_whole(process.logs()))
        await read_until(process, b"up\n")
        await session.shutdown()
        assert await following == [LogChunk("stdout", b"up\n")]
        assert await read_now(process) == b"up\n"
    await client.delete(session)


async def test_cancelled_reader_goes_on(session: Session) -> None:
    process = await session.start_process("echo one; read line; echo two", stdin=True)
    reader = process.logs()
    assert (await anext(reader)).data == b"one\n"
    for _ in range(3):
        step = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
    await process.stdin.write(b"\n")
    assert text_of(await read_whole(reader)) == b"two\n"
