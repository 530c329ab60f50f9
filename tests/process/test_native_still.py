"""One signal that stops all of a sandbox, and what lets go on whoever it stopped."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from sandyard.process.events import Stilled
from tests.house.leaks import list_children, read_state
from tests.process.protocol import SIGNAL, STILL, packed
from tests.process.raw_init import RawInit, wait_until
from tests.process.test_native_serve import JOB, assert_killed, assert_serves, sleep_on
from tests.session.host import find_survivors

ORDER = 99


def tell(init: RawInit, on: int, zero: int = 0) -> int:
    """Says who is to be still; returns the errno of the answer."""
    init.send_body(STILL, ORDER, packed("still_body", on, zero))
    told = init.event()
    assert isinstance(told, Stilled), told
    assert told.job == ORDER
    return told.error


def state_of(token: str) -> str:
    return "".join(found.split()[1] for found in find_survivors(token))


def sleeper(init: RawInit, job: int = JOB) -> str:
    """A command that waits for a while, and no more for its own beginning."""
    token = sleep_on(init, job)
    wait_until(lambda: state_of(token) == "S")
    return token


def test_all_are_stopped_and_go_on(started: RawInit) -> None:
    jobs = range(JOB, JOB + 5)
    tokens = [sleeper(started, job) for job in jobs]
    started.send_body(SIGNAL, JOB, packed("signal_body", signal.SIGSTOP, 0))
    wait_until(lambda: state_of(tokens[0]) == "T")
    for _ in range(2):  # what had been stopped before is told apart again
        for _ in range(2):  # saying it again changes nothing
            assert tell(started, 1) == 0
            wait_until(lambda: all(state_of(each) == "T" for each in tokens))
        (init,) = list_children(started.pid)
        keepers = list(list_children(init))
        assert len(keepers) >= len(tokens)
        wait_until(lambda keepers=keepers: all(read_state(each)[0] != "T" for each in keepers))  # type: ignore[misc]
        assert_serves(started)
        for _ in range(2):
            assert tell(started, 0) == 0
            wait_until(lambda: all(state_of(each) == "S" for each in tokens[1:]))
            assert state_of(tokens[0]) == "T"
    started.send_body(SIGNAL, JOB, packed("signal_body", signal.SIGCONT, 0))
    wait_until(lambda: state_of(tokens[0]) == "S")
    for job in jobs:
        assert_killed(started, job)


def test_nobody_is_let_go_on_who_was_not_told_to_stop(started: RawInit) -> None:
    token = sleeper(started)
    started.send_body(SIGNAL, JOB, packed("signal_body", signal.SIGSTOP, 0))
    wait_until(lambda: state_of(token) == "T")
    assert tell(started, 0) == 0
    assert state_of(token) == "T"


def test_commands_that_are_held_can_be_ended(started: RawInit) -> None:
    sleeper(started)
    assert tell(started, 1) == 0
    assert_killed(started, JOB)
    assert tell(started, 0) == 0


def test_nobody_outside_is_stopped(started: RawInit) -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert tell(started, 1) == 0
        assert os.waitpid(child, os.WNOHANG | os.WUNTRACED) == (0, 0)
        assert tell(started, 0) == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(("on", "zero"), [(2, 0), (2**32 - 1, 0), (1, 1), (0, 1)])
def test_odd_words_stop_nobody(started: RawInit, on: int, zero: int) -> None:
    token = sleeper(started)
    assert tell(started, on, zero) == errno.EPROTO
    for body in (b"", packed("still_body", 1, 0)[:7], packed("still_body", 1, 0) + b"\0"):
        started.send_body(STILL, ORDER, body)
        assert started.event() == Stilled(ORDER, errno.EPROTO)
    assert state_of(token) == "S"
    assert_serves(started)
