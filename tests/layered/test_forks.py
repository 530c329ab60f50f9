"""Forks of sessions on layers: exact, apart from each other, and without a copy of what is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandyard import (
    File,
    Layered,
    Manifest,
    SnapshotStore,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceStartError,
)
from sandyard.limits import LAYERS_SETTLED_NS
from sandyard.workspace import layered_fork
from tests.layered.conftest import assert_nothing_left, layers, said, state_place
from tests.workspace.sample import fill

CHANGES = """
rm -f 'read only'; chmod 700 shut; rm -r shut d/empty; mkdir d/empty2; echo -n new >> large; chmod 604 sparse
rm -r "$(echo n*)"; mkdir "$(printf %0200d | tr 0 n)"; (cd n*; echo x > inner); ln d/tool d/tool3
mkdir deep; cd deep; mkdir -p a/b; echo f > a/b/file; ln -s a/b link; touch -d 2001-02-03 a/b
"""
"""What makes changes of all kinds: gone, hidden beneath a new directory, copied up, renamed, linked."""


async def assert_same(first: UnixLocalSandboxSession, second: UnixLocalSandboxSession) -> None:
    """Both have the same files, with all that a snapshot keeps of them.

    A caller's own directory keeps its mode, and a copy's is private.
    """
    store = SnapshotStore()
    saved = [await session.save_snapshot() for session in (first, second)]
    told = await store.diff(saved[0].id, saved[1].id)
    assert (told.removed, told.added, told.changed) == ((), (), ())
    assert {*told.retouched} <= {"."}


@pytest.fixture
async def parent(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> AsyncIterator[UnixLocalSandboxSession]:
    """A session on a layer with something of everything, started."""
    own = tmp_path / "own"
    own.mkdir()
    fill(own)
    plain = await client.create(manifest=Manifest(root=str(own)))
    async with plain:
        session = await client.fork(plain, workspace=Layered())
        assert session.forked is not None
        assert session.forked.way in {"copy", "clone"}
        await session.start()
        await assert_same(plain, session)
    await client.delete(plain)
    yield session
    await client.delete(session)


async def test_fork_is_exact_and_apart(
    client: UnixLocalSandboxClient, parent: UnixLocalSandboxSession
) -> None:
    unchanged = await client.fork(parent)
    assert unchanged.forked is not None
    assert (unchanged.forked.way, unchanged.forked.report.files) == ("layers", 0)
    assert len(layers()) == 1
    assert await said(parent, CHANGES) == ""
    fork = await client.fork(parent)
    assert fork.forked is not None
    assert fork.forked.way == "changes"
    assert fork.forked.source == str(parent.state.session_id)
    async with fork, unchanged:
        await assert_same(parent, fork)
        assert await said(fork, "ls n*; rm -r deep d; echo mine > large") == "inner\n"
        assert await said(parent, "cat deep/a/b/file; tail -c 3 large") == "f\nnew"
        assert (
            await said(unchanged, "ls shut; cat 'read only'; ls n*/")
            == "file\nkept" + "m" * 200 + "\n"
        )
        second = await client.fork(fork)
        async with second:
            await assert_same(fork, second)
            assert await said(second, "cat large; ls d") == (
                "mine\nls: cannot access 'd': No such file or directory\n"
            )
    await client.delete(fork)
    await client.delete(parent)
    second = await client.resume(second.state)
    async with second:
        assert await said(second, "cat large") == "mine\n"
    await client.delete(second)
    assert len(layers()) == 1
    await client.delete(unchanged)
    assert_nothing_left()


async def test_many_forks_share_one_layer(client: UnixLocalSandboxClient) -> None:
    """Those that are asked for at once; a later one has what was changed meanwhile, and is another."""
    parent = await client.create(workspace=Layered())
    async with parent:
        await said(parent, "echo one > file; echo x > other")
        forks = await asyncio.gather(*(client.fork(parent) for _ in range(30)))
        # One that was made at once, and one for all who came while another was being made: at the most
        # a few on a busy machine.
        assert len(layers()) <= 6
        await said(parent, "echo two > file")
        later = await client.fork(parent)
        await parent.write("file", b"three")
        latest = await client.fork(parent)
        for fork, expected in ((forks[7], "one\n"), (later, "two\n"), (latest, "three")):
            async with fork:
                assert await said(fork, "cat file") == expected
    for fork in (*forks, later, latest, parent):
        await client.delete(fork)
    assert_nothing_left()


MAPPING = """
import mmap, os
m = mmap.mmap(os.open("mapped", os.O_RDWR), 1)
m[0:1] = b"1"
open("/tmp/first", "w").close()
open("again").close()
m[0:1] = b"2"
open("/tmp/second", "w").close()
open("again").close()
"""
"""Writes twice to a page that was mapped once: only the first write shows in the file's times."""


async def test_later_fork_misses_nothing(client: UnixLocalSandboxClient) -> None:
    """It shares what was made for an earlier one only where nothing can have changed since."""
    parent = await client.create(workspace=Layered())
    forks = []

    async def fork() -> str:
        forks.append(await client.fork(parent))
        assert forks[-1].forked is not None
        return forks[-1].forked.way

    async with parent:
        await said(parent, "echo key > secret; printf 0 > mapped; mkfifo /tmp/again")
        while await fork() != "layers":  # until its times are old enough to tell
            pass
        parent.register_persist_workspace_skip_path("secret")
        assert await fork() == "changes"
        assert not await _has(forks[-1], "secret")
        await parent.write("mapping.py", MAPPING.replace("again", "/tmp/again").encode())
        await parent.start_process("python3 mapping.py")
        await said(parent, "until test -e /tmp/first; do sleep 0.01; done")
        place = state_place() / "sessions" / str(parent.state.session_id) / "changes/upper/mapped"
        settled = place.stat().st_ctime_ns + 2 * LAYERS_SETTLED_NS
        while int(await said(parent, "date +%s%N")) < settled:
            pass
        await fork()
        await said(parent, "echo > /tmp/again; until test -e /tmp/second; do sleep 0.01; done")
        await fork()
        async with forks[-1] as last:
            assert await said(last, "cat mapped") == await said(parent, "cat mapped") == "2"
    for each in (*forks, parent):
        await client.delete(each)
    assert_nothing_left()


async def _has(session: UnixLocalSandboxSession, path: str) -> bool:
    async with session:
        return await session.exists(path)


PLANTED = """
import os
os.makedirs("dir/sub")
for name in ("file", "dir/file", "dir/sub/file"):
    open(name, "w").close()
    os.setxattr(name, "user.overlay.whiteout", b"")
for name in (".", "dir", "dir/sub"):
    os.setxattr(name, "user.overlay.opaque", b"x")
"""
"""Attributes by which overlayfs takes files of a layer for gone (Linux 6.7)."""


async def test_planted_attributes_hide_nothing(
    client: UnixLocalSandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way files come into a layer."""
    plain = await client.create()
    async with plain:
        await plain.write("plant.py", PLANTED.encode())
        refused = await said(plain, "python3 plant.py")
        if "Errno 95" in refused:  # EOPNOTSUPP: a tmpfs before Linux 6.6
            pytest.skip("the temporary directory's file system keeps no attributes of users")
        assert refused == ""
        expected = await said(plain, "find . | sort")
        saved = await plain.save_snapshot()
        forks = [await client.fork(one, workspace=Layered()) for one in (plain, saved)]
    async with forks[0]:
        monkeypatch.setattr(layered_fork, "LAYERS_DEEP", 0)
        await said(forks[0], "touch dir")
        forks.append(await client.fork(forks[0]))
        assert await said(forks[0], "find . | sort") == expected
    for fork in forks[1:]:
        async with fork:
            assert await said(fork, "find . | sort") == expected
    for session in (plain, *forks):
        await client.delete(session)
    assert_nothing_left(saved=1)


async def test_left_out_stays_gone(client: UnixLocalSandboxClient) -> None:
    """What a fork can't be given is not there as it was before, either."""
    base = await client.create(workspace=Layered())
    async with base:
        await said(
            base, "mkdir dir new; for f in pipe left dir/pipe new/pipe kept; do echo 1 > $f; done"
        )
    parent = await client.fork(base.state)
    async with parent:
        parent.register_persist_workspace_skip_path("left")
        pipes = "pipe dir/pipe new/pipe new/sub/pipe"
        await said(
            parent, f"rm -r new pipe dir/pipe; mkdir -p new/sub; mkfifo {pipes}; echo 2 > left"
        )
        fork = await client.fork(parent)
    assert fork.forked is not None
    assert {(note.path, note.reason) for note in fork.forked.report.skipped} == {
        ("left", "excluded"), *((path, "fifo") for path in pipes.split())
    }  # fmt: skip
    async with fork:
        assert await said(fork, "find . | sort | tr '\\n' ' '") == ". ./dir ./kept ./new ./new/sub "
        assert await said(fork, "rm -r *; ls; mkdir dir new; ls -A dir new") == "dir:\n\nnew:\n"
    for session in (fork, parent, base):
        await client.delete(session)
    assert_nothing_left()


async def test_fork_of_what_was_left(client: UnixLocalSandboxClient) -> None:
    """Nothing is copied, and the session goes on upon what was frozen."""
    entries = {"secret": File(content=b"key", ephemeral=True)}
    parent = await client.create(workspace=Layered(), manifest=Manifest(entries=entries))
    async with parent:
        await said(
            parent, "echo one > file; mkdir -m 750 dir; chmod 711 .; touch -d 2001-02-03 dir"
        )
    forks = [await client.fork(parent.state) for _ in range(3)]
    assert len(layers()) == 1
    for fork in forks:
        assert fork.forked is not None
        assert (fork.forked.way, fork.forked.report.files) == ("layers", 0)
    again = await client.resume(parent.state)
    async with again, forks[0] as fork:
        await assert_same(again, fork)
        for session in (again, fork):
            assert (
                await said(session, "stat -c %a .; stat -c '%Y %a' dir") == "711\n981158400 750\n"
            )
        await said(again, "echo two >> file")
        assert await said(fork, "cat file secret") == "one\nkey"
    third = await client.fork(again)
    async with third:
        assert await said(third, "cat file") == "one\ntwo\n"
    for session in (again, third, *forks):
        await client.delete(session)
    assert_nothing_left()


@pytest.mark.parametrize("mode", ["555", "444", "000"])
async def test_closed_top_loses_nothing(client: UnixLocalSandboxClient, mode: str) -> None:
    """A command can close the workspace's own directory: the session is forked and resumed all the same."""
    parent = await client.create(workspace=Layered())
    async with parent:
        await said(parent, f"echo one > file; chmod {mode} .")
        if mode == "444":
            with suppress(WorkspaceStartError):  # root can look into it, and an ordinary user can't
                fork = await client.fork(parent)
                async with fork:
                    assert await said(fork, "cat file") == "one\n"
                await client.delete(fork)
    fork = await client.fork(parent.state)
    parent = await client.resume(parent.state)
    expected = "555" if mode == "555" else "700"
    for session in (fork, parent):
        async with session:
            assert await said(session, "cat file; stat -c %a .") == f"one\n{expected}\n"
    second = await client.fork(parent.state)
    for session in (second, fork, parent):
        await client.delete(session)
    assert_nothing_left()


async def test_deep_chain_is_made_flat(
    client: UnixLocalSandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layered_fork, "LAYERS_DEEP", 3)
    session = await client.create(workspace=Layered())
    ways = []
    for number in range(8):
        async with session:
            await said(session, f"echo {number} > f{number}; rm -f f{number - 2}")
            if number % 2:
                fork = await client.fork(session)
        if number % 2 == 0:
            fork = await client.fork(session.state)
        assert fork.forked is not None
        ways.append(fork.forked.way.replace("clone", "copy"))
        await client.delete(session)
        session = fork
    assert ways == ["layers", "changes", "layers", "copy", "layers", "changes", "copy", "changes"]
    async with session:
        assert await said(session, "cat *") == "6\n7\n"
    await client.delete(session)
    assert_nothing_left()
