"""Manifests of sessions: clones in sandboxes of their own, second attempts, progress, and ephemera."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sandyard import (
    Archive,
    Dir,
    File,
    GitCloneError,
    GitMissingInImageError,
    GitRepo,
    GitSubpathError,
    Group,
    LocalDir,
    LocalDirReadError,
    LocalFile,
    LocalFileReadError,
    Manifest,
    ManifestError,
    Permissions,
    Policy,
    Progress,
    SandboxError,
    SandboxPathGrant,
    SecretValue,
    UnixLocalSandboxClient,
    User,
)
from sandyard.cloning import clone_commands, clone_policy
from sandyard.manifest import BaseEntry
from sandyard.manifest.fetched import Repository

TOKEN = "swordfish-of-the-test"


def git(directory: Path, *words: str) -> str:
    """Run Git as a person would, with nobody's settings."""
    settings = ("user.name=x", "user.email=x@example.org", "init.defaultBranch=main")
    options = [word for setting in settings for word in ("-c", setting)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *options, "-c", "protocol.file.allow=always", *words],
        cwd=directory, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits, beneath the working directory."""
    top = tmp_path / "project"
    (top / "sub").mkdir(parents=True)
    git(top, "init", "-q")
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "sub/file").write_text("first")
    (top / "out").symlink_to("/etc")
    git(top, "add", ".")
    git(top, "commit", "-qm", "first")
    (top / "sub/file").write_text("second")
    git(top, "commit", "-qam", "second")
    git(top, "tag", "v2")
    monkeypatch.chdir(tmp_path)
    return top


async def test_repositories_are_cloned(client: UnixLocalSandboxClient, project: Path) -> None:
    first = git(project, "rev-parse", "HEAD~1")
    inner = project / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "part").write_text("of a submodule")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "inner")
    git(project, "submodule", "add", "-q", "./inner", "module")
    git(project, "commit", "-qm", "with a submodule")
    url = f"file://{project}"
    manifest = Manifest(
        entries={
            "head": GitRepo(repo=str(project), submodules=True),
            "whole": GitRepo(repo=url, ref=first, depth=None),
            "short": GitRepo(repo=url, ref=first[:9]),
            "branch": GitRepo(repo=url, ref="refs/heads/main"),
            "part": GitRepo(repo=url, ref="v2", subpath="sub"),
        }
    )
    session = await client.create(manifest=manifest)
    try:
        async with session:
            told = await session.exec("cat whole/sub/file short/sub/file head/sub/file part/file")
            assert told.stdout == b"firstfirstsecondsecond"
            assert (await session.exec("test -x head/run && ls part")).stdout == b"file\n"
            assert (await session.exec("cat head/module/part")).stdout == b"of a submodule"
            for where in ("head", "whole", "short", "branch"):
                status = await session.exec(f"git -C {where} status --porcelain; ls {where}/.git")
                assert status.exit_code == 0, status.stderr
                assert b" run" not in status.stdout
                assert b"hooks" not in status.stdout
            counted = await session.exec("git -C head rev-list --count HEAD; git -C head branch")
            assert counted.stdout.split() == [b"1", b"*", b"main"]
            assert session.materialized is not None
            assert "head/run" in session.materialized.written
    finally:
        await client.delete(session)


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"ref": "nope"}, GitCloneError, None),
        ({"ref": "f" * 40}, GitCloneError, None),
        ({"subpath": "nope"}, GitSubpathError, "not_found"),
        ({"subpath": "run"}, GitSubpathError, "not_found"),
        ({"subpath": "out/ssl"}, GitSubpathError, "symlink_not_supported"),
        ({"repo": "/etc"}, LocalDirReadError, "outside_base_dir"),
        ({"repo": "{project}/missing"}, LocalDirReadError, "path_not_found"),
        ({"token_env": "NOT_SET_ANYWHERE"}, ManifestError, None),
    ],
)
async def test_clones_that_fail(
    client: UnixLocalSandboxClient,
    project: Path,
    fields: dict[str, str],
    kind: type[SandboxError],
    reason: str | None,
) -> None:
    asked = {"repo": str(project), **fields}
    asked["repo"] = asked["repo"].format(project=project)
    entry = BaseEntry.parse({"type": "git_repo", **asked})
    session = await client.create(manifest=Manifest(entries={"r": entry}))
    try:
        with pytest.raises(kind) as caught:
            await session.start()
        assert caught.value.context["entry"] == "r"
        assert caught.value.context.get("reason") == reason
        assert await asyncio.to_thread(os.listdir, session.state.manifest.root) in ([], ["r"])
    finally:
        await client.delete(session)


async def test_no_git_inside(project: Path) -> None:
    client = UnixLocalSandboxClient(policy=Policy(environment=(("PATH", "/nowhere"),)))
    session = await client.create(manifest=Manifest(entries={"r": GitRepo(repo=str(project))}))
    try:
        with pytest.raises(GitMissingInImageError):
            await session.start()
    finally:
        await client.delete(session)


# --- over a network -----------------------------------------------------------------------------


class _Guarded(SimpleHTTPRequestHandler):
    """Serves a repository to whoever has the token."""

    def do_GET(self) -> None:
        wanted = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {wanted}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base names it
        """Say nothing."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """A server on the host's loopback; gives its URL."""
    handler = partial(_Guarded, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_tokens_go_to_the_server(
    client: UnixLocalSandboxClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(project, "update-server-info")
    monkeypatch.setenv("TEST_GIT_TOKEN", TOKEN)
    with served(project) as url:
        good = GitRepo(repo=f"{url}/.git", token_env="TEST_GIT_TOKEN", depth=None)
        session = await client.create(manifest=Manifest(entries={"r": good}))
        try:
            async with session:
                found = await session.exec(
                    "cat r/sub/file; env; grep -r swordfish . /proc/1/cmdline /tmp $HOME"
                )
                assert found.stdout.startswith(b"second")
                assert TOKEN.encode() not in found.stdout
                assert TOKEN not in session.state.model_dump_json()
        finally:
            await client.delete(session)

        bad = GitRepo(repo=f"{url}/.git", token_env="WRONG", depth=None)
        wrong = {"value": {"WRONG": SecretValue(f"me:{TOKEN}x")}}
        session = await client.create(manifest=Manifest(entries={"r": bad}, environment=wrong))
        try:
            with pytest.raises(GitCloneError) as caught:
                await session.start()
            assert "Authentication failed" in str(caught.value.context["stderr"])
            assert TOKEN not in f"{caught.value!r} {caught.value.context}"
        finally:
            await client.delete(session)


async def test_a_silent_server_is_left(client: UnixLocalSandboxClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        loop = asyncio.get_running_loop()
        for timeout, error in ((600.0, asyncio.CancelledError), (0.5, GitCloneError)):
            entry = GitRepo(repo=url, timeout=timeout)
            session = await client.create(manifest=Manifest(entries={"r": entry}))
            try:
                starting = asyncio.create_task(session.start())
                if error is asyncio.CancelledError:
                    connection, _ = await loop.sock_accept(listener)
                    starting.cancel()
                    connection.close()
                with pytest.raises(error) as caught:
                    await starting
                if isinstance(caught.value, GitCloneError):
                    assert caught.value.retryable
                    assert "0.5 seconds" in caught.value.message
                assert not await session.running()
            finally:
                await client.delete(session)


def test_what_a_clone_may_do() -> None:
    repository = Repository("https://h/x", None, "v1", None, 1, False, None, 600.0)
    policy = Policy(
        reads=("/srv",), writes=("/var/lib",), inherit=("HTTPS_PROXY",), accept=("ipc",)
    )
    assert clone_policy(policy, repository) == Policy(
        network="host", protect=(), inherit=("HTTPS_PROXY",), accept=("ipc",)
    )
    local = repository._replace(url="file:///srv/x", local="/srv/x")
    assert clone_policy(Policy(network="host"), local) == Policy(reads=("/srv/x",), protect=())
    ((clone,),) = clone_commands(repository)
    assert clone == (
        *("git", "clone", "-q", "--template=", "--depth=1", "--no-tags", "--branch=v1"),
        *("--", "https://h/x", "repository"),
    )


# --- a second attempt, and later ones -----------------------------------------------------------


def _inodes(root: Path) -> dict[str, int]:
    """The files that were made in a directory of many, which need not be there yet."""
    return {path.name: path.stat().st_ino for path in root.glob("many/*")}


async def test_a_second_start_goes_on(client: UnixLocalSandboxClient, project: Path) -> None:
    missing = project / "missing"
    entries: dict[str, BaseEntry] = {f"many/{number}": File(content="x") for number in range(40)}
    entries |= {"tree": LocalDir(src=project), "last": LocalFile(src=missing)}
    session = await client.create(manifest=Manifest(entries=entries))
    try:
        with pytest.raises(LocalFileReadError) as caught:
            await session.start()
        assert caught.value.context["entry"] == "last"
        assert not await session.running()
        root = Path(session.state.manifest.root)
        made = _inodes(root)
        changed = {name: f"changed {name}" for name in made}  # how many there are is chance
        for name, text in changed.items():
            (root / "many" / name).write_text(text)
        missing.write_text("now it is there")
        told: list[Progress] = []
        await session.start(progress=told.append)
        after = _inodes(root)
        assert made.items() <= after.items()
        assert len(after) == 40
        assert {name: (root / "many" / name).read_text() for name in made} == changed
        assert (await session.exec("cat last")).stdout == b"now it is there"
        assert session.materialized is not None
        assert session.materialized.written[:40] == tuple(entries)[:40]
        assert told[-1].entries == told[-1].total <= 42 - len(made)
    finally:
        await client.delete(session)


async def test_ephemera_are_made_at_each_start(client: UnixLocalSandboxClient) -> None:
    manifest = Manifest(
        entries={
            "kept": File(content="old"),
            "d": Dir(children={"cache": Dir(ephemeral=True, children={"x": File(content="new")})}),
        }
    )
    session = await client.create(manifest=manifest)
    try:
        await session.start()
        change = "echo mine > kept; echo mine > d/cache/x; echo mine > d/other"
        look = "cat kept d/cache/x d/other"
        await session.exec(change)
        done = await session.apply_manifest(only_ephemeral=True)
        assert done.written == ("d/cache/x",)
        assert (await session.exec(look)).stdout == b"mine\nnewmine\n"
        await session.exec(change)
        await session.shutdown()
        await session.start()
        assert (await session.exec(look)).stdout == b"mine\nnewmine\n"
        told: list[Progress] = []
        done = await session.apply_manifest(progress=told.append)
        assert done.written == ("kept", "d/cache/x")
        assert (told[-1].files, told[-1].size, told[-1].entries) == (2, 6, told[-1].total)
        assert (await session.exec(look)).stdout == b"oldnewmine\n"
    finally:
        await client.delete(session)


async def test_grants_let_sources_lie_elsewhere(
    client: UnixLocalSandboxClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "sub")
    grant = SandboxPathGrant(path=str(project), read_only=True)
    words = ["tar", "-czf", str(project / "x.tgz"), "file"]
    await asyncio.to_thread(partial(subprocess.run, words, check=True))
    entries = {"r": GitRepo(repo=str(project)), "a": Archive(src=project / "x.tgz")}
    session = await client.create(manifest=Manifest(entries=entries, extra_path_grants=[grant]))
    try:
        async with session:
            assert (await session.exec("cat r/sub/file a/file")).stdout == b"secondsecond"
    finally:
        await client.delete(session)


@pytest.mark.root
async def test_entries_belong_to_users(client: UnixLocalSandboxClient, project: Path) -> None:
    alice, staff = User(name="alice"), Group(name="staff", users=[User(name="agent")])
    manifest = Manifest(
        users=[alice],
        groups=[staff],
        entries={
            "hers": File(content="x", owner=alice, permissions=Permissions(owner=6)),
            "shared": Dir(group=staff, permissions=Permissions(owner=7, group=7)),
            "tree": LocalDir(src=project / "sub", owner=alice, group=staff),
            "mine": File(content="y"),
        },
    )
    session = await client.create(manifest=manifest)
    try:
        async with session:
            for _ in range(2):
                seen = await session.exec(
                    "stat -c '%n %U %G %a' hers shared tree tree/file mine; cat hers"
                )
                assert seen.stdout.decode().splitlines() == [
                    "hers alice alice 600",
                    "shared agent staff 770",
                    "tree alice staff 755",
                    "tree/file alice staff 644",
                    "mine agent agent 755",
                ]
                assert b"Permission denied" in seen.stderr
                assert (await session.exec("cat hers", user="alice")).stdout == b"x"
                await session.apply_manifest()
    finally:
        await client.delete(session)
