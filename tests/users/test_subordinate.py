"""Several users of an ordinary user's session: as apart as root's are, by ids of the user's own."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import signal
import stat
import subprocess
import sys
import termios
import venv
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest

from sandyard import (
    ConfinementUnavailableError,
    File,
    Group,
    LocalFileReadError,
    Manifest,
    Progress,
    SandboxError,
    SnapshotStore,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    User,
)
from sandyard.subordinate import own_range
from sandyard.workspace.deputy import Deputy
from sandyard.workspace.sweep import sweep
from tests.house.leaks import find_descendants, read_proc
from tests.session.host import until
from tests.terminal.screen import watching
from tests.users import test_files as files
from tests.users.conftest import PEOPLE, SHARED, is_refused, people, said
from tests.users.test_files import VERBS


def _first_id() -> int:
    try:
        return own_range(3).start
    except ConfinementUnavailableError:
        return 0


FIRST = 0 if os.geteuid() == 0 else _first_id()
pytestmark = [
    pytest.mark.user,
    pytest.mark.skipif(
        os.geteuid() != 0 and not FIRST,
        reason="needs newuidmap and newgidmap, and ranges in /etc/subuid and /etc/subgid",
    ),
]

Session = UnixLocalSandboxSession


async def test_each_is_who_it_says(session: Session) -> None:
    first = FIRST
    assert (
        await said(session, "id") == "uid=1000(agent) gid=1000(agent) groups=1000(agent),1003(team)"
    )
    assert await said(session, "id; echo $HOME; stat -c %U:%a ~", "reviewer") == (
        "uid=1001(reviewer) gid=1001(reviewer) groups=1001(reviewer),1003(team)\n"
        "/home/reviewer\nreviewer:700"
    )
    maps = (await said(session, "cat /proc/self/uid_map")).split()
    assert maps == list(map(str, (1000, os.getuid(), 1, 1001, first, 3)))
    result = await session.exec("echo out > /dev/stdout; echo err > /dev/stderr", user="other")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (
        await session.exec("cat > /tmp/in; cat /tmp/in", user="other", stdin=b"x")
    ).stdout == b"x"
    none = "grep -c 'Cap.*:.*[1-9a-f]' /proc/self/status; grep NoNewPrivs /proc/self/status"
    for user in (None, "reviewer"):
        assert (await session.exec(none, user=user)).stdout == b"0\nNoNewPrivs:\t1\n"
    process = await session.start_process("sleep 60", user="reviewer")
    for attempt in (f"kill {process.pid}", f"cat /proc/{process.pid}/environ"):
        assert await is_refused(session, attempt, "other")
    await process.close()
    async with watching(await session.terminal("id -un; tty; read x", user="other")) as screen:
        await screen.until("/dev/pts/0")
        assert b"other" in screen.seen
        assert await is_refused(session, "cat /dev/pts/0", "reviewer")
    await said(session, SHARED)
    await said(session, "echo x > share/file; touch ~/file", "reviewer")
    facts = os.stat(f"{session.state.manifest.root}/share/file")
    assert (facts.st_uid, facts.st_gid) == (first, first)
    assert os.stat(f"{session.state.manifest.root}/share").st_gid == first + 2


async def test_all_are_held_still(session: Session) -> None:
    process = await session.start_process("read line; id -un", user="other", stdin=True)
    await session.stop(processes="freeze")  # which fails unless all were seen to be stopped
    await process.stdin.write(b"on\n")
    assert (await process.wait()).exit_code == 0


async def test_verbs_and_shell_agree(session: Session) -> None:
    await said(session, "mkdir -m 700 own; touch own/file file; echo old > shut; chmod 600 shut")
    before = await said(session, "ls -lR --time-style=full-iso")
    for verb, command in VERBS.values():
        assert await is_refused(session, command, "reviewer")
        with pytest.raises(SandboxError) as caught:
            await verb(session, "reviewer")
        assert "permission denied" in str(caught.value) or "somebody else" in str(caught.value)
    assert await said(session, "ls -lR --time-style=full-iso") == before
    user = "reviewer"
    await said(session, SHARED)
    await session.write("share/file", io.BytesIO(b"one" * 300_000), user=user)
    await session.append("share/file", b" two", user=user)
    await session.mkdir("share/a/b", parents=True, user=user)
    await session.copy("share/file", "share/a/copy", user=user)
    await session.copy("share/a", "share/tree", recursive=True, user=user)
    await session.mv("share/a/copy", "share/a/moved", user=user)
    await session.chmod("share/a/moved", 0o600, user=user)
    owners = await said(session, "find share -mindepth 1 -printf '%P %u %g\\n' | sort", user)
    names = ["a", "a/b", "a/moved", "file", "tree", "tree/b", "tree/copy"]
    assert owners.splitlines() == [f"{name} reviewer reviewer" for name in names]
    assert {entry.owner for entry in await session.ls("share", user=user)} == {user}
    with await session.read("share/a/moved", user=user) as file:
        assert file.read() == b"one" * 300_000 + b" two"
    with pytest.raises(SandboxError, match="permission denied"):
        await session.read("share/a/moved")
    assert await session.glob("share/**/moved", user=user) == ["share/a/moved"]


@pytest.mark.parametrize(
    "verbs",
    [files.test_changes_are_seen, files.test_links_lead_no_further],
)
async def test_verbs_as_root_has_them(
    session: Session, verbs: Callable[[Session], Awaitable[None]]
) -> None:
    await verbs(session)


@pytest.mark.parametrize(
    "verbs", [files.test_transfers_are_the_users, files.test_downloads_are_ours]
)
async def test_transfers_as_root_has(
    session: Session, tmp_path: Path, verbs: Callable[[Session, Path], Awaitable[None]]
) -> None:
    await verbs(session, tmp_path)


async def test_transfers_from_here(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of the host's are this program's, and so is who hears how far it is."""
    await said(session, SHARED)
    source, heard = tmp_path / "source", list[Progress]()
    source.mkdir()
    for name in ("a", "b", "left.tmp"):
        (source / name).write_text(name)
    (tmp_path / "link").symlink_to("source")
    monkeypatch.chdir(tmp_path)
    done = await session.upload(
        "link", "share/tree", exclude=["*.tmp"], progress=heard.append, user="reviewer"
    )
    assert (done.files, done.size, [one.path for one in done.skipped]) == (
        2,
        2,
        ["share/tree/left.tmp"],
    )
    await until(lambda: heard and heard[-1].entries == 1)
    assert (heard[-1].files, heard[-1].total) == (2, 1)
    done = await session.download("share/tree", "copy", progress=heard.append, user="reviewer")
    assert sorted(os.listdir("copy")) == ["a", "b"]
    with pytest.raises(LocalFileReadError, match="missing"):
        await session.upload("missing", "share/none", user="reviewer")
    async with session.watch("share/tree", user="reviewer") as changes:
        await said(session, "mkdir share/tree/own share/tree/own/deep", "reviewer")
        seen = set[str]()
        async for batch in changes:
            seen |= {change.path.rpartition("/")[2] for change in batch}
            if "deep" in seen:
                await said(session, "echo x > share/tree/own/deep/last", "reviewer")
            if "last" in seen:
                break


async def test_watch_outlives_its_deputy(session: Session) -> None:
    """A deputy that is lost while a watch goes on is replaced, and the watch goes on."""
    await said(session, SHARED)
    async with session.watch("share", user="reviewer") as changes:
        (deputy,) = deputies()
        os.kill(deputy, signal.SIGKILL)
        await until(lambda: not deputies())
        await said(session, "mkdir -m 777 share/new")
        assert [change.kind for change in await anext(changes)] == ["created"]
        await said(session, "touch share/new/file")
        assert (await anext(changes))[0].path.endswith("share/new/file")


def test_only_values_go_there() -> None:
    with (
        Deputy("user") as deputy,
        pytest.raises(ConfinementUnavailableError, match="by a command of that user"),
    ):
        deputy.do(lambda: None)


class Failing:
    """A stream of the caller's that fails in a way of its own."""

    def read(self, size: int = -1) -> bytes:
        """Fail."""
        raise LookupError("of the caller's own")


def has_been_sent() -> bool:
    """Whether somebody has not yet read what we sent it."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        unread = bytearray(4)
        with suppress(OSError):  # it is no socket, or was the directory's own
            fcntl.ioctl(fd, termios.TIOCOUTQ, unread)
            if stat.S_ISSOCK(os.fstat(fd).st_mode) and any(unread):
                return True
    return False


def deputies() -> list[int]:
    """The programs that stand in for other users."""
    return [
        pid for pid in find_descendants() if "deputy_service" in read_proc(f"/proc/{pid}/cmdline")
    ]


async def test_deputy_may_be_lost(session: Session) -> None:
    await said(session, SHARED)
    await session.write("share/file", b"x", user="reviewer")
    with pytest.raises(LookupError, match="own"):
        await session.write("share/other", Failing(), user="reviewer")  # type: ignore[arg-type]  # a stream by its method
    assert not await session.exists("share/other", user="reviewer")
    (deputy,) = deputies()
    os.kill(deputy, signal.SIGSTOP)
    reading = asyncio.ensure_future(session.ls("share", user="reviewer"))
    for _ in range(2):  # once may be a thread that wakes the loop
        await until(has_been_sent)
    os.kill(deputy, signal.SIGKILL)
    with pytest.raises(ConfinementUnavailableError, match="lost"):
        await reading
    assert len(await session.ls("share", user="reviewer")) == 1


async def test_snapshots_have_everybodys_files(tmp_path: Path) -> None:
    kept = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    owner, team = User(name="reviewer"), Group(name="team", users=[])
    entries = {"theirs": File(content=b"given", owner=owner, group=team)}
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(**PEOPLE, entries=entries), snapshot=kept)  # type: ignore[arg-type]
    async with session:
        assert await said(session, "stat -c %U:%G theirs") == "reviewer:team"
        await said(session, SHARED)
        await said(
            session, "mkdir -m 700 share/d; echo x > share/d/e; chmod 600 share/d/e", "reviewer"
        )
        async with await session.pack(".") as archive:
            content = b"".join([piece async for piece in archive])
        assert b"share/d/e" in content
        await session.stop()
        forks = [await client.fork(session)]
    state, root = session.state, session.state.manifest.root
    forks.append(await client.fork(state))
    owners = [os.stat(f"{each.host_root}/theirs") for each in (state, *(f.state for f in forks))]
    assert len({(facts.st_uid, facts.st_gid) for facts in owners}) == 1
    async with forks[0] as fork:
        told = await said(fork, "cat share/d/e; stat -c %U:%G share/d/e theirs", "reviewer")
        assert told == "x\nreviewer:reviewer\nreviewer:team"
    for fork in forks:
        await client.delete(fork)
    await client.delete(session)
    assert not Path(root).exists()  # noqa: ASYNC240  # it is gone
    found = await client.resume(state)
    async with found:
        assert await said(found, "cat share/d/e; stat -c %U share/d/e", "reviewer") == "x\nreviewer"
    await client.delete(found)
    assert (await SnapshotStore(tmp_path / "store").verify()).ok


class Words(str):
    """Text of a caller's own class."""

    __slots__ = ()


class Way(PurePosixPath):
    """A path of a caller's own class."""


class Bytes(bytes):
    """Content of a caller's own class."""


class Piecemeal(io.BytesIO):
    """A stream that gives content of a caller's own class."""

    def read(self, size: int | None = -1) -> bytes:
        """Give the next piece."""
        return Bytes(super().read(size))


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the classes above be where a deputy does not find them, as those of a script are."""
    for kind in (Words, Way, Bytes):
        monkeypatch.setattr(kind, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)


@pytest.mark.usefixtures("nameless")
async def test_classes_of_the_callers(session: Session) -> None:
    await said(session, SHARED)
    await session.write(Way("share/a"), Bytes(b"one"), user="reviewer")
    await session.write(Words("share/b"), Piecemeal(b"two"), user="reviewer")
    for name, content in (("share/a", b"one"), ("share/b", b"two")):
        with await session.read(Words(name), user="reviewer") as file:
            assert file.read() == content
    assert await session.glob(Words("share/*"), user="reviewer") == ["share/a", "share/b"]


WITHIN = """
import asyncio, os, sys
from sandyard import Manifest, UnixLocalSandboxClient, User

PLANTED = 'open("%s/ran", "w"); raise ImportError'

async def main():
    here, outside = os.path.dirname(os.path.abspath(__file__)), sys.argv[1]
    manifest = Manifest(root=here, users=[User(name="reviewer")])
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=manifest)
    async with session:
        for name in ("ctypes", "pydantic", "typing"):
            await session.exec(f"cat > {name}.py", stdin=(PLANTED % outside).encode())
        script = f"#!/bin/sh\\ntouch {outside}/ran\\n".encode()
        await session.exec("rm .venv/bin/*; cat > .venv/bin/python", stdin=script)
        await session.exec("chmod 755 .venv/bin/python; mkdir open; touch open/file")
        print([entry.path for entry in await session.ls("open", user="reviewer")])
    await client.delete(session)

asyncio.run(main())
"""


async def test_modules_in_the_workspace(tmp_path: Path) -> None:
    # A deputy is no program of the sandbox. Script and interpreter of its principal lie where commands
    # write.
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    (project / "main.py").write_text(WITHIN)
    variables = dict(os.environ) | {"PYTHONPATH": ":".join(sys.path)}
    environment = project / ".venv"
    await asyncio.to_thread(venv.create, environment, symlinks=True)
    words = [str(environment / "bin" / "python"), str(project / "main.py"), str(outside)]
    done = await asyncio.to_thread(subprocess.run, words, env=variables, capture_output=True)
    assert b"/open/file" in done.stdout, done.stderr
    assert not list(outside.iterdir())


LIFE = """
import asyncio, json, os, signal, sys
from sandyard import Manifest, UnixLocalSandboxClient, User

async def main():
    session = await UnixLocalSandboxClient().create(manifest=Manifest(users=[User(name="reviewer")]))
    await session.start()
    await session.exec("mkdir -m 777 open")
    await session.exec("mkdir -m 700 open/d; touch open/d/e", user="reviewer")
    await session.ls("open", user="reviewer")
    print(json.dumps(session.state.manifest.root), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def living_deputies() -> list[str]:
    """Deputies of this user, whoever started them."""
    words = f"Uid:\t{os.getuid()}\t"
    return [
        name
        for name in os.listdir("/proc")
        if name.isdigit()
        and "deputy_service" in read_proc(f"/proc/{name}/cmdline")
        and words in read_proc(f"/proc/{name}/status")
    ]


async def test_killed_program_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    variables = dict(os.environ) | {"XDG_STATE_HOME": str(state), "PYTHONPATH": ":".join(sys.path)}
    words = [sys.executable, "-c", LIFE]
    done = await asyncio.to_thread(subprocess.run, words, env=variables, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    root = json.loads(done.stdout)
    await until(lambda: not living_deputies())
    assert await asyncio.to_thread(os.path.exists, f"{root}/open/d")
    await asyncio.to_thread(sweep, str(state / "sandyard"))
    assert not await asyncio.to_thread(os.path.exists, root)


async def test_groups_alone_need_ids_too() -> None:
    async with people(Manifest(groups=[Group(name="team", users=[User(name="agent")])])) as session:
        assert await said(session, "id -Gn") == "agent team"
