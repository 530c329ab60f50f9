"""Each system call around a command fails once: it is answered all the same, or the channel closes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from sandyard.process.wire import Exited, SpawnFailed, Started, Step
from tests.faults_native.inject import RECORD, Call, Fault, traced
from tests.faults_native.probe import look_captured, look_inside, look_through_terminal
from tests.process.protocol import Record
from tests.process.raw_init import RawInit

JOB, NEXT = 7, 8
ERRORS: Final = (errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.EINTR)
NEEDLESS: Final = {
    "close": "whatever it returns, the descriptor is closed",
    "set_robust_list": "there are no threads",
}
RESTARTED: Final = {"ioctl", "poll", "read", "recvmsg", "sendmsg", "wait4"}
AFTERWARDS: Final = {"poll", "recvmsg"}
"""Calls that wait for what comes next: after the last answer nobody hears of their failure."""

OUTER: Final = 0
"""The process outside, which waits for ends alone: its own, and with it all else, may come after both
answers."""

Look = Callable[[RawInit, int], list[str] | SpawnFailed | Exited | None]
LOOKS: Final[dict[str, Look]] = {
    "pipes": look_inside,
    "terminal": look_through_terminal,
    "captured": look_captured,
}


def run_two(
    injector: str, records: list[Record], fault: Fault, look: Look
) -> tuple[list[Call], str | None]:
    """Runs two commands, the first with a fault; returns the calls, and what is wrong."""
    with traced(injector, fault) as run:
        run.init.start(records)
        assert isinstance(run.init.event(), Started)
        run.arm()
        first = look(run.init, JOB)
        second = None if first is None else look(run.init, NEXT)
        if first is None or second is None:
            rest = run.init.rest()
            assert rest == [], rest
    return run.calls(), judge(first, second, run.hit(), fault)


def judge(first: object, second: object, hit: Call | None, fault: Fault) -> str | None:
    """What is wrong with two answers."""
    what = f"{hit} {errno.errorcode.get(fault.error)}"
    if hit is None and not (isinstance(first, list) and isinstance(second, list)):
        return f"untouched ({fault}): {first}, {second}"
    if isinstance(first, SpawnFailed):
        failure = first.failure
        if failure.error <= 0 or failure.step < Step.SPAWN_FORK:
            return f"{what}: {first}"
    if isinstance(first, Exited) and not first.keeper_lost:
        return f"{what}: {first}"
    if first is not None and second is not None and not isinstance(second, list):
        # The fault may come between the two: then it is the second one's.
        return None if isinstance(first, list) else f"{what}: {first}, then {second}"
    if isinstance(first, list) and isinstance(second, list) and first != second:
        return f"{what}: {set(first) ^ set(second)}"
    if hit is not None and isinstance(first, list) and isinstance(second, list):
        late = hit.process == OUTER or hit.name in AFTERWARDS
        missed = late or is_needless(hit, fault.error)
        return None if missed else f"{what}: as if nothing had been"
    return None


def is_needless(call: Call, error: int) -> bool:
    """Whether commands may run although this call has failed."""
    return call.name in NEEDLESS or (error == errno.EINTR and call.name in RESTARTED)


def assert_answered(
    injector: str, records: list[Record], faults: Iterable[Fault], look: Look
) -> None:
    problems = []
    for fault in faults:
        try:
            _, problem = run_two(injector, records, fault, look)
        except (TimeoutError, AssertionError) as error:
            problem = f"{fault}: {error!r}"
        if problem is not None:
            problems.append(problem)
    assert not problems, "\n".join(problems)


def record(injector: str, records: list[Record], look: Look) -> list[Call]:
    """The calls of two commands without a fault."""
    calls, problem = run_two(injector, records, RECORD, look)
    assert problem is None
    assert {call.process for call in calls} >= {2, 3, 4}  # init, keeper, command
    return calls


@pytest.mark.timeout(180)
@pytest.mark.parametrize("look", ["captured", "terminal"])  # the former is passed a descriptor, too
@pytest.mark.parametrize("part", [0, 1])
def test_spawn_is_answered(injector: str, records: list[Record], part: int, look: str) -> None:
    calls = record(injector, records, LOOKS[look])
    chosen = list(enumerate(calls))[part::2]
    faults = [Fault(c.process, c.number, ERRORS[i // 2 % len(ERRORS)], 1) for i, c in chosen]
    assert_answered(injector, records, faults, LOOKS[look])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_each_spawn_is_answered(
    injector: str, records: list[Record], error: int, look: str
) -> None:
    calls = record(injector, records, LOOKS[look])
    faults = [Fault(c.process, c.number, error, 1) for c in calls]
    assert_answered(injector, records, faults, LOOKS[look])
