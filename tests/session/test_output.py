"""What is kept of a command's output: head and tail exactly, and honest counts of the rest."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import time

import pytest

from sandyard import ExecTimeoutError, UnixLocalSandboxSession

Session = UnixLocalSandboxSession

# Writes numbered records of 16 bytes, so that every position of the stream is known.
PATTERN = """
import sys
first, last, fd = map(int, sys.argv[1:])
step = 16384
with open(fd, "wb", buffering=1 << 20, closefd=False) as out:
    for start in range(first, last, step):
        out.write(b"".join(b"%015d\\n" % n for n in range(start, min(start + step, last))))
"""


def make_records(first: int, last: int) -> bytes:
    return b"".join(b"%015d\n" % number for number in range(first, last))


async def write_records(
    session: Session, count: int, limit: int, fd: int = 1
) -> tuple[bytes, int, int]:
    result = await session.exec(
        "python3", "-c", PATTERN, "0", str(count), str(fd), shell=False, output_limit=limit
    )
    assert result.exit_code == 0, result
    if fd == 1:
        return result.stdout, result.stdout_dropped, result.stdout_total
    return result.stderr, result.stderr_dropped, result.stderr_total


@pytest.mark.parametrize("fd", [1, 2])
@pytest.mark.parametrize("limit", [16 * 4, 16 * 1000, 16 * 40_000])
async def test_head_and_tail_are_exact(session: Session, limit: int, fd: int) -> None:
    count = 100_000
    kept, dropped, total = await write_records(session, count, limit, fd)
    head = limit // 16 // 4
    tail = limit // 16 - head
    assert kept == make_records(0, head) + make_records(count - tail, count)
    assert total == count * 16
    assert dropped == total - limit


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_limit_is_exact(session: Session, extra: int) -> None:
    limit = 200_000
    result = await session.exec(f"head -c {limit + extra} /dev/zero", output_limit=limit)
    assert len(result.stdout) == limit + min(extra, 0)
    assert result.stdout_dropped == max(extra, 0)
    assert result.stdout_total == limit + extra


async def test_nothing_kept_is_still_counted(session: Session) -> None:
    result = await session.exec("echo 12345; echo 123 >&2", output_limit=0)
    assert (result.stdout, result.stderr) == (b"", b"")
    assert (result.stdout_total, result.stdout_dropped) == (6, 6)
    assert (result.stderr_total, result.stderr_dropped) == (4, 4)


async def test_300_megabytes_cost_no_memory(session: Session) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 300 * 1024 * 1024
    result = await session.exec(f"head -c {size} /dev/zero")
    limit = 16 * 1024 * 1024
    assert (result.stdout_total, result.stdout_dropped) == (size, size - limit)
    assert result.stdout == bytes(limit)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 100e6  # what is kept, joined once, and the copy to compare with


async def test_binary_output_is_untouched(session: Session) -> None:
    data = bytes(range(256)) * 5000
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 5000)"
    result = await session.exec("python3", "-c", script, shell=False)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


async def test_both_streams_at_once_are_whole(session: Session) -> None:
    script = (
        "import sys\nfor _ in range(300):\n"
        " sys.stdout.write('o' * 9999 + chr(10)); sys.stderr.write('e' * 9999 + chr(10))"
    )
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.stdout == (b"o" * 9999 + b"\n") * 300
    assert result.stderr == (b"e" * 9999 + b"\n") * 300


async def test_streams_can_be_reopened(session: Session) -> None:
    result = await session.exec(
        "echo out > /dev/stdout; echo err > /dev/stderr; echo more >> /dev/stderr"
    )
    assert (result.stdout, result.stderr) == (b"out\n", b"err\nmore\n")


async def test_closed_streams_are_no_error(session: Session) -> None:
    result = await session.exec("exec >&- 2>&-; sleep 0.1; exit 4")
    assert (result.stdout, result.stderr, result.exit_code) == (b"", b"", 4)


async def test_timeout_carries_what_was_written(session: Session) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("printf before; printf problem >&2; sleep 1000", timeout=0.3)
    error = caught.value
    assert (error.stdout, error.stderr, error.timeout_s) == (b"before", b"problem", 0.3)
    assert error.result is not None
    assert error.result.exit_code == -9
    assert error.result.stdout_total == 6


async def test_timeout_of_a_flood_is_bounded(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("yes", timeout=0.3, output_limit=1000)
    assert time.monotonic() - began < 0.3 + 1.5
    error = caught.value
    assert error.result is not None
    assert error.stdout == b"y\n" * 500
    assert error.result.stdout_dropped == error.result.stdout_total - 1000
    assert error.result.stdout_total > 100_000


async def test_flood_leaves_the_loop_to_others(session: Session) -> None:
    flood = asyncio.create_task(session.exec("head -c 300000000 /dev/zero", output_limit=0))
    turns = 0
    while not flood.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await flood).stdout_total == 300_000_000
    assert turns > 100
