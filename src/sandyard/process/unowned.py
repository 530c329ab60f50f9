"""Owns the account of calls that were refused to processes whose command had exited: no result has them."""

from __future__ import annotations

from sandyard.limits import UNOWNED_KINDS
from sandyard.process.events import Exited, Failure, Gone
from sandyard.types import RefusedCall

__all__ = ["UnownedRefusals", "refused_since"]


def refused_since(exited: Exited, gone: Gone) -> tuple[RefusedCall, ...]:
    """What a job's account has gained between its command's exit and its last process's end."""
    told = {call[1:3]: call.times for call in exited.kinds}
    gained = (
        call._replace(times=call.times - told.get(call[1:3], 0))  # what was refused stays so
        for call in gone.kinds
    )
    return tuple(call for call in gained if call.times > 0)


class UnownedRefusals:
    """The kinds of refused calls of one sandbox that no command's result tells."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], RefusedCall] = {}

    def add(self, outcome: Exited | Failure | None, gone: Gone) -> None:
        """Adds what a job's leftovers were refused."""
        if not isinstance(outcome, Exited):
            return
        for call in refused_since(outcome, gone):
            kind = call.number, call.error
            if (known := self._calls.get(kind)) is not None:
                self._calls[kind] = known._replace(times=known.times + call.times)
            elif len(self._calls) < UNOWNED_KINDS:
                self._calls[kind] = call

    def calls(self) -> tuple[RefusedCall, ...]:
        """The first kinds of them, each with its count."""
        return tuple(self._calls.values())
