"""What is moved from pipe to pipe and on to a file: every byte, once, in order."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard.process.relay import Relay

SIZE = 256 * 1024


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay(SIZE)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_moves_what_is_there(pipe: tuple[int, int], relay: Relay) -> None:
    with pytest.raises(BlockingIOError):
        relay.fill(pipe[0], SIZE)
    os.write(pipe[1], b"one, two")
    assert relay.fill(pipe[0], 3) == 3
    assert relay.fill(pipe[0], SIZE) == 5
    assert os.read(relay.out, SIZE) == b"one, two"


def test_tells_of_the_end(relay: Relay) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"last")
    os.close(write_end)
    assert relay.fill(read_end, SIZE) == 4
    assert relay.fill(read_end, SIZE) == 0
    os.close(read_end)


def test_takes_no_more_than_fits(pipe: tuple[int, int], relay: Relay) -> None:
    given = os.urandom(61_440)
    for _ in range(4):
        os.write(pipe[1], given)
        assert relay.fill(pipe[0], SIZE) == len(given)
    os.write(pipe[1], given)
    rest = relay.size - 4 * len(given)
    assert relay.fill(pipe[0], SIZE) == rest < len(given)
    with pytest.raises(BlockingIOError):
        relay.fill(pipe[0], SIZE)
    assert os.read(relay.out, 2 * SIZE) == 4 * given + given[:rest]


@pytest.mark.parametrize("moves", [True, False])
def test_writes_into_a_file(
    pipe: tuple[int, int],
    relay: Relay,
    file: int,
    monkeypatch: pytest.MonkeyPatch,
    moves: bool,
) -> None:
    given, splice = os.urandom(50_000), os.splice

    def refuse(source: int, into: int, size: int, **more: int) -> int:
        if into == file:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return splice(source, into, size, **more)

    if not moves:
        monkeypatch.setattr(os, "splice", refuse)
    os.write(pipe[1], given)
    assert relay.fill(pipe[0], SIZE) == len(given)
    relay.write(file, 20_000, 100)
    relay.write(file, 30_000, 20_100)
    assert os.pread(file, SIZE, 0) == bytes(100) + given


def test_says_why_nothing_is_written(pipe: tuple[int, int], relay: Relay) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.write(pipe[1], b"x")
    relay.fill(pipe[0], SIZE)
    with pytest.raises(OSError, match="No space left"):
        relay.write(full, 1, 0)
    os.close(full)


def test_not_every_system_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "splice")
    with pytest.raises(OSError, match="not implemented"):
        Relay(SIZE)
