"""Refused calls that no result tells: what is gained after an exit, summed up, and bounded."""

from __future__ import annotations

import errno

import pytest

from sandyard.limits import UNOWNED_KINDS
from sandyard.process.events import Exited, Failure, Gone, Step, Usage
from sandyard.process.job import UnownedRefusals, refused_since
from sandyard.types import RefusedCall

pytestmark = pytest.mark.once


def call(number: int, times: int = 1, error: int = errno.EPERM) -> RefusedCall:
    return RefusedCall(times, number, error, "it")


def ended(*calls: RefusedCall) -> Exited:
    return Exited(1, 0, False, False, Usage(*range(9)), 1, (), 9, calls)


@pytest.mark.parametrize(
    ("before", "after", "gained"),
    [
        ((), (), ()),
        ((call(5, 2),), (call(5, 2),), ()),
        ((call(5, 2),), (call(5, 7), call(6)), (call(5, 5), call(6))),
        ((call(5, 2),), (call(5, 3, errno.EACCES),), (call(5, 3, errno.EACCES),)),
        ((call(5, 9),), (call(5, 2),), ()),  # an init that lies
    ],
)
def test_only_the_gain_counts(
    before: tuple[RefusedCall, ...], after: tuple[RefusedCall, ...], gained: tuple[RefusedCall, ...]
) -> None:
    assert refused_since(ended(*before), Gone(1, 0, after)) == gained


def test_kinds_are_summed_and_bounded() -> None:
    account = UnownedRefusals()
    for number in range(UNOWNED_KINDS + 5):
        account.add(ended(), Gone(1, 1, (call(number),)))
    account.add(ended(), Gone(1, 1, (call(0, 4), call(UNOWNED_KINDS))))
    account.add(Failure(Step.SPAWN_EXEC, None, 2, ""), Gone(1, 1, (call(1),)))
    account.add(None, Gone(1, 1, (call(1),)))
    assert account.calls() == (call(0, 5), *(call(number) for number in range(1, UNOWNED_KINDS)))
