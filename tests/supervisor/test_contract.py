"""Sessions of another process do what the contract says, or say that they don't."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    ApplyRefusedError,
    ArgumentTypeError,
    BaseSandboxSession,
    Changes,
    ExecTransportError,
    UnsupportedOperationError,
    WorkspaceArchiveWriteError,
)
from sandyard.server.remote import RemoteSession
from sandyard.testing import run_conformance
from tests.conformance.held_session import held_sessions
from tests.supervisor.living import remote

LEFT_OUT = {"watch", "mount"}
"""What can't be had from another process."""

CROSSING = (
    "commands.gives_input_file", "handles.stream_ends_tree", "handles.terminal_takes_typing",
    "reading.lists_odd_names", "writing.refuses_text", "life.starts_again", "life.closed_for_good",
    "trees.restores_what_it_saved",
)  # fmt: skip
"""One behaviour for each way across the socket; the soak tries all."""


def test_contract_is_done() -> None:
    for name in dir(BaseSandboxSession):
        asked = inspect.getattr_static(BaseSandboxSession, name)
        if name.startswith("_") or "raise NotImplementedError" not in inspect.getsource(
            getattr(asked, "fget", None) or asked
        ):
            continue
        given = inspect.getattr_static(RemoteSession, name)
        assert (given is asked) == (name in LEFT_OUT), name


@pytest.mark.once
@pytest.mark.usefixtures("home")
async def test_each_way_crosses() -> None:
    result = await run_conformance(held_sessions(remote()), only=CROSSING)
    assert len(result.passed) == len(CROSSING), str(result)
    session = await remote().create()
    with pytest.raises(ArgumentTypeError):
        await session.ls(5)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(UnsupportedOperationError, match="watch"):
        session.watch(".")
    with pytest.raises(UnsupportedOperationError, match="progress"):
        await session.apply_manifest(progress=lambda _: None)
    async with asyncio.timeout(60):
        with pytest.raises(WorkspaceArchiveWriteError, match="its server has gone"):
            await session.write("file", _lost_source())
        with pytest.raises(ExecTransportError, match="its server has gone"):
            await session.exec("cat", stdin=_lost_source())
    assert not await session.exists("file")
    await remote().delete(session)


async def _lost_source() -> AsyncIterator[bytes]:
    """What comes by a connection of the caller's own, which breaks: it is not that to the supervisor."""
    yield b"the beginning"
    raise ConnectionResetError("its server has gone")


@pytest.mark.once
async def test_overlay_is_applied(home: Path) -> None:
    base = home / "base"
    base.mkdir()
    (base / "old").write_text("old")
    session = await remote().create(overlay=str(base))
    await session.exec("echo new > fresh; echo x > .envrc; rm old")
    changes = await session.diff(text=False)
    assert isinstance(changes, Changes)
    assert [one.path for one in changes.entries] == ["old", ".envrc", "fresh"]
    with pytest.raises(ApplyRefusedError) as caught:
        await session.apply()
    assert (caught.value.reason, caught.value.paths) == ("planted", (".envrc",))
    assert (await session.apply(["fresh"])).applied == ("fresh",)
    assert (base / "fresh").read_text() == "new\n"
    await session.discard()
    assert (await session.diff()).entries == ()
    await remote().delete(session)
