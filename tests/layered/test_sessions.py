"""A session on layers: one tree for both sides, kept in the state directory, and saved like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    File,
    Layered,
    LeaseHeldError,
    Manifest,
    ManifestError,
    Overlay,
    Policy,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    User,
)
from tests.ladder.hosts import ask
from tests.layered.conftest import assert_nothing_left, said


async def test_both_sides_see_one_tree(client: UnixLocalSandboxClient) -> None:
    """And so does whoever starts the session again, or resumes it."""
    entries = {"given/file": File(content=b"given")}
    session = await client.create(workspace=Layered(), manifest=Manifest(entries=entries))
    async with session:
        assert await said(session, "pwd; cat given/file") == "/workspace\ngiven"
        await said(session, "echo one > notes; mkdir dir; echo x > dir/file; mv dir moved")
        await session.write("moved/host", b"from outside")
        await session.mv("notes", "moved/notes")
        assert await said(session, "cat moved/*; stat -c %U moved/host; rm -r given") == (
            "x\nfrom outsideone\nagent\n"
        )
        assert [entry.path.rpartition("/")[2] for entry in await session.ls("moved")] == [
            "file",
            "host",
            "notes",
        ]
        await session.shutdown()
        await session.start()
        assert await said(session, "ls") == "moved\n"
        with pytest.raises(LeaseHeldError):
            await client.resume(session.state)
    state = client.deserialize_session_state(client.serialize_session_state(session.state))
    again = await client.resume(state, root=Layered())
    async with again:
        assert await said(again, "ls moved; echo 2 >> moved/notes") == "file\nhost\nnotes\n"
        with pytest.raises(ArgumentError, match="no overlay"):
            await again.diff()
    await client.delete(again)
    await client.delete(session)
    assert_nothing_left()


async def test_saved_layers_are_restored(client: UnixLocalSandboxClient) -> None:
    session = await client.create(workspace=Layered(), snapshot=StoreSnapshotSpec())
    async with session:
        await said(session, "echo saved > file; chmod 640 file; mkdir -p a/b; ln -s file link")
        await session.stop()
        first = await session.exec("find . -printf '%p %m %T@ %l\n' | sort")
    await client.delete(session)
    assert_nothing_left()
    again = await client.resume(session.state)
    async with again:
        second = await again.exec("find . -printf '%p %m %T@ %l\n' | sort")
        assert second.stdout == first.stdout
        fork = await client.fork(again)
        async with fork:
            assert await said(fork, "cat link") == "saved\n"
    await client.delete(fork)
    await client.delete(again)
    assert_nothing_left(saved=1)


async def test_impossible_layers_are_refused(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> None:
    @dataclass
    class Layers:
        path: str = "/"

    users = Manifest(users=[User(name="other")])
    with pytest.raises(ManifestError, match="users and groups can't be had"):
        await client.create(workspace=Layered(), manifest=users)
    with pytest.raises(ArgumentTypeError, match="Layered"):
        await client.create(workspace=Layers())  # type: ignore[arg-type]
    session = await client.create(workspace=Layered(), manifest=Manifest(root="/srv/place"))
    with pytest.raises(ArgumentTypeError, match="Layered"):
        await client.fork(session, workspace=Overlay(tmp_path))  # type: ignore[arg-type]
    async with session:
        assert await said(session, "pwd") == "/srv/place\n"
    for wrong in ("/srv/place", Overlay("/srv/place")):
        with pytest.raises(ArgumentError, match=r"give root as Layered\(\)"):
            await client.resume(session.state, root=wrong)
    private = session.state.model_copy(update={"workspace_layered": False})
    with pytest.raises(ArgumentError, match="does not know that"):
        await client.resume(private)
    await client.delete(session)
    shut = tmp_path / "own/shut"
    shut.mkdir(parents=True)
    denied = await client.create(
        workspace=Layered(), policy=Policy(writes=(str(tmp_path / "own"),), deny=(str(shut),))
    )
    async with denied:
        assert "denied" in await said(denied, f"ls {shut}")
    await client.delete(denied)
    assert_nothing_left()


def test_rung_without_mounts_is_refused() -> None:
    told = ask("no_user", "tests.layered.lower")
    assert told["code"] == "confinement_unavailable"
    assert told["left"] == []


async def test_agent_alone_is_everybody(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    manifest, base = Manifest(users=[User(name="agent")]), tmp_path / "base"
    base.mkdir()
    for workspace in (Layered(), Overlay(base)):
        session = await client.create(workspace=workspace, manifest=manifest)
        async with session:
            assert await said(session, "id -un; echo one > file; cat file") == "agent\none\n"
        await client.delete(session)
    session = await client.create(manifest=manifest)
    async with session:
        fork = await client.fork(session, workspace=Layered())
    async with fork:
        assert await said(fork, "id -un") == "agent\n"
    await client.delete(fork)
    await client.delete(session)
