"""What becomes of background processes and their logs when somebody dies, or nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandyard import (
    BackgroundProcess,
    ExecTransportError,
    Policy,
    ResourceLimitError,
    ResourceLimits,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.process.budget import DescriptorBudget, descriptor_budget
from sandyard.workspace.lease import Lease
from sandyard.workspace.log_place import LogPlace, remove_logs
from sandyard.workspace.root import Inode
from sandyard.workspace.sweep import sweep
from tests.background.reading import log_files, read_now, read_until, read_whole
from tests.house.leaks import list_children
from tests.session.host import (
    find_init,
    find_survivors,
    make_token,
    names_in,
    open_descriptors,
    until,
)

Session = UnixLocalSandboxSession

HOST = """
import asyncio, os
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    session = await client.create()
    await session.start()
    process = await session.start_process(
        "setsid sleep $TOKEN & echo logged; exec sleep $TOKEN", env={"TOKEN": os.environ["TOKEN"]})
    async for chunk in process.logs():
        break
    print("ready", flush=True)
    await process.wait()

asyncio.run(main())
"""


def environment_in(place: Path, token: str) -> dict[str, str]:
    """The environment of a host program that has directories of its own."""
    return {
        "TMPDIR": str(place),
        "XDG_STATE_HOME": str(place / "state"),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "TOKEN": token,
    }


@contextmanager
def run_host(place: Path, token: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has a session with a process in it, and waits."""
    program = subprocess.Popen(
        [sys.executable, "-c", HOST],
        env=environment_in(place, token),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_the_host(tmp_path: Path, number: int) -> None:
    token, state = make_token(), tmp_path / "state" / "sandyard"
    with run_host(tmp_path, token) as program:
        (log,) = state.glob("sessions/*/logs/*")
        assert log.read_bytes()[5:] == b"logged\n"
        await until(lambda: len(find_survivors(token)) == 2)
        program.send_signal(number)
        await until(lambda: not find_survivors(token))
    await asyncio.to_thread(sweep, str(state))  # as the next start does
    assert names_in(state / "sessions") == []
    assert names_in(tmp_path) == ["state"]


@pytest.mark.parametrize("victim", ["init", "outer"])
async def test_killed_sandbox_is_told(session: Session, victim: str) -> None:
    token = make_token()
    processes = [
        await session.start_process(f"echo up; exec sleep {token}", stdin=True) for _ in range(4)
    ]
    for process in processes:
        await read_until(process, b"up\n")
    waiting = [asyncio.create_task(process.wait()) for process in processes]
    writing = [asyncio.create_task(one.stdin.write(bytes(3_000_000))) for one in processes]
    following = [asyncio.create_task(read_whole(process.logs())) for process in processes]
    await asyncio.sleep(0)
    init = find_init()
    outer = next(pid for pid in list_children(os.getpid()) if init in list_children(pid))
    os.kill(init if victim == "init" else outer, signal.SIGKILL)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*waiting, *writing, return_exceptions=True)
        told = await asyncio.gather(*following)
    assert {type(outcome) for outcome in outcomes} == {ExecTransportError}
    assert [chunk.data for chunks in told for chunk in chunks] == [b"up\n"] * 4
    assert {(one.state, one.exit_code) for one in processes} == {("ended", None)}
    with pytest.raises(ExecTransportError, match="ended before"):
        await session.start_process("true")
    await until(lambda: not find_survivors(token))
    assert descriptor_budget.used == 0
    assert await read_now(processes[0]) == b"up\n"


async def test_host_that_ends_its_loop(tmp_path: Path) -> None:
    token, sessions = make_token(), list[Session]()
    client = UnixLocalSandboxClient()

    async def begin() -> None:
        session = await client.create()
        sessions.append(session)
        await session.start()
        await session.start_process(f"yes & exec sleep {token}", stdin=True)

    async def finish() -> None:
        await sessions[0].shutdown()
        assert descriptor_budget.used == 0
        await sessions[0].start()
        process = await sessions[0].start_process("echo on another loop")
        await process.wait()
        assert await read_now(process) == b"on another loop\n"
        await client.delete(sessions[0])

    await asyncio.to_thread(asyncio.run, begin())
    await asyncio.to_thread(asyncio.run, finish())
    assert find_survivors(token) == []


def test_logs_are_removed_as_noted(tmp_path: Path) -> None:
    state, session_id = str(tmp_path / "state"), "12345678-1234-4234-8234-123456789abc"
    lease = Lease.take(state, session_id, root=str(tmp_path), owned=False)
    place, directory = LogPlace(lease), Path(lease.directory)
    with pytest.raises(FileNotFoundError):
        place.open("p1.log", make=False)
    assert names_in(directory) == ["lease"]
    os.close(place.open("p1.log", make=True))
    noted = json.loads((directory / "lease").read_bytes())
    facts = (directory / "logs").stat()
    assert (noted["logs_device"], noted["logs_inode"]) == (facts.st_dev, facts.st_ino)
    lease.release()  # as if its owner had died
    kept = directory / "elsewhere"
    (directory / "logs").rename(kept)
    (directory / "logs").mkdir()
    (directory / "logs" / "foreign").touch()
    sweep(state)
    assert (directory / "logs" / "foreign").exists()  # another directory is not ours to empty
    (directory / "logs" / "foreign").unlink()
    (directory / "logs").rmdir()
    kept.rename(directory / "logs")
    place.close()
    with pytest.raises(FileNotFoundError):
        place.open("p1.log", make=True)
    sweep(state)
    assert not directory.exists()


def test_unknown_logs_stay(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "file").touch()
    session = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not remove_logs(session, None)
        assert not remove_logs(session, Inode(1, 2))
        (tmp_path / "logs" / "file").unlink()
        assert remove_logs(session, None)
        (tmp_path / "logs").symlink_to(tmp_path)
        assert not remove_logs(session, None)
    finally:
        os.close(session)


async def test_session_that_is_kept_has_none(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        process = await session.start_process("echo logged")
        await process.wait()
        await read_now(process)
        assert len(log_files()) == 1
    assert log_files() == []
    await client.delete(session)


@pytest.mark.parametrize("leaves", ["", "setsid "], ids=["group", "sessions"])
async def test_fork_bomb_in_background(leaves: str) -> None:
    # Fewer than a session may have: thousands of them are the whole machine's business for a while.
    client = UnixLocalSandboxClient()
    session = await client.create(policy=Policy(limits=ResourceLimits(processes=200)))
    async with session:
        await session.write("bomb", f"{leaves}sh $0 & {leaves}sh $0 & echo up; sleep 60".encode())
        bomb = await session.start_process("sh bomb")
        first = await asyncio.wait_for(anext(bomb.logs()), 30)
        assert first.data
        await asyncio.wait_for(session.stop(processes="end"), 30)
        await until(lambda: bomb.state == "ended", within=20)
        assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)


async def test_few_descriptors_are_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    small = DescriptorBudget(57)
    monkeypatch.setattr("sandyard.process.background_list.descriptor_budget", small)
    before = open_descriptors()
    for _ in range(4):
        await session.start_process("sleep 60")
    with pytest.raises(ResourceLimitError, match="background processes") as caught:
        await session.start_process("sleep 60", stdin=True)
    assert (caught.value.op, caught.value.retryable) == ("start_process", True)
    await session.process("p1").close()
    await session.start_process("sleep 60")
    assert (await session.exec("echo on")).stdout == b"on\n"
    await session.stop(processes="end")
    # The logs' directory stays open; nothing else does.
    assert len(open_descriptors() - before) <= 1


MANY = """
import asyncio, os, resource, threading
soft = min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        count = 1000
        for n in range(0, count, 50):
            await asyncio.gather(*(
                session.start_process(f"echo up {m}; exec sleep 600", name=f"n{m}")
                for m in range(n, n + 50)))
        assert len(session.processes()) == count
        for n in range(count):
            async for chunk in session.process(f"n{n}").logs():
                assert chunk.data == b"up %d\\n" % n
                break
        assert threading.active_count() < 40
        assert len(os.listdir("/proc/self/fd")) < 2 * count + 100
        await session.stop(processes="end")
        assert {process.state for process in session.processes()} == {"ended"}
        assert len(os.listdir("/proc/self/fd")) < 100
        # Their helpers inside go when they have been idle for a while.
        while int((await session.exec("ls -d /proc/[0-9]* | wc -l")).stdout) > 20:
            await asyncio.sleep(0.1)
    await client.delete(session)

asyncio.run(main())
"""


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_a_thousand_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        env=environment_in(tmp_path, ""),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("steps", range(8))
async def test_closed_while_one_starts(client: UnixLocalSandboxClient, steps: int) -> None:
    session = await client.create()
    await session.start()
    starting = asyncio.create_task(session.start_process("sleep 60", stdin=True))
    for _ in range(steps):
        await asyncio.sleep(0)
    await session.aclose()
    (outcome,) = await asyncio.gather(starting, return_exceptions=True)
    if isinstance(outcome, BackgroundProcess):
        assert outcome.state == "ended"
    else:
        assert isinstance(outcome, ExecTransportError | SessionClosedError)
    assert (descriptor_budget.used, log_files()) == (0, [])
    await client.delete(session)


async def test_handle_outlives_its_session(client: UnixLocalSandboxClient) -> None:
    session = await client.create()
    async with session:
        process = await session.start_process("sleep 60")
        reader = process.logs()
    assert (process.state, process.exit_code) == ("ended", None)
    await process.close()
    await process.signal("TERM")
    with pytest.raises(ExecTransportError):
        await process.wait()
    with pytest.raises(SessionClosedError):
        await anext(reader)
    await client.delete(session)
