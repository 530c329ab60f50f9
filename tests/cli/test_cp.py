"""`sandyard cp` and `cat`: files and trees between this machine and sessions, as real programs."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import ServerError
from sandyard.cli.copying import unpacked
from sandyard.cli.places import Place, place_of
from sandyard.cli.progress import readable_size
from tests.archive.making import item, tar_of
from tests.cli.calling import PATIENCE_S, SANDYARD, call
from tests.supervisor.conftest import home
from tests.supervisor.living import supervisor_pid, wait_until

__all__ = ["home"]

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)

_BIG = 64 * 1024 * 1024
_MOST_KIB = 24 * 1024


@pytest.fixture
def web(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A session called "web", and a directory of this machine's to work in, with a tree "src"."""
    assert call("create", "--name", "web").returncode == 0
    (home / "work" / "src" / "sub").mkdir(parents=True)
    (home / "work" / "src" / "sub" / "run").write_bytes(b"#!/bin/sh\n")
    (home / "work" / "src" / "sub" / "run").chmod(0o751)
    (home / "work" / "src" / "out").symlink_to("/etc/passwd")
    monkeypatch.chdir(home / "work")
    return home / "work"


def copy(*words: str, stdin: bytes = b"") -> bytes:
    """Copy, and return what is said about it."""
    done = call("cp", *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    return done.stderr


def test_tree_goes_and_comes(web: Path) -> None:
    assert copy("src", "web:") == b""
    text = "stat -c '%a %n' src/sub/run; readlink src/out; echo made > src/new"
    done = call("exec", "web", "sh", "-c", text)
    assert done.stdout == b"751 src/sub/run\n/etc/passwd\n"
    done = call("cp", "web:src", "back")
    assert done.returncode == 1
    assert b"web:src: out: left out: a symlink that leads out" in done.stderr
    assert sorted(os.listdir(web / "back")) == ["new", "sub"]
    assert (web / "back" / "new").read_text() == "made\n"
    assert copy("--outer-links", "web:src/.", "back") == b""
    assert (web / "back" / "sub" / "run").stat().st_mode & 0o777 == 0o751
    assert os.readlink(web / "back" / "out") == "/etc/passwd"
    assert copy("web:src/new", "web:src/sub/run", "back/sub") == b""
    assert sorted(os.listdir(web / "back" / "sub")) == ["new", "run"]
    assert copy("web:src/.", "web:.") == b""  # from one session to another, or the same
    listed = [json.loads(line) for line in call("ls", "web:", "--json").stdout.splitlines()]
    assert [one["path"].rpartition("/")[2] for one in listed] == ["new", "out", "src", "sub"]
    assert copy("-", "web:src/typed", stdin=b"typed\xff") == b""
    assert call("cat", "web:src/typed", "web:src/new").stdout == b"typed\xffmade\n"


def test_hostile_links_lead_nowhere(web: Path) -> None:
    aside = web.parent / "aside"
    aside.mkdir()
    (aside / "secret").write_text("secret")
    (web / "to").mkdir()
    (web / "to" / "tree").symlink_to(aside)
    (web / "to" / "file").symlink_to(aside / "secret")
    text = f"ln -s {aside}/secret leak; mkdir tree; echo evil > tree/secret; echo evil > file"
    assert call("exec", "web", "sh", "-c", text).returncode == 0
    for words in (["cat", "web:leak"], ["cp", "web:leak", "leaked"], ["cp", "web:tree", "to"]):
        done = call(*words)
        assert (done.returncode, done.stdout) == (125, b""), words
    copy("web:file", "to")  # the link is replaced, not followed
    assert (aside / "secret").read_text() == "secret"
    assert os.listdir(aside) == ["secret"]
    assert sorted(os.listdir(web)) == ["src", "to"]


def test_what_is_left_out_is_said(web: Path) -> None:
    os.mkfifo(web / "src" / "pipe\x1b[2J")  # which no terminal obeys
    done = call("cp", "src", "web:")
    assert done.returncode == 1
    assert done.stderr == b"sandyard: src: pipe\\x1b[2J: left out: fifo\n"
    for words in (
        ["src", "elsewhere"],
        ["nothing", "web:"],
        ["web:nothing", "."],
        ["src", "web:no/such/place"],
        ["", "web:"],
        ["web:src", "src/sub/run"],
        ["src", "web:/etc"],
        ["src", "other:"],
    ):
        done = call("cp", *words)
        assert done.returncode == 125, words
        assert done.stderr.startswith(b"sandyard: "), words
        assert b"Traceback" not in done.stderr
    assert os.listdir(web) == ["src"]


def test_memory_stays_small(web: Path) -> None:
    with (web / "big").open("wb") as file:
        for _ in range(_BIG // 1024 // 1024):
            file.write(os.urandom(1024 * 1024))
    pid = supervisor_pid()
    before = _peak(pid)
    small = _peak_of_copy("src/sub/run", "web:small")
    assert _peak_of_copy("big", "web:") - small < _MOST_KIB
    assert _peak_of_copy("web:big", "again") - small < _MOST_KIB
    assert _peak(pid) - before < _MOST_KIB
    assert (web / "again").read_bytes() == (web / "big").read_bytes()


def _peak_of_copy(*words: str) -> int:
    """The most KiB that a copy has held."""
    with subprocess.Popen([*SANDYARD, "cp", *words]) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def _peak(pid: int) -> int:
    """The most KiB that a process has held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_interrupted_input_leaves_nothing(web: Path) -> None:
    os.mkfifo(web / "slow")
    words = [*SANDYARD, "cp", "-", "web:typed"]
    slow = os.open(web / "slow", os.O_RDWR)
    with subprocess.Popen(words, stdin=slow) as process:
        os.write(slow, b"some")
        wait_until(lambda: not _waiting(slow))  # it has been read, as a part of what comes
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    os.close(slow)
    assert call("ls", "web:").stdout == b""


async def test_interrupted_output_leaves_nothing(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        yield tar_of(item("file", b"x" * 4096))[:2048]
        asked.set()
        await asyncio.Event().wait()

    copying = asyncio.create_task(unpacked(Place(None, str(tmp_path)), cut()))
    async with asyncio.timeout(PATIENCE_S):
        await asked.wait()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert os.listdir(tmp_path) == []


async def test_failed_source_is_reason(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield tar_of(item("file", b"x" * 4096))[:2048]
        raise ServerError("gone", reason="lost")

    with pytest.raises(ServerError, match="gone"):
        await unpacked(Place(None, str(tmp_path)), failing())
    assert os.listdir(tmp_path) == []


def _waiting(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_places_have_forms() -> None:
    assert place_of("web:src/a") == Place("web", "src/a")
    assert place_of("web:") == Place("web", ".")
    assert place_of("./web:src") == Place(None, "./web:src")
    assert place_of("/a:b") == Place(None, "/a:b")
    assert place_of("plain") == Place(None, "plain")
    assert [place_of(text).name for text in ("web:", "web:a/", "a/..", "web:a/.", "b")] == [
        "", "a", "", "", "b",
    ]  # fmt: skip
    assert [readable_size(size) for size in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB",
    ]  # fmt: skip
