"""Layers that hold snapshots: the second start from one is a mount; kept within bounds, and never too long."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from sandyard import (
    Layered,
    Manifest,
    Snapshot,
    SnapshotRestoreError,
    SnapshotStore,
    StoreSnapshot,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceStartError,
)
from sandyard.workspace import saved_layers
from sandyard.workspace.layer_store import LayerStore
from sandyard.workspace.saved_layers import HeldSnapshot, SavedLayers
from sandyard.workspace.sweep import sweep
from tests.layered.conftest import assert_nothing_left, layers, said, state_place
from tests.workspace.sample import fill


async def saved_sample(client: UnixLocalSandboxClient, place: Path) -> Snapshot:
    """A snapshot with something of everything."""
    await asyncio.to_thread(fill, place)
    plain = await client.create(manifest=Manifest(root=str(place)))
    async with plain:
        snapshot = await plain.save_snapshot()
    await client.delete(plain)
    return snapshot


def spoil(packs: Path) -> dict[Path, bytes]:
    """Damage all that a store keeps; return what it was."""
    whole = {path: path.read_bytes() for path in packs.glob("*.pack")}
    for path, data in whole.items():
        path.chmod(0o600)
        path.write_bytes(data[:40] + bytes(len(data) // 2) + data[40 + len(data) // 2 :])
    return whole


def looks_of(top: Path) -> dict[str, tuple[int, ...]]:
    """Everything in a directory, and what tells that somebody changed it."""
    facts = {str(path): path.lstat() for path in (top, *top.rglob("*"))}
    return {
        path: (each.st_ino, each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns)
        for path, each in facts.items()
    }


def ways(*sessions: UnixLocalSandboxSession) -> list[str]:
    """How the files of forks came."""
    return [each.forked.way for each in sessions if each.forked is not None]


async def test_second_start_restores_nothing(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> None:
    """Neither a fork of the snapshot nor a session that names it; nobody changes the layer."""
    snapshot, store = await saved_sample(client, tmp_path / "own"), SnapshotStore()
    first = await client.fork(snapshot, workspace=Layered())
    (name,) = layers()
    before = looks_of(state_place() / "layers" / name / "tree")
    second = await client.fork(snapshot.id, workspace=Layered())
    named = await client.create(
        workspace=Layered(), snapshot=StoreSnapshot(id=snapshot.history, directory=store.directory)
    )
    assert ways(first, second) == ["snapshot", "layers"]
    async with first, second, named:
        assert layers() == {name}
        for session in (first, second, named):
            told = await store.diff(snapshot.id, (await session.save_snapshot()).id)
            assert (told.removed, told.added, told.changed) == ((), (), ())
            assert {*told.retouched} <= {"."}  # a private directory's own mode
        await said(first, "chmod -R u+w .; rm -rf *; echo x > file; setfattr -n user.a -v b .")
        await said(second, "find . -type f -exec touch {} +; chmod 711 . d")
        await named.rm("d", recursive=True)
        assert await said(named, "ls -d d") == "ls: cannot access 'd': No such file or directory\n"
    assert looks_of(state_place() / "layers" / name / "tree") == before
    for session in (first, second):
        await client.delete(session)
    again = await client.resume(named.state)
    async with again:
        assert "cannot access" in await said(again, "ls -d d")
    await client.delete(again)
    assert_nothing_left(saved=1)


async def test_many_starts_restore_once(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    snapshot = await saved_sample(client, tmp_path / "own")
    forks = await asyncio.gather(*(client.fork(snapshot, workspace=Layered()) for _ in range(12)))
    assert sorted(ways(*forks)) == ["layers"] * 11 + ["snapshot"]
    assert len(layers()) == 1
    await asyncio.gather(*(client.delete(fork) for fork in forks))
    assert_nothing_left(saved=1)


async def test_what_is_gone_is_forgotten(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """A layer goes with its snapshot, and with what is known of it; who lies upon it goes on."""
    snapshot, state = await saved_sample(client, tmp_path / "own"), str(state_place())
    fork = await client.fork(snapshot, workspace=Layered())
    async with fork:
        note = state_place() / "saved-layers" / snapshot.id
        for wrong in ("", "[", json.dumps(json.loads(note.read_text()) | {"boot": "another"})):
            note.write_text(wrong)
            other = await client.fork(snapshot, workspace=Layered())
            assert ways(other) == ["snapshot"]
            await client.delete(other)
            assert json.loads(note.read_text())["tree"] == snapshot.tree
        await asyncio.to_thread(sweep, state)
        assert len(layers()) == 2
        await SnapshotStore().remove(snapshot.id)
        await asyncio.to_thread(sweep, state)
        assert not note.exists()
        assert len(layers()) == 1
        assert await said(fork, "cat 'read only'") == "kept"
    again = await client.resume(fork.state)
    async with again:
        assert await said(again, "cat 'read only'") == "kept"
    await client.delete(again)
    assert_nothing_left()


@pytest.mark.once
async def test_damaged_snapshot_leaves_nothing(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> None:
    """The start tells it, can be tried again, and keeps no part of it."""
    snapshot, store = await saved_sample(client, tmp_path / "own"), SnapshotStore()
    whole = spoil(Path(store.directory, "packs"))
    with pytest.raises(SnapshotRestoreError):
        await client.fork(snapshot, workspace=Layered())
    kept = StoreSnapshot(id=snapshot.history, directory=store.directory)
    session = await client.create(workspace=Layered(), snapshot=kept)
    with pytest.raises(WorkspaceStartError, match="could not be restored"):
        await session.start()
    assert layers() == set()
    for path, data in whole.items():
        path.write_bytes(data)
    async with session:
        assert await said(session, "cat 'read only'") == "kept"
    await client.delete(session)
    assert_nothing_left(saved=1)


@pytest.mark.once
async def test_unknown_run_keeps_nothing(
    client: UnixLocalSandboxClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can tell whether the machine was restarted, a layer may have lost what it held."""
    snapshot = await saved_sample(client, tmp_path / "own")
    first = await client.fork(snapshot, workspace=Layered())
    monkeypatch.setattr(saved_layers, "boot_id", lambda: "")
    note = state_place() / "saved-layers" / snapshot.id
    note.write_text(json.dumps(json.loads(note.read_text()) | {"boot": ""}))
    forks = [await client.fork(snapshot, workspace=Layered()) for _ in range(2)]
    assert ways(first, *forks) == ["snapshot"] * 3
    for fork in (first, *forks):
        await client.delete(fork)
    await asyncio.to_thread(sweep, str(state_place()))
    assert_nothing_left()


@pytest.mark.once
def test_kept_layers_have_bounds(
    own_state: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number, by age and by what they take; of those that no session uses."""
    state = state_place()
    (state / "sessions" / "used").mkdir(parents=True)
    saved = SavedLayers(str(state))

    def keep(number: int, user: str) -> None:
        record = tmp_path / f"record{number}"
        record.touch()
        held = HeldSnapshot(f"{number:016x}", "0" * 64, str(record))
        with saved.making(held) as mine:
            assert mine
            name = LayerStore(str(state)).begin(user)
            place = state / "layers" / name / "tree"
            place.mkdir()
            (place / "file").write_bytes(bytes(100_000))
            saved.keep(held, name)
            with saved.making(held) as second:
                assert not second
        os.utime(state / "saved-layers" / held.id, (time.time() - number,) * 2)

    def left() -> set[int]:
        sweep(str(state))
        place = state / "saved-layers"
        assert len(layers()) == (len(os.listdir(place)) if place.exists() else 0)
        return {int(name, 16) for name in os.listdir(place)} if place.exists() else set()

    for number in range(1, 9):
        keep(number, "used" if number == 8 else "gone")
    assert left() == {*range(1, 9)}
    monkeypatch.setattr(saved_layers, "SAVED_LAYERS_COUNT", 5)
    assert left() == {1, 2, 3, 4, 5, 8}
    monkeypatch.setattr(saved_layers, "SAVED_LAYERS_BYTES", 350_000)
    assert left() == {1, 2, 3, 8}
    os.utime(state / "saved-layers" / f"{1:016x}", (1.0, 1.0))
    assert 1 not in left()
    (state / "sessions" / "used").rmdir()
    (tmp_path / "record8").unlink()
    assert 8 not in left()


async def test_saved_session_lies_upon_its_own(client: UnixLocalSandboxClient) -> None:
    """A session that was saved and deleted comes back without a restore, with what it is named now."""
    session = await client.create(workspace=Layered(), snapshot=StoreSnapshotSpec())
    async with session:
        await said(session, "mkdir -m 750 dir; echo one > dir/file")
    await client.delete(session)
    for number in range(2):
        again = await client.resume(session.state)
        async with again:
            assert await said(again, "cat dir/file; stat -c %a dir") == "one\n750\n"
            assert len(layers()) == 1
            if number:
                fork = await client.fork(again)
        await client.delete(again)
    fork_of_gone = await client.fork(session.state)
    assert ways(fork, fork_of_gone) == ["layers", "layers"]
    for each in (fork, fork_of_gone):
        await client.delete(each)
    assert_nothing_left(saved=1)
