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


@pytest.fixture(params=[False, True], ids=["unread", "read"])
def silent(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SilentServer]:
    """A file system that answers no more; the kernel has the question, or its server has."""
    top = tmp_path / "silent"
    top.mkdir()
    with silent_server(top, takes=request.param) as server:
        yield server


async def test_silence_is_told(
    opened: Opened, silent: SilentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_TIMEOUT_S", 0.5)
    monkeypatch.setattr("sandyard.process.mounting.MOUNT_END_TIMEOUT_S", 0.1)
    async with opened() as session:
        with pytest.raises(MountFailedError, match="fell silent") as caught:
            await session.mount("data", BindMount(source=silent.top))
        # A question that the server has not read goes with who asked, who is killed.
        assert silent.is_asked() == silent.takes
        assert caught.value.context["reason"] == "silent"
        assert caught.value.retryable
        assert await inner_mounts(session) == []
        await session.mount("other", TmpfsMount())
        assert await inner_mounts(session) == ["other"]


def test_helper_ends_with_its_host(tmp_path: Path) -> None:
    (tmp_path / "silent").mkdir()
    (tmp_path / "tmp").mkdir()
    places = {"TMPDIR": str(tmp_path / "tmp"), "XDG_STATE_HOME": str(tmp_path / "state")}
    with (
        silent_server(tmp_path / "silent", takes=False) as server,
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
