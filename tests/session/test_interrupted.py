"""Starts that are killed while they restore: what they left is made whole, never taken for newer work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sandyard import (
    LocalSnapshotSpec,
    Manifest,
    SandboxSessionState,
    SnapshotStore,
    StoreSnapshot,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSessionState,
    WorkspaceStartError,
)
from sandyard.archive.report import Tally
from sandyard.archive.trees import decode_entry, join_entries
from sandyard.workspace import extract_publish
from sandyard.workspace.lease import Lease
from tests.workspace.sample import looks


class Armed:
    """The module ``os``, as publishing has it: killed before it changes how a directory looks."""

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    chmod = staticmethod(os.chmod)


POINTS: list[tuple[object, str]] = [
    (extract_publish, "rename"),
    (Armed, "chmod"),
    (Lease, "note_restoring"),
]
"""What a start does to a workspace, and to its lease, while it restores."""


def fill(base: Path) -> None:
    (base / "a/b").mkdir(parents=True)
    (base / "a/b/c").write_bytes(b"content" * 1000)
    (base / "link").symlink_to("a/b/c")
    (base / "z").write_bytes(b"z")
    os.link(base / "z", base / "y")
    os.link(base / "z", base / "a/x")
    (base / "shut").mkdir()
    (base / "shut/file").touch()
    (base / "shut").chmod(0o555)


async def _saved(tmp_path: Path, kind: str, root: Path | None) -> SandboxSessionState:
    client = UnixLocalSandboxClient()
    spec: StoreSnapshotSpec | LocalSnapshotSpec = LocalSnapshotSpec(
        base_path=str(tmp_path / "kept")
    )
    if kind == "store":
        spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    manifest = Manifest() if root is None else Manifest(root=str(root))
    session = await client.create(snapshot=spec, manifest=manifest)
    async with session:
        fill(Path(session.state.manifest.root))
    return session.state


def empty(root: Path) -> None:
    """Remove what is in a directory; it stays, so that its lease knows it."""
    for top, folders, files in os.walk(root):
        os.chmod(top, 0o755)
        for name in folders:
            if os.path.islink(f"{top}/{name}"):
                files.append(name)
        for name in files:
            os.unlink(f"{top}/{name}")
    for top, folders, _ in os.walk(root, topdown=False):
        for name in folders:
            os.rmdir(f"{top}/{name}")


async def _start(state: SandboxSessionState, check: Callable[[Path], None] | None = None) -> None:
    session = await UnixLocalSandboxClient().resume(state)
    try:
        await session.start()
        if check is not None:
            check(Path(session.state.manifest.root))
    finally:
        await session.shutdown()
        if check is not None:  # else the next start is to find it as it was left
            await session.aclose()


async def _delete(state: SandboxSessionState) -> None:
    client = UnixLocalSandboxClient()
    await client.delete(await client.resume(state), unsaved=True)


def start_killed(state: SandboxSessionState, point: int) -> bool:
    """Start in a process that is killed before the n-th of ``POINTS``; tell whether it came to it."""
    pid = os.fork()
    if pid == 0:
        try:
            left = [point]
            vars(extract_publish)["os"] = Armed()
            for owner, name in POINTS:
                _arm(owner, name, left)
            asyncio.run(_start(state))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _arm(owner: object, name: str, left: list[int]) -> None:
    real = getattr(owner, name)

    def armed(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, staticmethod(armed) if owner is Armed else armed)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("store", False),
        pytest.param("store", True, marks=pytest.mark.soak),
        ("local", True),
        pytest.param("local", False, marks=pytest.mark.soak),
    ],
)
def test_killed_restore_is_finished(tmp_path: Path, kind: str, *, own: bool) -> None:
    root = tmp_path / "own" if own else None
    state = asyncio.run(_saved(tmp_path, kind, root))
    place = Path(state.manifest.root)
    want, point, killed = looks(os.fsencode(place)), 0, True

    def check(found: Path) -> None:
        back = looks(os.fsencode(found))
        assert {name: each for name, each in back.items() if name} == {
            name: each for name, each in want.items() if name
        }

    while killed:
        empty(place)
        killed = start_killed(state, point)
        asyncio.run(_start(state, check))
        point += 1
    assert point > 7
    asyncio.run(_delete(state))


def test_finishing_keeps_newer_work(tmp_path: Path) -> None:
    """It adds what is missing of the same snapshot, and touches nothing that is there."""
    root = tmp_path / "own"
    state = asyncio.run(_saved(tmp_path, "store", root))
    empty(root)
    point = 0
    while not set(os.listdir(root)) & {"a", "link", "shut", "y", "z"}:
        assert start_killed(state, point)
        point += 1
    assert len(os.listdir(root)) < 5
    (root / "newer").write_bytes(b"mine")
    assert isinstance(state.snapshot, StoreSnapshot)
    store = SnapshotStore(state.snapshot.directory)

    async def save_another() -> None:
        with store.saving(state.snapshot.id) as saver:
            last = saver.last
            assert last is not None
            (top,) = map(decode_entry, (saver.entries_of(bytes.fromhex(last.tree)) or {}).values())
            entries = saver.entries_of(top.digest) or {}
            del entries[b"z"]
            digest = saver.put(join_entries(entries.values()))
            saver.finish(top._replace(digest=digest), Tally().report())

    asyncio.run(save_another())

    def check(found: Path) -> None:
        assert sorted(os.listdir(found)) == ["a", "link", "newer", "shut", "y", "z"]
        assert (found / "newer").read_bytes() == b"mine"

    asyncio.run(_start(state, check))
    asyncio.run(_delete(state))


def test_gone_snapshot_is_told(tmp_path: Path) -> None:
    """What is half there is not worked in when the rest of it is lost."""
    root = tmp_path / "own"
    state = asyncio.run(_saved(tmp_path, "store", root))
    empty(root)
    assert start_killed(state, 3)
    assert isinstance(state.snapshot, StoreSnapshot)
    store = SnapshotStore(state.snapshot.directory)
    (saved,) = asyncio.run(store.list())
    asyncio.run(store.remove(saved.id))
    with pytest.raises(WorkspaceStartError, match="could not be restored"):
        asyncio.run(_start(state, lambda _: None))
    asyncio.run(_delete(state))


@pytest.mark.parametrize("own", [True, False])
def test_fork_takes_no_half(tmp_path: Path, *, own: bool) -> None:
    """What is forked then is what was saved; and the session's own start still makes it whole."""
    state = asyncio.run(_saved(tmp_path, "store", tmp_path / "own" if own else None))
    place = Path(state.manifest.root)
    whole = sorted(os.listdir(place))
    empty(place)
    point = 0
    while not set(os.listdir(place)) & set(whole):
        assert start_killed(state, point)
        point += 1
    assert not set(whole) <= set(os.listdir(place))

    async def fork() -> list[str]:
        client = UnixLocalSandboxClient()
        made = await client.fork(state)
        assert isinstance(made.state, UnixLocalSandboxSessionState)
        found = sorted(os.listdir(made.state.host_root))
        assert made.forked is not None
        assert made.forked.way == "snapshot"
        await client.delete(made)
        return found

    assert asyncio.run(fork()) == whole

    def check(found: Path) -> None:
        assert sorted(os.listdir(found)) == whole

    asyncio.run(_start(state, check))
    asyncio.run(_delete(state))
