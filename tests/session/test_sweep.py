"""What a killed program leaves: another program's create removes it, and nothing that is in use."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandyard import (
    Manifest,
    Policy,
    UnixLocalSandboxClient,
    WorkspaceStartError,
    WorkspaceStopError,
)
from sandyard.workspace.sweep import sweep
from tests.session.host import make_dice, names_in, open_descriptors, root_of, until

Client = UnixLocalSandboxClient

MARKS = ("client", "created", "started", "worked", "shut down", "deleted")

LIFE = """
import asyncio, os, signal
from sandyard import UnixLocalSandboxClient

def mark(text):
    print(text, flush=True)

async def live(client):
    mark("client")
    session = await client.create()
    mark("created")
    await session.start()
    mark("started")
    await session.write("a/b", b"content")
    await session.exec("mkdir -p c/d && touch c/d/e && chmod 500 c/d; (sleep 60 &) ; ln -s / c/out")
    mark("worked")
    {after}
    await session.shutdown()
    mark("shut down")
    await client.delete(session)
    mark("deleted")

async def main():
    client = UnixLocalSandboxClient()
    while True:
        await live(client)

asyncio.run(main())
"""

LIVES = """
import asyncio, os, signal, sys, time
from sandyard import UnixLocalSandboxClient

async def live():
    client = UnixLocalSandboxClient()
    while True:
        session = await client.create()
        await session.start()
        await session.write("a/b", b"content")
        await session.exec("mkdir c; touch c/d; chmod 500 c")
        await client.delete(session)

for delay in sys.argv[1:]:
    if (child := os.fork()) == 0:
        asyncio.run(live())
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len(os.listdir(os.environ["TMPDIR"])), flush=True)
"""

MANY = """
import asyncio, os, signal
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    for _ in range(6):
        session = await client.create()
        await session.start()
        await session.exec("mkdir c; touch c/d")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

CREATE = """
import asyncio
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    await client.delete(await client.create())

asyncio.run(main())
"""


@dataclass(frozen=True)
class Ground:
    """The directories of programs of one user.

    Attributes:
        place: for temporary files.
        state: for the user's state.
    """

    place: Path
    state: Path

    def variables(self) -> dict[str, str]:
        """The environment of a program that uses them."""
        return {
            "TMPDIR": str(self.place),
            "XDG_STATE_HOME": str(self.state),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(sys.path),
        }

    def roots(self) -> list[str]:
        """The workspaces that are there.

        Files are none: Python's tempfile tries a directory out with one, and a kill may come then.
        """
        return [name for name in names_in(self.place) if (self.place / name).is_dir()]

    def leases(self) -> list[str]:
        """The sessions that have a lease."""
        sessions = self.state / "sandyard" / "sessions"
        return names_in(sessions) if sessions.exists() else []

    def spawn(self, code: str, *words: str) -> subprocess.Popen[str]:
        """Start a program."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def live(self, until_mark: str, after: str = "") -> Iterator[subprocess.Popen[str]]:
        """A program with a session that has come as far as a mark."""
        program = self.spawn(LIFE.format(after=after or "pass"))
        try:
            assert program.stdout is not None
            while (line := program.stdout.readline().rstrip()) != until_mark:
                assert line, program.communicate()[1]
            yield program
        finally:
            program.kill()
            program.communicate()

    def sweep(self) -> None:
        """Let another program make a session."""
        done = subprocess.run(
            [sys.executable, "-c", CREATE],
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    for name in ("place", "state"):
        (tmp_path / name).mkdir()
    return Ground(tmp_path / "place", tmp_path / "state")


@pytest.fixture
def here(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """The same, for sessions of this process, which has not swept there."""
    monkeypatch.setattr("tempfile.tempdir", str(ground.place))
    monkeypatch.setenv("XDG_STATE_HOME", str(ground.state))
    return ground


class TestKilled:
    @pytest.mark.parametrize("mark", MARKS)
    def test_at_a_mark(self, ground: Ground, mark: str) -> None:
        with ground.live(mark) as program:
            program.kill()
        ground.sweep()
        assert ground.roots() == []
        assert ground.leases() == []

    def test_at_any_moment(self, ground: Ground) -> None:
        dice = make_dice(20)
        delays = [f"{dice.random() * 0.08:.4f}" for _ in range(40)]  # a life takes about 30 ms
        # Each of these sweeps what those before it left.
        said, errors = ground.spawn(LIVES, *delays).communicate(timeout=50)
        left = [int(line) for line in said.split()]
        assert len(left) == len(delays), errors
        assert max(left)  # or the kills were all too late
        ground.sweep()
        assert ground.roots() == []
        assert ground.leases() == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
    def test_by_other_signals(self, ground: Ground, number: signal.Signals) -> None:
        with ground.live("worked") as program:
            program.send_signal(number)
            program.wait(10)
        ground.sweep()
        assert ground.roots() == []
        assert ground.leases() == []

    def test_between_close_and_delete(self, ground: Ground) -> None:
        after = "await session.aclose(); mark('closed'); await asyncio.sleep(60)"
        with ground.live("closed", after) as program:
            program.kill()
        (root,) = ground.roots()
        ground.sweep()
        assert ground.roots() == [root]  # who closes a session keeps its directory
        assert (ground.place / root / "a" / "b").read_bytes() == b"content"
        assert len(ground.leases()) == 1

    def test_while_it_deletes(self, ground: Ground) -> None:
        after = (
            "for n in range(5000): os.mkdir(f'{session.state.manifest.root}/{n}')\n"
            "    mark('deleting')"
        )
        with ground.live("deleting", after) as program:
            (root,) = ground.roots()
            while len(names_in(ground.place / root)) > 4900:
                pass
            program.kill()
            program.wait()
            assert ground.roots() == [root]
        sweep(str(ground.state / "sandyard"))  # to its end, however long that takes
        assert ground.roots() == []
        assert ground.leases() == []

    def test_workers_may_still_use_it(self, ground: Ground) -> None:
        after = (
            "worker = os.fork() or signal.pause(); mark(str(worker)); mark('forked'); "
            "await asyncio.sleep(60)"
        )
        program = ground.spawn(LIFE.format(after=after))
        assert program.stdout is not None
        lines = iter(program.stdout.readline, "forked\n")
        worker = int(list(lines)[-1])
        try:
            program.kill()
            program.wait()
            (root,) = ground.roots()
            ground.sweep()
            assert ground.roots() == [root]
        finally:
            os.kill(worker, signal.SIGKILL)
            program.communicate()  # until the worker has closed its copy as well
        ground.sweep()
        assert ground.roots() == []
        assert ground.leases() == []

    def test_caller_root_is_not_swept(self, ground: Ground, tmp_path: Path) -> None:
        root = tmp_path / "sandbox-local-mine"
        root.mkdir()
        (root / "mine").touch()
        code = LIFE.replace("import Unix", "import Manifest, Unix").replace(
            "client.create()", f"client.create(manifest=Manifest(root={str(root)!r}))"
        )
        program = ground.spawn(code.format(after="await asyncio.sleep(60)"))
        assert program.stdout is not None
        while program.stdout.readline() != "worked\n":
            pass
        program.kill()
        program.communicate()
        assert len(ground.leases()) == 1
        ground.sweep()
        assert ground.leases() == []
        assert names_in(root) == ["a", "c", "mine"]

    def test_command_line(self, ground: Ground) -> None:
        words = [sys.executable, "-P", "-m", "sandyard.cli", "run", "--"]
        script = "echo x > file; echo up; sleep 60"
        killed = subprocess.Popen(
            [*words, "sh", "-c", script], env=ground.variables(), stdout=subprocess.PIPE
        )
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"up\n"
        killed.kill()
        killed.communicate()
        assert len(ground.roots()) == 1
        done = subprocess.run(
            [*words, "true"], env=ground.variables(), capture_output=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert ground.roots() == []
        assert ground.leases() == []


SWEEPER = "sandyard-sweep"
"""The thread that goes on behind a create which has waited for it long enough."""


class TestSwept:
    def test_living_sessions_stay(self, ground: Ground) -> None:
        with ground.live("worked", "await asyncio.sleep(60)"):
            (root,) = ground.roots()
            ground.sweep()
            ground.sweep()
            assert ground.roots() == [root]
            assert len(ground.leases()) == 1
        ground.sweep()
        assert ground.roots() == []

    @pytest.mark.parametrize("kind", ["directory", "link"])
    def test_what_took_its_place_stays(self, ground: Ground, kind: str) -> None:
        with ground.live("worked", "await asyncio.sleep(60)") as program:
            program.kill()
        root = ground.place / ground.roots()[0]
        moved = root.rename(ground.place / "moved")
        if kind == "link":
            root.symlink_to(moved)
        else:
            root.mkdir()
            (root / "mine").touch()
        ground.sweep()
        assert root.is_symlink() == (kind == "link")
        assert (root / "mine").exists() == (kind == "directory")
        assert (moved / "a" / "b").exists()
        assert ground.leases() == []

    def test_by_programs_at_once(self, ground: Ground) -> None:
        ground.spawn(MANY).communicate(timeout=30)
        assert len(ground.roots()) == 6
        programs = [ground.spawn(CREATE) for _ in range(4)]
        for program in programs:
            assert program.communicate(timeout=30)[1] == ""
        ground.sweep()  # what one could not lock because another looked at it just then
        assert ground.roots() == []
        assert ground.leases() == []

    async def test_first_create_and_now_and_then(
        self, client: Client, here: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = await client.create()
        await until(lambda: not any(each.name == SWEEPER for each in threading.enumerate()))
        await asyncio.to_thread(self.leave_one, here)
        assert len(here.leases()) == 2
        await client.delete(await client.create())
        assert len(here.leases()) == 2  # it was too soon
        monkeypatch.setattr("sandyard.workspace.sweep.SWEEP_EVERY_S", 0.0)
        await client.delete(await client.create())
        await until(lambda: len(here.leases()) == 1)
        assert here.roots() == [root_of(session).name]
        await client.delete(session)

    @staticmethod
    def leave_one(ground: Ground) -> None:
        with ground.live("worked") as program:
            program.kill()

    async def test_large_tree_is_removed_behind(
        self, client: Client, here: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await asyncio.to_thread(self.leave_one, here)
        held, over = threading.Event(), threading.Event()

        def delay(*_: object) -> list[OSError]:
            held.set()
            over.wait(30)
            return []

        # Stands for a tree that takes long; nothing else can hold a real deletion at one place.
        monkeypatch.setattr("sandyard.workspace.root.empty_directory", delay)
        session = await client.create()
        assert held.is_set()
        assert len(here.roots()) == 2
        over.set()
        await until(lambda: not any(t.name == "sandyard-sweep" for t in threading.enumerate()))
        monkeypatch.undo()
        await client.delete(session)
        await asyncio.to_thread(here.sweep)
        assert here.roots() == []

    async def test_rubbish_does_not_disturb(self, client: Client, here: Ground) -> None:
        sessions = here.state / "sandyard" / "sessions"
        await client.delete(await client.create())
        (sessions / "file").touch()
        (sessions / "link").symlink_to("/etc")
        (sessions / "directory").mkdir()
        (sessions / "00000000-0000-4000-8000-000000000000").touch()
        before = names_in(sessions)
        await asyncio.to_thread(here.sweep)
        await client.delete(await client.create())
        assert names_in(sessions) == before


class TestClient:
    async def test_closing_keeps_it(self, client: Client, here: Ground) -> None:
        session = await client.create()
        async with session:
            await session.write("file", b"kept")
        await asyncio.to_thread(here.sweep)
        assert (root_of(session) / "file").read_bytes() == b"kept"
        assert here.leases() == [str(session.state.session_id)]
        await client.delete(session)
        assert here.roots() == []
        assert here.leases() == []

    async def test_caller_root_leaves_no_lease(
        self, client: Client, here: Ground, tmp_path: Path
    ) -> None:
        manifest = Manifest(root=str(tmp_path / "mine"))
        first, second = (
            await client.create(manifest=manifest, shared=True),
            await client.create(manifest=manifest, shared=True),
        )
        async with first, second:
            assert len(here.leases()) == 2
            await first.exec("touch file")
        assert here.leases() == []
        assert names_in(tmp_path / "mine") == ["file"]

    async def test_session_costs_two_descriptors(self, client: Client, here: Ground) -> None:
        before = open_descriptors()
        session = await client.create()
        assert len(open_descriptors() - before) == 2  # the root and its lease
        await session.aclose()
        assert not open_descriptors() - before
        await client.delete(session)

    async def test_cancelled_create_leaves_nothing(self, client: Client, here: Ground) -> None:
        before = open_descriptors()
        cancelled = 0
        for turns in range(40):
            task = asyncio.create_task(client.create())
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            task.cancel()
            try:
                await client.delete(await task)
            except asyncio.CancelledError:
                cancelled += 1
            assert here.roots() == []
            assert here.leases() == []
        assert cancelled
        assert not open_descriptors() - before

    async def test_state_directory_of_others_is_refused(
        self, client: Client, here: Ground, tmp_path: Path
    ) -> None:
        (here.state / "sandyard").mkdir()
        (here.state / "sandyard").chmod(0o777)
        for manifest in (None, Manifest(root=str(tmp_path / "mine"))):
            with pytest.raises(WorkspaceStartError, match="XDG_STATE_HOME") as caught:
                await client.create(manifest=manifest)
            assert caught.value.context["reason"] == "state_directory"
        assert here.roots() == []
        assert not (tmp_path / "mine").exists()

    async def test_state_directory_in_the_workspace(
        self, client: Client, here: Ground, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(here.state)
        for name in ("state", "link/sandyard", ".", "state/sandyard/sessions"):
            with pytest.raises(WorkspaceStartError, match="apart"):
                await client.create(manifest=Manifest(root=str(tmp_path / name)))
        with pytest.raises(WorkspaceStartError, match="apart"):
            await client.create(policy=Policy(writes=(str(tmp_path),)))
        await client.delete(await client.create(policy=Policy(reads=(str(tmp_path),))))
        assert here.roots() == []
        assert here.leases() == []

    async def test_without_a_home(
        self, client: Client, here: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.delenv("HOME", raising=False)
        session = await client.create()
        own = f"sandyard-{os.geteuid()}"
        assert here.roots() == sorted([root_of(session).name, own])
        assert (here.place / own).stat().st_mode & 0o7777 == 0o700
        await client.delete(session)
        assert here.roots() == [own]

    async def test_root_without_rights_is_deleted(self, client: Client, here: Ground) -> None:
        session = await client.create()
        async with session:
            await session.exec("mkdir d; touch d/f; chmod 000 d .")
        await client.delete(session)
        assert here.roots() == []

    @pytest.mark.root
    async def test_what_is_held_is_told(self, client: Client, here: Ground, tmp_path: Path) -> None:
        session = await client.create()
        root = root_of(session)
        async with session:
            await session.exec("mkdir held; touch gone")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        mount = ["mount", "--bind", str(tmp_path / "mine"), str(root / "held")]
        if (await asyncio.to_thread(subprocess.run, mount, check=False)).returncode:
            pytest.skip("bind mounts are not allowed here")
        try:
            with pytest.raises(WorkspaceStopError, match="delete again") as caught:
                await client.delete(session)
            assert caught.value.context == {"path": str(root), "reason": "not_removed"}
            assert names_in(root) == ["held"]
            assert here.leases() == [str(session.state.session_id)]
        finally:
            await asyncio.to_thread(subprocess.run, ["umount", str(root / "held")], check=True)
        await client.delete(session)
        assert here.roots() == []
        assert here.leases() == []
        assert names_in(tmp_path / "mine") == ["file"]
