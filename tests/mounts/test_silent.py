"""A source whose file server has gone silent holds nobody up: neither the host nor what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import BindMount, MountFailedError, TmpfsMount
from tests.house.leaks import list_children
from tests.mounts.conftest import Opened, inner_mounts
from tests.mounts.silent import SilentServer, silent_server
from tests.process.raw_init import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no FUSE"),
]

HOST = """
import asyncio, sys
from sandyard import BindMount, Manifest, UnixLocalSandboxClient

async def main():
    session = await UnixLocalSandboxClient().create()
    async with session:
        print("ready", flush=True)
        await session.mount("data", BindMount(source=sys.argv[1]))

asyncio.run(main())
"""


@pytest.fixture(
    params=[(False, False), (True, False), (False, True), (True, True)],
    ids=["unread", "read", "unread later", "read later"],
)
def silent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SilentServer]:
    """A file system that answers no more, from the first look on, or when it is mounted.

    The kernel has the question, or its server has.
    """
    takes, lists = request.param
    top = tmp_path / "silent"
    top.mkdir()
    with silent_server(top, takes=takes, lists=lists) as server:
        yield server


async def test_silence_is_told(
    opened: Opened, silent: SilentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_TIMEOUT_S", 0.5)
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_END_TIMEOUT_S", 0.1)
    async with opened() as session:
        with pytest.raises(MountFailedError, match="fell silent") as caught:
            await session.mount("in/deep/data", BindMount(source=silent.top))
        # A question that the server has not read goes with who asked, who is killed.
        assert silent.is_asked() == silent.takes
        assert caught.value.context["reason"] == "silent"
        assert caught.value.retryable
        assert await inner_mounts(session) == []
        assert await session.ls(".") == []
        await session.mount("other", TmpfsMount())
        assert await inner_mounts(session) == ["other"]


async def test_no_thread_waits(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that commands may write to is looked through as well."""
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_TIMEOUT_S", 0.5)
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_END_TIMEOUT_S", 0.1)
    (tmp_path / "silent").mkdir()
    source = BindMount(source=tmp_path / "silent", read_only=False)
    async with opened() as session:
        with silent_server(tmp_path / "silent", takes=True) as server:
            with pytest.raises(MountFailedError, match="does not answer"):
                await session.mount("data", source)
            assert server.is_asked()
        await session.mount("data", source)  # what is there without the server


@pytest.mark.parametrize("lists", [False, True])
def test_helper_ends_with_its_host(tmp_path: Path, *, lists: bool) -> None:
    (tmp_path / "silent").mkdir()
    (tmp_path / "tmp").mkdir()
    places = {"TMPDIR": str(tmp_path / "tmp"), "XDG_STATE_HOME": str(tmp_path / "state")}
    with (
        silent_server(tmp_path / "silent", takes=False, lists=lists) as server,
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(server.top)],
            env=os.environ | places,
            stdout=subprocess.PIPE,
        ) as host,
    ):
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == b"ready\n"
            wait_until(server.is_asked)
            children = list(list_children(host.pid))
            assert len(children) == 2  # the sandbox, and what waits for the source
        finally:
            host.kill()
        wait_until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))
