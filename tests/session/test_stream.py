"""Output as it comes: in order, at the reader's pace, and ended with the block."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

from sandyard import (
    ArgumentError,
    ExecTimeoutError,
    ExecTransportError,
    UnixLocalSandboxSession,
)
from sandyard.process.budget import descriptor_budget
from tests.session.host import find_survivors, make_token, open_descriptors, root_of, until

Session = UnixLocalSandboxSession

# Counts the kilobytes that it could write in a file, so that a test sees it wait.
COUNTER = """
import os
with open("count", "r+b", buffering=0) as count:
    for number in range(1_000_000):
        os.write(1, bytes(1024))
        os.pwrite(count.fileno(), b"%9d" % number, 0)
"""


async def read_all(
    session: Session, command: str, timeout: float | None = 20
) -> tuple[bytes, bytes]:
    streams = {"stdout": b"", "stderr": b""}
    async with session.stream(command, timeout=timeout) as stream:
        async for chunk in stream:
            assert chunk.data
            streams[chunk.stream] += chunk.data
    return streams["stdout"], streams["stderr"]


async def test_output_is_whole_and_in_order(session: Session) -> None:
    out, err = await read_all(session, "seq 300000; seq 1000 >&2")
    assert out == b"".join(b"%d\n" % n for n in range(1, 300_001))
    assert err == b"".join(b"%d\n" % n for n in range(1, 1001))


async def test_chunks_come_while_it_runs(session: Session) -> None:
    async with session.stream("mkfifo gate; echo one; read x < gate; echo two") as stream:
        first = await anext(stream)
        assert first.data == b"one\n"
        with pytest.raises(ExecTransportError, match="not ended"):
            _ = stream.result
        await session.exec("echo go > gate", timeout=10)
        rest = [chunk.data async for chunk in stream]
    assert rest == [b"two\n"]
    assert stream.result.exit_code == 0


async def test_result_counts_what_was_read(session: Session) -> None:
    async with session.stream(
        "head -c 5000000 /dev/zero; echo err >&2; sleep 60 & exit 3"
    ) as stream:
        size = sum([len(chunk.data) async for chunk in stream])
    result = stream.result
    assert size == 5_000_004
    assert (result.exit_code, result.stdout_total, result.stderr_total) == (3, 5_000_000, 4)
    assert (result.stdout, result.stderr) == (b"", b"")
    assert len(result.leftovers) == 1
    assert result.usage is not None
    assert [chunk async for chunk in stream] == []


async def test_slow_reader_makes_it_wait(session: Session) -> None:
    count = root_of(session) / "count"
    count.write_bytes(b"        0")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with session.stream("python3", "-c", COUNTER, shell=False) as stream:
        await anext(stream)
        seen = [-2, -1]

        def waits() -> bool:
            seen.append(int(count.read_bytes() or b"0"))
            return len(seen) > 20 and len(set(seen[-20:])) == 1

        await until(waits, within=10)
        assert seen[-1] < 8 * 1024  # what our buffer, its last read and the pipe may hold
        taken = 0
        async for chunk in stream:
            taken += len(chunk.data)
            if taken > 30_000_000:  # it goes on as soon as somebody reads
                break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 20e6


async def test_timeout_comes_without_reading(session: Session) -> None:
    token = make_token()
    command = f"echo begun; setsid sleep {token} & yes"
    async with session.stream(command, timeout=0.3) as stream:
        assert (await anext(stream)).data.startswith(b"begun\n")
        await until(lambda: find_survivors(token))
        await until(lambda: not find_survivors(token), within=2)
        with pytest.raises(ExecTimeoutError) as caught:
            async for _ in stream:
                pass
    assert caught.value.timeout_s == 0.3
    assert caught.value.result is not None
    assert caught.value.result.stdout_total > 1_000_000


async def test_timeout_comes_while_reading(session: Session) -> None:
    token = make_token()
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError):
        await read_all(session, f"echo hi; sleep {token} & sleep {token}", timeout=0.3)
    assert time.monotonic() - began < 0.3 + 1.5
    assert find_survivors(token) == []


async def test_leaving_the_block_ends_the_tree(session: Session) -> None:
    token = make_token()
    before = open_descriptors()
    async with session.stream(f"setsid sleep {token} & echo up; yes") as stream:
        async for _ in stream:
            break
        assert find_survivors(token)
    assert find_survivors(token) == []
    assert descriptor_budget.used == 0
    assert open_descriptors() == before


async def test_error_in_the_block_ends_the_tree(session: Session) -> None:
    token = make_token()

    async def fail_inside() -> None:
        async with session.stream(f"setsid sleep {token} & sleep {token}"):
            await until(lambda: find_survivors(token))
            raise LookupError

    with pytest.raises(LookupError):
        await fail_inside()
    assert find_survivors(token) == []


async def test_cancelled_reader_ends_the_tree(session: Session) -> None:
    token = make_token()
    task = asyncio.create_task(read_all(session, f"setsid sleep {token} & sleep {token}"))
    await until(lambda: len(find_survivors(token)) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert find_survivors(token) == []


async def test_leftovers_stay_after_its_exit(session: Session) -> None:
    token = make_token()
    await read_all(session, f"setsid sleep {token} & echo hi")
    await until(lambda: len(find_survivors(token)) == 1)


async def test_signals_reach_the_command(session: Session) -> None:
    command = "trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.02; done"
    async with session.stream(command, timeout=20) as stream:
        assert (await anext(stream)).data == b"up\n"
        await stream.signal(10)
        assert [chunk.data async for chunk in stream] == [b"got\n"]
        await stream.signal(10)  # it has ended: nothing happens
    assert stream.result.exit_code == 5


async def test_signal_of_the_tree_reaches_children(session: Session) -> None:
    token = make_token()
    command = f"trap '' TERM; echo up; sleep {token}; echo after"
    async with session.stream(command, timeout=20) as stream:
        assert (await anext(stream)).data == b"up\n"
        await until(lambda: len(find_survivors(token)) == 2)
        await stream.signal(9, tree=True)
        assert [chunk.data async for chunk in stream] == []
    assert stream.result.exit_code == -9
    assert find_survivors(token) == []


async def test_unborn_command_has_its_code(session: Session) -> None:
    async with session.stream("no-such-program", shell=False) as stream:
        chunks = [chunk async for chunk in stream]
    assert stream.result.exit_code == 127
    said = b"".join(chunk.data for chunk in chunks if chunk.stream == "stderr")
    assert b"no-such-program" in said + stream.result.stderr


async def test_impossible_directory_is_refused(session: Session) -> None:
    async def run() -> None:
        async with session.stream("true", cwd="missing") as stream:
            async for _ in stream:
                pass

    with pytest.raises(ArgumentError, match="directory"):
        await run()


async def test_reader_learns_of_the_end(session: Session) -> None:
    async with session.stream("echo up; sleep 1000") as stream:
        await anext(stream)
        await session.shutdown()
        with pytest.raises(ExecTransportError, match="ended"):
            await anext(stream)


async def test_input_is_fed(session: Session) -> None:
    data = bytes(range(256)) * 20_000
    async with session.stream("cat", stdin=data) as stream:
        got = b"".join([chunk.data async for chunk in stream])
    assert got == data


async def test_several_at_once(session: Session) -> None:
    outputs = await asyncio.gather(*(read_all(session, f"seq {n} {n + 20000}") for n in range(10)))
    for number, (out, _) in enumerate(outputs):
        assert out == b"".join(b"%d\n" % n for n in range(number, number + 20_001))
