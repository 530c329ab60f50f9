"""Leases: who holds one, what others see of it, and what an abandoned one lets a sweep delete."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.errors import WorkspaceStartError
from sandyard.workspace import Inode, WorkspaceRoot
from sandyard.workspace.lease import Lease
from sandyard.workspace.record import LeaseRecord, Unreadable
from sandyard.workspace.sweep import sweep


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "state" / "sandyard"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files."""
    made = tmp_path / "place"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    return made


def take(state: Path, session_id: str | None = None, *, owned: bool = True) -> Lease:
    """The lease of a session with a root that does not exist."""
    name = session_id or str(uuid4())
    return Lease.take(str(state), name, root=WorkspaceRoot.private_path(), owned=owned)


def abandon(state: Path, *, owned: bool = True, kept: bool = False) -> tuple[Path, Path]:
    """What a program leaves that dies with a session: its root, with files, and its lease."""
    session_id = str(uuid4())
    with WorkspaceRoot.create_private() as root:
        lease = Lease.take(str(state), session_id, root=root.path, owned=owned)
        lease.note(root.inode)
        path = Path(root.path)
    (path / "d").mkdir()
    (path / "d" / "file").write_text("content")
    lease.keep() if kept else lease.release()
    return path, state / "sessions" / session_id


def list_sessions(state: Path) -> list[str]:
    return sorted(os.listdir(state / "sessions"))


class TestRecord:
    @given(
        root=st.binary(min_size=1, max_size=300),
        inode=st.none() | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
        pid=st.integers(1, 2**22),
    )
    def test_comes_back(self, root: bytes, inode: tuple[int, int] | None, pid: int) -> None:
        record = LeaseRecord(
            session_id=str(uuid4()),
            root="/" + os.fsdecode(root),
            owned=True,
            inode=None if inode is None else Inode(*inode),
            pid=pid,
            started=5,
        )
        raw = record.encode()
        assert LeaseRecord.decode(raw) == record
        assert json.loads(raw)["version"] == 1

    def test_length_never_changes(self) -> None:
        lengths = set()
        for inode in (None, Inode(0, 0), Inode(2**64 - 1, 2**64 - 1)):
            for kept, restoring in ((False, None), (True, "f" * 16), (True, "")):
                record = LeaseRecord(
                    session_id="s",
                    root="/r",
                    owned=True,
                    inode=inode,
                    restoring=restoring,
                    state="kept" if kept else "live",
                    pid=1,
                    started=1,
                )
                lengths.add(len(record.encode()))
        assert len(lengths) == 1

    def test_every_beginning_is_broken(self) -> None:
        record = LeaseRecord(session_id="s", root="/r", owned=True, pid=1, started=1)
        raw = record.encode().rstrip()
        for end in range(len(raw)):
            assert LeaseRecord.decode(raw[:end]) is Unreadable.BROKEN
            assert LeaseRecord.decode(raw[:end] + bytes(len(raw) - end)) is Unreadable.BROKEN

    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            (b"[" * 30_000, Unreadable.BROKEN),
            (b"\xff\xfe", Unreadable.BROKEN),
            (b"null", Unreadable.FOREIGN),
            (b"[1]", Unreadable.FOREIGN),
            (b"{}", Unreadable.FOREIGN),
        ],
        ids=repr,
    )
    def test_other_bytes(self, raw: bytes, kind: Unreadable) -> None:
        assert LeaseRecord.decode(raw) is kind

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"version": "1"},
            {"state": "dead"},
            {"state": None},
            {"owned": 1},
            {"owned": "true"},
            {"device": "5"},
            {"device": None},
            {"inode": 1.5},
            {"pid": "1"},
            {"session": 5},
            {"root": None},
        ],
        ids=str,
    )
    def test_other_values_are_foreign(self, change: dict[str, object]) -> None:
        inode = Inode(1, 2)
        record = LeaseRecord(session_id="s", root="/r", owned=True, inode=inode, pid=1, started=1)
        document = json.loads(record.encode()) | change
        assert LeaseRecord.decode(json.dumps(document).encode()) is Unreadable.FOREIGN


class TestHolding:
    def test_what_the_file_says(self, state: Path) -> None:
        session_id = str(uuid4())
        with WorkspaceRoot.create_private() as root:
            lease = Lease.take(str(state), session_id, root=root.path, owned=True)
            file = state / "sessions" / session_id / "lease"
            assert json.loads(file.read_bytes())["inode"] is None
            lease.note(root.inode)
            said = json.loads(file.read_bytes())
            root.delete()
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        assert said == {
            "version": 1,
            "state": "live",
            "owned": True,
            "device": root.inode.device,
            "inode": root.inode.number,
            "logs_device": None,
            "logs_inode": None,
            "restoring": None,
            "pid": os.getpid(),
            "started": started,
            "session": session_id,
            "root": root.path,
        }
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for directory in (state, state / "sessions", file.parent):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        lease.remove()
        lease.remove()
        assert list_sessions(state) == []

    def test_session_in_use_is_refused(self, state: Path) -> None:
        session_id = str(uuid4())
        with take(state, session_id) as lease:
            with pytest.raises(WorkspaceStartError, match=f"by process {os.getpid()}") as caught:
                take(state, session_id)
            assert caught.value.context["reason"] == "in_use"
            assert caught.value.retryable
            lease.remove()
        take(state, session_id).remove()

    def test_same_root_twice_is_allowed(self, state: Path, tmp_path: Path) -> None:
        leases = [
            Lease.take(str(state), str(uuid4()), root=str(tmp_path), owned=False) for _ in range(2)
        ]
        for lease in leases:
            lease.remove()

    def test_abandoned_one_is_taken_over(self, state: Path) -> None:
        session_id = str(uuid4())
        file = state / "sessions" / session_id / "lease"
        take(state, session_id).release()
        file.write_bytes(file.read_bytes() + b"x" * 500)
        lease = take(state, session_id)
        assert isinstance(LeaseRecord.decode(file.read_bytes()), LeaseRecord)
        lease.remove()

    def test_kept_one_can_be_taken_again(self, state: Path) -> None:
        lease = take(state)
        lease.keep()
        lease.keep()
        (session_id,) = list_sessions(state)
        file = state / "sessions" / session_id / "lease"
        assert json.loads(file.read_bytes())["state"] == "kept"
        lease.retake()
        lease.retake()
        assert lease.held
        assert json.loads(file.read_bytes())["state"] == "live"
        lease.keep()
        with take(state, session_id), pytest.raises(WorkspaceStartError) as caught:
            lease.retake()
        assert caught.value.context["reason"] == "in_use"
        lease.retake()
        lease.remove()

    def test_keeping_without_writing_removes_it(self, state: Path) -> None:
        lease = take(state)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # write(2) says EFBIG
        try:
            lease.keep()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not lease.held
        assert list_sessions(state) == []

    @pytest.mark.parametrize("end", ["keep", "remove", "release"])
    def test_state_directory_may_be_gone(self, state: Path, end: str) -> None:
        lease = take(state)
        subprocess.run(["rm", "-r", str(state)], check=True)
        getattr(lease, end)()
        lease.retake()
        assert not lease.held
        assert not state.exists()

    def test_what_replaced_it_stays(self, state: Path) -> None:
        lease = take(state)
        (session_id,) = list_sessions(state)
        file = state / "sessions" / session_id / "lease"
        file.unlink()
        file.write_text("mine")
        lease.remove()
        assert file.read_text() == "mine"

    def test_programs_do_not_inherit_it(self, state: Path) -> None:
        session_id = str(uuid4())
        lease = take(state, session_id)
        program = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            lease.release()
            take(state, session_id).remove()
        finally:
            program.kill()
            program.wait()


class TestForks:
    def test_worker_keeps_it_alive(self, state: Path, place: Path) -> None:
        with WorkspaceRoot.create_private() as root:
            lease = Lease.take(str(state), str(uuid4()), root=root.path, owned=True)
            lease.note(root.inode)
        worker = fork(signal.pause)
        lease.release()  # as the end of this process would
        sweep(str(state))
        assert Path(root.path).exists()
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        sweep(str(state))
        assert list(place.iterdir()) == []
        assert list_sessions(state) == []

    @pytest.mark.parametrize("end", ["keep", "remove", "release"])
    def test_worker_ends_nothing(self, state: Path, end: str) -> None:
        session_id = str(uuid4())
        lease = take(state, session_id)
        file = state / "sessions" / session_id / "lease"
        before = file.read_bytes()
        worker = fork(getattr(lease, end))
        os.waitpid(worker, 0)
        assert file.read_bytes() == before
        with pytest.raises(WorkspaceStartError):
            take(state, session_id)
        lease.remove()

    def test_worker_does_not_hold_a_kept_one(self, state: Path) -> None:
        session_id = str(uuid4())
        lease = take(state, session_id)
        worker = fork(signal.pause)
        try:
            lease.keep()
            lease.retake()
            assert lease.held
            lease.remove()
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)


def fork(work: object) -> int:
    """A worker that does one thing and ends."""
    worker = os.fork()
    if worker == 0:
        try:
            assert callable(work)
            work()
        finally:
            os._exit(0)
    return worker


class TestStateDirectory:
    @pytest.mark.parametrize("part", ["", "sessions"])
    @pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
    def test_writable_for_others(self, state: Path, place: Path, part: str, mode: int) -> None:
        root, _ = abandon(state)
        (state / part).chmod(mode)
        with pytest.raises(
            WorkspaceStartError, match=r"written by others.*XDG_STATE_HOME"
        ) as error:
            take(state)
        assert error.value.context["reason"] == "state_directory"
        sweep(str(state))
        assert (root / "d" / "file").exists()

    @pytest.mark.root
    @pytest.mark.parametrize("part", ["", "sessions"])
    def test_owned_by_somebody_else(self, state: Path, place: Path, part: str) -> None:
        root, _ = abandon(state)
        os.chown(state / part, 12345, 12345)
        with pytest.raises(WorkspaceStartError, match="somebody else's"):
            take(state)
        sweep(str(state))
        assert (root / "d" / "file").exists()

    @pytest.mark.parametrize("part", ["", "sessions"])
    @pytest.mark.parametrize("kind", ["link", "dangling", "file", "fifo"])
    def test_no_directory(self, state: Path, place: Path, part: str, kind: str) -> None:
        root, _ = abandon(state)
        path = state / part
        moved = path.with_name("moved")
        path.rename(moved)
        if kind == "file":
            path.touch()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(moved if kind == "link" else "nowhere")
        with pytest.raises(WorkspaceStartError, match="symlink or no directory"):
            take(state)
        sweep(str(state))
        assert (root / "d" / "file").exists()

    @pytest.mark.user
    @pytest.mark.parametrize("mode", [0, 0o300, 0o500])
    def test_without_rights(self, state: Path, mode: int) -> None:
        take(state).remove()
        (state / "sessions").chmod(mode)
        with pytest.raises(WorkspaceStartError, match="Permission denied") as caught:
            take(state)
        assert caught.value.context["reason"] == "state_directory"
        sweep(str(state))
        (state / "sessions").chmod(0o700)

    @pytest.mark.user
    def test_place_that_is_not_ours(self) -> None:
        with pytest.raises(WorkspaceStartError, match="XDG_STATE_HOME"):
            take(Path("/usr/state/sandyard"))

    def test_readable_for_others_is_fine(self, state: Path) -> None:
        state.mkdir(parents=True)
        state.chmod(0o755)
        take(state).remove()

    def test_sweep_makes_nothing(self, state: Path) -> None:
        sweep(str(state))
        assert not state.parent.exists()


class TestSweep:
    def test_abandoned_root_goes(self, state: Path, place: Path, bait: Path) -> None:
        root, _ = abandon(state)
        (root / "link").symlink_to(bait)
        (root / "d").chmod(0)
        root.chmod(0)
        sweep(str(state))
        assert list(place.iterdir()) == []
        assert list_sessions(state) == []

    def test_held_root_stays(self, state: Path, place: Path) -> None:
        root, session = abandon(state)
        lease = Lease.take(str(state), session.name, root=str(root), owned=True)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert (session / "lease").exists()
        lease.release()

    def test_kept_root_stays(self, state: Path, place: Path) -> None:
        root, session = abandon(state, kept=True)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert (session / "lease").exists()
        subprocess.run(["rm", "-r", str(root)], check=True)
        sweep(str(state))
        assert not session.exists()

    def test_kept_root_out_of_sight_stays(self, state: Path, place: Path) -> None:
        _, session = abandon(state, kept=True)
        place.rename(place.with_name("unmounted"))
        sweep(str(state))
        assert session.exists()

    def test_root_of_the_caller_stays(self, state: Path, place: Path) -> None:
        root, session = abandon(state, owned=False)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert not session.exists()

    @pytest.mark.parametrize("kind", ["directory", "link", "file", "nothing"])
    def test_what_took_its_place_stays(self, state: Path, place: Path, kind: str) -> None:
        root, session = abandon(state)
        moved = root.rename(place / "moved")
        if kind == "directory":
            root.mkdir()
            (root / "mine").touch()
        elif kind == "link":
            root.symlink_to(moved)
        elif kind == "file":
            root.write_text("mine")
        sweep(str(state))
        assert (moved / "d" / "file").exists()
        assert root.is_symlink() == (kind == "link")
        assert (root / "mine").exists() == (kind == "directory")
        assert root.is_file() == (kind == "file")
        assert not session.exists()

    @pytest.mark.parametrize("kind", ["nothing", "empty", "full", "file", "link"])
    def test_killed_before_the_root_was_known(self, state: Path, place: Path, kind: str) -> None:
        path = Path(WorkspaceRoot.private_path())
        Lease.take(str(state), str(uuid4()), root=str(path), owned=True).release()
        (place / "target").mkdir()
        if kind == "file":
            path.touch()
        elif kind == "link":
            path.symlink_to("target")
        elif kind != "nothing":
            path.mkdir()
        if kind == "full":
            (path / "mine").touch()
        sweep(str(state))
        assert os.path.lexists(path) == (kind in {"full", "file", "link"})
        assert (place / "target").exists()
        assert list_sessions(state) == []

    @pytest.mark.root
    def test_unknown_root_of_somebody_else_stays(self, state: Path, place: Path) -> None:
        path = WorkspaceRoot.private_path()
        Lease.take(str(state), str(uuid4()), root=path, owned=True).release()
        os.mkdir(path)
        os.chown(path, 12345, 12345)
        sweep(str(state))
        assert os.path.isdir(path)

    @pytest.mark.parametrize("known", [False, True])
    def test_other_names_are_never_deleted(self, state: Path, bait: Path, known: bool) -> None:
        (bait.parent / "empty").mkdir()
        for path in (bait, bait.parent / "empty"):
            with Lease.take(str(state), str(uuid4()), root=str(path), owned=True) as lease:
                if known:
                    facts = path.stat()
                    lease.note(Inode(facts.st_dev, facts.st_ino))
        sweep(str(state))
        assert (bait.parent / "empty").is_dir()

    @pytest.mark.parametrize("raw", [b"", b"{", b'{"version": 1, "state": "li', bytes(300)])
    def test_half_written_lease_goes_alone(self, state: Path, place: Path, raw: bytes) -> None:
        root, session = abandon(state)
        (session / "lease").write_bytes(raw)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert not session.exists()

    def test_empty_session_goes(self, state: Path) -> None:
        take(state).remove()
        (state / "sessions" / str(uuid4())).mkdir()
        sweep(str(state))
        assert list_sessions(state) == []

    @pytest.mark.parametrize("change", [b'"version": 2', b'"version": "x"'])
    def test_lease_of_another_version_stays(self, state: Path, place: Path, change: bytes) -> None:
        root, session = abandon(state)
        raw = (session / "lease").read_bytes().replace(b'"version": 1', change)
        (session / "lease").write_bytes(raw)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert (session / "lease").read_bytes() == raw

    def test_lease_of_another_session_deletes_nothing(self, state: Path, place: Path) -> None:
        root, session = abandon(state)
        session.rename(session.with_name(str(uuid4())))
        sweep(str(state))
        assert (root / "d" / "file").exists()

    @pytest.mark.parametrize("kind", ["fifo", "link", "directory", "other name"])
    def test_odd_leases_delete_nothing(self, state: Path, place: Path, kind: str) -> None:
        root, session = abandon(state)
        lease = session / "lease"
        if kind == "other name":
            lease = session.rename(state / "sessions" / "not-a-session") / "lease"
        else:
            moved = lease.rename(state / "moved")
        if kind == "fifo":
            os.mkfifo(lease)
        elif kind == "link":
            lease.symlink_to(moved)
        elif kind == "directory":
            lease.mkdir()
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert os.path.lexists(lease)

    @pytest.mark.root
    def test_lease_of_somebody_else(self, state: Path, place: Path) -> None:
        root, session = abandon(state)
        os.chown(session / "lease", 12345, 12345)
        sweep(str(state))
        assert (root / "d" / "file").exists()
        assert (session / "lease").exists()

    @pytest.mark.root
    def test_mount_is_left_for_later(self, state: Path, place: Path, bait: Path) -> None:
        root, session = abandon(state)
        if subprocess.run(["mount", "--bind", bait, root / "d"], check=False).returncode:
            pytest.skip("bind mounts are not allowed here")
        try:
            sweep(str(state))
            assert (root / "d" / "secret").exists()
            assert (session / "lease").exists()
        finally:
            subprocess.run(["umount", root / "d"], check=True)
        sweep(str(state))
        assert not root.exists()
        assert not session.exists()


class TestRaces:
    def test_sweeps_at_once(self, state: Path, place: Path) -> None:
        kept, _ = abandon(state, kept=True)
        for _ in range(60):
            abandon(state)
        code = "import sys; from sandyard.workspace.sweep import sweep; sweep(sys.argv[1])"
        programs = [
            subprocess.Popen([sys.executable, "-c", code, state], stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(sweep, str(state)) for _ in range(3)]:
                done.result()
        for program in programs:
            assert program.communicate()[1] == b""
        sweep(str(state))  # what one could not lock because another looked at it just then
        assert list(place.iterdir()) == [kept]
        assert len(list_sessions(state)) == 1

    def test_new_sessions_survive_sweeps(self, state: Path, place: Path) -> None:
        with keep_sweeping(state):
            for _ in range(300):
                use_once(state)
        assert list(place.iterdir()) == []
        assert list_sessions(state) == []

    def test_lease_is_not_taken_for_an_older(self, state: Path) -> None:
        session_id = str(uuid4())
        session = state / "sessions" / session_id
        take(state, session_id).remove()
        (session / "more").mkdir(parents=True)  # so that it stays when its lease goes
        with keep_sweeping(state):
            for _ in range(1000):
                with take(state, session_id) as lease:
                    for _ in range(10):
                        assert (session / "lease").exists()
                    lease.remove()

    def test_slow_sweep_is_no_owner(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sandyard.workspace.lease.LEASE_HELD_S", 0.0)
        session_id = str(uuid4())
        file = state / "sessions" / session_id / "lease"
        take(state).remove()
        file.parent.mkdir()
        with ThreadPoolExecutor(1) as threads, locked(file):  # an empty one, as just before a write
            taking = threads.submit(take, state, session_id)
            time.sleep(0.05)
            assert not taking.done()
        lease = taking.result()
        lease.keep()
        with ThreadPoolExecutor(1) as threads, locked(file):
            retaking = threads.submit(lease.retake)
            time.sleep(0.05)
            assert not retaking.done()
        retaking.result()
        assert lease.held
        lease.remove()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a file's lock, as a sweep does that gets no processor just then."""
    with file.open("ab") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@contextmanager
def keep_sweeping(state: Path) -> Iterator[None]:
    """Sweep all the time, in two threads."""
    over = threading.Event()

    def sweep_on() -> None:
        while not over.is_set():
            sweep(str(state))

    with ThreadPoolExecutor(2) as threads:
        sweepers = [threads.submit(sweep_on) for _ in range(2)]
        try:
            yield
        finally:
            over.set()
        for sweeper in sweepers:
            sweeper.result()


def use_once(state: Path) -> None:
    """A session from its beginning to its end, closed in between; its root must be there."""
    session_id, path = str(uuid4()), WorkspaceRoot.private_path()
    with Lease.take(str(state), session_id, root=path, owned=True) as lease:
        assert (state / "sessions" / session_id / "lease").exists()
        with WorkspaceRoot.create_private(path) as root:
            lease.note(root.inode)
            Path(path, "file").touch()
            lease.keep()
            assert Path(path, "file").exists()
            lease.retake()
            assert lease.held
            assert root.delete()
        lease.remove()
