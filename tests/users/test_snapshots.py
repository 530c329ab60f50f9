"""What several users own is theirs again when a workspace is restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandyard import Manifest, SnapshotStore, StoreSnapshotSpec, UnixLocalSandboxClient
from tests.users.conftest import PEOPLE, SHARED, said

LISTING = "find . -mindepth 1 -printf '%P %u:%g %m %T@ %l\\n' | sort; stat -c %h share/a"


@pytest.mark.root
async def test_owners_come_back(tmp_path: Path) -> None:
    """Files, directories, links and groups, by the names that they have inside."""
    client = UnixLocalSandboxClient()
    spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    session = await client.create(snapshot=spec, manifest=Manifest(**PEOPLE))  # type: ignore[arg-type]
    async with session:
        await said(session, SHARED)
        made = "cd share && mkdir own && echo 1 > own/f && echo 2 > a && ln a b && ln -s a s"
        await said(session, f"{made} && chmod 555 own", "reviewer")
        await said(session, "echo 3 > mine; chgrp team mine")
        before = await said(session, LISTING)
        assert "share/own/f reviewer:reviewer" in before
        assert "mine agent:team" in before
    await client.delete(session)
    again = await client.resume(session.state)
    async with again:
        assert await said(again, LISTING) == before
        assert await said(again, "cat share/own/f", "reviewer") == "1"
    (first,) = await SnapshotStore(tmp_path / "store").list()  # nothing has changed for the store
    assert {note.path for note in first.dropped} <= {"."}  # who may enter it, which a start says
    await client.delete(again)


@pytest.mark.root
async def test_forks_have_owners() -> None:
    """Of a session that runs, of one that is closed, and of what was saved."""
    client, people = UnixLocalSandboxClient(), Manifest(**PEOPLE)  # type: ignore[arg-type]
    session = await client.create(manifest=people)
    async with session:
        await said(session, SHARED)
        made = "cd share && mkdir own && echo 1 > own/f && echo 2 > a && ln a b && ln -s a s"
        await said(session, f"{made} && chmod 600 own/f && chmod 555 own", "reviewer")
        await said(session, "echo 3 > mine; chgrp team mine")
        before = await said(session, LISTING)
        assert "share/own/f reviewer:reviewer 600" in before
        forks = [await client.fork(session)]
        saved = await session.save_snapshot()
    forks.append(await client.fork(session.state))
    forks.append(await client.fork(saved, manifest=people))
    for fork in forks:
        assert fork.forked is not None
        assert {note.path for note in fork.forked.report.dropped} <= {"."}
        async with fork:
            assert await said(fork, LISTING) == before
            assert await said(fork, "cat share/own/f", "reviewer") == "1"
        await client.delete(fork)
    await client.delete(session)
