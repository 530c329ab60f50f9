"""Who processes inside are, to themselves and to the host, and what they may never become."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.escape.inside import find_outers, list_tree, read_status, run_host, sandbox
from tests.session.host import until

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

SOMEBODY = 12345

LEAVES = "sleep 7770 & exec sh -c 'sleep 7770 & cat /proc/self/status'"


async def test_privileges_inside() -> None:
    async with sandbox() as session:
        result = await session.exec("cat /proc/self/status; id")
        lines = [line.partition(":") for line in result.stdout.decode().splitlines()]
        status = {name: words.split() for name, _, words in lines}
    assert [int(status[name][0], 16) for name in CAPABILITIES] == [0] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert (status["Uid"], status["Gid"]) == (["1000"] * 4, ["1000"] * 4)
    assert set(status["Groups"]) <= {"65534"}  # the caller's own, which have no number inside
    assert result.stdout.splitlines()[-1].startswith(b"uid=1000(agent) gid=1000(agent)")


async def test_map_holds_one_number() -> None:
    async with sandbox() as session:
        for name in ("uid_map", "gid_map"):
            (line,) = (await session.exec(f"cat /proc/self/{name}")).stdout.splitlines()
            inside, outside, count = map(int, line.split())
            assert (inside, count) == (1000, 1)
            assert outside != 0
        attempts = "echo 0 0 1 > /proc/self/uid_map; echo deny > /proc/self/setgroups"
        assert not (await session.exec(attempts)).ok()


async def test_host_sees_no_power() -> None:
    """Of everything between the host program and a command, the host's own child included."""
    async with sandbox() as session:
        await session.exec(LEAVES)
        (outer,) = find_outers()
        await until(lambda: len(list_tree(outer)) >= 4)
        for pid in list_tree(outer):
            status = read_status(pid)
            capabilities = [int(status[name][0], 16) for name in CAPABILITIES if name != "CapBnd"]
            assert capabilities == [0] * 4, (pid, status)
            if pid == outer:
                continue  # it waits, and runs nothing of anybody's
            assert int(status["CapBnd"][0], 16) == 0
            assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
            assert "0" not in status["Uid"] + status["Gid"], (pid, status)


@pytest.mark.root
async def test_root_lends_each_sandbox_a_number() -> None:
    async with sandbox() as first, sandbox() as second:
        for session in (first, second):
            await session.exec(LEAVES)
        numbers = [
            {tuple(read_status(pid)["Uid"]) for pid in list_tree(outer) if pid != outer}
            for outer in find_outers()
        ]
    assert [len(found) for found in numbers] == [1, 1]
    assert numbers[0] != numbers[1]
    assert all("0" not in uids for found in numbers for uids in found)


@pytest.mark.user
async def test_user_stays_the_user() -> None:
    async with sandbox() as session:
        await session.exec(LEAVES)
        (outer,) = find_outers()
        uids = {uid for pid in list_tree(outer) for uid in read_status(pid)["Uid"]}
    assert uids == {str(os.getuid())}


async def test_mounts_give_nothing_away() -> None:
    writable = {"/tmp", "/var/tmp", "/dev/shm", "/run", "/home/agent", "/dev/pts", "/proc"}
    async with sandbox() as session:
        result = await session.exec("cat /proc/self/mountinfo")
        writable.add(session.state.manifest.root)
    for line in result.stdout.decode().splitlines():
        fields = line.split()
        place, options = fields[4], fields[5].split(",")
        assert "nosuid" in options, line
        assert ("rw" in options) == (place in writable), line
        devices = place == "/dev/pts" or fields[3] in {
            "/null", "/zero", "/full", "/random", "/urandom", "/tty"
        }  # fmt: skip
        assert "nodev" in options or devices, line


@pytest.mark.root
async def test_setuid_program_gains_nothing(tmp_path: Path) -> None:
    program = tmp_path / "who"
    shutil.copy("/usr/bin/id", program)
    os.chown(program, SOMEBODY, SOMEBODY)
    program.chmod(0o6755)
    control = run_host(program, "-u")
    assert control.stdout.split() == [str(SOMEBODY).encode()]
    async with sandbox(root=tmp_path) as session:
        result = await session.exec("./who -u; ./who -g; ./who -ru")
    assert result.stdout.split() == [b"1000"] * 3
