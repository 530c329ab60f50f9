"""A save with a second program that reads along: the same tree, whatever becomes of that program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import WorkspaceArchiveReadError
from sandyard.workspace import WorkspaceRoot, persist_shared, reader, reader_program
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.persist_saving import save_tree
from sandyard.workspace.persist_shared import SharedSaving
from sandyard.workspace.progress import HeardTally, Progress, Tracker
from sandyard.workspace.reader import Reader, ReaderLostError
from sandyard.workspace.stat_index import IndexWriter, Looks, StatIndex
from tests.snapshot.test_incremental import Memory, Saved, save, settle
from tests.workspace.sample import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIRECTORIES = 12
FILES = 90
"""In each directory: more than one request names."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Something of everything, beside many files."""
    top = tmp_path / "base"
    top.mkdir()
    for number in range(DIRECTORIES):
        place = top / ("d" if number % 2 else "e") / f"n{number}" / "deep"
        place.mkdir(parents=True)
        for file in range(FILES):
            path = place / f"f{file}"
            path.write_bytes(b"%d" % (file % 7) * (file * number))
            path.chmod(0o640 if file % 2 else 0o755)
        (place / "f10dir").mkdir()
        (place / "f20link").symlink_to("f1")
        os.link(place / "f30", place.parent / "other")
    fill_beside(top)
    (top / "d/far").write_bytes(b"from the year 2300")
    os.utime(top / "d/far", ns=(1, 2**34 * 10**9))
    (top / "more").write_bytes(os.urandom(reader_program.SLOT_BYTES + 1))
    (top / "just").write_bytes(os.urandom(reader_program.SLOT_BYTES))
    (top / "d/setuid").write_bytes(b"setuid")
    (top / "d/setuid").chmod(0o4755)
    (top / "d/.sandyard-0123456789abcdef").write_bytes(b"named like ours")
    os.mkfifo(top / "e/fifo")
    return top


def fill_beside(top: Path) -> None:
    (top / "sample").mkdir()
    fill(top / "sample")


@pytest.fixture
def root(base: Path) -> Iterator[WorkspaceRoot]:
    with WorkspaceRoot.open(base) as opened:
        yield opened


@pytest.fixture
def alone(root: WorkspaceRoot, base: Path) -> Saved:
    """What one program saves."""
    settle(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persist_shared, "_has_processors", lambda: False)
        return save(root, Memory())


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs save whatever there is, on any machine, however long the second takes to start."""
    monkeypatch.setattr(persist_shared, "_has_processors", lambda: True)
    monkeypatch.setattr(persist_shared, "_FILES_FIRST", 1)
    start = SharedSaving._start  # noqa: SLF001

    def started(saving: SharedSaving) -> None:
        start(saving)
        saving._hear(wait=True)  # noqa: SLF001

    monkeypatch.setattr(SharedSaving, "_start", started)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, eager: None) -> list[int]:
    """How many files each answer was about."""
    del eager
    heard: list[int] = []
    real = Reader.answer

    def answer(self: Reader, *, wait: bool = False) -> reader.Answer | None:
        found = real(self, wait=wait)
        if found is not None:
            heard.append(sum(each[0] for each in found.results))
        return found

    monkeypatch.setattr(Reader, "answer", answer)
    return heard


def readers(parent: int | None = None) -> list[int]:
    """Such programs that a program (default: this one) has started and that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
            starter = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"reader_program" in words and starter == (parent or os.getpid()):
            found.append(int(path.name))
    return found


def files_open() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def when_asked(monkeypatch: pytest.MonkeyPatch, count: int, act: Callable[[int], object]) -> None:
    """Do something to the second program before it is asked for the n-th time."""
    real, left = Reader.ask, [count]

    def ask(self: Reader, directory: int, names: list[bytes]) -> bool:
        left[0] -= 1
        if not left[0]:
            (pid,) = readers()
            act(pid)
        return real(self, directory, names)

    monkeypatch.setattr(Reader, "ask", ask)


def ended(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while b") Z" not in Path(f"/proc/{pid}/stat").read_bytes():
        time.sleep(0.001)


def test_same_tree(root: WorkspaceRoot, alone: Saved, answers: list[int]) -> None:
    before = files_open()
    intake = Memory()
    both = save(root, intake)
    assert both.top == alone.top
    assert both.report == alone.report
    assert sum(answers) > FILES
    assert (readers(), files_open()) == ([], before)
    intake.given = 0
    again = save(root, intake, both.looks)
    assert (again.top, again.report) == (alone.top, alone.report)
    known = save(root, Memory(), alone.looks)
    assert known.top == alone.top


def test_new_files_beside_old(
    root: WorkspaceRoot, base: Path, alone: Saved, answers: list[int]
) -> None:
    """Directories that look as they did, and have others in them that are left with gaps."""
    intake = Memory()
    first = save(root, intake)
    assert first.top == alone.top
    place = base / "d/n1/deep/f10dir/new"
    place.mkdir()
    for number in range(200):
        (place / f"f{number}").write_bytes(b"%d" % number)
    settle(base)
    answers.clear()
    both = save(root, intake, first.looks)
    assert sum(answers) > 100
    assert both.top == save(root, Memory()).top


def test_nothing_new_starts_nothing(root: WorkspaceRoot, base: Path, eager: None) -> None:
    del eager
    settle(base)
    intake = Memory()
    first = save(root, intake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persist_shared, "Reader", None)
        patch.setattr(
            persist_shared, "_FILES_FIRST", 10
        )  # few are read at each save, to be told of
        save(root, intake, first.looks)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_second_program_killed(
    root: WorkspaceRoot,
    alone: Saved,
    eager: None,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    del eager
    when_asked(monkeypatch, count, ended)
    before = files_open()
    both = save(root, Memory())
    assert (both.top, both.report) == (alone.top, alone.report)
    assert (readers(), files_open()) == ([], before)


def test_killed_while_waited_for(
    root: WorkspaceRoot, alone: Saved, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls silent, is waited for, and ends."""
    del eager
    timers: list[threading.Timer] = []

    def act(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        timers.append(threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)))
        timers[0].start()

    when_asked(monkeypatch, 3, act)
    both = save(root, Memory())
    timers[0].join()
    assert (both.top, both.report) == (alone.top, alone.report)


@pytest.mark.parametrize("place", ["", "/nowhere/python", "/bin/false"])
def test_cannot_be_started(
    root: WorkspaceRoot,
    alone: Saved,
    eager: None,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    del eager
    monkeypatch.setattr(reader, "own_interpreter", lambda: place)
    before = files_open()
    both = save(root, Memory())
    assert (both.top, both.report) == (alone.top, alone.report)
    assert (readers(), files_open()) == ([], before)


@pytest.mark.parametrize("call", ["memfd_create", "eventfd", "pidfd_open"])
def test_short_of_descriptors(
    root: WorkspaceRoot,
    alone: Saved,
    eager: None,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    del eager

    def refuse(*_: object) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, call, refuse)
    before = files_open()
    assert save(root, Memory()).top == alone.top
    assert files_open() == before


def test_slow_to_start(root: WorkspaceRoot, alone: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for before it is there."""
    monkeypatch.setattr(persist_shared, "_has_processors", lambda: True)
    monkeypatch.setattr(persist_shared, "_FILES_FIRST", 1)
    monkeypatch.setattr(reader, "_PROGRAM", "import time; time.sleep(1000)  # reader_program")
    both = save(root, Memory())
    assert (both.top, both.report) == (alone.top, alone.report)
    assert readers() == []


def test_cancelled_while_waiting(
    root: WorkspaceRoot, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del eager
    stopped = threading.Event()
    timer = threading.Timer(0.2, stopped.set)

    def act(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        timer.start()

    when_asked(monkeypatch, 3, act)
    before = files_open()
    with pytest.raises(Abandoned):
        save_tree(root, Memory(), Looks(StatIndex(), IndexWriter(len)), frozenset(), stopped)
    timer.join()
    assert (readers(), files_open()) == ([], before)


def test_intake_fails(root: WorkspaceRoot, eager: None) -> None:
    """The store's own error ends the save, and the second program."""
    del eager

    class Full(Memory):
        def put_run(self, run: memoryview, objects: list[tuple[bytes, int]]) -> None:
            raise OSError(28, "no space left on device")

    before = files_open()
    with pytest.raises(WorkspaceArchiveReadError, match="disk or quota is full"):
        save(root, Full())
    assert (readers(), files_open()) == ([], before)


def test_progress_is_whole(root: WorkspaceRoot, alone: Saved, answers: list[int]) -> None:
    heard: list[Progress] = []
    looks = Looks(StatIndex(), IndexWriter(len))
    tracker = Tracker(heard.append)
    tallies = partial(HeardTally, tracker)
    save_tree(root, Memory(), looks, frozenset(), threading.Event(), None, tallies)
    assert answers
    assert heard[-1].files == sum(
        (alone.report.files, alone.report.symlinks, alone.report.hard_links)
    )
    assert heard[-1].size == alone.report.size


@pytest.mark.root
def test_acts_as_owner(base: Path, answers: list[int]) -> None:
    """A file in somebody's workspace that is not theirs to read is not read by root for them."""
    for path in (base, *base.rglob("*")):
        os.chown(path, 4321, 4321, follow_symlinks=False)
    planted = [base / f"d/n1/deep/f{number}" for number in (11, 40)]
    for path in planted:
        os.chown(path, 0, 0)
        path.chmod(0o600)
    with WorkspaceRoot.open(base) as root:
        saved = save(root, intake := Memory())
    assert sum(answers) > FILES
    told = {(note.path, note.reason) for note in saved.report.skipped}
    assert told >= {(str(path.relative_to(base)), "unreadable") for path in planted}
    assert intake.held


class Serving:
    """The program, as a thread of this one."""

    def __init__(self, stack: list[int]) -> None:
        self.contents = b""
        self.memory = os.memfd_create("test")
        os.ftruncate(self.memory, reader_program.SLOTS * reader_program.SLOT_BYTES)
        self.free = os.eventfd(reader_program.SLOTS, os.EFD_SEMAPHORE)
        self.us = os.pidfd_open(os.getpid())
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack += [self.memory, self.free, self.us]
        numbers = theirs.detach(), self.memory, self.free, self.us, -1, -1
        self.thread = threading.Thread(target=reader_program.serve, args=numbers)
        self.thread.start()

    def ask(self, place: Path, *names: str) -> list[reader.Result]:
        opened = os.open(place, os.O_RDONLY)
        socket.send_fds(self.channel, ["/".join(names).encode()], [opened])
        os.close(opened)
        found: list[reader.Result] = []  # the first answer is about nothing
        while len(found) < len(names):
            said = self.channel.recv(reader_program.ANSWER_BYTES)
            if said[0] < reader_program.SLOTS:
                self.contents = os.pread(self.memory, 100, said[0] * reader_program.SLOT_BYTES)
                os.eventfd_write(self.free, 1)
            found += reader_program.RESULT.iter_unpack(said[1:])
        return found


@pytest.fixture
def serving() -> Iterator[Serving]:
    stack: list[int] = []
    service = Serving(stack)
    yield service
    service.channel.close()
    service.thread.join()
    for each in stack:
        os.close(each)


def test_reads_only_what_is_plain(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"bytes")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("plain")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "far").write_bytes(b"from the year 2300")
    os.utime(tmp_path / "far", ns=(1, 2**33 * 10**9 * 2))
    (tmp_path / "set").write_bytes(b"bytes")
    (tmp_path / "set").chmod(0o2755)
    (tmp_path / "large").write_bytes(bytes(reader_program.SLOT_BYTES + 1))
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(100_000)
    names = (
        "plain",
        "empty",
        "link",
        "directory",
        "fifo",
        "set",
        "large",
        "holes",
        "gone",
        "plain",
    )
    read = [each[0] for each in serving.ask(tmp_path, *names)]
    assert read == [True, True, *[False] * 7, True]


def test_attributes_are_not_plain(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "noted").write_bytes(b"bytes")
    try:
        os.setxattr(tmp_path / "noted", "user.note", b"kept")
    except OSError:
        pytest.skip("the file system has no attributes")
    assert [each[0] for each in serving.ask(tmp_path, "noted")] == [False]


@pytest.mark.parametrize("size", [3, 8])
def test_changed_while_read(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """What shrinks or grows meanwhile is left to who can tell of it."""
    (tmp_path / "file").write_bytes(b"bytes")
    real = os.preadv

    def read(*asked: object) -> int:
        os.truncate(tmp_path / "file", size)
        return real(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", read)
    assert [each[0] for each in serving.ask(tmp_path, "file")] == [False]


def test_all_slots_in_turn(serving: Serving, tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(os.urandom(400_000))
    assert all(each[0] for each in serving.ask(tmp_path, *names))


_HOST = """
import os, sys, threading
from sandyard.workspace.reader import Reader
with Reader(None, threading.Event()) as reader:
    here = os.open(sys.argv[1], os.O_RDONLY)
    reader.ask(here, [b"file"])
    assert not reader.answer(wait=True).results
    assert reader.answer(wait=True).results[0][0]
    if sys.argv[2] == "fork" and not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_ends_with_killed_host(tmp_path: Path, how: str) -> None:
    """Also where a program that was forked from the host holds its end of the channel."""
    (tmp_path / "file").write_bytes(b"bytes")
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST, str(tmp_path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        found = readers(host.pid)
        host.kill()
        (second,) = found
        until = time.monotonic() + 10
        while Path(f"/proc/{second}").exists() and time.monotonic() < until:
            time.sleep(0.005)
        assert not Path(f"/proc/{second}").exists()


def test_lost_is_told(tmp_path: Path) -> None:
    with Reader(None, threading.Event()) as one:
        (pid,) = readers()
        one.answer(wait=True)
        ended(pid)
        with pytest.raises(ReaderLostError):
            one.answer(wait=True)
