"""Sessions that are saved and taken up again: nothing good is lost, nothing newer is overwritten."""

from __future__ import annotations

import copy
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    Dependencies,
    File,
    LeaseHeldError,
    LocalDir,
    LocalSnapshotSpec,
    Manifest,
    Overlay,
    Policy,
    PolicyError,
    Progress,
    RemoteSnapshotSpec,
    SandboxError,
    SandboxPathGrant,
    SandboxSessionState,
    SnapshotStore,
    StoreSnapshot,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceStartError,
    WorkspaceStopError,
)
from tests.workspace.sample import fill, looks


class Service:
    """A client of a service that keeps archives in memory; half of it is asynchronous."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.fails = False

    def upload(self, name: str, stream: io.IOBase) -> None:
        if self.fails:
            raise ConnectionError("the service is away")
        self.held[name] = stream.read()

    async def download(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.held[name])

    async def exists(self, name: str) -> bool:
        return name in self.held


SERVICE = Service()
Spec = StoreSnapshotSpec | LocalSnapshotSpec | RemoteSnapshotSpec
SPECS: dict[str, Callable[[Path], Spec]] = {
    "store": lambda path: StoreSnapshotSpec(directory=str(path / "store")),
    "local": lambda path: LocalSnapshotSpec(base_path=str(path / "snapshots")),
    "remote": lambda path: RemoteSnapshotSpec(client_dependency_key="service"),
}


@pytest.fixture
def client() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient(dependencies=Dependencies.with_values({"service": SERVICE}))


def root_of(session: UnixLocalSandboxSession) -> Path:
    return Path(session.state.manifest.root)


@pytest.mark.parametrize("kind", SPECS)
async def test_gone_workspace_is_restored(
    client: UnixLocalSandboxClient, tmp_path: Path, kind: str
) -> None:
    manifest = Manifest(
        entries={"kept": File(content=b"old"), "secret": File(content=b"key", ephemeral=True)}
    )
    session = await client.create(snapshot=SPECS[kind](tmp_path), manifest=manifest)
    async with session:
        await session.exec("echo new > kept; mkdir d; ln -s nowhere d/l; chmod 700 d", timeout=30)
        fill(root_of(session))
        before = looks(os.fsencode(root_of(session)))
    assert session.checkpoint is not None
    assert [note.reason for note in session.checkpoint.report.skipped] == ["excluded"]
    saved = client.serialize_session_state(session.state)
    await client.delete(session)
    assert not root_of(session).exists()
    again = await client.resume(client.deserialize_session_state(saved))
    async with again:
        assert root_of(again) == root_of(session)
        after = looks(os.fsencode(root_of(again)))
        for name in (b"secret", b""):  # made again, in the workspace itself
            after[name] = before[name]
        assert after == before
        result = await again.exec("cat kept secret", timeout=30)
        assert result.stdout == b"new\nkey"
    await client.delete(again)


async def test_newer_work_stays(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    session = await client.create(snapshot=StoreSnapshotSpec(directory=str(tmp_path / "store")))
    async with session:
        await session.write("saved", b"1")
        await session.stop()
        first = session.checkpoint
        await session.stop()
        assert session.checkpoint == first  # nothing has changed
    (root_of(session) / "newer").write_bytes(b"2")
    again = await client.resume(session.state)
    with pytest.raises(LeaseHeldError) as held:
        await client.resume(session.state)
    assert held.value.context["reason"] == "in_use"
    async with again:
        assert (await again.exec("cat saved newer", timeout=30)).stdout == b"12"
    store = SnapshotStore(tmp_path / "store")
    assert [each.files for each in await store.list(str(session.state.session_id))] == [1, 2]
    await client.delete(again)


async def test_failed_save_keeps_all(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    spec = RemoteSnapshotSpec(client_dependency_key="service")
    session = await client.create(snapshot=spec)
    name = str(session.state.session_id)
    await session.start()
    await session.write("a", b"1")
    await session.stop()
    good = SERVICE.held[name]
    await session.write("a", b"2")
    SERVICE.fails = True
    try:
        with pytest.raises(WorkspaceStopError, match="the service is away"):
            await session.aclose()
    finally:
        SERVICE.fails = False
    assert SERVICE.held[name] == good
    with pytest.raises(WorkspaceStopError, match="unsaved=True"):
        await client.delete(session)
    assert (root_of(session) / "a").read_bytes() == b"2"
    again = await client.resume(session.state)
    async with again:
        pass
    with tarfile.open(fileobj=io.BytesIO(SERVICE.held[name])) as tar:
        member = tar.extractfile("./a")
        assert member is not None
        assert member.read() == b"2"
    await client.delete(again)


async def test_failed_start_loses_nothing(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """A snapshot that is damaged is refused; neither it nor what was saved before is overwritten."""
    directory = tmp_path / "store"
    session = await client.create(snapshot=StoreSnapshotSpec(directory=str(directory)))
    async with session:
        await session.write("a", b"good")
    await client.delete(session)
    ((pack, raw),) = [(path, path.read_bytes()) for path in directory.glob("packs/*")]
    pack.write_bytes(raw.replace(b"good", b"evil"))
    for _ in range(2):
        again = await client.resume(session.state)
        with pytest.raises(WorkspaceStartError, match="damaged"):
            async with again:
                pass
        assert os.listdir(root_of(again)) == []
        await client.delete(again)
    pack.write_bytes(raw)
    async with await client.resume(session.state) as again:
        assert (root_of(again) / "a").read_bytes() == b"good"
    await client.delete(again)


@pytest.mark.parametrize("kind", SPECS)
async def test_start_is_tried_again(
    client: UnixLocalSandboxClient, tmp_path: Path, kind: str
) -> None:
    """The same state is taken up again after a start that came to nothing, or was killed."""
    session = await client.create(snapshot=SPECS[kind](tmp_path))
    async with session:
        await session.write("a", b"good")
    await client.delete(session)
    again = await client.resume(session.state)
    await again.aclose()  # it has made the directory, and restored nothing
    (root_of(session) / ".sandyard-0123456789abcdef.stage").mkdir()
    async with await client.resume(session.state) as again:
        assert (root_of(again) / "a").read_bytes() == b"good"
    await client.delete(again)


async def test_foreign_files_are_kept(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """What is not the session's own is neither used, overwritten nor deleted."""
    store = str(tmp_path / "store")
    session = await client.create(snapshot=StoreSnapshotSpec(directory=store))
    async with session:
        await session.write("a", b"1")
    shutil.move(root_of(session), tmp_path / "away")
    root_of(session).mkdir()
    with pytest.raises(WorkspaceStartError) as refused:
        await client.resume(session.state)
    assert refused.value.context["reason"] == "not_its_own"
    root_of(session).rmdir()
    own = tmp_path / "own"
    own.mkdir()
    (own / "b").touch()
    kept = StoreSnapshot(id=str(session.state.session_id), directory=store)
    other = await client.create(snapshot=kept, manifest=Manifest(root=str(own)))
    with pytest.raises(WorkspaceStartError) as refused:
        await other.start()
    assert refused.value.context["reason"] == "workspace_not_empty"
    await other.aclose()
    assert os.listdir(own) == ["b"]
    (own / "b").unlink()
    other = await client.create(snapshot=kept, manifest=Manifest(root=str(own)))
    async with other:
        assert os.listdir(own) == ["a"]
    shutil.move(tmp_path / "away", root_of(session))
    await client.delete(session)
    assert not root_of(session).exists()


async def test_resumed_without_client(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """from_state believes, checks and holds what a client's resume does."""
    extra = tmp_path / "extra"
    extra.mkdir()
    policy = Policy(reads=(str(extra),), environment=(("A", "1"),))
    session = await client.create(policy=policy)
    async with session:
        await session.write("a", b"kept")
    saved = client.deserialize_session_state(client.serialize_session_state(session.state))
    async with await UnixLocalSandboxSession.from_state(saved, policy=policy) as again:
        assert type(again) is UnixLocalSandboxSession
        assert again.state.session_id == session.state.session_id
        result = await again.exec(f"cat a; ls -d {extra}; printf $A")
        assert result.stdout.decode() == f"kept{extra}\n1"
        with pytest.raises(LeaseHeldError):
            await UnixLocalSandboxSession.from_state(saved)
        with pytest.raises(LeaseHeldError):
            await client.resume(saved)
    async with await UnixLocalSandboxSession.from_state(saved) as again:
        assert not (await again.exec(f"ls -d {extra}")).ok()  # no state says what it may touch
    forged = saved.model_copy(update={"seal": ""})
    with pytest.raises(ArgumentError, match="can't choose a place"):
        await UnixLocalSandboxSession.from_state(forged)
    with pytest.raises(ArgumentTypeError, match="state is one of"):
        await UnixLocalSandboxSession.from_state(SandboxSessionState(type="other"))
    await client.delete(again)
    assert not root_of(session).exists()


async def test_state_grants_nothing(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    grant = SandboxPathGrant(path=str(tmp_path / "extra"))
    session = await client.create(manifest=Manifest(extra_path_grants=[grant]))
    async with session:
        pass
    with pytest.raises(PolicyError, match="can't grant"):
        await client.resume(session.state)
    again = await client.resume(session.state, policy=Policy(writes=(str(tmp_path / "extra"),)))
    await client.delete(again)


async def test_state_chooses_no_place(
    client: UnixLocalSandboxClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a state says of its places is believed if it was written here, or said again."""
    spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    own = tmp_path / "own"
    session = await client.create(snapshot=spec, manifest=Manifest(root=str(own)))
    async with session:
        await session.write("a", b"1")
    saved = client.serialize_session_state(session.state)
    forged = copy.deepcopy(saved)
    forged["manifest"]["root"] = str(tmp_path)  # type: ignore[index]
    with pytest.raises(ArgumentError, match="can't choose a place") as refused:
        await client.resume(client.deserialize_session_state(forged))
    assert refused.value.context["argument"] == "root"
    forged = copy.deepcopy(saved)
    forged["snapshot"]["directory"] = str(tmp_path / "other")  # type: ignore[index]
    state = client.deserialize_session_state(forged)
    for root, kept in ((None, None), (own, spec), (own, None)):
        with pytest.raises(ArgumentError) as refused:
            await client.resume(state, root=root, snapshot=kept)
    assert refused.value.context["argument"] == "snapshot"
    assert not (tmp_path / "other").exists()
    for change in ({"workspace_root_owned": True}, {"seal": ""}, {"seal": "é"}):
        with pytest.raises(ArgumentError):
            await client.resume(client.deserialize_session_state(saved | change))
    state = client.deserialize_session_state(saved)
    await (await client.resume(state)).aclose()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(ArgumentError):
        await client.resume(state)
    async with await client.resume(state, root=f"{own}/", snapshot=spec) as again:
        assert (own / "a").read_bytes() == b"1"
    await (await client.resume(again.state)).aclose()  # it is known here by now
    key = tmp_path / "elsewhere/sandyard/key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(ArgumentError):
        await client.resume(again.state)


async def test_state_copies_nothing_itself(
    client: UnixLocalSandboxClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that a changed state wants from the disk of whoever resumes it is refused by name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "secret").write_text("private")
    entries = {"own": LocalDir(src="own"), "note": File(content="x")}
    session = await client.create(manifest=Manifest(entries=entries))
    async with session:
        pass
    saved = client.serialize_session_state(session.state)
    await client.delete(session)
    forged = copy.deepcopy(saved) | {"workspace_root_ready": False}
    forged["manifest"]["entries"]["stolen"] = {  # type: ignore[index]
        "type": "local_file",
        "src": "own/secret",
    }
    for seal in (saved["seal"], "", f"{saved['seal']}.", "é.é"):
        state = client.deserialize_session_state(forged | {"seal": seal})
        with pytest.raises(SandboxError) as refused:
            await client.resume(state)
        assert isinstance(refused.value, PolicyError | ArgumentError)
    state = client.deserialize_session_state(forged)
    with pytest.raises(PolicyError, match="a state can't read anything") as denied:
        await client.fork(state)
    assert str(tmp_path / "own") in str(denied.value)
    shown = await client.resume(state, policy=Policy(reads=(str(tmp_path / "own"),)))
    async with shown:  # whoever resumes it says so
        assert (await shown.exec("cat stolen")).stdout == b"private"
    await client.delete(shown)
    again = await client.resume(client.deserialize_session_state(saved))
    async with again:  # it was not changed
        assert (await again.exec("cat own/secret")).stdout == b"private"
    await client.delete(again)


async def test_state_chooses_no_kind(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """Who names the directory has not said that commands may change it, nor where else it lies."""
    base = tmp_path / "base"
    base.mkdir()
    session = await client.create(workspace=Overlay(base))
    async with session:
        pass
    saved = client.serialize_session_state(session.state)
    forged = client.deserialize_session_state(saved | {"workspace_overlay": False})
    with pytest.raises(ArgumentError, match="is no overlay"):
        await client.resume(forged, root=Overlay(base))
    unsealed = client.deserialize_session_state(saved | {"seal": ""})
    for state in (session.state, unsealed):
        with pytest.raises(ArgumentError, match="is an overlay"):
            await client.resume(state, root=base)
    again = await client.resume(unsealed, root=Overlay(base))
    await client.delete(again)
    other = await client.create()
    async with other:
        pass
    place = {"workspace_root_path": other.state.manifest.root, "workspace_root_owned": True}
    identity = {"session_id": str(other.state.session_id), "workspace_overlay": False}
    forged = client.deserialize_session_state(saved | place | identity)
    with pytest.raises(ArgumentError, match="lies at"):
        await client.resume(forged, root=base)
    await client.delete(other)


async def _resume_named(client: UnixLocalSandboxClient, saved: dict[str, object]) -> None:
    state = client.deserialize_session_state(saved)
    root, kept = state.manifest.root, state.snapshot
    async with await client.resume(state, root=root, snapshot=kept):
        pass


@pytest.mark.parametrize("field", ["id", "place"])
@pytest.mark.parametrize("kind", ["store", "local"])
async def test_odd_paths_are_told(
    client: UnixLocalSandboxClient, tmp_path: Path, kind: str, field: str
) -> None:
    """A state of somebody else's ends in errors of the library's."""
    session = await client.create(manifest=Manifest(root=str(tmp_path / "own")))
    await session.aclose()
    for odd in ("a\0b", "a\ud800"):
        saved = dict(client.serialize_session_state(session.state))
        place, name = (tmp_path / odd, "x") if field == "place" else (tmp_path, odd)
        saved["snapshot"] = {
            "type": kind,
            "id": name,
            {"store": "directory", "local": "base_path"}[kind]: str(place),
        }
        with pytest.raises(SandboxError):
            await _resume_named(client, saved)


async def test_place_stays_where_it_was(
    client: UnixLocalSandboxClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative directory is that of the program that made the session."""
    monkeypatch.chdir(tmp_path)
    session = await client.create(snapshot=LocalSnapshotSpec(base_path="kept"))
    async with session:
        await session.write("a", b"1")
    await client.delete(session)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with await client.resume(session.state) as again:
        assert (root_of(again) / "a").read_bytes() == b"1"
    await client.delete(again)


async def test_store_lies_apart(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    inside = StoreSnapshotSpec(directory=str(tmp_path / "own/store"))
    with pytest.raises(WorkspaceStartError, match="snapshot store"):
        await client.create(snapshot=inside, manifest=Manifest(root=str(tmp_path / "own")))


async def test_saving_under_churn(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    """Commands may write while it is saved: every stop succeeds, and every snapshot restores."""
    directory = tmp_path / "store"
    session = await client.create(snapshot=StoreSnapshotSpec(directory=str(directory)))
    churn = """
        i=0
        while :; do
            i=$((i+1)); mkdir -p d$((i%7)); echo $i > d$((i%7))/f; mv d$((i%7))/f g$((i%5))
            rm -rf d$((i%3)); truncate -s $i h
        done
    """
    async with session:
        process = await session.start_process(churn)
        for _ in range(8):
            await session.stop()
        await process.close()
    store = SnapshotStore(directory)
    assert (await store.verify()).ok
    assert (await store.list())[-1].id == session.checkpoint.snapshot  # type: ignore[union-attr]
    await client.delete(session)


async def test_progress_of_saves_and_restores(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> None:
    heard: list[Progress] = []
    session = await client.create(snapshot=StoreSnapshotSpec(directory=str(tmp_path / "store")))
    async with session:
        await session.exec("for i in $(seq 300); do echo $i > f$i; done; ln f1 g; ln -s f1 h")
        await session.stop(progress=heard.append)
        assert heard[-1][1:3] == (302, 1092)
        assert [each.files for each in heard] == sorted(each.files for each in heard)
        heard.clear()
        await session.save_snapshot(progress=heard.append)
        assert heard[-1].files == 302
    await client.delete(session)
    heard.clear()
    again = await client.resume(session.state)
    await again.start(progress=heard.append)
    assert heard[-1][1:3] == (302, 1092)
    await client.delete(again)
