"""Archive verbs of a session: what commands see, what a stream may be, and who may not be kept waiting."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    ArchiveNote,
    ArgumentError,
    ArgumentTypeError,
    Dir,
    File,
    InvalidCompressionSchemeError,
    InvalidManifestPathError,
    LocalSnapshotSpec,
    Manifest,
    MountConfigError,
    Policy,
    PolicyDeniedError,
    SandboxArchiveLimits,
    SessionClosedError,
    TmpfsMount,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
)
from sandyard.archive_verbs import ArchiveSourceLike
from sandyard.workspace.sweep import sweep
from tests.archive.making import WRAPS, directory, item, symlink, tar_of, zip_of

DATA = tar_of(directory("d", mode=0o755), item("d/run", b"#!/bin/sh\necho ran\n", mode=0o755))


async def pieces(data: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


async def test_commands_run_what_was_unpacked(session: UnixLocalSandboxSession) -> None:
    report = await session.extract("tools/a.tgz", WRAPS["gz"](DATA))
    assert (report.files, report.directories) == (1, 1)
    result = await session.exec(
        "tools/d/run && ls tools && stat -c %U tools/d/run && echo x > tools/d/new"
    )
    assert result.stdout.decode().split() == ["ran", "a.tgz", "d", "agent"]


@pytest.mark.parametrize("wrap", WRAPS)
async def test_streams_of_every_kind(session: UnixLocalSandboxSession, wrap: str) -> None:
    data = WRAPS[wrap](DATA)
    sources: list[ArchiveSourceLike] = [data, bytearray(data), io.BytesIO(data), pieces(data)]
    for number, source in enumerate(sources):
        await session.extract(f"{number}/a.tar", source, keep_archive=False)
        assert [entry.path.rpartition("/")[2] for entry in await session.ls(str(number))] == ["d"]


async def test_zip_from_a_stream(session: UnixLocalSandboxSession) -> None:
    data = zip_of(("f", b"x" * 1000))
    await session.extract("a.zip", pieces(data), compression_scheme="zip")
    with await session.read("f") as file:
        assert await asyncio.to_thread(file.read) == b"x" * 1000


async def test_arguments(session: UnixLocalSandboxSession) -> None:
    with pytest.raises(InvalidCompressionSchemeError) as caught:
        await session.extract("a.rar", DATA, compression_scheme="rar")
    assert (caught.value.code, caught.value.op) == ("invalid_compression_scheme", "write")
    assert caught.value.context == {"path": "a.rar", "scheme": "rar"}
    with pytest.raises(ArgumentTypeError):
        await session.extract("a.tar", DATA, archive_limits={})  # type: ignore[arg-type]
    with pytest.raises(WorkspaceWriteTypeError):
        await session.extract("a.tar", "text")  # type: ignore[arg-type]

    async def texts() -> AsyncIterator[str]:
        yield "text"

    with pytest.raises(WorkspaceWriteTypeError):
        await session.hydrate_workspace(texts())  # type: ignore[arg-type]
    limits = SandboxArchiveLimits(max_members=1)
    with pytest.raises(WorkspaceArchiveWriteError) as refused:
        await session.extract("a.tar", DATA, archive_limits=limits)
    assert (refused.value.context["limit"], refused.value.context["actual"]) == (1, 2)
    assert "max_members" in str(refused.value)
    with pytest.raises(WorkspaceArchiveWriteError):
        await session.hydrate_workspace(DATA, archive_limits=limits)
    assert await session.ls(".") == []


async def test_saved_and_restored() -> None:
    client = UnixLocalSandboxClient()
    manifest = Manifest(
        entries={
            "kept": File(content="kept"),
            "secret": File(content="secret", ephemeral=True),
            "d": Dir(children={"scratch": File(content="x", ephemeral=True)}),
        }
    )
    one, two = await client.create(manifest=manifest), await client.create()
    async with one, two:
        await one.exec(
            "mkdir -p cache deep/er; echo x > cache/f; ln kept deep/other; ln -s /etc link"
        )
        one.register_persist_workspace_skip_path("cache/")
        async with await one.persist_workspace() as archive:
            report = await two.hydrate_workspace(archive)
        assert archive.report is not None
        assert {note.path for note in archive.report.skipped} == {"cache", "d/scratch", "secret"}
        assert (report.files, report.hard_links, report.symlinks) == (1, 1, 1)
        seen = await two.exec(
            "find . -mindepth 1 | sort; cat deep/other; echo; readlink link; touch deep/er/mine"
        )
        assert seen.stdout.decode().split() == [
            "./d", "./deep", "./deep/er", "./deep/other", "./kept", "./link", "kept", "/etc",
        ]  # fmt: skip
        assert seen.exit_code == 0
    await client.delete(one)
    await client.delete(two)


async def test_pieces_of_a_saved_workspace(session: UnixLocalSandboxSession) -> None:
    await session.write("large", b"x" * 3_000_000)
    async with await session.persist_workspace() as archive:
        data = b"".join([piece async for piece in archive])
    assert len(data) > 3_000_000
    await session.rm("large")
    await session.hydrate_workspace(pieces(data, 400_000))
    with await session.read("large") as file:
        assert len(await asyncio.to_thread(file.read)) == 3_000_000


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../../b"])
async def test_skip_paths_outside(session: UnixLocalSandboxSession, path: str) -> None:
    with pytest.raises(InvalidManifestPathError):
        session.register_persist_workspace_skip_path(path)


async def test_skip_paths_that_are_none(session: UnixLocalSandboxSession) -> None:
    for path in (".", "", "a\0b", "\udcff"):
        with pytest.raises(ArgumentError):
            session.register_persist_workspace_skip_path(path)
    with pytest.raises(ArgumentTypeError):
        session.register_persist_workspace_skip_path(5)  # type: ignore[arg-type]


async def test_skip_paths_stay_in_the_state(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    manifest = Manifest(entries={"data/in": TmpfsMount()})
    spec = LocalSnapshotSpec(base_path=str(tmp_path))
    session = await client.create(manifest=manifest, snapshot=spec)
    try:
        for path in ("data", "data/in", "data/in/deep"):
            with pytest.raises(MountConfigError, match="data/in"):
                session.register_persist_workspace_skip_path(path)
        for path in ("data/inner", "./cache//", "cache"):
            session.register_persist_workspace_skip_path(path)
        saved = client.serialize_session_state(session.state)
        assert saved["persist_skip_paths"] == ["data/inner", "cache"]
        await session.aclose()
        session = await client.resume(client.deserialize_session_state(saved))
        async with session:
            await session.exec("mkdir -p cache data/inner; echo x > kept")
        assert session.checkpoint is not None
        skipped = {note.path for note in session.checkpoint.report.skipped}
        assert skipped == {"cache", "data/in", "data/inner"}
    finally:
        await client.delete(session)
    with pytest.raises(ArgumentError, match="persist_skip_paths"):
        client.deserialize_session_state(saved | {"persist_skip_paths": ["../x"]})


async def test_a_stream_outlives_its_session() -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await session.write("f", b"x" * 1_000_000)
        archive = await session.persist_workspace()
    async with archive:
        assert len(await asyncio.to_thread(archive.read)) > 1_000_000
    with pytest.raises(SessionClosedError):
        await session.persist_workspace()
    await client.delete(session)


class Waiting(io.RawIOBase):
    """A stream that holds its reader until it is told to go on."""

    def __init__(self, began: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._began, self._loop, self.pieces = began, loop, 0

    def read(self, size: int = -1) -> bytes:
        self.pieces += 1
        if self.pieces == 4:
            self._loop.call_soon_threadsafe(self._began.set)
        assert self.pieces < 100_000, "nobody stops it"
        return DATA[:512] if self.pieces == 1 else bytes(size)


async def test_a_cancelled_one_stops_early(session: UnixLocalSandboxSession) -> None:
    began = asyncio.Event()
    source = Waiting(began, asyncio.get_running_loop())
    limits = SandboxArchiveLimits(None, None, None, None)
    task = asyncio.create_task(session.extract("a.tar", source, archive_limits=limits))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.ls(".") == []


@pytest.mark.root
async def test_the_directory_owner_owns_it(tmp_path: Path) -> None:
    base = tmp_path / "own"
    base.mkdir()
    os.chown(base, 12345, 23456)
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root=str(base)))
    async with session:
        await session.extract("a.tar", io.BytesIO(DATA))
        await session.hydrate_workspace(io.BytesIO(tar_of(symlink("l", "x"), item("e/f", b"x"))))
        async with await session.persist_workspace() as archive:
            await asyncio.to_thread(archive.read)
    found = {path.lstat().st_uid for path in base.rglob("*")}
    assert found == {12345}
    await client.delete(session)


async def test_the_policy_binds(tmp_path: Path) -> None:
    base = tmp_path / "own"
    for name in ("shut/file", "fixed/file"):
        (base / name).parent.mkdir(parents=True)
        (base / name).write_text("before")
    policy = Policy(deny=(str(base / "shut"),), protect=("fixed",))
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create(manifest=Manifest(root=str(base)))
    async with session:
        for name in ("shut/file", "shut/new", "fixed/file", "fixed/new"):
            data = tar_of(item("other", b"x"), item(name, b"x"))
            with pytest.raises(PolicyDeniedError):
                await session.extract("a.tar", data)
            with pytest.raises(PolicyDeniedError):
                await session.hydrate_workspace(data)
        with pytest.raises(PolicyDeniedError):
            await session.extract("fixed/a.tar", DATA)
        async with await session.persist_workspace() as archive:
            saved = b"".join([piece async for piece in archive])
        assert archive.report is not None
        assert archive.report.skipped == (ArchiveNote("shut", "denied"),)
        assert b"fixed/file" in saved
    await client.delete(session)
    assert {str(path.relative_to(base)) for path in base.rglob("*")} == {
        "shut", "shut/file", "fixed", "fixed/file",
    }  # fmt: skip
    assert (base / "fixed/file").read_text() == "before"


KILLED = """
import asyncio, sys
from sandyard import Manifest, SandboxArchiveLimits, UnixLocalSandboxClient

HEAD = {head!r}

class Endless:
    given = 0

    def read(self, size):
        self.given += 1
        if self.given == 9:
            print("unpacking", flush=True)
        if self.given > 9:
            sys.stdin.read()  # until somebody kills us
        return HEAD if self.given == 1 else bytes(size)

async def main():
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root={root!r}))
    async with session:
        await session.exec({before!r})
        await session.{verb}

asyncio.run(main())
"""


def kill_unpacking(root: Path, verb: str, before: str = "true") -> None:
    """Kill a program that unpacks something, and sweep.

    Args:
        root: its workspace.
        verb: how it unpacks.
        before: what a command does before; what it leaves running says its end by a file ``moved``.
    """
    head = tar_of(item("f", bytes(100_000_000)))[:1024]
    program = KILLED.format(head=head, root=str(root), verb=verb, before=before)
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"unpacking\n"
            assert list(root.glob(".sandyard-*.stage/new"))
            while before != "true" and not (root / "moved").exists():
                time.sleep(0.01)
        finally:
            process.kill()
    sweep(os.path.join(os.environ["XDG_STATE_HOME"], "sandyard"))


@pytest.mark.parametrize("verb", ["extract('a.tar', Endless())", "hydrate_workspace(Endless())"])
def test_what_was_being_unpacked_is_swept(tmp_path: Path, verb: str) -> None:
    root = tmp_path / "own"
    root.mkdir()
    (root / "kept").write_bytes(b"kept")
    kill_unpacking(root, verb)
    assert os.listdir(root) == ["kept"]
    assert (root / "kept").read_bytes() == b"kept"


INTO_STAGE = """
(until mv project .sandyard-*.stage/new/ 2>/dev/null; do :; done; touch moved) >/dev/null 2>&1 &
mkdir .sandyard-0123456789abcdef.stage && mv other .sandyard-0123456789abcdef.stage/
"""


def test_a_sweep_deletes_nothing_else(tmp_path: Path) -> None:
    """A command moves what is protected, with all around it, to where a sweep will delete."""
    root = tmp_path / "own"
    for name in ("project", "other"):
        (root / name / ".git/hooks").mkdir(parents=True)
        (root / name / ".git/hooks/update").write_text(name)
    kill_unpacking(root, "hydrate_workspace(Endless())", INTO_STAGE)
    assert not list(root.glob(".sandyard-*.stage/new/f"))
    assert sorted(path.read_text() for path in root.rglob("update")) == ["other", "project"]
