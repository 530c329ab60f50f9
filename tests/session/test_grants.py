"""What a policy grants binds commands by the kernel, and whose files are whose on the disk."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sandyard import (
    File,
    Manifest,
    Policy,
    SandboxPathGrant,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.session.host import root_of

Client = UnixLocalSandboxClient
Session = UnixLocalSandboxSession

SOMEBODY = 12345


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the caller's with something in it."""
    made = tmp_path / "shared"
    (made / "sub").mkdir(parents=True)
    (made / "data").write_text("data\n")
    (made / "sub" / "more").write_text("more\n")
    return made


WRITES = (
    "echo x > {0}/data",
    "echo x >> {0}/data",
    "touch {0}/new",
    "mkdir {0}/newdir",
    "rm -f {0}/data; test ! -e {0}/data",
    "mv {0}/data {0}/moved",
    "ln {0}/data {0}/hard",
    "ln -s data {0}/soft",
    "chmod 777 {0}/data",
    "chmod 777 {0}",
    "touch -d 2000-01-01 {0}/data",
    "truncate -s 0 {0}/data",
    "setfattr -n user.x -v 1 {0}/data",
    "ln {0}/data ./hard && echo x > ./hard",
    "ln -s {0}/data soft && echo x > soft",
    "cd {0} && echo x > data",
    "echo x > /proc/self/root{0}/data",
    "cd / && echo x > ./{0}/data",
    "mv {0} {0}.old",
    "mount -o remount,rw {0}",
    "exec 3< {0}/data; echo x > /proc/self/fd/3",
    "python3 -c 'import os; os.truncate(\"{0}/data\", 0)'",
)


def snapshot_of(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Names, modes and contents of a tree."""
    return {
        str(path.relative_to(tree)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [tree, *tree.rglob("*")]
    }


async def test_read_only_grant_binds_commands(client: Client, shared: Path) -> None:
    before = snapshot_of(shared)
    session = await client.create(policy=Policy(reads=(str(shared),)))
    async with session:
        result = await session.exec(f"cat {shared}/data {shared}/sub/more; ls {shared}")
        assert result.stdout == b"data\nmore\ndata\nsub\n"
        for attempt in WRITES:
            result = await session.exec(f"umask 0; {attempt.format(shared)}")
            assert result.exit_code != 0, attempt
            assert snapshot_of(shared) == before, attempt
    await client.delete(session)


async def test_written_grant_is_the_host_at_once(client: Client, shared: Path) -> None:
    session = await client.create(policy=Policy(writes=(str(shared),)))
    async with session:
        result = await session.exec(
            f"echo x >> {shared}/data; mkdir {shared}/new; rm {shared}/sub/more"
        )
        assert result.exit_code == 0, result
        assert (shared / "data").read_text() == "data\nx\n"
        assert (shared / "new").is_dir()
        assert not (shared / "sub" / "more").exists()
        (shared / "late").write_text("late\n")
        assert (await session.exec(f"cat {shared}/late")).stdout == b"late\n"
    await client.delete(session)
    assert (shared / "data").exists()


async def test_nothing_beside_a_grant_shows(client: Client, shared: Path) -> None:
    (shared.parent / "secret").write_text("TOPSECRET")
    session = await client.create(policy=Policy(reads=(str(shared / "sub"),)))
    async with session:
        result = await session.exec(
            f"ls -A {shared.parent}; ls -A {shared}; ls -A {shared}/sub; "
            f"cat {shared}/data {shared}/sub/../data {shared.parent}/secret"
        )
        assert result.stdout == b"shared\nsub\nmore\n"
    await client.delete(session)


async def test_deeper_path_decides(client: Client, shared: Path) -> None:
    policy = Policy(writes=(str(shared),), reads=(str(shared / "sub"),))
    session = await client.create(policy=policy)
    async with session:
        assert (await session.exec(f"echo x > {shared}/data")).ok()
        for attempt in ("echo x > {0}/sub/more", "mv {0}/sub {0}/gone", "rm -r {0}/sub"):
            assert not (await session.exec(attempt.format(shared))).ok()
        assert (shared / "sub" / "more").read_text() == "more\n"
    await client.delete(session)


async def test_part_of_the_workspace_is_read_only(client: Client, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "vendor").mkdir(parents=True)
    (root / "vendor" / "file").write_text("kept")
    policy = Policy(reads=(str(root / "vendor"),))
    session = await client.create(manifest=Manifest(root=str(root)), policy=policy)
    async with session:
        assert (await session.exec("echo x > file")).ok()
        for attempt in (
            "echo x > vendor/file",
            "mv vendor gone",
            "rm -rf vendor",
            "ln vendor/file h",
        ):
            assert not (await session.exec(attempt)).ok(), attempt
        assert (root / "vendor" / "file").read_text() == "kept"
    await client.delete(session)


async def test_grants_of_the_manifest_bind_too(client: Client, shared: Path) -> None:
    (shared.parent / "written").mkdir()
    grants = [
        SandboxPathGrant(path=str(shared), read_only=True),
        SandboxPathGrant(path=str(shared.parent / "written")),
    ]
    session = await client.create(manifest=Manifest(extra_path_grants=grants))
    async with session:
        assert (await session.exec(f"cat {shared}/data")).stdout == b"data\n"
        assert not (await session.exec(f"echo x > {shared}/data")).ok()
        assert (await session.exec(f"echo x > {shared.parent}/written/file")).ok()
    await client.delete(session)


async def test_single_file_is_granted(client: Client, shared: Path) -> None:
    policy = Policy(reads=(str(shared / "data"),), writes=(str(shared / "sub" / "more"),))
    session = await client.create(policy=policy)
    async with session:
        assert (
            await session.exec(f"cat {shared}/data; ls {shared}")
        ).stdout == b"data\ndata\nsub\n"
        assert not (await session.exec(f"echo x > {shared}/data")).ok()
        assert (await session.exec(f"echo x > {shared}/sub/more")).ok()
    await client.delete(session)
    assert (shared / "sub" / "more").read_text() == "x\n"


async def test_granted_link_works_by_both_names(client: Client, shared: Path) -> None:
    link = shared.parent / "link"
    link.symlink_to(shared)
    session = await client.create(policy=Policy(reads=(str(link),)))
    async with session:
        assert (await session.exec(f"cat {link}/data {shared}/data")).stdout == b"data\ndata\n"
    await client.delete(session)


async def test_policy_of_the_session_replaces_the_client_one(shared: Path) -> None:
    client = UnixLocalSandboxClient(policy=Policy(reads=(str(shared),)))
    first, second = await client.create(), await client.create(policy=Policy())
    async with first, second:
        assert (await first.exec(f"cat {shared}/data")).ok()
        assert not (await second.exec(f"cat {shared}/data")).ok()
    await client.delete(first)
    await client.delete(second)


async def test_environment_of_the_policy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANTED", "inherited")
    monkeypatch.setenv("OTHER", "hidden")
    session = await client.create(policy=Policy(environment=(("SET", "set"),), inherit=("WANTED",)))
    async with session:
        result = await session.exec("echo $WANTED $SET ${OTHER-unset}")
    assert result.stdout == b"inherited set unset\n"
    await client.delete(session)


class TestOwners:
    async def test_files_are_the_caller_on_disk(self, session: Session) -> None:
        await session.exec("echo x > file; mkdir dir; ln -s file link; chmod 640 file; mkfifo fifo")
        for path in root_of(session).iterdir():
            facts = path.lstat()
            assert (facts.st_uid, facts.st_gid) == (os.geteuid(), os.getegid()), path

    async def test_files_of_the_caller_are_the_agent_inside(self, session: Session) -> None:
        await session.write("a/file", io.BytesIO(b"text"))
        await session.mkdir("b")
        (root_of(session) / "c").write_text("host")
        result = await session.exec("stat -c '%U:%G %u:%g' . a a/file b c; id -un; id -gn; id -G")
        lines = result.stdout.decode().split("\n")
        assert lines[:5] == ["agent:agent 1000:1000"] * 5
        assert lines[5:8] == ["agent", "agent", "1000"]
        assert (await session.exec("echo x >> a/file; echo x >> c; rm -r a b c")).ok()

    async def test_both_sides_see_each_other(self, session: Session) -> None:
        await session.write("file", b"one\n")
        await session.exec(
            "echo two >> file; mkdir -p d; echo three > d/inside; chmod 600 d/inside"
        )
        with await session.read("file") as file:
            assert file.read() == b"one\ntwo\n"
        with await session.read("d/inside") as file:
            assert file.read() == b"three\n"
        await session.write("d/inside", b"four\n")
        assert (await session.exec("cat d/inside")).stdout == b"four\n"
        assert [entry.owner for entry in await session.ls("d")] == ["agent"]
        await session.rm("d", recursive=True)
        assert not (await session.exec("ls d")).ok()

    @pytest.mark.root
    @pytest.mark.parametrize("place", ["root", "grant"])
    async def test_directory_of_somebody_else(
        self, client: Client, tmp_path: Path, place: str
    ) -> None:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "old").write_text("old\n")
        for path in (theirs, theirs / "old"):
            os.chown(path, SOMEBODY, SOMEBODY)
        entries = {"given": File(content=b"given\n")} if place == "root" else {}
        root = theirs if place == "root" else tmp_path / "ours"
        policy = Policy(writes=(str(theirs),) if place == "grant" else ())
        manifest = Manifest(root=str(root), entries=entries)
        session = await client.create(manifest=manifest, policy=policy)
        async with session:
            result = await session.exec(
                f"cd {theirs}; echo x >> old; echo x > new; mkdir dir; stat -c %U . *"
            )
            assert set(result.stdout.split()) == {b"agent"}, result
            if place == "root":
                await session.write("sub/api", b"api\n")
                assert (await session.exec("cat sub/api old")).stdout == b"api\nold\nx\n"
        for path in [theirs, *theirs.rglob("*")]:
            facts = path.stat()
            assert (facts.st_uid, facts.st_gid) == (SOMEBODY, SOMEBODY), path
        await client.delete(session)

    @pytest.mark.root
    async def test_files_of_third_parties_stay_theirs(self, client: Client, tmp_path: Path) -> None:
        # Only the owner of the root is the agent inside; others are nobody, and closed as ever.
        (tmp_path / "private").write_text("TOPSECRET")
        (tmp_path / "private").chmod(0o600)
        os.chown(tmp_path / "private", SOMEBODY, SOMEBODY)
        session = await client.create(manifest=Manifest(root=str(tmp_path)))
        async with session:
            result = await session.exec("stat -c %u private; cat private; chmod 644 private")
            assert result.stdout == b"65534\n"
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
        await client.delete(session)

    @pytest.mark.root
    async def test_sandboxes_have_identities_of_their_own(self, client: Client) -> None:
        first, second = await client.create(), await client.create()
        async with first, second:
            uids = []
            for session in (first, second):
                result = await session.exec("cat /proc/self/uid_map")
                inside, outside, count = map(int, result.stdout.split())
                assert (inside, count) == (1000, 1)
                uids.append(outside)
        assert len(set(uids)) == 2
        assert 0 not in uids
        await client.delete(first)
        await client.delete(second)
