"""A program that is killed while it starts, saves and forks sessions on layers: nothing is lost, or left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandyard import Layered, SnapshotStore, StoreSnapshotSpec, UnixLocalSandboxClient
from sandyard.workspace.sweep import sweep
from tests.house.sources import ROOT
from tests.layered.conftest import assert_nothing_left, layers, said, state_place

PROGRAM = """
import asyncio, json, os, signal, sys
from sandyard import Layered, NoopSnapshotSpec, SnapshotStore, StoreSnapshotSpec, UnixLocalSandboxClient

CALLS = ("mkdir", "rename", "open", "unlink", "rmdir", "pwrite", "fsync", "utime", "link", "symlink")
done = 0


def arm(left):
    def counted(whole):
        def call(*args, **kwargs):
            global done
            done += 1
            if done > left:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


async def live(place, left):
    client, store = UnixLocalSandboxClient(), SnapshotStore()
    session = await client.create(workspace=Layered(), snapshot=StoreSnapshotSpec())
    async with session:
        await session.exec("mkdir -p d/e d/gone0; echo kept > d/e/kept; ln d/e/kept link; echo 0 > value")
    await client.delete(session)
    told = open(place, "w", encoding="ascii", buffering=1)
    print(json.dumps(client.serialize_session_state(session.state)), file=told)
    arm(left)
    session = await client.resume(session.state)
    async with session:
        for number in (1, 2):
            words = f"echo {number} > value; rm -r d/gone{number - 1}; mkdir d/gone{number}"
            assert (await session.exec(words)).ok()
            fork = await client.fork(session, snapshot=NoopSnapshotSpec())
            await session.stop()
            print(number, file=told)
            last = (await store.list(str(session.state.session_id)))[-1]
            other = await client.fork(last, workspace=Layered())
            async with other:
                await other.exec("rm -r d")
            await client.delete(other)
            await client.delete(fork)
    print("calls", done, file=told)


for place, left in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        asyncio.run(live(place, left))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

ALL = 10**9


def run_programs(cases: list[tuple[str, int]]) -> list[int]:
    """How programs ended, each of which was to end after so many calls to the kernel."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(cases)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    codes = [int(code) for code in told.stdout.split()]
    assert {*codes} <= {0, -signal.SIGKILL}, told.stderr.decode()
    return codes


async def assert_whole(client: UnixLocalSandboxClient, place: Path) -> None:
    """What was acknowledged is there, or something newer; it can be saved, and deleted."""
    raw, *numbers = (await asyncio.to_thread(place.read_text)).splitlines()
    acknowledged = [0, *(int(word) for word in numbers if word.isdigit())][-1]
    state = client.deserialize_session_state(json.loads(raw))
    store = SnapshotStore()
    saved = (await store.list(str(state.session_id)))[-1]
    fork = await client.fork(saved)
    session = await client.resume(state, root=Layered(), snapshot=StoreSnapshotSpec())
    async with fork, session:
        values = [int(await said(each, "cat value")) for each in (fork, session)]
        assert acknowledged <= values[0] <= values[1] <= acknowledged + 1, place.name
        for each, value in zip((fork, session), values, strict=True):
            gone = await said(each, "cat d/e/kept link; ls d")
            assert gone.startswith("kept\nkept\ne\n"), place.name
            assert {*gone.split()[3:]} <= {f"gone{value}", f"gone{value - 1}"}, place.name
        again = await session.save_snapshot(label="again")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "_layered_place", lambda: None)
            whole = await session.save_snapshot(history="whole", label="whole")
        assert again.tree == whole.tree, place.name
    await client.delete(fork)
    await client.delete(session)


async def assert_killed_anywhere(client: UnixLocalSandboxClient, place: Path, rounds: int) -> None:
    """So many programs are killed, at moments that a seed chooses."""
    first = str(place / "all")
    assert await asyncio.to_thread(run_programs, [(first, ALL)]) == [0]
    total = int((await asyncio.to_thread(Path(first).read_text)).split()[-1])
    dice = random.Random(rounds)  # noqa: S311  # the moments are no secret
    moments = sorted(dice.randrange(total) for _ in range(rounds))
    cases = [(str(place / f"at{moment}"), moment) for moment in moments]
    codes = await asyncio.to_thread(run_programs, cases)
    assert codes.count(-signal.SIGKILL) >= rounds * 3 // 4
    await asyncio.to_thread(sweep, str(state_place()))
    for name, _ in [(first, ALL), *cases]:
        await assert_whole(client, Path(name))
    assert (await SnapshotStore().verify()).ok
    await asyncio.to_thread(sweep, str(state_place()))
    assert_nothing_left(saved=len(layers()))
    assert len(os.listdir(state_place() / "saved-layers")) <= 3 * (rounds + 1)


@pytest.mark.timeout(240)
async def test_killed_program_loses_nothing(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    await assert_killed_anywhere(client, tmp_path, 3)


@pytest.mark.soak
@pytest.mark.timeout(2400)
async def test_killed_programs_lose_nothing(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    await assert_killed_anywhere(client, tmp_path, 40)
