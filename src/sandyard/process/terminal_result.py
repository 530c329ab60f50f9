"""Owns the account of one terminal's command: how long it took, and which limits it reached."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from sandyard.process.results import listed_leftovers, usage_later
from sandyard.process.watch import LimitWatch, own_hits, wall_time_hit
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from sandyard.process.wire import Exited
    from sandyard.resources import EnforcedLimit

__all__ = ["Account", "Teller"]

Teller = Callable[[ExecResult, bytes], Awaitable[None]]
"""Puts into a result what was denied, as the end of what was shown says."""


class Account:
    """What is counted from a command's start to its end.

    Args:
        words: the command.
        held: limits that it has of its own.
        watch: those of the session; None where nothing is counted.

    Attributes:
        size_over: bytes that the workspace took when it was ended for that; 0 if it was not.
        too_long: seconds of the session's limit on time, once it was ended for that; None if it was
            not.
    """

    __slots__ = ("_before", "_began", "_held", "_watch", "_words", "size_over", "too_long")

    def __init__(
        self, words: tuple[str, ...], held: Iterable[EnforcedLimit], watch: LimitWatch | None
    ) -> None:
        self._words = words
        self._held = tuple(held)
        self._watch = watch
        self._before = None if watch is None else watch.count()
        self._began = time.monotonic()
        self.size_over = 0
        self.too_long: float | None = None

    def result(self, exited: Exited | None, code: int, shown: int) -> ExecResult:
        """What is told of it at its end.

        Args:
            exited: init's account; None where there is none.
            code: its exit code.
            shown: bytes that it has shown.
        """
        result = ExecResult(
            stdout=b"",
            stderr=b"",
            exit_code=code,
            stdout_total=shown,
            duration_s=time.monotonic() - self._began,
            usage=usage_later(exited),
            leftovers=() if exited is None else listed_leftovers(exited),
            refused=0 if exited is None else exited.refused,
            refused_calls=() if exited is None else exited.kinds,
        )
        if self._held:
            result.limit_hits = own_hits(result, self._held)
        if self._watch is not None and self._before is not None:
            reached = {hit.limit for hit in result.limit_hits}  # a lower limit of its own counts
            found = self._watch.hits(result, self._before)
            result.limit_hits += tuple(hit for hit in found if hit.limit not in reached)
            if self.size_over:
                self._watch.size_error(self._words, result, self.size_over)  # which adds the hit
        if self.too_long is not None:
            result.limit_hits += (wall_time_hit(self.too_long),)
        return result
