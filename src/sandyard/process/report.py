"""Owns the question whether a start's report tells of every step of its plan."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

from sandyard.process.wire import NO_RECORD, Done, Failure, Record, Started, Step, split_record

__all__ = ["untold_step"]

_MOUNTED: Final = (Step.PRIVATE_MOUNTS, Step.ROOT, Step.PIVOT, Step.COUNTS)
"""What every start with a root of its own does once."""

_ALWAYS: Final = (
    Step.CAPABILITIES,
    Step.IDENTITY,
    Step.PRIVILEGES,
    Step.SERVE,
)
"""What every start does once, whatever its plan says."""

_STEPS: Final = {
    Record.HOSTNAME: Step.HOSTNAME,
    Record.LOOPBACK: Step.LOOPBACK,
    **dict.fromkeys(
        (kind for kind in Record if Record.DIRECTORY <= kind < Record.LIMIT), Step.MOUNT
    ),
    Record.DEVICE: Step.MOUNT,
    Record.LIMIT: Step.LIMITS,
    Record.LANDLOCK: Step.LANDLOCK,
    Record.LANDLOCK_RULE: Step.LANDLOCK,
    Record.SECCOMP: Step.SECCOMP,
}
"""The step in which a record is carried out; the others are part of a step above."""

_OPTIONAL: Final = frozenset((Record.READ_ONLY, Record.MASK, Record.DENY, Record.LANDLOCK_RULE))
"""Records about what may be missing inside, and then needs no wall."""

_NO_WALL: Final = frozenset((Step.COUNTS, Step.REFUSALS))
"""What may be left out: counts of a machine that lets nobody bound them, and hearing of what is
refused, where a sandbox around this one hears of it."""

_UNSURE: Final = frozenset(((Step.USER, NO_RECORD),))
"""What is told only where init maps its users itself."""

_SKIPPED: Final = attrgetter("skipped")

_BIND_FLAGS, _BIND_OPTIONAL = slice(16, 20), 8  # struct bind, enum bind_flag
_MAY_LACK, _HAS_NAMESPACES = 1, 2  # flags of a record's meaning


def untold_step(records: Sequence[bytes], report: Started) -> Failure | None:
    """What a report does not account for, as a step that failed; None if it tells of everything.

    A sandbox that left a step out, whatever the reason, is not the one that was planned.

    Args:
        records: the plan, as it was sent.
        report: what init says that it did.
    """
    return _untold(b"".join(map(_meaning, records)), report.steps)


@lru_cache(maxsize=8)  # nearly all starts of a host mean the same and are told alike
def _untold(meanings: bytes, steps: tuple[Done, ...]) -> Failure | None:
    expected, optional = _expected(meanings)
    told = [done[:2] for done in steps]
    once = set(told)
    wrong = expected ^ (once - _UNSURE)
    if not wrong and len(once) != len(told):
        wrong = {one for one in once - _UNSURE if told.count(one) > 1}
    for step, record in wrong:
        return _failure(step, record, "it is not told once")
    for step, record, _ in filter(_SKIPPED, steps):
        if step not in _NO_WALL and record not in optional:
            return _failure(step, record, "it was left out")
    if steps[-1] != Done(Step.SERVE, NO_RECORD, 0):
        return _failure(Step.SERVE, NO_RECORD, "it is not the last one")
    return None


def _expected(meanings: bytes) -> tuple[set[tuple[Step, int]], set[int]]:
    """What a plan's start tells of, each once, and the records that may be left out."""
    expected = {(step, NO_RECORD) for step in _ALWAYS}
    optional = set[int]()
    for index, (number, flags) in enumerate(zip(meanings[::2], meanings[1::2], strict=True)):
        if number:
            step = Step(number)
            expected.add((step, index))
            if step is Step.SECCOMP:
                expected.add((Step.REFUSALS, NO_RECORD))
        if flags & _MAY_LACK:
            optional.add(index)
        if flags & _HAS_NAMESPACES:
            expected.update((step, NO_RECORD) for step in _MOUNTED)
    return expected, optional


@lru_cache(maxsize=1024)  # nearly all records of a host's plans are the same
def _meaning(record: bytes) -> bytes:
    """The number of the step that a record has to itself, or 0, and what else counts about it."""
    kind, payload = split_record(record)
    flags = 0
    if kind in _OPTIONAL or (kind is Record.BIND and _is_optional(payload)):
        flags |= _MAY_LACK
    if kind is Record.NAMESPACES and any(payload):
        flags |= _HAS_NAMESPACES
    return bytes((_STEPS.get(kind, 0), flags))


def _is_optional(payload: bytes) -> bool:
    return bool(int.from_bytes(payload[_BIND_FLAGS], sys.byteorder) & _BIND_OPTIONAL)


def _failure(step: Step, record: int, text: str) -> Failure:
    return Failure(step, None if record == NO_RECORD else record, errno.EPROTO, text)
