"""The size of a workspace: measured as du does, held as well as looking from time to time can."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from sandyard import ResourceLimitError, ResourceLimits
from sandyard.workspace.usage import measure_usage
from tests.limits.living import MIB, follow, hit_names, limited
from tests.session.host import find_survivors, make_token, until

FILL = "n=0; while :; do n=$((n+1)); head -c 1000000 /dev/zero > f$n; done"


def measured(place: Path) -> int:
    fd = os.open(place, os.O_RDONLY)
    try:
        return measure_usage(fd, threading.Event())
    finally:
        os.close(fd)


def told_by_du(place: Path) -> int:
    done = subprocess.run(
        ["du", "-s", "-B1", place], stdout=subprocess.PIPE, check=True, stderr=subprocess.DEVNULL
    )
    return int(done.stdout.split()[0])


def test_tree_is_measured_as_du_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "large").write_bytes(bytes(300_000))
    os.link(tmp_path / "a" / "large", tmp_path / "a" / "b" / "again")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10 * MIB)
    (tmp_path / "out").symlink_to("/usr")
    (tmp_path / "a" / "pipe").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "a" / "pipe")
    assert measured(tmp_path) == told_by_du(tmp_path)


def test_depth_has_no_end(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(1500):  # deeper than a path is long, or descriptors go
        os.mkdir("deep-directory", dir_fd=here)
        deeper = os.open("deep-directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, bytes(2 * MIB))
    os.close(file)
    os.close(here)
    try:
        assert measure_usage(top, threading.Event()) >= 2 * MIB
    finally:
        os.close(top)
        subprocess.run(["rm", "-rf", tmp_path / "deep-directory"], check=True)


def test_look_gives_up_when_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(MIB))
    stopped = threading.Event()
    stopped.set()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert measure_usage(fd, stopped) < MIB
    finally:
        os.close(fd)


async def test_large_workspace_ends_commands() -> None:
    token = make_token()
    async with limited(ResourceLimits(workspace_size=20 * MIB)) as session:
        other = asyncio.create_task(session.exec(f"echo other; sleep {token}"))
        with pytest.raises(ResourceLimitError) as caught:
            await session.exec(f"echo begun; setsid sleep {token} & {FILL}")
        error = caught.value
        assert error.context["limit"] == "workspace_size"
        assert isinstance(error.context["size"], int)
        assert error.context["size"] > 20 * MIB
        assert error.result is not None
        assert error.result.stdout == b"begun\n"
        assert hit_names(error.result) == ["workspace_size"]
        with pytest.raises(ResourceLimitError):
            await other
        assert find_survivors(token) == []
        with pytest.raises(ResourceLimitError, match=r"session\.rm") as refused:
            await session.exec("true")
        assert refused.value.retryable
        for entry in await session.ls("."):
            await session.rm(os.path.basename(entry.path))
        assert (await session.exec("echo again")).stdout == b"again\n"


async def test_large_workspace_ends_a_stream() -> None:
    async with limited(ResourceLimits(workspace_size=20 * MIB)) as session:
        with pytest.raises(ResourceLimitError) as caught:
            await follow(session, f"echo begun; {FILL}")
        assert hit_names(caught.value.result) == ["workspace_size"]


async def test_leftovers_are_ended_too() -> None:
    token = make_token()
    async with limited(ResourceLimits(workspace_size=20 * MIB)) as session:
        result = await session.exec(f"(sleep {token} & {FILL}) > /dev/null 2>&1 & echo left")
        assert (result.stdout, hit_names(result)) == (b"left\n", [])
        await until(lambda: not find_survivors(token), within=30)
        with pytest.raises(ResourceLimitError):
            await session.exec("true")


async def test_one_large_file_is_refused_at_once() -> None:
    async with limited(ResourceLimits(workspace_size=20 * MIB)) as session:
        result = await session.exec("head -c 50000000 /dev/zero > large; exit $?")
        (hit,) = result.limit_hits
        assert (hit.limit, hit.value) == ("workspace_size", 20 * MIB)


async def test_session_ends_during_a_look() -> None:
    limits = ResourceLimits(workspace_size=2**40)
    async with limited(limits) as session:
        await session.exec("for n in $(seq 300); do echo > f$n; done")
        running = asyncio.create_task(session.exec("sleep 60"))
        await asyncio.sleep(0.15)  # a look is due, or under way: either is to end
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
