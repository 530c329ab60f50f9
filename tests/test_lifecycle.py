"""The life of a session: the table of what is possible when, written down a second time."""

from __future__ import annotations

from typing import get_args

import pytest

from sandyard.errors import ErrorCode, OpName, SessionClosedError
from sandyard.lifecycle import (
    CloseStep,
    Phase,
    Processes,
    check_phase,
    plan_close,
    plan_delete,
    plan_start,
    plan_stop,
)

NEW, RUNNING, SHUT_DOWN, CLOSED = Phase.NEW, Phase.RUNNING, Phase.SHUT_DOWN, Phase.CLOSED

# Each operation with a letter for each phase, in their order: + possible, - refused.
TABLE: dict[OpName, str] = {
    "start": "+++-",
    "stop": "++++",
    "shutdown": "++++",
    "running": "++++",
    "exec": "-+--",
    "read": "-++-",
    "write": "-++-",
    "ls": "-++-",
    "mkdir": "-++-",
    "rm": "-++-",
    "normalize_path": "-++-",
}
CASES = [
    (op, phase, letter == "+")
    for op, letters in TABLE.items()
    for phase, letter in zip(Phase, letters, strict=True)
]


def test_phases_are_in_the_order_of_life() -> None:
    assert list(Phase) == [NEW, RUNNING, SHUT_DOWN, CLOSED]
    assert [phase.value for phase in Phase] == ["not started yet", "running", "shut down", "closed"]


@pytest.mark.parametrize(("op", "phase", "possible"), CASES)
def test_operation_in_phase(op: OpName, phase: Phase, possible: bool) -> None:
    if possible:
        check_phase(op, phase)
        return
    with pytest.raises(SessionClosedError) as caught:
        check_phase(op, phase)
    error = caught.value
    assert error.error_code is ErrorCode.SESSION_CLOSED
    assert (error.op, error.context) == (op, {"op": op, "state": phase.value})
    assert error.message.startswith(f"{op} needs a running session, and this one is {phase.value};")
    assert ("resume" if phase is CLOSED else "call start()") in error.message
    assert isinstance(error, RuntimeError)


def test_operations_exist() -> None:
    assert TABLE.keys() <= set(get_args(OpName))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("held", [True, False])
def test_closing_has_its_order(phase: Phase, held: bool) -> None:
    over = phase is CLOSED and not held
    assert [step.name for step in plan_close(phase, held=held)] == (
        ["COMPANIONS"] if over else ["HOOKS", "STOP", "SHUTDOWN", "COMPANIONS"]
    )
    assert list(plan_close(NEW, held=True)) == list(CloseStep)
    assert CloseStep.STOP not in plan_close(phase, held=held, save=False)


STARTS = {
    # (bare, ready, discarded)
    (False, False, False): ["RESTORE", "ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (False, False, True): ["ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (False, True, False): ["ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (False, True, True): ["ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (True, False, False): ["RESTORE", "ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (True, False, True): ["RESTORE", "ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (True, True, False): ["RESTORE", "ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
    (True, True, True): ["RESTORE", "ENTRIES", "SANDBOX", "MOUNTS", "PORTS"],
}
STOPS: dict[tuple[bool, Processes], list[str]] = {
    # (running, processes)
    (False, "keep"): ["SAVE"],
    (False, "end"): ["SAVE"],
    (False, "freeze"): ["SAVE"],
    (True, "keep"): ["SAVE"],
    (True, "end"): ["TERMINALS", "PROCESSES", "SAVE"],
    (True, "freeze"): ["FREEZE", "SAVE"],
}
DELETIONS = {False: ["CHECK", "LET_GO", "REMOVE"], True: ["LET_GO", "REMOVE"]}


def test_starting_has_its_order() -> None:
    made = {
        facts: plan_start(bare=facts[0], ready=facts[1], discarded=facts[2]) for facts in STARTS
    }
    assert {facts: [step.name for step in plan] for facts, plan in made.items()} == STARTS


def test_stopping_has_its_order() -> None:
    made = {facts: plan_stop(running=facts[0], processes=facts[1]) for facts in STOPS}
    assert {facts: [step.name for step in plan] for facts, plan in made.items()} == STOPS


def test_deleting_has_its_order() -> None:
    made = {unsaved: plan_delete(unsaved=unsaved) for unsaved in DELETIONS}
    assert {facts: [step.name for step in plan] for facts, plan in made.items()} == DELETIONS
