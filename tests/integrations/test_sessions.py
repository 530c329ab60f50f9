"""What the adapter translates: manifests, snapshots, states, events, errors, and each verb."""

from __future__ import annotations

import asyncio
import gc
import io
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from agents import RunConfig
from agents.sandbox import Group, Manifest, Permissions, SandboxRunConfig, User, entries, errors
from agents.sandbox.manifest import Environment, EnvValue
from agents.sandbox.materialization import MaterializedFile
from agents.sandbox.session import (
    BaseSandboxSession,
    CallbackSink,
    Dependencies,
    Instrumentation,
    SandboxSessionState,
)
from agents.sandbox.snapshot import (
    LocalSnapshotSpec,
    RemoteSnapshotSpec,
    SnapshotBase,
    SnapshotSpec,
)
from agents.sandbox.workspace_paths import SandboxPathGrant

import sandyard as ours
from sandyard.integrations.openai_agents import (
    SandyardClient,
    SandyardClientOptions,
    SandyardSession,
    StoreSnapshotSpec,
)
from tests.integrations.scripting import is_there, text_of


async def lines(session: SandyardSession, command: str) -> list[str]:
    result = await session.exec(command)
    assert result.ok(), result.stderr
    return result.stdout.decode().splitlines()


class Moment(EnvValue):
    """A value that is another one for each command."""

    type: Literal["test_moment"] = "test_moment"

    async def resolve(self) -> str:
        Moment.asked += 1
        return str(Moment.asked)

    asked: int = 0


Moment.asked = 0


class Banner(entries.BaseEntry):
    """An entry of a program's own, which makes itself by the session's verbs."""

    type: Literal["test_banner"] = "test_banner"
    text: str

    async def apply(
        self, session: BaseSandboxSession, dest: Path, base_dir: Path
    ) -> list[MaterializedFile]:
        await session.write(dest, io.BytesIO(self.text.encode()))
        await session.exec("chmod", "600", dest, shell=False)
        return []


async def test_manifest(
    client: SandyardClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree" / "empty").mkdir(parents=True)
    (tmp_path / "tree" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree" / "run.sh").chmod(0o750)
    manifest = Manifest(
        entries={
            "a\\b": entries.File(content=b"\xff\0"),
            Path("dir"): entries.Dir(
                children={
                    "deep/x": entries.File(content=b"x", permissions=Permissions(owner=6)),
                    "banner": Banner(text="hello"),
                },
                permissions=Permissions(owner=7, group=1),
            ),
            "tree": entries.LocalDir(src=Path("tree")),
            "one": entries.LocalFile(src=Path("tree/run.sh")),
            "passing": entries.File(content=b"t", ephemeral=True),
        },
        environment=Environment(value={"PLAIN": "1", "MOMENT": Moment()}),
    )
    session = await client.create(manifest=manifest)
    async with session:
        assert manifest.root == "/workspace"  # the caller's is its own
        assert await lines(session, "tree/run.sh; ./one; cat dir/banner") == ["ran", "ran", "hello"]
        modes = await lines(
            session, "stat -c '%a %n' a/b dir dir/deep/x dir/banner tree/run.sh one"
        )
        assert [line.split()[0] for line in modes] == ["755", "710", "600", "600", "750", "750"]
        assert await lines(session, "ls tree") == ["empty", "run.sh"]
        first, second = [await lines(session, "echo $PLAIN $MOMENT") for _ in range(2)]
        assert first != second
        assert first[0].startswith("1 ")
        with await session.read(Path("a/b")) as file:
            assert file.read() == b"\xff\0"
        archive = await session.persist_workspace()
        with archive, tarfile.open(fileobj=archive) as tar:
            names = {name.removeprefix("./") for name in tar.getnames()}
        assert "dir/banner" in names
        assert "passing" not in names
    await client.delete(session)


@pytest.mark.root
async def test_accounts(client: SandyardClient) -> None:
    alice, bob = User(name="alice"), User(name="bob")
    team = Group(name="team", users=[alice])
    manifest = Manifest(
        users=[bob],
        groups=[team],
        entries={"board": entries.Dir(group=team, permissions=Permissions(owner=7, group=7))},
    )
    session = await client.create(manifest=manifest)
    async with session:
        await session.write(Path("board/a"), io.BytesIO(b"a"), user=alice)
        assert [each.owner for each in await session.ls("board", user="alice")] == ["alice"]
        with pytest.raises(errors.WorkspaceArchiveReadError):
            await session.read(Path("board/a"), user=bob)
        refused = await session.exec("true", user="carol")
        assert refused.exit_code == 126
        assert b"carol" in refused.stderr
    await client.delete(session)


@pytest.mark.user
async def test_accounts_of_user(client: SandyardClient) -> None:
    """An ordinary user's sandbox has more users where the machine lends ids for them."""
    asked = client.create(manifest=Manifest(users=[User(name="alice")]))
    (made,) = await asyncio.gather(asked, return_exceptions=True)
    if not isinstance(made, SandyardSession):
        assert isinstance(made, errors.ConfigurationError)
        return
    async with made:
        result = await made.exec("id -un", user="alice")
        assert result.stdout == b"alice\n"
    await client.delete(made)


# --- snapshots and states -----------------------------------------------------------------------


class Shelf:
    """A service that keeps archives; it reads where it is called, as the SDK's examples do."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def upload(self, name: str, data: io.IOBase) -> None:
        self.kept[name] = data.read()

    def download(self, name: str) -> io.IOBase:
        return io.BytesIO(self.kept[name])

    def exists(self, name: str) -> bool:
        return name in self.kept


class OwnSnapshot(SnapshotBase):
    """A kind of snapshot of a program's own."""

    type: Literal["test_own"] = "test_own"

    async def persist(self, data: io.IOBase, *, dependencies: Dependencies | None = None) -> None:
        if self.id == "broken":
            raise OSError("no room")
        SHELF.kept[self.id] = data.read()

    async def restore(self, *, dependencies: Dependencies | None = None) -> io.IOBase:
        return SHELF.download(self.id)

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        return SHELF.exists(self.id)


SHELF = Shelf()


@pytest.mark.parametrize("kind", ["local", "store", "remote", "own"])
async def test_snapshot(kind: str, tmp_path: Path) -> None:
    """A workspace is saved, deleted, and there again for another client that has only its state."""
    kinds: dict[str, SnapshotSpec | SnapshotBase] = {
        "local": LocalSnapshotSpec(base_path=tmp_path),
        "store": StoreSnapshotSpec(directory=tmp_path),
        "remote": RemoteSnapshotSpec(client_dependency_key="shelf"),
        "own": OwnSnapshot(id=f"own-{tmp_path.name}"),
    }
    asked = kinds[kind]
    dependencies = Dependencies().bind_value("shelf", SHELF)
    client = SandyardClient(dependencies=dependencies)
    session = await client.create(snapshot=asked, manifest=Manifest(entries={"m": _file("1")}))
    async with session:
        await session.exec("echo 2 > m; mkdir -m 700 d; ln d/../m d/n; echo x > skipped")
        session.register_persist_workspace_skip_path("skipped")
    root = session.state.manifest.root
    assert text_of(root, "m") == "2\n"  # closing deletes nothing
    await client.delete(session)
    assert not is_there(root)
    saved = client.serialize_session_state(session.state)
    if kind == "local":
        assert is_there(tmp_path, f"{session.state.session_id}.tar")

    other = SandyardClient(dependencies=dependencies)
    again = await other.resume(other.deserialize_session_state(saved))
    async with again:
        assert again.state.manifest.root == root
        assert await lines(again, "cat m d/n; stat -c %a d; ls") == ["2", "2", "700", "d", "m"]
    await other.delete(again)


def _file(text: str) -> entries.File:
    return entries.File(content=text.encode())


async def test_failed_save_keeps_files(client: SandyardClient) -> None:
    session = await client.create(snapshot=OwnSnapshot(id="broken"))
    await session.start()
    await session.exec("echo 1 > only-here")
    with pytest.raises(errors.WorkspaceStopError, match="no room"):
        await session.aclose()
    with pytest.raises(errors.WorkspaceStopError, match="was not deleted"):
        await client.delete(session)
    kept = Path(session.state.manifest.root, "only-here")
    assert is_there(kept)
    await session.sandbox.delete_workspace(unsaved=True)
    assert not is_there(kept)


async def test_resume_in_place(client: SandyardClient) -> None:
    """A session that was closed and not deleted goes on with its files, and is nobody else's."""
    manifest = Manifest(entries={"m": _file("1"), "banner": Banner(text="first")})
    session = await client.create(manifest=manifest)
    async with session:
        await session.exec("echo 2 > m; echo changed > banner")
        with pytest.raises(errors.WorkspaceStartError, match="in use"):
            await client.resume(session.state)
    again = await client.resume(session.state)
    async with again:
        assert await lines(again, "cat m banner") == ["2", "changed"]
    await client.delete(again)


async def test_state_grants_nothing(client: SandyardClient, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("granted")
    manifest = Manifest(extra_path_grants=(SandboxPathGrant(path=str(tmp_path), read_only=True),))
    session = await client.create(manifest=manifest)
    async with session:
        assert await lines(session, f"cat {tmp_path}/data") == ["granted"]
        assert (await session.exec(f"touch {tmp_path}/new")).exit_code != 0
        with pytest.raises(errors.WorkspaceArchiveWriteError):
            await session.write(tmp_path / "new", io.BytesIO(b"x"))
        with await session.read(tmp_path / "data") as file:
            assert file.read() == b"granted"
    saved = client.serialize_session_state(session.state)
    with pytest.raises(errors.ConfigurationError, match="can't grant anything"):
        await client.resume(client.deserialize_session_state(dict(saved)))
    other = SandyardClient(policy=ours.Policy(reads=(str(tmp_path),)))
    await other.delete(await other.resume(other.deserialize_session_state(saved)))


async def test_wrong_kinds(client: SandyardClient) -> None:
    class Other(SandboxSessionState):
        type: Literal["test_other"] = "test_other"

    state = Other(manifest=Manifest(), snapshot=OwnSnapshot(id="x"))
    with pytest.raises(TypeError, match="SandyardClient"):
        await client.resume(state)
    with pytest.raises(TypeError, match="SandyardClient"):
        await client.delete(object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid"):
        client.deserialize_session_state({"type": "sandyard"})
    with pytest.raises(TypeError, match="SandyardClientOptions"):
        await client.create(options=object())  # type: ignore[arg-type]
    config = RunConfig(sandbox=SandboxRunConfig(client=client, options={"exposed_ports": (1,)}))
    assert config.sandbox is not None
    assert config.sandbox.options == SandyardClientOptions(exposed_ports=(1,))


# --- what is refused, and where something stands in its place ------------------------------------


async def test_ports(client: SandyardClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        options = SandyardClientOptions(exposed_ports=(port,))
        session = await client.create(options=options)
        with pytest.raises(errors.ExposedPortUnavailableError, match=str(port)) as refused:
            await session.start()
        assert refused.value.context["sandyard_code"] == "exposed_port_unavailable"
    with pytest.raises(errors.ExposedPortUnavailableError):
        await session.resolve_exposed_port(port)  # it does not run
    await session.start()
    await session.exec(f"python3 -m http.server {port} >/dev/null 2>&1 & echo inside > it")
    await session.sandbox.wait_for_port(port)
    endpoint = await session.resolve_exposed_port(port)
    assert endpoint.url_for("http") == f"http://127.0.0.1:{port}/"
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(b"GET /it HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"inside\n")
    writer.close()
    with pytest.raises(errors.ExposedPortUnavailableError):
        await session.resolve_exposed_port(1)
    await session.aclose()
    again = await client.resume(session.state)
    await again.start()
    assert (await again.resolve_exposed_port(port)).port == port
    await again.aclose()
    await client.delete(again)


async def test_state_from_elsewhere(client: SandyardClient, tmp_path: Path) -> None:
    """One that this user's library did not write is taken up where the program names its places."""
    work, kept = tmp_path / "work", tmp_path / "kept"
    work.mkdir()
    (work / "it").write_text("of the program")
    spec = LocalSnapshotSpec(base_path=kept)
    session = await client.create(manifest=Manifest(root=str(work)), snapshot=spec)
    payload = {**client.serialize_session_state(session.state), "seal": ""}
    await client.delete(session)

    def state() -> SandboxSessionState:
        return client.deserialize_session_state(dict(payload))

    for named in ({}, {"root": work}, {"snapshot": spec}):
        with pytest.raises(errors.ConfigurationError, match="does not know that"):
            await client.resume(state(), **named)
    for named in ({"root": kept}, {"snapshot": LocalSnapshotSpec(base_path=tmp_path)}):
        with pytest.raises(errors.ConfigurationError, match="the saved state's"):
            await client.resume(state(), **{"root": work, "snapshot": spec, **named})  # type: ignore[arg-type]
    again = await client.resume(state(), root=work, snapshot=spec)
    async with again:
        assert (await again.exec("cat it")).stdout == b"of the program"
    await client.delete(again)


class Buckets:
    """Makes a bucket a directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.asked: list[ours.RemoteMount] = []

    @asynccontextmanager
    async def mounted(self, entry: ours.RemoteMount) -> AsyncIterator[str]:
        self.asked.append(entry)
        yield str(self.place)


def bucket(**fields: str) -> entries.S3Mount:
    strategy = entries.InContainerMountStrategy(pattern=entries.RcloneMountPattern())
    given = {"bucket": "data", "prefix": "in/", "mount_strategy": strategy, **fields}
    return entries.S3Mount.model_validate(given)


async def test_mounts(client: SandyardClient, tmp_path: Path) -> None:
    manifest = Manifest(entries={"bucket": bucket(region="eu")})
    with pytest.raises(errors.ConfigurationError, match=r"'bucket'.*'s3_mount'.*mount_providers"):
        await client.create(manifest=manifest)
    (tmp_path / "file").write_text("far away")
    provider = Buckets(tmp_path)
    near = SandyardClient(mount_providers={"s3_mount": provider})
    session = await near.create(manifest=manifest)
    async with session:
        assert await lines(session, "cat bucket/file") == ["far away"]
        assert (await session.exec("touch bucket/new")).exit_code != 0
    await near.delete(session)
    assert [(each.source, each.options["region"]) for each in provider.asked] == [("data/in", "eu")]
    secret = Manifest(entries={"bucket": bucket(access_key_id="AKIA", secret_access_key="hunter2")})
    acknowledged = secret.with_in_container_mount_credential_exposure_acknowledged("bucket")
    with pytest.raises(errors.ConfigurationError, match="access_key_id") as refused:
        await near.create(manifest=acknowledged)
    assert "hunter2" not in str(refused.value)


async def test_manifest_of_live_session(client: SandyardClient) -> None:
    """Until the start, what capabilities add is taken; what the sandbox was made with is not."""
    session = await client.create(manifest=Manifest(entries={"a": _file("a"), "d/x": _file("x")}))
    present = session.state.manifest
    added = present.model_copy(update={"entries": {**present.entries, "b": _file("b")}})
    more = added.model_copy(update={"users": [User(name="late")]})
    session.state = session.state.model_copy(update={"manifest": more})
    with pytest.raises(errors.ConfigurationError, match="users can't be changed"):
        await session.start()
    session.state = session.state.model_copy(update={"manifest": added})
    async with session:
        assert await lines(session, "cat a b") == ["ab"]
        await session.exec("rm -r a d; echo mine > b")
        await session.apply_manifest()
        assert await lines(session, "cat a b d/x; stat -c %a b") == ["abx755"]
    await client.delete(session)


# --- verbs ----------------------------------------------------------------------------------------


async def test_verbs(client: SandyardClient) -> None:
    session = await client.create()
    async with session:
        await session.write(Path("d/x"), io.BytesIO(b"text"))
        await session.mv("d/x", "d/y")
        await session.mkdir("e/f", parents=True)
        assert [Path(each.path).name for each in await session.ls("d")] == ["y"]
        assert await session.same_file("d/y", Path(session.state.manifest.root, "d/y"))
        if hasattr(session, "read_bounded"):  # since 0.23
            assert await session.read_bounded(Path("d/y"), max_bytes=2) == b"te"
        update: dict[str, object] = {
            "type": "update_file",
            "path": "d/y",
            "diff": "@@\n-text\n+new\n",
        }
        wrong: dict[str, object] = {"type": "update_file", "path": "d/none", "diff": "@@\n-a\n+b\n"}
        with pytest.raises(errors.ApplyPatchFileNotFoundError):
            await session.apply_patch([update, wrong])
        assert await lines(session, "cat d/y") == ["text"]  # all of a patch, or nothing
        assert await session.apply_patch(update) == "Done!"
        with pytest.raises(FileExistsError):
            await session.worker._write_new_file(Path("d/y"), io.BytesIO(b"x"))  # noqa: SLF001  # the SDK's hook
        await session.rm("e", recursive=True)
        with pytest.raises(errors.WorkspaceArchiveWriteError):
            await session.rm(".", recursive=True)
        archive = await session.persist_workspace()
        with archive:
            await session.exec("rm -r d")
            await session.hydrate_workspace(archive)
        assert await lines(session, "ls d; cat d/y") == ["y", "new"]
        await _check_extract(session)
        await _check_errors(session)
        assert (await session.exec("exit 3")).exit_code == 3
        printed = await session.exec("printf '%s|' a 'b c'; pwd", shell=["bash", "-c"])
        assert printed.stdout.startswith(b"a|b c|/")
    await client.delete(session)
    assert not await session.running()
    await session.pty_terminate_all()
    with pytest.raises(errors.ExecTransportError):
        await session.exec("true")
    with pytest.raises(errors.WorkspaceArchiveReadError):
        await session.read(Path("d/y"))


async def _check_extract(session: SandyardSession) -> None:
    member = tarfile.TarInfo("run")
    member.mode, member.size = 0o755, 3
    archives = []
    for name in ("../out", "more"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            tar.addfile(member, io.BytesIO(b"abc"))
            tar.addfile(tarfile.TarInfo(name))
        archives.append(packed.getvalue())
    with pytest.raises(errors.WorkspaceArchiveWriteError, match="out"):
        await session.extract("v/bad.tar.gz", io.BytesIO(archives[0]))
    assert await lines(session, "ls") == ["d"]
    await session.extract("v/good.tar.gz", io.BytesIO(archives[1]))
    assert await lines(session, "cd v; stat -c '%a %n' *") == [
        "644 good.tar.gz",
        "644 more",
        "755 run",
    ]


async def _check_errors(session: SandyardSession) -> None:
    """Every error is the very class of the SDK's, with our words, and none is hidden."""
    with pytest.raises(errors.WorkspaceReadNotFoundError, match="there is no file"):
        await session.read(Path("none"))
    with pytest.raises(errors.InvalidManifestPathError):
        await session.read(Path("/etc/passwd"))
    with pytest.raises(errors.WorkspaceWriteTypeError):
        await session.write(Path("x"), io.StringIO("text"))
    with pytest.raises(errors.ExecNonZeroError):
        await session.ls("none")
    with pytest.raises(errors.ExecTimeoutError) as slow:
        await session.exec("echo before; sleep 100", timeout=1)
    assert slow.value.context["stdout"] == "before\n"
    with pytest.raises(errors.ExecTimeoutError):
        await session.exec("true", timeout=0)
    with pytest.raises(errors.PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=1, chars="x")
    surrogates = await session.exec("echo \ud800")
    assert surrogates.exit_code == 126
    assert b"surrogate" in surrogates.stderr
    started = await session.pty_exec_start("cat", tty=True, yield_time_s=0.25)
    assert started.process_id is not None
    typed = await session.pty_write_stdin(session_id=started.process_id, chars="\ud800")
    assert typed.process_id == started.process_id
    assert b"can't be encoded" in typed.output
    piped = await session.pty_exec_start("sleep 100", yield_time_s=0.25)
    assert piped.process_id is not None
    with pytest.raises(RuntimeError, match=r"^stdin is not available for this process$"):
        await session.pty_write_stdin(session_id=piped.process_id, chars="x")


async def test_limits_are_results() -> None:
    limits = ours.ResourceLimits(output=1_000)
    client = SandyardClient(policy=ours.Policy(limits=limits))
    session = await client.create()
    async with session:
        long = await session.exec("seq 100000")
        assert len(long.stdout) == 1_000
        assert b"missing in the middle" in long.stderr
    await client.delete(session)


async def test_events() -> None:
    theirs: list[str] = []
    own: list[str] = []
    events = ours.Instrumentation(
        sinks=[ours.CallbackSink(lambda event, _: own.append(f"{event.phase} {event.op}"))]
    )
    told = Instrumentation(
        sinks=[CallbackSink(lambda event, _: theirs.append(f"{event.phase} {event.op}"))]
    )
    client = SandyardClient(events=events, instrumentation=told)
    session = await client.create()
    async with session:
        await session.exec("true")
        await session.mkdir("d")
    await client.delete(session)
    assert "finish exec" in theirs
    assert "finish stop" in theirs
    assert "finish exec" in own
    assert "finish mkdir" in own


async def test_cancelled_create(client: SandyardClient) -> None:
    """Whenever a create is cancelled, the leak fixture finds nothing of it."""
    for turns in range(0, 12, 3):
        task = asyncio.ensure_future(client.create())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)
        if isinstance(done[0], SandyardSession):
            await client.delete(done[0])
    gc.collect()


MISSING = """
import sys
sys.modules["agents.sandbox"] = None
try:
    import sandyard.integrations.openai_agents
except ModuleNotFoundError as error:
    assert "pip install 'sandyard[openai-agents]'" in str(error), error
else:
    raise SystemExit("it was imported")
"""


def test_without_sdk() -> None:
    subprocess.run([sys.executable, "-c", MISSING], check=True)


def test_one_importer() -> None:
    """No other module of ours imports the framework."""
    top = Path(ours.__file__).parent
    files = [file for file in top.rglob("*.py") if "integrations" not in file.parts]
    texts = {file.name: file.read_text() for file in files}
    assert len(texts) > 50
    assert [
        name for name, text in texts.items() if "import agents" in text or "from agents" in text
    ] == []


async def test_archives_need_room(
    client: SandyardClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = await client.create()
    async with session:
        with pytest.raises(errors.WorkspaceWriteTypeError):
            await session.extract("text.tar", io.StringIO("x"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        for attempt in (session.extract("a.tar", io.BytesIO(b"x")), session.persist_workspace()):
            with pytest.raises(errors.SandboxError, match="TMPDIR"):
                await attempt
        monkeypatch.undo()
    await client.delete(session)
