"""Each system call of a start fails once: then nothing starts, or all walls stand all the same."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final, NamedTuple

import pytest

from sandyard.process.wire import Started, StartFailed, decode_event
from tests.faults_native.inject import RECORD, Call, Fault, traced
from tests.faults_native.probe import look_inside
from tests.process.protocol import Record

JOB: Final = 7
ERRORS: Final = (errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.EINTR)
NEEDLESS: Final = {
    "brk": "the C library maps memory instead",
    "close": "whatever it returns, the descriptor is closed",
    "getrandom": "the C library's hash of addresses is not ours",
    "readlink": "the C library looks for its own path",
    "rseq": "the C library does without",
    "set_robust_list": "there are no threads",
}
RESTARTED: Final = {"poll", "recvmsg", "sendmsg", "wait4"}


class Walls(NamedTuple):
    """What an untouched start does."""

    calls: list[Call]
    steps: Started
    seen: list[str]

    def find(self, fault: Fault) -> Call | None:
        """The call that a fault is meant for."""
        return next((c for c in self.calls if c[:2] == fault[:2]), None)


def is_needless(call: Call, error: int) -> bool:
    """Whether a sandbox may stand although this call has failed."""
    if call.name == "prlimit64" and call.process == 0:
        return True  # the C library looks at the stack; limits are set by another process
    return call.name in NEEDLESS or (error == errno.EINTR and call.name in RESTARTED)


def stand(injector: str, records: list[Record]) -> Walls:
    """A start without a fault."""
    with traced(injector, RECORD) as run:
        run.init.start(records)
        steps = run.init.event()
        assert isinstance(steps, Started)
        run.arm()
        seen = look_inside(run.init, JOB)
        assert isinstance(seen, list)
    assert "NoNewPrivs:\t1" in seen
    assert "Seccomp:\t2" in seen
    assert "pid its own" in seen
    return Walls(calls_before(run.said), steps, seen)


def calls_before(said: str) -> list[Call]:
    """The calls of the start itself."""
    calls = []
    for line in said.partition("A\n")[0].splitlines():
        _, process, number, name = line.split()
        calls.append(Call(int(process), int(number), name))
    return calls


def strike(injector: str, records: list[Record], fault: Fault, walls: Walls) -> str | None:
    """Starts with a fault; returns what is wrong with what became of it."""
    with traced(injector, fault) as run:
        run.init.start(records)
        datagram = run.init.receive()
        told = decode_event(datagram) if datagram else None
        seen = look_inside(run.init, JOB) if isinstance(told, Started) else None
        if told is not None and seen is None:
            rest = run.init.rest()
            if any(not isinstance(event, Started | StartFailed) for event in rest):
                return f"{fault}: goes on with {rest}"
    hit = run.hit()
    if not isinstance(told, Started):
        assert told is None or isinstance(told, StartFailed), told
        if isinstance(told, StartFailed) and told.failure.error <= 0:
            return f"{hit} {fault}: a failure without an error: {told}"
        return None if hit else f"{fault}: failed untouched: {told}"
    if seen is None:
        return None  # it had ended before it ran anything
    if hit is not None and not is_needless(hit, fault.error):
        return f"{hit} {errno.errorcode[fault.error]}: started all the same"
    if told != walls.steps or seen != walls.seen:
        return f"{hit} {errno.errorcode[fault.error]}: started, but {difference(seen, walls.seen)}"
    return None


def difference(seen: object, expected: list[str]) -> str:
    """In which lines a sandbox differs."""
    if not isinstance(seen, list):
        return f"ran nothing: {seen}"
    return f"{set(seen) ^ set(expected)}"


def choose(calls: list[Call]) -> list[Call]:
    """The first call of each kind in each neighbourhood: two calls before it and two after it."""
    chosen = []
    for process in sorted({call.process for call in calls}):
        own = [call for call in calls if call.process == process]
        names = ["", "", *(call.name for call in own), "", ""]
        places = [tuple(names[at : at + 5]) for at in range(len(own))]
        chosen += [call for at, call in enumerate(own) if places.index(places[at]) == at]
    return chosen


def assert_fails_closed(
    injector: str, records: list[Record], chosen: Iterable[Fault], walls: Walls
) -> None:
    problems = []
    for fault in chosen:
        try:
            problem = strike(injector, records, fault, walls)
        except (TimeoutError, AssertionError) as error:
            problem = f"{walls.find(fault)} {errno.errorcode[fault.error]}: {error!r}"
        if problem is not None:
            problems.append(problem)
    assert not problems, "\n".join(problems)


def test_injector_spares(injector: str, records: list[Record]) -> None:
    """A fault that is never reached changes nothing."""
    walls = stand(injector, records)
    assert strike(injector, records, Fault(0, 10**6, errno.EPERM), walls) is None
    assert strike(injector, records, Fault(99, 0, errno.EPERM), walls) is None


@pytest.mark.timeout(180)
def test_start_fails_closed(injector: str, records: list[Record]) -> None:
    walls = stand(injector, records)
    chosen = choose(walls.calls)
    faults = [Fault(c.process, c.number, ERRORS[i % len(ERRORS)]) for i, c in enumerate(chosen)]
    assert_fails_closed(injector, records, faults, walls)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_whole_start_fails_closed(injector: str, records: list[Record], error: int) -> None:
    walls = stand(injector, records)
    faults = [Fault(call.process, call.number, error) for call in walls.calls]
    assert_fails_closed(injector, records, faults, walls)
