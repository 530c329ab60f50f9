"""The asynchronous face: off the loop, and cancellation waits for what it can't stop."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SessionClosedError, WorkspaceReadNotFoundError
from sandyard.manifest import File, Manifest
from sandyard.workspace import Workspace, WorkspaceRoot
from sandyard.workspace.listing import list_directory, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def private() -> Iterator[WorkspaceRoot]:
    """A root of our own, made outside of the loop, since that blocks."""
    with WorkspaceRoot.create_private() as root:
        yield root


async def test_every_verb(private: WorkspaceRoot) -> None:
    workspace = Workspace(private)
    inside = workspace.root.inside
    try:
        done = await workspace.apply(Manifest(entries={"m": File(content="x")}))
        assert done.written == ("m",)
        await workspace.mkdir("d/e", parents=True)
        await workspace.write("d/f", b"bytes")
        await workspace.write("d/g", io.BytesIO(b"stream"))
        with await workspace.read("d/g") as reader:
            assert reader.read() == b"stream"
        names = [
            PurePath(entry.path).name
            for entry in await workspace.run("ls", partial(list_directory, path="d"))
        ]
        assert names == ["e", "f", "g"]
        await workspace.rm("d", recursive=True)
        assert await workspace.run("normalize_path", partial(normalize, path="d/../m")) == PurePath(
            inside, "m"
        )
        with pytest.raises(WorkspaceReadNotFoundError):
            await workspace.read("d/f")
        assert await workspace.delete()
    finally:
        await workspace.close()


async def test_closing_twice_and_using_after(root: WorkspaceRoot) -> None:
    workspace = Workspace(root)
    await workspace.close()
    await workspace.close()
    with pytest.raises(SessionClosedError):
        await workspace.read("x")
    with pytest.raises(SessionClosedError):
        workspace.root.fd  # noqa: B018 - asking is the test


class _Gate(io.RawIOBase):
    """A stream that stops until it is told to go on."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self._pieces = [b"first", b"second", b""]

    def read(self, size: int = -1) -> bytes:
        assert size
        self.started.set()
        assert self.go.wait(10)
        return self._pieces.pop(0)


async def _started(gate: _Gate) -> None:
    assert await asyncio.to_thread(gate.started.wait, 10)


async def _content(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


async def test_cancelling_waits_for_the_thread(root: WorkspaceRoot, base: Path) -> None:
    workspace = Workspace(root)
    gate = _Gate()
    task = asyncio.create_task(workspace.write("f", gate))
    await _started(gate)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    # What had begun has ended: nothing was changed, and nothing changes from here on.
    assert await asyncio.to_thread(os.listdir, base) == []
    await workspace.close()


async def test_work_that_has_not_begun_is_dropped(root: WorkspaceRoot) -> None:
    workspace = Workspace(root)
    gates = [_Gate() for _ in range(4)]
    busy = [asyncio.create_task(workspace.write(f"b{n}", gate)) for n, gate in enumerate(gates)]
    for gate in gates:
        await _started(gate)
    late = asyncio.create_task(workspace.write("late", b""))
    await asyncio.sleep(0.01)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    for gate in gates:
        gate.go.set()
    await asyncio.gather(*busy)
    assert "late" not in [
        PurePath(entry.path).name
        for entry in await workspace.run("ls", partial(list_directory, path="."))
    ]
    await workspace.close()


async def test_closing_waits_for_calls_under_way(root: WorkspaceRoot, base: Path) -> None:
    workspace = Workspace(root)
    gate = _Gate()
    task = asyncio.create_task(workspace.write("f", gate))
    await _started(gate)
    closing = asyncio.create_task(workspace.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    gate.go.set()
    await closing
    await task
    assert await _content(base / "f") == b"firstsecond"


async def test_a_reader_that_nobody_receives_is_closed(
    root: WorkspaceRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(root)
    started, go = threading.Event(), threading.Event()
    readers: list[io.BufferedReader] = []

    def slow(_root: WorkspaceRoot, _path: str) -> io.BufferedReader:
        started.set()
        assert go.wait(10)
        readers.append(io.BufferedReader(io.FileIO(os.devnull)))
        return readers[0]

    monkeypatch.setattr("sandyard.workspace.files.read", slow)
    task = asyncio.create_task(workspace.read("f"))
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert readers[0].closed
    await workspace.close()


async def test_the_loop_goes_on_meanwhile(root: WorkspaceRoot) -> None:
    workspace = Workspace(root)
    gate = _Gate()
    task = asyncio.create_task(workspace.write("slow", gate))
    await _started(gate)
    await workspace.write("quick", b"x")
    assert not task.done()
    gate.go.set()
    await task
    await workspace.close()
