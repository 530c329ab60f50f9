"""Files and trees between the host and a workspace: what is kept, and what a sandbox can't smuggle."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    InvalidManifestPathError,
    LocalFileReadError,
    Manifest,
    Policy,
    PolicyDeniedError,
    Progress,
    SandboxError,
    Skipped,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from sandyard.limits import COPY_CHUNK_BYTES, IGNORE_LINES
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.changing import copy
from sandyard.workspace.copying import Abandoned
from sandyard.workspace.copying_trees import Chosen
from sandyard.workspace.transfer import Errand, download, upload


def tree_of(top: Path) -> dict[str, object]:
    """What is in a directory: kinds, modes, times, contents."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        content = os.readlink(path) if path.is_symlink() else None
        if path.is_file() and content is None:
            content = path.read_text()
        mode = 0 if path.is_symlink() else stat.S_IMODE(facts.st_mode)
        found[str(path.relative_to(top))] = (
            stat.S_IFMT(facts.st_mode), mode, facts.st_mtime_ns, content,
        )  # fmt: skip
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    (top / "empty").mkdir(parents=True)
    (top / "bin").mkdir()
    (top / "bin/run").write_text("#!/bin/sh\n")
    (top / "bin/run").chmod(0o755)
    (top / "secret").write_text("mine")
    (top / "secret").chmod(0o600)
    (top / "link").symlink_to("bin/run")
    (top / "away").symlink_to("/etc/passwd")
    os.link(top / "secret", top / "twin")
    os.utime(top / "secret", ns=(10**18, 10**18 + 1))
    (top / "bin").chmod(0o555)
    return top


async def test_rules_end_at_the_border(tmp_path: Path) -> None:
    """What protects a repository inside says nothing about the directory that a copy of it makes."""
    root = tmp_path / "root"
    for name in (".git/hooks", ".git/objects", ".git/refs/heads", "src/deep"):
        (root / name).mkdir(parents=True)
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git/config").write_text("[core]\n\trepositoryformatversion = 0\n")
    (root / "src/deep/file").write_text("x")
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root=str(root)))
    try:
        async with session:
            assert (await session.exec("echo x > .git/config")).exit_code != 0
            for _ in range(2):  # into a new directory, and into one that is there
                assert (await session.download(".", tmp_path / "out")).files == 3
    finally:
        await client.delete(session)
    assert tree_of(tmp_path / "out") == tree_of(root)


async def test_up_and_down_again(tmp_path: Path, project: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            told: list[Progress] = []
            done = await session.upload(project, "a/b", progress=told.append)
            assert (done.files, done.skipped) == (5, ())
            assert told[-1].files == 5
            seen = await session.exec(
                "cd a/b && cat secret link && stat -c %a bin && ls -i secret twin"
            )
            assert seen.stdout.startswith(b"mine#!/bin/sh\n555\n")
            words = seen.stdout.split()
            assert words[-4] == words[-2]
            root = Path(session.state.manifest.root)
            assert await asyncio.to_thread(tree_of, root / "a/b") == tree_of(project)

            out = tmp_path / "out/deep"
            done = await session.download("a/b", out)
            assert done.skipped == (Skipped("away", "link_leads_out"),)
            expected = tree_of(project)
            del expected["away"]
            assert await asyncio.to_thread(tree_of, out) == expected
            again = await session.download("a/b", out, outer_links=True, exclude=["secret"])
            assert again.skipped == (Skipped("secret", "excluded"),)
            assert (out / "away").is_symlink()

            await session.upload(project / "secret", "one")
            assert (await session.download("one", tmp_path / "two")).size == 4
            assert (tmp_path / "two").read_text() == "mine"
            assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o600
            assert (tmp_path / "two").stat().st_uid == os.geteuid()
            done = await session.upload(project, ".", include=["bin/"])
            assert done.files == 1
            assert await session.exists("bin/run")
            assert not await session.exists("empty")
    finally:
        await client.delete(session)


async def test_what_comes_out_can_not_lead_astray(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    (tmp_path / "out").mkdir()
    (tmp_path / "bait").write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path / "elsewhere")
    try:
        async with session:
            await session.exec(
                "mkdir -p t/d t/p/q u && echo evil > t/d/x && ln -s ../bait t/up && ln -s . t/here"
                " && ln -s ../.. t/p/q/top && ln -s p/q/top/../../bait t/sly && ln -s p/q t/p2"
                " && mkfifo t/fifo && cp /bin/true t/suid && chmod 4755 t/suid && echo x > u/f"
                " && ln -s ../out/bait u/f2"
            )
            with pytest.raises(WorkspaceArchiveReadError):  # through a link on our side
                await session.download("t", tmp_path / "out")
            assert list((tmp_path / "elsewhere").iterdir()) == []
            done = await session.download("t", tmp_path / "fresh")
            assert set(done.skipped) == {
                Skipped("fifo", "fifo"),
                Skipped("sly", "link_leads_out"),
                Skipped("up", "link_leads_out"),
            }
            assert not (tmp_path / "fresh/suid").stat().st_mode & stat.S_ISUID
            assert (tmp_path / "fresh/p2").resolve() == tmp_path / "fresh/p/q"
            assert (tmp_path / "bait").read_text() == "precious"
    finally:
        await client.delete(session)


async def test_what_is_refused(tmp_path: Path, project: Path) -> None:
    denied = tmp_path / "granted/keys"
    denied.mkdir(parents=True)
    (denied / "k").write_text("key")
    policy = Policy(reads=(str(tmp_path / "granted"),), deny=(str(denied),))
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create()
    try:
        async with session:
            up: tuple[tuple[Path, str | Path, type[SandboxError]], ...] = (
                (tmp_path / "missing", "a", LocalFileReadError),
                (Path("/dev/null"), "a", LocalFileReadError),
                (project, "../a", InvalidManifestPathError),
                (project, tmp_path / "granted/x", PolicyDeniedError),
                (project / "secret", ".", WorkspaceArchiveWriteError),
            )
            for source, path, kind in up:
                with pytest.raises(kind) as caught:
                    await session.upload(source, path)
                assert (source == Path("/dev/null")) == ("neither a file" in str(caught.value))
            down: tuple[tuple[str | Path, type[SandboxError]], ...] = (
                ("missing", WorkspaceReadNotFoundError),
                ("/etc/passwd", InvalidManifestPathError),
                (denied, PolicyDeniedError),
                (tmp_path / "granted", PolicyDeniedError),
            )
            for where, kind in down:
                with pytest.raises(kind):
                    await session.download(where, tmp_path / "out")
            assert not (tmp_path / "out/keys").exists()
            await session.write("file", b"x")
            with pytest.raises(WorkspaceArchiveReadError, match="downloaded to"):
                await session.download("file", project / "secret/below")
            with pytest.raises(ArgumentError, match="names nothing"):
                await session.upload(project, "a", include=["/"])
    finally:
        await client.delete(session)


async def test_a_cancelled_transfer_ends(tmp_path: Path, session: UnixLocalSandboxSession) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        (many / str(number)).touch()
    begun = asyncio.Event()
    uploading = asyncio.create_task(session.upload(many, "many", progress=lambda _: begun.set()))
    await begun.wait()
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    before = len(await session.ls("many"))
    assert before
    assert len(await session.ls("many")) == before  # nothing goes on behind our back
    stopped = threading.Event()
    stopped.set()
    root = await asyncio.to_thread(WorkspaceRoot.open, session.state.manifest.root)
    with root, pytest.raises(Abandoned):
        await asyncio.to_thread(upload, root, many, "other", Errand(stopped=stopped))
    assert await session.ls("other") == []


def test_one_file_can_be_stopped(tmp_path: Path) -> None:
    """Nobody waits for the end of a large one, even if it is nothing but a hole."""
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/hole").open("wb") as file:
        file.truncate(COPY_CHUNK_BYTES * 8)
    stopped = threading.Event()
    stopped.set()
    errand = Errand(stopped=stopped)
    with WorkspaceRoot.open(str(tmp_path)) as root:
        with pytest.raises(Abandoned):
            download(root, "tree/hole", tmp_path / "out", errand)
        with pytest.raises(Abandoned):
            upload(root, tmp_path / "tree/hole", "out", errand)
        with pytest.raises(Abandoned):
            copy(root, "tree/hole", "out", stopped=stopped)
        with pytest.raises(Abandoned):
            copy(root, "tree", "out", recursive=True, stopped=stopped)
    assert os.listdir(tmp_path) == ["tree"]
    assert os.listdir(tmp_path / "tree") == ["hole"]


def test_patterns_are_bounded(tmp_path: Path) -> None:
    """They are a stranger's, each is compiled and kept, and each file is asked about all."""
    deep = tmp_path / "tree/deep"
    deep.mkdir(parents=True)
    half = "".join(f"{number}*\n" for number in range(IGNORE_LINES // 2))
    (tmp_path / "tree/.gitignore").write_text(half)
    (deep / ".gitignore").write_text(half)
    errand = Errand(Chosen(gitignore=True))
    with WorkspaceRoot.open(str(tmp_path)) as root:
        assert download(root, "tree", tmp_path / "out", errand).files == 2
        (deep / ".gitignore").write_text(half + "more\n")
        with pytest.raises(WorkspaceArchiveReadError) as caught:
            download(root, "tree", tmp_path / "another", errand)
    assert caught.value.context["reason"] == "too_many_patterns"


async def test_directories_that_were_there_stay_closed(
    tmp_path: Path, session: UnixLocalSandboxSession
) -> None:
    own = tmp_path / "own"
    (own / "kept").mkdir(parents=True)
    for directory in (own, own / "kept"):
        directory.chmod(0o700)
    await session.exec(
        "mkdir -p t/kept t/new && touch t/kept/a t/new/a && chmod 777 t t/kept t/new"
    )
    await session.download("t", own)
    modes = [stat.S_IMODE((own / name).stat().st_mode) for name in (".", "kept", "new")]
    assert modes == [0o700, 0o700, 0o777]
    assert (own / "kept/a").exists()


def test_failed_looks_keep_nothing(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever look at an open file or directory it is, what was opened for it is closed."""
    look, left = os.fstat, 0

    def fail_once(fd: int) -> os.stat_result:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(fd)

    with WorkspaceRoot.open(tmp_path / "ws") as root:
        upload(root, project, "tree", Errand())
        acts = [
            partial(upload, root, project / "bin", "bin"),
            partial(upload, root, project / "secret", "secret"),
            partial(download, root, "tree/bin", tmp_path / "bin"),
            partial(download, root, "tree/secret", tmp_path / "secret"),
        ]
        monkeypatch.setattr(os, "fstat", fail_once)
        before = os.listdir("/proc/self/fd")
        for act, number in product(acts, range(1, 5)):
            left = number
            with suppress(SandboxError):
                act(Errand())
            assert left <= 0, "there was no such look"
            assert os.listdir("/proc/self/fd") == before, (act, number)
