"""A session on an overlay: commands and file verbs see one tree, and the directory beneath stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    Manifest,
    Overlay,
    Policy,
    PolicyError,
    SessionClosedError,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    WorkspaceStartError,
)
from tests.overlays.conftest import Opened, contents, output


def replaced(base: Path) -> None:
    """Put another directory in the place of the one that was there."""
    base.rename(base.parent / "moved")
    base.mkdir()


async def test_both_sides_see_one_tree(base: Path, opened: Opened) -> None:
    before = contents(base)
    async with opened() as session:
        assert await output(session, "pwd") == f"{base}\n"
        await output(session, "echo four >> notes; rm -r src; mkdir new; echo x > new/file")
        with await session.read("notes") as file:
            assert file.read() == b"one\ntwo\nthree\nfour\n"
        assert not await session.exists("src")
        await session.write("new/host", b"from outside")
        await session.mv("tool", "tools")
        assert await output(session, "cat new/host; ls; stat -c %U new/host") == (
            "from outsidelink\nnew\nnotes\ntools\nagent\n"
        )
        assert contents(base) == before
    assert contents(base) == before


async def test_changes_outlive_their_sandbox(base: Path) -> None:
    """A shutdown, and a program that resumes the session, find them; deleting it does away with them."""
    client = UnixLocalSandboxClient()
    session = await client.create(workspace=Overlay(str(base)))
    try:
        async with session:
            await output(session, "echo 1 > kept")
            await session.shutdown()
            with await session.read("kept") as file:
                assert file.read() == b"1\n"
            await session.start()
            await output(session, "echo 2 >> kept")
        state = client.deserialize_session_state(client.serialize_session_state(session.state))
        session = await client.resume(state)
        async with session:
            assert await output(session, "cat kept") == "1\n2\n"
    finally:
        await client.delete(session)
    assert not (base / "kept").exists()
    assert os.listdir(Path(os.environ["XDG_STATE_HOME"], "sandyard/sessions")) == []


async def test_repository_is_kept_in_overlay(base: Path, opened: Opened) -> None:
    (base / ".git/hooks").mkdir(parents=True)
    (base / ".git/config").write_text("[core]\n")
    async with opened() as session:
        said = await output(
            session, "echo x > .git/hooks/post-commit; echo y >> .git/config; mv .git other"
        )
        assert said.count("Read-only file system") == 2
        assert "busy" in said
        assert await output(session, "echo ref > .git/HEAD; cat .git/HEAD") == "ref\n"
    assert not (base / ".git/HEAD").exists()


async def test_what_is_denied_stays_closed(base: Path, opened: Opened) -> None:
    async with opened(Policy(deny=(str(base / "notes"),))) as session:
        assert "denied" in await output(session, "cat notes")
        with pytest.raises(PermissionError):
            await session.read("notes")


async def test_grant_around_base_is_refused(base: Path, opened: Opened) -> None:
    """By it, commands would write to the directory itself."""
    for policy in (
        Policy(writes=(str(base.parent),)),
        Policy(writes=(str(base / "src"),)),
        Policy(reads=(str(base / "src"),)),
    ):
        with pytest.raises((PolicyError, WorkspaceStartError)):
            async with opened(policy):
                pass


async def test_impossible_overlays_are_refused(base: Path) -> None:
    client = UnixLocalSandboxClient()
    with pytest.raises(ArgumentError):
        await client.create(workspace=Overlay("relative"))
    with pytest.raises(ArgumentError):
        await client.create(workspace=Overlay(base), manifest=Manifest(root="/srv/other"))
    with pytest.raises(WorkspaceStartError):
        await client.create(workspace=Overlay(base / "missing"))
    assert not (base / "missing").exists()
    session = await client.create(workspace=Overlay(base))
    with pytest.raises(SessionClosedError):
        await session.read("notes")
    replaced(base)
    with pytest.raises(WorkspaceStartError, match="not the directory"):
        await session.start()
    await client.delete(session)


async def test_discard_after_a_save(base: Path) -> None:
    """What was saved is of what was thrown away: it stays in the store, and nothing is in the way."""
    client = UnixLocalSandboxClient()
    session = await client.create(workspace=Overlay(base), snapshot=StoreSnapshotSpec())
    async with session:
        await session.write("new", b"new")
        await session.stop()
        await session.discard()
        assert not await session.exists("new")
        assert await session.running()
        await session.write("newer", b"newer")
    async with await client.resume(session.state) as again:
        assert await again.exists("newer")
        assert not await again.exists("new")
    await client.delete(again)
