"""Output that comes with a command's exit: whole whatever its size, and pipes for who runs on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from sandyard import ExecTimeoutError, ResourceLimitError
from sandyard import UnixLocalSandboxSession as Session
from tests.exhaustion.shortage import count_descriptors, few_descriptors
from tests.session.host import root_of, until

ROOM = 16 * 1024
"""Bytes of output that an exit has room for."""

PACKETS = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETFL, os.O_WRONLY | os.O_DIRECT)
for piece in (b"one", b"two", b"three"):
    os.write(1, piece)
"""

MANY_PACKETS = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
fcntl.fcntl(1, fcntl.F_SETFL, os.O_WRONLY | os.O_DIRECT)
for number in range({count}):
    os.write(1, b"%3000d" % number)
open("done", "w")
"""

LARGE = """
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
os.write(1, b"o" * 700_000)
"""


@pytest.mark.parametrize(
    ("out", "err"), [(0, 1), (1, 0), (ROOM, 0), (ROOM - 5, 5), (ROOM, 1), (5, ROOM), (65536, 65536)]
)
async def test_output_of_any_size(session: Session, out: int, err: int) -> None:
    script = f"head -c {out} /dev/zero | tr '\\0' o; head -c {err} /dev/zero | tr '\\0' e >&2"
    result = await session.exec(script)
    assert (result.stdout, result.stderr) == (b"o" * out, b"e" * err)
    assert (result.stdout_total, result.stderr_total) == (out, err)


async def test_end_is_kept_of_much(session: Session) -> None:
    result = await session.exec("seq 10000", output_limit=100)
    assert result.stdout[-5:] == b"0000\n"
    assert (len(result.stdout), result.stdout_total) == (100, 48_894)


@pytest.mark.parametrize("pause", [0, 0.02], ids=["at once", "later"])  # made then, or before
async def test_no_pipe_serves_two_commands(session: Session, pause: float) -> None:
    pipes = "import os; os.write(2, str([os.fstat(fd).st_ino for fd in (1, 2)]).encode())"
    told: list[int] = []
    for number in range(6):
        await asyncio.sleep(pause)
        end = "and this" if number % 2 else ""
        result = await session.exec("python3", "-c", f"{pipes}; print({end!r})", shell=False)
        assert result.stdout == f"{end}\n".encode()
        told += json.loads(result.stderr)
    assert len(set(told)) == len(told) == 12


async def test_variables_are_those_of_each_command(session: Session) -> None:
    for value in ("one", None, "two", "two", None):
        env = None if value is None else {"OF_ONE": value}
        result = await session.exec("echo ${OF_ONE-none}", env=env)
        assert result.stdout.decode().strip() == (value or "none")


async def test_odd_pipes_are_read_whole(session: Session) -> None:
    packets = await session.exec("python3", "-c", PACKETS, shell=False)
    assert packets.stdout == b"onetwothree"
    large = await session.exec("python3", "-c", LARGE, shell=False)
    assert large.stdout == b"o" * 700_000


def wait_for(path: Path) -> None:
    """Lets the loop stand still until a file is there, and a moment longer."""
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)


@pytest.mark.parametrize("count", [6, 200])
@pytest.mark.parametrize("stalled", [True, False])
async def test_no_packet_is_cut(session: Session, count: int, *, stalled: bool) -> None:
    script = MANY_PACKETS.format(count=count)
    running = asyncio.create_task(
        session.exec("python3", "-c", script, shell=False, output_limit=100_000)
    )
    if stalled:  # it ends before anybody asks for its pipes
        await asyncio.sleep(0)
        wait_for(root_of(session) / "done")
    result = await running
    whole = b"".join(b"%3000d" % number for number in range(count))
    assert result.stdout_total == len(whole)
    assert result.stdout[-75_000:] == whole[-75_000:]


async def test_streams_open_anew(session: Session) -> None:
    result = await session.exec("echo out > /dev/stdout; echo err > /dev/stderr")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


async def test_short_ones_need_no_descriptor(session: Session) -> None:
    await session.exec("true")
    with few_descriptors(0):
        result = await session.exec("/bin/echo", "on", shell=False)
    assert result.stdout == b"on\n"


async def test_long_ones_wait_for_descriptors(session: Session) -> None:
    before = count_descriptors()
    with few_descriptors(0):
        running = asyncio.create_task(session.exec("echo a; sleep 0.3; echo b; head -c 99999 x"))
        await asyncio.sleep(0.1)
    assert (await running).stdout == b"a\nb\n"
    with few_descriptors(1), pytest.raises(ResourceLimitError) as caught:
        await session.exec("echo on; sleep 60", timeout=50)
    assert caught.value.retryable
    assert count_descriptors() == before
    assert (await session.exec("sleep 0.05; echo on")).stdout == b"on\n"


async def test_leftovers_write_on(session: Session) -> None:
    script = "(until [ -e go ]; do :; done; head -c 999999 /dev/zero && touch all) & echo said"
    result = await session.exec(script)
    assert result.stdout == b"said\n"
    assert [one.name for one in result.leftovers]
    await session.write("go", b"")
    await until((root_of(session) / "all").exists)


async def test_timeout_tells_what_was_written(session: Session) -> None:
    for timeout in (0.003, 0.3):  # before anybody asks for the pipes, and after
        with pytest.raises(ExecTimeoutError) as caught:
            await session.exec("sh -c 'kill -STOP $$'", timeout=timeout)
        assert caught.value.stdout == b""
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("echo begun; exec sleep 60", timeout=0.3)
    assert caught.value.stdout == b"begun\n"


async def test_cancelled_while_pipes_come(session: Session) -> None:
    before = count_descriptors()
    for pause in (0, 0.003, 0.004, 0.0045, 0.005, 0.006, 0.01):
        running = asyncio.create_task(session.exec("echo begun; exec sleep 60"))
        await asyncio.sleep(pause)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert count_descriptors() == before
    assert (await session.exec("echo on")).stdout == b"on\n"


async def test_stalled_loop_loses_no_output(session: Session) -> None:
    await session.exec("true")
    sizes = range(0, 60_000, 3_000)
    scripts = [f"head -c {size} /dev/zero | tr '\\0' o" for size in sizes]
    tasks = [asyncio.create_task(session.exec(script)) for script in scripts]
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGCONT)  # nothing: the loop goes on reading only now
    results = await asyncio.gather(*tasks)
    assert [len(result.stdout) for result in results] == list(sizes)
