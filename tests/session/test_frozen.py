"""Saves that hold still what runs: of one moment, and over whatever becomes of the save."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from sandyard import (
    ArgumentError,
    Dependencies,
    Layered,
    RemoteSnapshotSpec,
    SnapshotStore,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    WorkspaceStopError,
    presets,
)
from tests.session.host import find_survivors, make_token, until

BETWEEN = 500
"""Files between the two that are compared: looking at them takes longer than writing these does."""

WRITER = """
import os, sys, threading
first, last = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("a", "z"))
def write():
    count = 0
    while True:
        count += 1
        for file in first, last:
            os.pwrite(file, b"%12d" % count, 0)
threading.Thread(target=write, daemon=True).start()
threading.Event().wait()
"""

HOST = """
import asyncio, sys
from tests.session.test_frozen import save_and_signal
asyncio.run(save_and_signal(sys.argv[1]))
"""


class Service:
    """A service that takes its time with what is uploaded, and may fail."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.fails = False

    async def upload(self, name: str, stream: io.IOBase) -> None:
        self.asked.set()
        await self.go_on.wait()
        if self.fails:
            raise ConnectionError("the service is away")

    async def download(self, name: str) -> io.BytesIO:
        raise AssertionError(name)

    async def exists(self, name: str) -> bool:
        return False


def client_of(service: Service) -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient(dependencies=Dependencies.with_values({"service": service}))


REMOTE = RemoteSnapshotSpec(client_dependency_key="service")


def states_of(token: str) -> set[str]:
    """The states of the living processes with a token."""
    return {found.split()[1] for found in find_survivors(token)}


def count_signals(monkeypatch: pytest.MonkeyPatch, pause_s: float = 0) -> list[int]:
    """Notes each signal that this program sends by itself; each SIGSTOP takes a while."""
    sent: list[int] = []
    really_send = signal.pidfd_send_signal

    def send(handle: int, number: int) -> None:
        really_send(handle, number)
        sent.append(number)
        if number == signal.SIGSTOP:
            time.sleep(pause_s)

    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    return sent


async def save_and_signal(token: str) -> None:
    """Say that a save holds still, and wait to be killed."""
    service = Service()
    session = await client_of(service).create(snapshot=REMOTE)
    async with session:
        await session.exec(f"sleep {token} & setsid sleep {token} &")
        stop = asyncio.create_task(session.stop(processes="freeze"))
        await service.asked.wait()
        sys.stdout.write("held\n")
        sys.stdout.flush()
        await stop


async def test_held_writer_leaves_one_moment(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    session = await client.create(snapshot=spec)
    async with session:
        await session.exec(f"for i in $(seq {BETWEEN}); do echo $i > f$i; done")
        await session.write("writer.py", WRITER.encode())
        await session.start_process("python3 writer.py")
        root = Path(session.state.manifest.root)
        await until(lambda: (root / "z").exists() and (root / "z").read_bytes())
        saved = []
        for _ in range(2):
            before = (root / "z").read_bytes()
            await session.stop(processes="freeze")
            assert session.checkpoint is not None
            assert not session.checkpoint.report.changed
            saved.append(await _pair(SnapshotStore(spec.directory), session.checkpoint.snapshot))
            await until(lambda before=before: (root / "z").read_bytes() != before)  # type: ignore[misc]
    await client.delete(session)
    assert all(first - last in {0, 1} for first, last in saved), saved
    assert len(set(saved)) == len(saved)


@pytest.mark.parametrize("layered", [False, True])
async def test_held_writer_is_forked(tmp_path: Path, *, layered: bool) -> None:
    """Forks, and snapshots beside the session's own, have one moment as well."""
    client, store = UnixLocalSandboxClient(), SnapshotStore()
    session = await client.create(workspace=Layered() if layered else None)
    forks, saved = [], []
    async with session:
        await session.exec(f"for i in $(seq {BETWEEN}); do echo $i > f$i; done")
        await session.write("writer.py", WRITER.encode())
        await session.start_process("python3 writer.py")
        await session.exec("until [ -s z ]; do sleep 0.01; done", timeout=30)
        asked = (client.fork(session, processes="freeze") for _ in range(2))
        forks += await asyncio.gather(*asked)
        made = await session.save_snapshot(processes="freeze")
        assert not made.changed
        saved.append(await _pair(store, made.id))
        odd: Any = "hold"
        for wrong in (client.fork(session, processes=odd), session.save_snapshot(processes=odd)):
            with pytest.raises(ArgumentError, match="'freeze'"):
                await wrong
        before = await session.read_range("z", size=12)
        await session.exec(f"until [ \"$(cat z)\" != '{before.decode()}' ]; do sleep 0.01; done")
    for fork in forks:
        assert fork.forked is not None
        assert not fork.forked.report.changed
        async with fork:
            first, last = [int(await fork.read_range(name, size=12)) for name in ("a", "z")]
            saved.append((first, last))
        await client.delete(fork)
    await client.delete(session)
    assert all(first - last in {0, 1} for first, last in saved), saved


async def _pair(store: SnapshotStore, snapshot: str) -> tuple[int, int]:
    raw = io.BytesIO(b"".join([piece async for piece in store.export(snapshot)]))
    with tarfile.open(fileobj=raw) as archive:
        first, last = (archive.extractfile(f"./{name}") for name in ("a", "z"))
        assert first is not None
        assert last is not None
        return int(first.read()), int(last.read())


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_all_goes_on_afterwards(
    end: str, monkeypatch: pytest.MonkeyPatch, *, crowded: bool
) -> None:
    sent = count_signals(monkeypatch)
    monkeypatch.setattr("sandyard.process.freezing.is_crowded", lambda: crowded)
    service, token = Service(), make_token()
    service.fails = end == "failed"
    client = client_of(service)
    session = await client.create(snapshot=REMOTE)
    async with session:
        running = asyncio.create_task(session.exec(f"sleep {token}; sleep {token}", timeout=60))
        await session.exec(f"sh -c 'kill -STOP $$; sleep {token}' & (setsid sleep {token} &)")
        before = {"S", "T"}  # the processor's own and a disk's are over soon
        await until(lambda: states_of(token) == before)
        stop = asyncio.create_task(session.stop(processes="freeze"))
        await service.asked.wait()
        assert states_of(token) == {"T"}
        begun = asyncio.create_task(session.exec("echo begun"))
        other = asyncio.create_task(session.stop(processes="freeze"))
        for number in range(10):  # the file verbs are the caller's own
            await session.write("meanwhile", b"%d" % number)
        assert not begun.done()
        assert not other.done()
        other.cancel()
        if end == "cancelled":
            stop.cancel()
        service.go_on.set()
        found = (await asyncio.gather(stop, other, return_exceptions=True))[0]
        expected = {"done": type(None), "failed": WorkspaceStopError}
        assert type(found) is expected.get(end, asyncio.CancelledError)
        assert (await begun).stdout == b"begun\n"
        await until(lambda: states_of(token) == before)  # and what was stopped before still is
        assert bool(sent) != crowded
        running.cancel()
        await asyncio.wait([running])
        service.fails = False
    await client.delete(session)


@pytest.mark.once
def test_host_that_dies_leaves_nothing(tmp_path: Path) -> None:
    token = make_token()
    with subprocess.Popen(
        [sys.executable, "-c", HOST, token],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"held\n"
        assert states_of(token) >= {"T"}
        os.kill(host.pid, signal.SIGKILL)
    asyncio.run(until(lambda: not find_survivors(token)))


async def test_what_does_not_stop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard.process.freezing.FREEZE_TIMEOUT_S", -1)
    client = client_of(Service())
    session = await client.create(snapshot=REMOTE)
    async with session:
        token = make_token()
        await session.exec(f"sleep {token} &")
        with pytest.raises(WorkspaceStopError, match="held still") as caught:
            await session.stop(processes="freeze")
        assert caught.value.context["reason"] == "not_frozen"
        with pytest.raises(WorkspaceStopError, match="was not forked"):
            await client.fork(session, processes="freeze")
        await until(lambda: states_of(token) == {"S"})
        assert (await session.exec("true")).ok()
        await session.aclose(save=False)
    await client.delete(session)


async def test_look_that_takes_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    really_open = os.open

    def slow(path: str, *words: int, dir_fd: int | None = None) -> int:
        if str(path).startswith("/proc/") and str(path).endswith("/stat"):
            looks.append(time.monotonic())
            time.sleep(0.05)
        return really_open(path, *words, dir_fd=dir_fd)

    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        token = make_token()
        await session.exec(f"for i in 1 2 3 4 5 6 7 8; do sleep {token} & done")
        with monkeypatch.context() as patched:
            patched.setattr("sandyard.process.freezing.FREEZE_TIMEOUT_S", 0.2)
            patched.setattr(os, "open", slow)
            with pytest.raises(WorkspaceStopError, match="held still"):
                await session.stop(processes="freeze")
        assert 1 <= len(looks) <= 6  # of dozens, each of 50 ms
        await until(lambda: states_of(token) == {"S"})
    await client.delete(session)


async def test_what_was_stopped_when_time_is_up_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        token = make_token()
        await session.exec(f"for i in 1 2 3 4 5 6 7 8; do sleep {token} & done")
        with monkeypatch.context() as patched:
            patched.setattr("sandyard.process.freezing.FREEZE_TIMEOUT_S", 1)
            patched.setattr("sandyard.process.freezing.FREEZE_SINGLY_S", 1)
            sent = count_signals(patched, 0.6)
            with pytest.raises(WorkspaceStopError, match="held still"):
                await session.stop(processes="freeze")
        assert 1 <= sent.count(signal.SIGSTOP) <= 2
        assert sent.count(signal.SIGCONT) == sent.count(signal.SIGSTOP)
        await until(lambda: states_of(token) == {"S"})
    await client.delete(session)


async def test_what_takes_long_one_by_one_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        token = make_token()
        await session.exec(f"for i in 1 2 3 4 5 6 7 8; do sleep {token} & done")
        with monkeypatch.context() as patched:
            patched.setattr("sandyard.process.freezing.is_crowded", lambda: False)
            sent = count_signals(patched, 0.6)
            await session.stop(processes="freeze")
        assert sent.count(signal.SIGSTOP) == 1  # of 8, in half a second
        assert sent.count(signal.SIGCONT) == 1
        await until(lambda: states_of(token) == {"S"})
    await client.delete(session)


async def test_without_numbers_of_its_own_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody would be whoever has the same user, outside as well."""
    monkeypatch.setattr("sandyard.process.freezing.is_crowded", lambda: True)
    sent = count_signals(monkeypatch)
    client, token = UnixLocalSandboxClient(policy=presets.UNCONFINED), make_token()
    async with await client.create() as session:
        await session.exec(f"sleep {token} &")
        await session.stop(processes="freeze")
        assert sent.count(signal.SIGSTOP) == sent.count(signal.SIGCONT) == 1
        assert states_of(token) == {"S"}
    await client.delete(session)


BOMB = """
import os
go_on, hold = os.pipe()
for _ in range(300):
    if os.fork() == 0:
        os.setsid()
        os.close(hold)
        os.read(go_on, 1)
        while True:
            pass
"""


async def test_bomb_is_held_in_time() -> None:
    """Hundreds that want a processor, each with a share of its own: every look at them takes seconds."""
    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        await session.exec("python3", "-c", BOMB, shell=False)
        await asyncio.sleep(0.5)
        for _ in range(2):
            await session.stop(processes="freeze")
    await client.delete(session)
