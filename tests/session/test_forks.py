"""Forks: another session from the same point, which neither shares with nor takes from its parent."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    CallbackSink,
    File,
    Instrumentation,
    Layered,
    LeaseHeldError,
    LocalSnapshotSpec,
    Manifest,
    NoopSnapshotSpec,
    Overlay,
    Policy,
    PolicyError,
    ResourceLimits,
    SandboxSessionEvent,
    SecretValue,
    SessionClosedError,
    SnapshotNotRestorableError,
    SnapshotStore,
    StoreSnapshot,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceArchiveWriteError,
)
from tests.workspace.sample import fill, looks


@pytest.fixture
def client() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient()


def root_of(session: UnixLocalSandboxSession) -> Path:
    return Path(session.state.host_root)


async def said(session: UnixLocalSandboxSession, command: str) -> bytes:
    result = await session.exec(command, timeout=30)
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def test_fork_is_exact_and_apart(client: UnixLocalSandboxClient) -> None:
    entries = {"secret": File(content=b"key", ephemeral=True)}
    parent = await client.create(manifest=Manifest(entries=entries))
    async with parent:
        fill(root_of(parent))
        await said(parent, "echo old > shared; ln -s $PWD/shared absolute")
        before = looks(os.fsencode(root_of(parent)))
        await said(parent, "mkfifo pipe")
        fork = await client.fork(parent)
        assert fork.forked is not None
        assert fork.forked.way in {"copy", "clone"}
        assert fork.forked.source == str(parent.state.session_id)
        reasons = {(note.path, note.reason) for note in fork.forked.report.skipped}
        assert reasons == {("secret", "excluded"), ("pipe", "fifo")}
        after = looks(os.fsencode(root_of(fork)))
        del after[b""], before[b""], before[b"secret"]  # the pipe came after
        assert after == before
        assert (root_of(fork) / "sparse").stat().st_blocks * 512 < 1_000_000
        inodes = [path.lstat().st_ino for path in (root_of(parent), root_of(fork))]
        assert inodes[0] != inodes[1]
        async with fork:
            here = os.fsencode(root_of(parent))
            assert await said(fork, "pwd; cat absolute secret") == here + b"\nold\nkey"
            assert await fork.exists(f"{root_of(parent)}/shared")
            await said(fork, "echo new > absolute; ln shared other; chmod 600 'read only'")
            with await fork.read("shared") as file:
                assert file.read() == b"new\n"
            assert await said(parent, "cat shared") == b"old\n"
            assert await said(parent, "stat -c %a-%h 'read only' shared") == b"444-1\n644-1\n"
    await client.delete(parent)
    assert (root_of(fork) / "shared").read_bytes() == b"new\n"
    await client.delete(fork)
    assert not root_of(fork).exists()


async def test_many_at_once(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/file").write_bytes(b"the caller's")

    async def use(number: int, fork: UnixLocalSandboxSession) -> None:
        async with fork:
            await said(fork, f"echo -n {number} > file")

    parent = await client.create(manifest=Manifest(root=str(tmp_path / "own")))
    async with parent:
        forks = await asyncio.gather(*(client.fork(parent) for _ in range(20)))
        await asyncio.gather(*(use(number, fork) for number, fork in enumerate(forks)))
        assert await said(parent, "cat file") == b"the caller's"
    assert len({fork.state.session_id for fork in forks}) == 20
    second = await client.fork(forks[3])
    async with second:
        assert await said(second, "pwd; cat file") == os.fsencode(tmp_path / "own") + b"\n3"
    for fork in (*forks, second):
        await client.delete(fork)
        assert not root_of(fork).exists()
    await client.delete(parent)
    assert (tmp_path / "own/file").read_bytes() == b"the caller's"


async def test_fork_of_what_was_left(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    parent = await client.create(snapshot=spec)
    with pytest.raises(SessionClosedError, match="not started yet"):
        await client.fork(parent)
    async with parent:
        await parent.write("file", b"saved")
        with pytest.raises(LeaseHeldError):
            await client.fork(parent.state)
    (root_of(parent) / "file").write_bytes(b"newer than what was saved")
    state = client.deserialize_session_state(client.serialize_session_state(parent.state))
    fork = await client.fork(state)
    assert (root_of(fork) / "file").read_bytes() == b"newer than what was saved"
    assert isinstance(fork.state.snapshot, StoreSnapshot)
    assert fork.state.snapshot.id == str(fork.state.session_id)  # never its parent's history
    async with fork:
        await fork.stop()
    again = await client.resume(fork.state)
    async with again:
        assert await said(again, "pwd; cat file") == (
            os.fsencode(root_of(parent)) + b"\nnewer than what was saved"
        )
    shutil.rmtree(root_of(parent))
    older = await client.fork(parent, snapshot=NoopSnapshotSpec())
    assert older.forked is not None
    assert older.forked.way == "snapshot"
    assert (root_of(older) / "file").read_bytes() == b"saved"
    async with older:
        lost = await client.fork(older)
    await lost.aclose()
    shutil.rmtree(root_of(lost))
    with pytest.raises(SnapshotNotRestorableError):
        await client.fork(lost.state)
    for session in (parent, again, older, lost):
        await client.delete(session)
    store = SnapshotStore(tmp_path / "store")
    assert [one.root for one in await store.list(fork.state.snapshot.id)] == [str(root_of(parent))]


async def test_fork_of_a_snapshot(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "store")
    parent = await client.create(snapshot=StoreSnapshotSpec(directory=store.directory))
    async with parent:
        fill(root_of(parent))
        before = looks(os.fsencode(root_of(parent)))
        await parent.stop()
        assert parent.checkpoint is not None
        first = parent.checkpoint.snapshot
        await parent.write("later", b"1")
    history = str(parent.state.session_id)
    await store.label(first, label="first")
    for ref in (first, first[:8], "first", await store.get(first)):
        fork = await client.fork(ref, store=store)
        assert looks(os.fsencode(root_of(fork))) == before
        await client.delete(fork)
    manifest = Manifest(entries={"added": File(content=b"new")}, environment={"value": {"A": "1"}})
    last = await client.fork(history, store=store, manifest=manifest)
    async with last:
        assert await said(last, "pwd; cat added later; echo $A") == (
            os.fsencode(root_of(parent)) + b"\nnew11\n"
        )
    with pytest.raises(SnapshotNotRestorableError):
        await client.fork("nobody's", store=store)
    for session in (last, parent):
        await client.delete(session)


async def test_fork_of_what_is_kept(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """Of where something is saved, whatever kind that is; the fork is nowhere saved itself."""
    specs = (
        LocalSnapshotSpec(base_path=str(tmp_path / "archives")),
        StoreSnapshotSpec(directory=str(tmp_path / "store")),
    )
    for spec in specs:
        parent = await client.create(snapshot=spec)
        async with parent:
            fill(root_of(parent))
            before = looks(os.fsencode(root_of(parent)))
        kept = parent.state.snapshot
        await client.delete(parent)
        manifest = Manifest(entries={"added": File(content=b"new")}, root="/somewhere")
        forks = [await client.fork(kept), await client.fork(kept, workspace=Layered())]
        assert looks(os.fsencode(root_of(forks[0]))) == before
        forks.append(await client.fork(kept, manifest=manifest))
        for fork in forks:
            async with fork:
                assert await said(fork, "cat 'read only'; ls added 2>/dev/null; true") in {
                    b"kept",
                    b"keptadded\n",
                }
            await client.delete(fork)
        with pytest.raises(ArgumentError, match="says itself"):
            await client.fork(kept, store=SnapshotStore(tmp_path / "store"))
        with pytest.raises(SnapshotNotRestorableError):
            await client.fork(kept.model_copy(update={"id": "nobodys"}))


async def test_policy_is_the_parents(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    own, outside = tmp_path / "own", tmp_path / "outside"
    for path in (own / "kept", own / "closed", outside):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"parent's")
    policy = Policy(reads=(str(own / "kept"),), writes=(str(outside),), deny=(str(own / "closed"),))
    manifest = Manifest(root=str(own), environment={"value": {"KEY": SecretValue("hidden")}})
    parent = await client.create(policy=policy, manifest=manifest)
    async with parent:
        fork = await client.fork(parent)
        assert fork.policy == parent.policy
        assert fork.forked is not None
        assert [tuple(note) for note in fork.forked.report.skipped] == [("closed", "denied")]
        async with fork:
            (root_of(fork) / "kept/file").write_bytes(b"fork's")
            assert await said(fork, "cat kept/file; echo $KEY") == b"fork'shidden\n"
            result = await fork.exec("echo x > kept/file", timeout=30)
            assert b"Read-only" in result.stderr
            await said(fork, f"mkdir closed; echo both > {outside}/file")
        for field, wider in {
            "writes": Policy(writes=("/srv",)),
            "deny": Policy(writes=policy.writes),
            "network": Policy(network="host", deny=policy.deny),
            "limits": Policy(limits=ResourceLimits(processes=10**5), deny=policy.deny),
        }.items():
            with pytest.raises(PolicyError) as refused:
                await client.fork(parent, policy=wider)
            assert refused.value.context["field"] == field
        narrower = await client.fork(
            parent, policy=Policy(deny=policy.deny, protect=(*policy.protect, "kept"))
        )
        await client.delete(narrower)
        await client.delete(fork)
    await client.delete(parent)
    assert (own / "kept/file").read_bytes() == b"parent's"
    assert (outside / "file").read_bytes() == b"both\n"


async def test_fork_of_an_overlay(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/file").write_bytes(b"base")
    (tmp_path / "own/gone").write_bytes(b"base")
    parent = await client.create(workspace=Overlay(str(tmp_path / "own")))
    async with parent:
        await said(parent, "echo changed > file; rm gone; echo new > new")
        fork = await client.fork(parent)
    with pytest.raises(ArgumentError, match="before its end"):
        await client.fork(parent)
    async with fork:
        assert await said(fork, "pwd; ls; cat file") == (
            os.fsencode(tmp_path / "own") + b"\nfile\nnew\nchanged\n"
        )
        await said(fork, "echo fork > file")
    for session in (parent, fork):
        await client.delete(session)
    assert (tmp_path / "own/file").read_bytes() == b"base"


async def test_failed_fork_leaves_nothing(client: UnixLocalSandboxClient) -> None:
    parent = await client.create()
    async with parent:
        await said(parent, "for i in 1 2 3; do head -c 3000000 /dev/urandom > $i; done")
        places = set(root_of(parent).parent.iterdir())
        fork = asyncio.ensure_future(client.fork(parent))
        while set(root_of(parent).parent.iterdir()) == places and not fork.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        fork.cancel()
        await asyncio.wait([fork])
        if not fork.cancelled():  # it was quicker
            await client.delete(fork.result())
        assert set(root_of(parent).parent.iterdir()) == places

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(WorkspaceArchiveWriteError, match="could not be copied: file too"):
                await client.fork(parent)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert set(root_of(parent).parent.iterdir()) == places
    await client.delete(parent)


async def test_slash_at_the_end_of_a_root_is_no_part_of_it(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    store = SnapshotStore(tmp_path / "store")
    spec = StoreSnapshotSpec(directory=store.directory)
    parent = await client.create(manifest=Manifest(root=f"{tmp_path}/project/"), snapshot=spec)
    async with parent:
        await parent.exec("echo kept > file")
        forks = [await client.fork(parent), await client.fork(parent, workspace=Layered())]
        await parent.stop()
    forks.append(await client.fork(parent.state))
    (saved,) = await store.list()
    forks.append(await client.fork(saved, store=store))
    for fork in forks:
        async with fork:
            told = (await fork.exec("pwd; cat file")).stdout
            assert told == f"{tmp_path}/project\nkept\n".encode()
        await client.delete(fork)
    await client.delete(parent)


async def test_events_tell_of_forks() -> None:
    events: list[SandboxSessionEvent] = []
    sink = CallbackSink(lambda event, _: events.append(event), mode="sync")
    client = UnixLocalSandboxClient(instrumentation=Instrumentation(sinks=[sink]))
    parent = await client.create()
    async with parent:
        fork = await client.fork(parent)
    forks = [event for event in events if event.op == "fork"]
    told = {(event.session_id, event.phase) for event in forks}
    both = (parent.state.session_id, fork.state.session_id)
    assert told == {(each, phase) for each in both for phase in ("start", "finish")}
    assert {event.data.get("source") for event in forks if event.phase == "start"} == {
        str(parent.state.session_id)
    }
    for session in (fork, parent):
        await client.delete(session)
