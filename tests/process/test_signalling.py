"""Signals as callers name them: the same words and numbers for every verb."""

from __future__ import annotations

import signal

import pytest

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.process.signalling import checked_signal

SAID: dict[object, int] = {
    15: 15,
    signal.SIGINT: 2,
    64: 64,
    "TERM": 15,
    "term": 15,
    "SIGTERM": 15,
    "RTMIN": signal.SIGRTMIN,
    "SIGRTMIN+0": signal.SIGRTMIN,
    "RTMIN+3": signal.SIGRTMIN + 3,
    "sigrtmax-1": signal.SIGRTMAX - 1,
    "RTMAX": signal.SIGRTMAX,
}


@pytest.mark.parametrize("said", SAID)
def test_signals_have_numbers(said: object) -> None:
    assert checked_signal(said, "terminal", "number") == SAID[said]


@pytest.mark.parametrize(
    "said", ["", "SIG", "NONE", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-99", "15", 0, 65, -1]
)
def test_others_are_refused(said: object) -> None:
    with pytest.raises(ArgumentError) as caught:
        checked_signal(said, "exec", "number")
    assert (caught.value.op, caught.value.context["argument"]) == ("exec", "number")


@pytest.mark.parametrize("said", [None, True, 1.5, b"TERM"])
def test_other_types_are_refused(said: object) -> None:
    with pytest.raises(ArgumentTypeError):
        checked_signal(said, "process", "signal")
