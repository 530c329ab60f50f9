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


def untold_step(records: Sequence[bytes], report: Started) -> Failure | None:
    """What a report does not account for, as a step that failed; None if it tells of everything.

    A sandbox that left a step out, whatever the reason, is not the one that was planned.

    Args:
        records: the plan, as it was sent.
        report: what init says that it did.
    """
    expected, optional = _expected(records)
    told = [done[:2] for done in report.steps]
    once = set(told)
    wrong = expected ^ (once - _UNSURE)
    if not wrong and len(once) != len(told):
        wrong = {one for one in once - _UNSURE if told.count(one) > 1}
    for step, record in wrong:
        return _failure(step, record, "it is not told once")
    for step, record, _ in filter(_SKIPPED, report.steps):
        if step not in _NO_WALL and record not in optional:
            return _failure(step, record, "it was left out")
    if report.steps[-1] != Done(Step.SERVE, NO_RECORD, 0):
        return _failure(Step.SERVE, NO_RECORD, "it is not the last one")
    return None


def _expected(records: Sequence[bytes]) -> tuple[set[tuple[Step, int]], set[int]]:
    """What a plan's start tells of, each once, and the records that may be left out."""
    expected = {(step, NO_RECORD) for step in _ALWAYS}
    optional = set[int]()
    for index, (step, may_lack) in enumerate(map(_meaning, records)):
        if step is not None:
            expected.add((step, index))
            if step is Step.SECCOMP:
                expected.add((Step.REFUSALS, NO_RECORD))
            if may_lack:
                optional.add(index)
        elif _has_namespaces(records[index]):
            expected.update((step, NO_RECORD) for step in _MOUNTED)
    return expected, optional


@lru_cache(maxsize=1024)  # nearly all records of a host's plans are the same
def _meaning(record: bytes) -> tuple[Step | None, bool]:
    """The step that a record has to itself, if it has one, and whether it may be left out."""
    kind, payload = split_record(record)
    may_lack = kind in _OPTIONAL or (kind is Record.BIND and _is_optional(payload))
    return _STEPS.get(kind), may_lack


def _has_namespaces(record: bytes) -> bool:
    kind, payload = split_record(record)
    return kind is Record.NAMESPACES and any(payload)


def _is_optional(payload: bytes) -> bool:
    return bool(int.from_bytes(payload[_BIND_FLAGS], sys.byteorder) & _BIND_OPTIONAL)


def _failure(step: Step, record: int, text: str) -> Failure:
    return Failure(step, None if record == NO_RECORD else record, errno.EPROTO, text)
