"""What is mounted, commands find; the host keeps an empty directory, and its file verbs keep out."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from sandyard import (
    BindMount,
    Dir,
    File,
    InvalidManifestPathError,
    Manifest,
    ManifestError,
    MountConfigError,
    MountFailedError,
    OverlayMount,
    Policy,
    PolicyDeniedError,
    PolicyError,
    SandboxError,
    SessionClosedError,
    TmpfsMount,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    UnixLocalSandboxSessionState,
)
from tests.house.leaks import list_children
from tests.mounts.conftest import Opened, inner_mounts, output
from tests.session.host import root_of

Session = UnixLocalSandboxSession
MIB = 2**20


def contents(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


async def test_each_kind_is_as_told(opened: Opened, source: Path) -> None:
    before = contents(source)
    entries = {
        "read": BindMount(source=source),
        "in/write": BindMount(source=source, read_only=False),
        "memory": TmpfsMount(size=MIB),
        "over": OverlayMount(source=source, size=4 * MIB),
        "named": TmpfsMount(mount_path="in/other", read_only=True),
        "beside": File(content="x"),
    }
    async with opened(entries) as session:
        root = root_of(session)
        assert await inner_mounts(session) == ["in/other", "in/write", "memory", "over", "read"]
        assert sorted(session.mounts()) == [f"{root}/{at}" for at in await inner_mounts(session)]
        assert (
            await output(session, "cat read/file in/write/deep/file over/file") == "hostdeeperhost"
        )
        # Read-only: nothing of it changes, whatever is tried.
        said = await output(
            session,
            "echo x > read/new; echo x >> read/file; rm read/file; mv read/deep read/d; chmod 0 read;"
            "touch read/file; ln read/file read/l; mkdir in/other/d; mount -o remount,rw read",
        )
        assert said.count("Read-only file system") == 8, said
        assert contents(source) == before
        # An overlay: what changes stays in it.
        await output(
            session, "echo new > over/file; rm -r over/deep; mkdir over/deep; echo x > over/deep/y"
        )
        assert await output(session, "cat over/file; ls over/deep over") == (
            "new\nover:\ndeep\nfile\n\nover/deep:\ny\n"
        )
        assert contents(source) == before
        # In memory: bounded.
        said = await output(
            session, "head -c 3000000 /dev/zero > memory/big; stat -c %s memory/big"
        )
        assert "No space left" in said
        assert int(said.split()[-1]) <= MIB
        said = await output(session, "for i in $(seq 400); do : > memory/$i || exit; done")
        assert "No space left" in said
        # For writing: as the host's owner of the files.
        await output(
            session,
            "echo made > in/write/made; mkdir in/write/dir; mv in/write/made in/write/dir/m",
        )
        made = source / "dir/m"
        assert made.read_text() == "made\n"
        assert (made.stat().st_uid, made.stat().st_gid) == (os.geteuid(), os.getegid())
        # The host has empty directories.
        for place in ("read", "in/write", "memory", "over", "in/other"):
            assert list((root / place).iterdir()) == []
    assert session.mounts() == {}


async def test_late_mount_comes_and_goes(opened: Opened, source: Path) -> None:
    async with opened() as session:
        root = root_of(session)
        waiting = await session.start_process(
            "while ! [ -e data/file ]; do :; done; cat data/file; read x"
        )
        where = await session.mount("data", BindMount(source=source))
        assert where == f"{root}/data"
        assert list(session.mounts()) == [where]
        assert await output(session, "cat data/deep/file") == "deeper"  # who was there before, too
        holder = await session.start_process("cd data/deep; read x; cat file")
        assert (await output(session, "rmdir data; mv data other")).count("busy") == 2
        await session.unmount(where)
        assert await inner_mounts(session) == []
        assert session.mounts() == {}
        assert (
            await output(session, "ls -d data")
            == "ls: cannot access 'data': No such file or directory\n"
        )
        assert not (root / "data").exists()
        # Again, over a directory that was there, which stays.
        await session.mkdir("kept")
        await session.mount("kept", TmpfsMount(size=MIB))
        await session.unmount("kept")
        assert (root / "kept").is_dir()
        with pytest.raises(MountConfigError, match="nothing is mounted"):
            await session.unmount("kept")
        for process in (waiting, holder):
            await process.close()
    with pytest.raises(SessionClosedError):
        await session.mount("data", TmpfsMount())


async def test_file_verbs_keep_out(opened: Opened, source: Path) -> None:
    entries = {"a/data": BindMount(source=source), "b": Dir(), "c": File(content="c")}
    async with opened(entries) as session:
        root = root_of(session)
        await session.mount("late", TmpfsMount(size=MIB))
        for attempt in (
            session.read("a/data/file"),
            session.write("a/data/new", b""),
            session.write("late/new", b""),
            session.append("a/data/file", b""),
            session.ls("a/data"),
            session.stat("a/data/file"),
            session.mkdir("a/data/new", parents=True),
            session.rm("a/data/file"),
            session.rm("a/data", recursive=True),
            session.rm("a", recursive=True),
            session.rm("late"),
            session.mv("late", "later"),
            session.mv("a/data", "b/data"),
            session.mv("c", "late/c"),
            session.copy("c", "late/c"),
            session.chmod("late", 0o700),
            session.extract("late/x.tar", _archive()),
            session.mount("late/deeper", TmpfsMount()),
            session.mount("a/data/deep", TmpfsMount()),
        ):
            with pytest.raises(PolicyDeniedError, match="mounted in the sandbox") as caught:
                await attempt
            assert caught.value.context["reason"] == "mounted"
        assert {entry.path.rpartition("/")[2] for entry in await session.ls(".")} == {
            "a",
            "b",
            "c",
            "late",
        }
        found = [str(path) for path in await session.glob("**/*")]
        assert not any("file" in path for path in found)
        saved = await session.persist_workspace()
        with tarfile.open(fileobj=BytesIO(saved.read())) as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
        saved.close()
        assert names - {".", ""} == {"a", "b", "c"}
        assert await output(session, "cat a/data/file; ls late") == "host"
        await session.unmount("a/data")
        await session.write("a/data/mine", b"mine")
        assert (root / "a/data/mine").read_bytes() == b"mine"
        assert contents(source) == {"file": b"host", "deep/file": b"deeper"}


def _archive() -> bytes:
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return data.getvalue()


async def test_what_can_not_be_mounted(opened: Opened, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source / "missing")
    (tmp_path / "way").symlink_to(source)
    denied = tmp_path / "denied"
    (denied / "inner").mkdir(parents=True)
    (tmp_path / "repo/.git/hooks").mkdir(parents=True)
    (tmp_path / "repo/.git/HEAD").write_text("ref: refs/heads/main\n")
    policy = Policy(deny=(str(denied),))
    async with opened(
        {"file": File(content="x"), "full/file": File(content="x")}, policy
    ) as session:
        root = root_of(session)
        bind = BindMount(source=source)
        hooks = BindMount(source=tmp_path / "repo/.git/hooks", read_only=False)
        attempts: list[tuple[str, BindMount | TmpfsMount, type[SandboxError], str]] = [
            ("d", BindMount(source=source / "missing"), MountConfigError, "can't be found"),
            ("d", BindMount(source=source / "file"), MountConfigError, "not a directory"),
            ("d", BindMount(source=tmp_path / "link"), MountConfigError, "can't be found"),
            ("d", BindMount(source=tmp_path / "way/deep"), MountConfigError, "symlink"),
            ("d", BindMount(source=root), MountConfigError, "the workspace"),
            (
                "d",
                BindMount(source=root.parent),
                PolicyError if root.parent == Path("/tmp") else MountConfigError,
                "",
            ),
            ("d", BindMount(source=denied), PolicyError, "deny"),
            ("d", BindMount(source=denied / "inner"), PolicyError, "deny"),
            ("d", BindMount(source=tmp_path), PolicyError, "deny"),
            ("d", hooks, PolicyError, "protect"),
            ("d", BindMount(source="/proc/sys"), PolicyError, "belongs to the kernel"),
            ("d", BindMount(source="/dev"), PolicyError, "belongs to the kernel"),
            ("d", BindMount(source="/home"), PolicyError, "the sandbox's own"),
            ("d", BindMount(source="/usr", read_only=False), PolicyError, "/usr"),
            ("full", bind, MountConfigError, "not empty"),
            (".", bind, MountConfigError, "workspace itself"),
            ("file", bind, SandboxError, "not a directory"),
            ("../out", bind, InvalidManifestPathError, "leaves"),
            ("/srv", bind, InvalidManifestPathError, "not inside"),
        ]
        for path, entry, kind, words in attempts:
            with pytest.raises(kind) as caught:
                await session.mount(path, entry)
            assert words in str(caught.value), (path, entry)
        assert await inner_mounts(session) == []
        assert session.mounts() == {}
        assert sorted(os.listdir(root)) == ["file", "full"]
        with pytest.raises(TypeError):
            await session.mount("d", File(content="x"))  # type: ignore[arg-type]
        await session.mount("d", bind)
        with pytest.raises(SandboxError, match="mounted"):
            await session.mount("d", bind)


async def test_protection_reaches_into_mounts(opened: Opened, source: Path) -> None:
    git = source / "project/.git"
    for name, text in {
        "hooks/pre-commit": "h",
        "config": "[core]\n",
        "HEAD": "ref: refs/heads/x\n",
    }.items():
        (git / name).parent.mkdir(parents=True, exist_ok=True)
        (git / name).write_text(text)
    (git / "objects").mkdir()
    (git / "refs").mkdir()
    (source / ".envrc").write_text("mine")
    attack = (
        "cd {}; echo x > project/.git/hooks/pre-commit; echo x > project/.git/hooks/new; echo x >> "
        "project/.git/config; echo x > .envrc; mv project/.git project/away; rm -rf project .envrc; "
        "echo x > project/.git/index"
    )
    entries = {
        "kept": BindMount(source=source, read_only=False),
        "over": OverlayMount(source=source),
    }
    before = contents(source)
    async with opened(entries) as session:
        await output(session, attack.format("over"))  # which only changes the overlay
        assert contents(source) == before
        await output(session, attack.format("kept"))
        after = contents(source)
        assert after.pop("project/.git/index") == b"x\n"
        protected = {"project/.git/hooks/pre-commit", "project/.git/config", ".envrc"}
        assert {name: before[name] for name in protected} == {
            name: after[name] for name in protected
        }
        assert not (git / "hooks/new").exists()
        assert not (source / "project/away").exists()
    # The control: without protection the same attack goes through.
    async with opened(
        {"kept": BindMount(source=source, read_only=False)}, Policy(protect=())
    ) as session:
        await output(session, attack.format("kept"))
    assert not (git / "hooks/pre-commit").exists()
    assert not (source / ".envrc").exists()


async def test_restart_mounts_what_is_named(source: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(entries={"data": BindMount(source=source)}))
    async with session:
        await session.mount("late", TmpfsMount())
        await session.shutdown()
        assert session.mounts() == {}
        await session.write("late/now", b"plain")  # it is a directory again
        await session.start()
        assert await inner_mounts(session) == ["data"]
        assert await output(session, "cat data/file late/now") == "hostplain"
    await client.delete(session)


async def test_failed_start_leaves_nothing(source: Path) -> None:
    entries = {"a": BindMount(source=source), "b": BindMount(source=source / "missing")}
    client, before = UnixLocalSandboxClient(), [*list_children(os.getpid())]
    session = await client.create(manifest=Manifest(entries=entries))
    with pytest.raises(MountConfigError, match="missing"):
        await session.start()
    assert not await session.running()
    assert session.mounts() == {}
    assert [*list_children(os.getpid())] == before
    (source / "missing").mkdir()
    await session.start()
    assert await inner_mounts(session) == ["a", "b"]
    await client.delete(session)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """A program that has room for so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    places = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
    try:
        filled = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (filled[0], hard))
        for place in places:
            os.close(place)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(filled[0])


async def test_want_of_descriptors_is_told(opened: Opened) -> None:
    async with opened({"memory": TmpfsMount()}) as session:
        for left in range(4):  # the sandbox can't be found; then, nobody can be asked; ...
            with descriptors_left(left), pytest.raises(MountFailedError) as refused:
                await session.unmount("memory")
            assert refused.value.context["errno"] == errno.EMFILE, left
            assert session.mounts()
        await session.unmount("memory")
        assert await inner_mounts(session) == []


async def test_cancelled_mounts_leave_nothing(opened: Opened, source: Path) -> None:
    async with opened() as session:
        kept = 0
        for turns in range(40):
            task = asyncio.create_task(session.mount("data", BindMount(source=source)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, str):
                kept += 1
                await session.unmount("data")
            assert session.mounts() == {}
        assert await inner_mounts(session) == []
        names = [f"m{number}" for number in range(8)]
        await asyncio.gather(*(session.mount(name, TmpfsMount(size=MIB)) for name in names))
        assert await inner_mounts(session) == names
        await asyncio.gather(*(session.unmount(name) for name in names))
        assert await inner_mounts(session) == []
        assert os.listdir(root_of(session)) == []


async def test_explanations_know_of_mounts(opened: Opened, source: Path) -> None:
    async with opened({"in/data": BindMount(source=source)}) as session:
        await session.mount("memory", TmpfsMount())
        for path, access, words in (
            ("in/data/file", "read", "in/data, read-only"),
            ("in/data", "read", "read-only"),
            ("memory/any", "write", "mounted at"),
            ("in/other", "write", "in the workspace"),
        ):
            told = await session.why(path)
            assert (told.access, words in told.rule) == (access, True), told
        refused = await session.exec("echo x > in/data/file; rmdir memory")
        assert [(denial.error, denial.operation) for denial in refused.denials] == [
            ("EROFS", "create")
        ]
        await session.unmount("memory")
        assert (await session.why("memory/any")).rule == "in the workspace"


async def test_moved_mount_is_told(opened: Opened) -> None:
    async with opened() as session:
        await session.mkdir("a")
        await session.mount("a/data", TmpfsMount(size=MIB))
        await output(session, "mv a b")
        with pytest.raises(MountFailedError, match="moved or replaced") as caught:
            await session.unmount("a/data")
        assert caught.value.retryable
        await output(session, "mv b a")
        await session.unmount("a/data")
        assert await inner_mounts(session) == []


def test_manifest_tells_of_mounts(source: Path) -> None:
    manifest = Manifest(
        entries={
            "plain": File(content="x", ephemeral=True),
            "a/b": BindMount(source=source, description="the data"),
            "named": TmpfsMount(mount_path="/workspace/c/d/e"),
            "over": OverlayMount(source=source, mount_path="o"),
        }
    )
    targets = [str(path) for _, path in manifest.mount_targets()]
    assert targets[0] == "/workspace/c/d/e"
    assert set(targets[1:]) == {
        "/workspace/a/b",
        "/workspace/o",
    }
    assert manifest.ephemeral_mount_targets() == manifest.mount_targets()
    assert {str(path) for path in manifest.ephemeral_persistence_paths()} == {
        "plain", "a/b", "named", "c/d/e", "over", "o",
    }  # fmt: skip
    assert "b/" in manifest.describe(None)
    assert "e/" in manifest.describe(None)
    again = Manifest.from_saved(manifest.model_dump_json())
    assert again == manifest
    for wrong, words in (
        ({"a": TmpfsMount(), "a/b": File(content="")}, "mounted over 'a/b'"),
        ({"a": TmpfsMount(), "b": TmpfsMount(mount_path="a/b")}, "mounted over 'a'"),
        ({".": TmpfsMount()}, "the workspace itself"),
        ({"a": TmpfsMount(mount_path="/etc")}, "not in the workspace"),
    ):
        with pytest.raises(ManifestError, match=words):
            Manifest(entries=wrong)
    for fields in (
        {"size": 0},
        {"size": 1.5},
        {"mount_path": "../x"},
        {"mount_path": "/workspace/../x"},
        {"ephemeral": False},
        {"permissions": {"owner": 0}},
        {"unknown": 1},
    ):
        with pytest.raises(ManifestError):
            TmpfsMount(**fields)
    for place in ("relative", "/", "/a/../b", "/a\0b"):
        with pytest.raises(ManifestError):
            BindMount(source=place)
    with pytest.raises(ManifestError, match="mount_providers"):
        Manifest(entries={"a": {"type": "s3_mount", "bucket": "b"}})


async def test_saved_state_shows_nothing_new(source: Path) -> None:
    client = UnixLocalSandboxClient()
    entries = {
        "read": BindMount(source=source),
        "over": OverlayMount(source=source),
        "m": TmpfsMount(),
    }
    session = await client.create(manifest=Manifest(entries=entries))
    async with session:
        await session.write("kept", b"kept")
    state = client.deserialize_session_state(client.serialize_session_state(session.state))
    with pytest.raises(PolicyError, match="a state can't grant anything"):
        await client.resume(state)
    again = await client.resume(state, policy=Policy(reads=(str(source.parent),)))
    async with again:
        assert await inner_mounts(again) == ["m", "over", "read"]
        assert await output(again, "cat kept read/file over/file") == "kepthosthost"
    await client.delete(again)
    assert isinstance(state, UnixLocalSandboxSessionState)
    state.manifest.entries["read"] = BindMount(source=source, read_only=False)
    with pytest.raises(PolicyError, match="writes="):
        await client.resume(state, policy=Policy(reads=(str(source),)))
