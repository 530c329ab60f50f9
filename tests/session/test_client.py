"""Making and deleting sessions: what is impossible is refused whole, and only what we made goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    ConfinementUnavailableError,
    EnvEntry,
    File,
    Manifest,
    ManifestError,
    Policy,
    PolicyError,
    SandboxError,
    SandboxPathGrant,
    SessionClosedError,
    StrEnvValue,
    UnixLocalSandboxClient,
    User,
    WorkspaceStartError,
)
from tests.session.host import names_in, root_of

Client = UnixLocalSandboxClient


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for temporary files, to see that nothing is made in it."""
    made = tmp_path / "place"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    return made


class TestImpossible:
    @pytest.mark.parametrize(
        "fields",
        [
            {"root": "relative"},
            {"root": "/"},
            {"root": "//"},
            {"root": "/tmp/.."},
            {"root": "/tmp/../x"},
            {"root": "/tmp/a\0b"},
            {"root": ""},
            {"root": 5},
            {"root": "/tmp/" + "x" * 300},
            {"unknown": 1},
            {"entries": {"../x": File(content=b"")}},
            {"entries": {"/x": File(content=b"")}},
            {"entries": {"a\0": File(content=b"")}},
            {"environment": {"value": {"A=B": "1"}}},
            {"environment": {"value": {"A": "\0"}}},
            {"extra_path_grants": [{"path": "relative"}]},
            {"extra_path_grants": [{"path": "/"}]},
            {"version": 2},
        ],
        ids=str,
    )
    def test_manifest_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ManifestError):
            Manifest(**fields)

    @pytest.mark.parametrize(
        ("options", "kind"),
        [
            ({"manifest": {"root": "/tmp/x"}}, ArgumentTypeError),
            ({"manifest": "x"}, ArgumentTypeError),
            ({"policy": {"reads": ()}}, ArgumentTypeError),
            ({"snapshot": "x"}, ArgumentError),
            ({"snapshot": False}, ArgumentError),
            ({"options": {"options": 1}}, ArgumentError),
            ({"options": 0}, ArgumentTypeError),
        ],
        ids=str,
    )
    async def test_options_are_refused(
        self, client: Client, place: Path, options: dict[str, Any], kind: type[Exception]
    ) -> None:
        with pytest.raises(ArgumentError) as caught:
            await client.create(**options)
        assert type(caught.value) is kind
        assert caught.value.context["argument"] in options
        assert names_in(place) == []

    @pytest.mark.parametrize(
        "manifest",
        [
            Manifest(users=[User(name="root")]),
            Manifest(groups=[{"name": "a:b", "users": []}]),
            Manifest(extra_path_grants=[SandboxPathGrant(path="/usr", host_path="/opt")]),
        ],
        ids=["users", "groups", "host_path"],
    )
    async def test_what_is_missing_is_refused(
        self, client: Client, place: Path, manifest: Manifest
    ) -> None:
        with pytest.raises(ManifestError):
            await client.create(manifest=manifest)
        assert names_in(place) == []

    async def test_missing_grants_are_refused(self, client: Client, place: Path) -> None:
        missing, root = str(place / "missing"), str(place / "root")
        for policy, manifest in (
            (Policy(reads=(missing,)), Manifest()),
            (Policy(writes=(missing,)), Manifest()),
            (Policy(reads=("/etc/passwd/x",)), Manifest(root=root)),
            (None, Manifest(root=root, extra_path_grants=[SandboxPathGrant(path=missing)])),
        ):
            with pytest.raises(PolicyError, match="can't be granted"):
                await client.create(policy=policy, manifest=manifest)
        assert names_in(place) == []

    async def test_special_files_are_not_granted(self, client: Client, place: Path) -> None:
        os.mkfifo(place / "fifo")
        for path in (str(place / "fifo"), "/dev/null"):
            with pytest.raises(PolicyError):
                await client.create(policy=Policy(reads=(path,)))

    def test_policy_of_the_client_is_checked(self) -> None:
        with pytest.raises(ArgumentTypeError):
            UnixLocalSandboxClient(policy="none")  # type: ignore[arg-type]

    @pytest.mark.parametrize("root", ["/", "/usr", "/etc", "/tmp", "/home", "/proc/x", "/dev/shm"])
    async def test_root_of_the_system_is_refused(self, client: Client, root: str) -> None:
        with pytest.raises(SandboxError):
            async with await client.create(manifest=Manifest(root=root)):
                pytest.fail("it started")

    @pytest.mark.parametrize("late", [False, True], ids=["at once", "between create and start"])
    @pytest.mark.parametrize("kind", ["file", "symlink", "dangling", "beneath a file"])
    async def test_root_that_is_no_directory(
        self, client: Client, tmp_path: Path, kind: str, late: bool
    ) -> None:
        root = tmp_path / "above" / "root"

        def occupy() -> None:
            (tmp_path / "above").mkdir(exist_ok=True)
            if kind == "file":
                root.write_text("kept")
            elif kind == "beneath a file":
                (tmp_path / "above").rmdir()
                (tmp_path / "above").write_text("kept")
            else:
                root.symlink_to(tmp_path if kind == "symlink" else tmp_path / "nowhere")

        manifest = Manifest(root=str(root), entries={"entry": File(content=b"x")})
        if late:
            session = await client.create(manifest=manifest)
            occupy()
            with pytest.raises(WorkspaceStartError):
                await session.start()
            assert not await session.running()
            await client.delete(session)
        else:
            occupy()
            with pytest.raises(WorkspaceStartError):
                await client.create(manifest=manifest)
        assert names_in(tmp_path) == ["above"]
        if kind != "beneath a file":
            assert names_in(tmp_path / "above") == ["root"]

    async def test_delete_wants_a_session(self, client: Client) -> None:
        for other in (None, "x", client):
            with pytest.raises(ArgumentTypeError):
                await client.delete(other)  # type: ignore[arg-type]


class TestRoot:
    async def test_private_one_is_deleted(self, client: Client, place: Path) -> None:
        session = await client.create()
        root = root_of(session)
        assert root.parent == place
        assert root.stat().st_mode & 0o7777 == 0o700
        assert session.state.workspace_root_owned
        async with session:
            await session.exec("mkdir -p a/b; echo x > a/b/c; chmod 000 a; ln -s / link")
        assert root.is_dir()
        assert await client.delete(session) is session
        assert names_in(place) == []
        assert await client.delete(session) is session

    async def test_own_one_is_made_and_never_deleted(self, client: Client, tmp_path: Path) -> None:
        root = tmp_path / "not" / "there" / "yet"
        session = await client.create(manifest=Manifest(root=str(root)))
        assert not root.exists()
        async with session:
            assert (await session.exec("pwd; echo x > file")).stdout.decode() == f"{root}\n"
        await client.delete(session)
        assert (root / "file").read_text() == "x\n"
        assert not session.state.workspace_root_owned

    async def test_content_of_an_own_one_stays(self, client: Client, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("kept")
        manifest = Manifest(root=str(tmp_path), entries={"given": File(content=b"new")})
        session = await client.create(manifest=manifest)
        async with session:
            assert (await session.exec("cat mine given")).stdout == b"keptnew"
        await client.delete(session)
        assert names_in(tmp_path) == ["given", "mine"]

    async def test_unused_session_is_deleted(self, client: Client, place: Path) -> None:
        session = await client.create()
        await client.delete(session)
        assert names_in(place) == []
        with pytest.raises(SessionClosedError):
            await session.start()

    async def test_another_directory_of_its_name_stays(self, client: Client, place: Path) -> None:
        session = await client.create()
        root = root_of(session)
        await session.start()
        await session.aclose()
        root.rmdir()
        root.mkdir()
        (root / "somebody's").write_text("kept")
        await client.delete(session)
        assert (root / "somebody's").read_text() == "kept"

    async def test_moved_away_and_replaced_while_it_runs(self, client: Client, place: Path) -> None:
        session = await client.create()
        root = root_of(session)
        async with session:
            await session.exec("echo x > file")
            root.rename(place / "moved")
            root.mkdir()
            (root / "somebody's").write_text("kept")
        await client.delete(session)
        assert (root / "somebody's").read_text() == "kept"
        assert (place / "moved" / "file").read_text() == "x\n"

    async def test_replaced_before_a_restart_is_refused(self, client: Client, place: Path) -> None:
        session = await client.create()
        root = root_of(session)
        await session.start()
        await session.shutdown()
        root.rename(place / "moved")
        root.mkdir()
        with pytest.raises((ConfinementUnavailableError, WorkspaceStartError)):
            await session.start()
        await client.delete(session)

    @pytest.mark.parametrize("kind", ["link", "file"])
    async def test_what_took_its_place_stays(self, client: Client, place: Path, kind: str) -> None:
        session = await client.create()
        root = root_of(session)
        target = place / "target"
        target.mkdir()
        (target / "kept").touch()
        root.rmdir()
        if kind == "link":
            root.symlink_to(target)
        else:
            root.write_text("kept")
        assert await client.delete(session) is session
        assert (target / "kept").exists()
        assert root.name in names_in(place)

    async def test_gone_already_is_no_error(self, client: Client, place: Path) -> None:
        session = await client.create()
        async with session:
            await session.exec("touch x")
        shutil.rmtree(root_of(session))
        await client.delete(session)
        assert names_in(place) == []

    @pytest.mark.parametrize(
        "name", ["a b", "é", "quo'te", "$HOME", "new\nline", "-rf", "a\\b", "~"]
    )
    async def test_odd_names_work(self, client: Client, tmp_path: Path, name: str) -> None:
        root = tmp_path / name
        session = await client.create(manifest=Manifest(root=str(root)))
        async with session:
            result = await session.exec("pwd; echo x > file")
            assert result.stdout.decode() == f"{root}\n"
        assert (root / "file").read_text() == "x\n"

    async def test_deep_path_works(self, client: Client, tmp_path: Path) -> None:
        root = tmp_path.joinpath(*["d" * 100] * 30)
        session = await client.create(manifest=Manifest(root=str(root)))
        async with session:
            assert (await session.exec("readlink /proc/self/cwd")).stdout.decode() == f"{root}\n"

    async def test_beneath_a_home_nothing_else_shows(self, client: Client, tmp_path: Path) -> None:
        home = tmp_path / "home" / "person"
        (home / "project").mkdir(parents=True)
        (home / ".ssh").mkdir()
        (home / ".ssh" / "id").write_text("TOPSECRET")
        session = await client.create(manifest=Manifest(root=str(home / "project")))
        async with session:
            result = await session.exec(f"ls -A {home} ..; cat {home}/.ssh/id ../.ssh/id")
        assert b"TOPSECRET" not in result.stdout
        assert b".ssh" not in result.stdout
        assert b"project" in result.stdout


class TestManifest:
    async def test_environment_reaches_commands(self, client: Client) -> None:
        entry = EnvEntry(value=StrEnvValue(value="b"), description="d")
        manifest = Manifest(environment={"value": {"A": "é =\n", "HOME": "/tmp", "B": entry}})
        session = await client.create(manifest=manifest, policy=Policy(environment=(("B", "p"),)))
        async with session:
            result = await session.exec('printf \'%s|\' "$A" "$HOME" "$B"; cd; pwd')
            assert result.stdout.decode() == "é =\n|/tmp|b|/tmp\n"
            result = await session.exec("echo $A$B", env={"A": "call", "B": ""})
            assert result.stdout == b"call\n"
        await client.delete(session)

    async def test_changes_by_the_caller_come_too_late(self, client: Client) -> None:
        manifest = Manifest(environment={"value": {"A": "1"}})
        session = await client.create(manifest=manifest)
        manifest.environment.value["A"] = "2"
        manifest.root = "/elsewhere"
        async with session:
            assert (await session.exec("echo $A")).stdout == b"1\n"
        await client.delete(session)

    async def test_entries_are_there_for_commands(self, client: Client) -> None:
        entries = {"a/b.txt": File(content=b"text"), "run": File(content=b"#!/bin/sh\necho ran\n")}
        session = await client.create(manifest=Manifest(entries=entries))
        async with session:
            result = await session.exec("cat a/b.txt; sh run; echo more >> a/b.txt; cat a/b.txt")
            assert result.stdout == b"textran\ntextmore\n"
        await client.delete(session)

    async def test_states_have_identities(self, client: Client) -> None:
        first, second = await client.create(), await client.create()
        assert first.state.session_id != second.state.session_id
        assert root_of(first) != root_of(second)
        await client.delete(first)
        await client.delete(second)


class TestVariables:
    async def test_allowlist_replaces_the_short_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("LANG", "TZ", "MINE", "KEY", "GIVEN"):
            monkeypatch.setenv(name, name.lower())
        names = ["LANG", "MINE", "PATH", "HOME", "UNSET"]
        client = Client(host_environment_allowlist=names, inherit_host_environment=False)
        session = await client.create(policy=Policy(inherit=("GIVEN",)))
        try:
            async with session:
                told = (await session.exec("env")).stdout.decode().splitlines()
            found = dict(line.split("=", 1) for line in told)
            assert {"LANG": "lang", "MINE": "mine", "GIVEN": "given"}.items() <= found.items()
            assert not {"TZ", "KEY", "UNSET"} & found.keys()
            assert found["HOME"] != os.environ["HOME"]
            again = await client.resume(
                session.state
            )  # an allowlist is the client's, not the state's
            async with again:
                assert (await again.exec("echo $MINE$GIVEN$TZ")).stdout == b"mine\n"
        finally:
            await client.delete(session)

    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            ({"inherit_host_environment": True}, ArgumentError),
            (
                {"inherit_host_environment": True, "host_environment_allowlist": ["LANG"]},
                ArgumentError,
            ),
            ({"inherit_host_environment": "yes"}, ArgumentTypeError),
            ({"host_environment_allowlist": "LANG"}, ArgumentTypeError),
            ({"host_environment_allowlist": 3}, ArgumentTypeError),
            ({"host_environment_allowlist": ["LANG", 3]}, ArgumentTypeError),
            ({"host_environment_allowlist": ["A=B"]}, PolicyError),
        ],
    )
    def test_others_are_refused(self, arguments: dict[str, Any], kind: type[SandboxError]) -> None:
        with pytest.raises(kind) as caught:
            Client(**arguments)
        assert type(caught.value) is kind
        assert isinstance(caught.value, ValueError)
