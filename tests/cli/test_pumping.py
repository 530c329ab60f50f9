"""Bytes through `sandyard run`: whole, in order, as they come, and never a reason to hang."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.calling import PATIENCE_S, SANDYARD, begin, call, find_token, make_token

MUCH = 5_000_000
SOON_S = 5  # a call takes less than one second; a hang takes forever


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for the end, and take what was still written."""
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


# --- whole ------------------------------------------------------------------------------------


def test_much_passes_both_ways() -> None:
    data = os.urandom(MUCH)
    done = call("run", "--", "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_much_passes_to_stderr() -> None:
    data = os.urandom(MUCH)
    done = call("run", "--", "sh", "-c", "cat >&2", stdin=data)
    assert hashlib.sha256(done.stderr).digest() == hashlib.sha256(data).digest()


def test_much_passes_between_files(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(MUCH))
    with source.open("rb") as stdin, target.open("wb") as stdout:
        subprocess.run(
            [*SANDYARD, "run", "cat"], stdin=stdin, stdout=stdout, timeout=PATIENCE_S, check=True
        )
    assert target.read_bytes() == source.read_bytes()


def test_slow_reader_loses_nothing() -> None:
    process = begin("run", "--", "sh", "-c", f"head -c {MUCH} /dev/zero; echo end")
    assert process.stdout is not None
    time.sleep(1)
    code, stdout, _ = finish(process)
    assert (code, len(stdout), stdout[-4:]) == (0, MUCH + 4, b"end\n")


# --- as it comes ------------------------------------------------------------------------------


def test_conversation() -> None:
    process = begin("run", "--", "sh", "-c", "while read x; do echo got $x; done", stdin=-1)
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        assert process.stdout.readline() == b"got " + word + b"\n"
    process.stdin.close()
    process.stdin = None
    assert finish(process)[0] == 0


# --- kinds of stdin ---------------------------------------------------------------------------


def test_no_stdin_is_empty() -> None:
    assert finish(begin("run", "--", "sh", "-c", "cat; echo end"))[:2] == (0, b"end\n")


@pytest.mark.parametrize(
    ("closing", "out", "err"),
    [("<&-", b"out\n", b"err\n"), (">&-", b"", b"err\n"), ("2>&-", b"out\n", b"")],
)
def test_streams_may_be_closed(closing: str, out: bytes, err: bytes) -> None:
    # Started by a shell without a script, which would put other files into their places.
    text = f"exec {' '.join(SANDYARD)} run -- sh -c 'cat; echo out; echo err >&2' {closing}"
    done = subprocess.run(
        ["sh", "-c", text],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


def test_terminal_is_read() -> None:
    ours, theirs = pty.openpty()
    try:
        process = begin("run", "--", "cat", stdin=theirs)
        os.write(ours, b"typed\n\x04")
        assert finish(process)[:2] == (0, b"typed\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_unread_pipe_does_not_hold() -> None:
    reading, writing = os.pipe()
    try:
        process = begin("run", "--", "true", stdin=reading)
        start = time.monotonic()
        assert finish(process)[0] == 0
        assert time.monotonic() - start < SOON_S
    finally:
        os.close(reading)
        os.close(writing)


def test_unread_terminal_does_not_hold() -> None:
    ours, theirs = pty.openpty()
    try:
        assert finish(begin("run", "--", "sh", "-c", "exit 4", stdin=theirs))[0] == 4
    finally:
        os.close(ours)
        os.close(theirs)


def test_command_need_not_read_all() -> None:
    done = call("run", "--", "head", "-c", "3", stdin=b"abc" * 1_000_000)
    assert (done.returncode, done.stdout) == (0, b"abc")


def test_descriptors_are_pipes_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with (tmp_path / "file").open("r+b") as file:
        done = subprocess.run(
            [*SANDYARD, "run", "--", "sh", "-c", "readlink /proc/self/fd/0; echo no >&0"],
            stdin=file,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.stdout.startswith(b"pipe:")
    assert (tmp_path / "file").read_text() == "kept"


def test_flags_of_our_streams_stay() -> None:
    reading, writing = os.pipe()
    try:
        process = begin("run", "--", "true", stdin=reading, stdout=writing)
        finish(process)
        assert os.get_blocking(reading)
        assert os.get_blocking(writing)
    finally:
        os.close(reading)
        os.close(writing)


# --- the end ----------------------------------------------------------------------------------


def test_broken_pipe_ends_command() -> None:
    token = make_token()
    process = begin("run", "--", "sh", "-c", "while :; do echo y; done", token)
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    process.stdout = None
    code, _, stderr = finish(process)
    assert (code, stderr) == (141, b"")
    assert find_token(token) == []


def test_full_disk_is_said() -> None:
    with open("/dev/full", "wb") as full:
        code, _, stderr = finish(begin("run", "--", "echo", "x", stdout=full.fileno()))
    assert code == 125
    assert b"No space left" in stderr


def test_stuck_reader_does_not_hold_timeout() -> None:
    process = begin("run", "--timeout", "0.5", "--", "yes")
    try:
        assert process.wait(SOON_S) == 124
    finally:
        finish(process)


def wait_for_word(process: subprocess.Popen[bytes]) -> None:
    """Wait until the command has written its first line."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_signal_goes_to_whole_tree(number: signal.Signals, code: int) -> None:
    token = make_token()
    process = begin("run", "--", "sh", "-c", f"sh -c 'sleep 60; :' {token} & echo up; wait; wait")
    wait_for_word(process)
    process.send_signal(number)
    assert finish(process) == (code, b"", b"")
    assert find_token(token) == []


def test_signal_wakes_stopped_command() -> None:
    process = begin("run", "--", "sh", "-c", "echo up; kill -STOP $$; sleep 60")
    wait_for_word(process)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_command_may_answer_signal() -> None:
    process = begin(
        "run", "--", "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; sleep 60 & wait"
    )
    wait_for_word(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[:2] == (5, b"bye\n")


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGTERM, 143),
    ],
)
def test_second_signal_kills(first: signal.Signals, second: signal.Signals, code: int) -> None:
    token = make_token()
    text = "trap '' INT TERM; echo up; while :; do sleep 1; done"
    process = begin("run", "--", "sh", "-c", text, token)
    wait_for_word(process)
    process.send_signal(first)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    assert finish(process) == (code, b"", b"")
    assert find_token(token) == []


def test_ignored_signal_stays_ignored() -> None:
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {' '.join(SANDYARD)} run -- sh -c 'echo up; sleep 1'"],
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    wait_for_word(process)
    process.send_signal(signal.SIGHUP)
    assert finish(process)[0] == 0


def test_killed_host_leaves_no_process() -> None:
    token = make_token()
    process = begin("run", "--workspace", ".", "--", "sh", "-c", f"echo up; sleep 60; : {token}")
    wait_for_word(process)
    assert find_token(token)
    process.kill()
    finish(process)
    assert wait_until(lambda: not find_token(token))
    assert call("run", "--", "true").returncode == 0  # which removes the lease that it left


def wait_until(condition: Callable[[], bool]) -> bool:
    """Give the kernel a moment."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
