"""Processes that nobody can end for a while: they are waited for, at next to no cost.

A process in a frozen cgroup of the first version hangs in the kernel ('D') and takes SIGKILL only
when it is thawed, as one does that waits for a dead disk or server.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard.process.wire import Exited, Spawned
from tests.house.leaks import list_children, list_controllers, read_proc, read_state
from tests.process.protocol import KILL, SIGNAL, packed
from tests.process.raw_init import RawInit, wait_until
from tests.session.host import make_token, name_of

pytestmark = pytest.mark.root

JOB, OTHER = 7, 9
SETTLED_S, WATCHED_S = 0.6, 1.0
"""Until pauses have grown to their longest, about 0.5 s; and how long is looked then."""
MOST_WAKES = 25
"""In a watched second four are meant to be; at a pause of 2 ms there are hundreds."""
MOST_TICKS = 20
"""Hundredths of a second of processor time."""


class Freezer:
    """A cgroup in which processes can be made to hang."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def freeze(self, pids: list[int]) -> None:
        """Lets processes hang, and waits until they do."""
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))
        (self.path / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (self.path / "freezer.state").read_text().strip() == "FROZEN")
        assert all(read_state(pid)[0] == "D" for pid in pids)

    def thaw(self) -> None:
        """Lets them go on."""
        (self.path / "freezer.state").write_text("THAWED")


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    """A freezer of our own."""
    parents = [Path(p) for p in list_controllers() if Path(p, "cgroup.clone_children").exists()]
    holders = [parent for parent in parents if "/freezer" in str(parent)]
    if not holders or not os.access(holders[0], os.W_OK):
        pytest.skip("there is no freezer of the first version of cgroups")
    made = Freezer(holders[0] / f"sandyard-test-{os.getpid()}")
    made.path.mkdir()
    try:
        yield made
    finally:
        made.thaw()
        wait_until(lambda: not (made.path / "cgroup.procs").read_text())
        made.path.rmdir()


def find_token(token: str) -> list[int]:
    """The host's numbers of the processes with a token in their command line."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if token in read_proc(f"/proc/{pid}/cmdline")]


def find_init(raw: RawInit) -> int:
    """The host's number of a sandbox's first process."""
    (init,) = list_children(raw.pid)
    return init


def find_keeper(pid: int) -> int:
    """The keeper above a command."""
    while name_of(pid) != "sandyard-keeper":
        pid = read_state(pid)[1]
    return pid


def used_ticks(pid: int) -> int:
    """Processor time of a process."""
    fields = read_proc(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def count_wakes(pid: int) -> int:
    """How often a process has waited for something."""
    for line in read_proc(f"/proc/{pid}/status").splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has gone")


def assert_idle(pid: int) -> None:
    """A process has next to nothing to do. Both counts are its own, whatever else runs."""
    time.sleep(SETTLED_S)
    wakes, ticks = count_wakes(pid), used_ticks(pid)
    time.sleep(WATCHED_S)
    assert count_wakes(pid) - wakes <= MOST_WAKES
    assert used_ticks(pid) - ticks <= MOST_TICKS


def start_sleeper(init: RawInit, job: int, script: str = "exec sleep {}") -> list[int]:
    """Starts a command that stays; returns its processes, as the host numbers them."""
    token = make_token()
    init.spawn(job, b"sh", b"-c", script.replace("{}", token).encode(), flags=1)
    assert isinstance(init.event(), Spawned)
    wait_until(lambda: [pid for pid in find_token(token) if name_of(pid) == "sleep"])
    return find_token(token)


def assert_serves(init: RawInit) -> None:
    init.spawn(OTHER, b"sh", b"-c", b"exit 3")
    told = init.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.status, told.left) == (OTHER, 3 << 8, 0)


def assert_gone(pids: list[int]) -> None:
    wait_until(lambda: all(read_state(pid)[0] == "?" for pid in pids))


SCRIPTS = {
    "command": "exec sleep {}",
    "child": "sleep {} & wait",
    "orphan": "(setsid sh -c 'sleep {} & wait' &) ; sleep {}",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_hung_tree_is_waited_for(started: RawInit, freezer: Freezer, script: str) -> None:
    pids = start_sleeper(started, JOB, SCRIPTS[script])
    sleepers = [pid for pid in pids if name_of(pid) == "sleep"]
    keeper = find_keeper(sleepers[0])
    freezer.freeze(sleepers)
    started.send_body(KILL, JOB, packed("kill_body", 0, 0))
    assert_serves(started)
    assert_idle(keeper)
    assert_idle(find_init(started))
    assert_serves(started)
    freezer.thaw()
    told = started.event()
    assert isinstance(told, Exited), told
    assert (told.job, told.killed, told.left) == (JOB, True, 0)
    assert_gone(pids)
    assert_serves(started)


def test_questions_do_not_hurry_it(started: RawInit, freezer: Freezer) -> None:
    """However often the host asks, a hung tree is tried again at the tree's own pace."""
    (pid,) = start_sleeper(started, JOB)
    keeper = find_keeper(pid)
    freezer.freeze([pid])
    started.send_body(KILL, JOB, packed("kill_body", 0, 0))
    time.sleep(SETTLED_S)
    ticks = used_ticks(keeper)
    for _ in range(1000):
        started.send_body(SIGNAL, JOB, packed("signal_body", signal.SIGUSR1, 0))
        started.send_body(KILL, JOB, packed("kill_body", 0, 0))
        time.sleep(0.001)
    assert used_ticks(keeper) - ticks <= MOST_TICKS
    freezer.thaw()
    told = started.event()
    assert isinstance(told, Exited), told
    assert told.killed
    assert_gone([pid])


def test_hung_strays_are_waited_for(started: RawInit, freezer: Freezer) -> None:
    """The same without a keeper, where it is init's own work."""
    pids = start_sleeper(started, JOB, SCRIPTS["child"])
    sleepers = [pid for pid in pids if name_of(pid) == "sleep"]
    init = find_init(started)
    freezer.freeze(sleepers)
    started.send_body(KILL, JOB, packed("kill_body", 1, 0))
    assert_serves_beside(started, lost=JOB)
    assert read_state(sleepers[0]) == ("D", init)
    assert_idle(init)
    assert_serves(started)
    freezer.thaw()
    assert_gone(pids)
    assert_serves(started)
    assert_idle(init)


def assert_serves_beside(init: RawInit, lost: int) -> None:
    """Commands run while strays are waited for; then the loss of their keeper is told."""
    init.spawn(OTHER, b"sh", b"-c", b"exit 3")
    told = {}
    for _ in range(2):
        event = init.event()
        assert isinstance(event, Exited), event
        told[event.job] = event
    assert (told[OTHER].status, told[OTHER].keeper_lost) == (3 << 8, False)
    assert (told[lost].status, told[lost].keeper_lost) == (signal.SIGKILL, True)
