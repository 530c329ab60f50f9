"""Owns trying again: how often, how long after, and what an error and those behind it are."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterator
from enum import StrEnum
from typing import Final, ParamSpec, TypeVar

from sandyard.errors import ArgumentError, shown

__all__ = [
    "DEFAULT_TRANSIENT_RETRY_BACKOFF",
    "DEFAULT_TRANSIENT_RETRY_INTERVAL_S",
    "DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT",
    "TRANSIENT_HTTP_STATUS_CODES",
    "BackoffStrategy",
    "exception_chain_contains_type",
    "exception_chain_has_status_code",
    "iter_exception_chain",
    "retry_async",
]

P = ParamSpec("P")
T = TypeVar("T")


class BackoffStrategy(StrEnum):
    """How the wait grows: not at all, by the first wait each time, or to twice itself."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


DEFAULT_TRANSIENT_RETRY_INTERVAL_S: Final = 0.25
"""Seconds before the second attempt: long enough for a connection to be made anew."""

DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT: Final = 3
"""Attempts, the first included: what fails three times is not a passing fault."""

DEFAULT_TRANSIENT_RETRY_BACKOFF: Final = BackoffStrategy.EXPONENTIAL
"""How the wait grows."""

TRANSIENT_HTTP_STATUS_CODES: Final = frozenset({500, 502, 503, 504})
"""What servers and proxies answer that may answer otherwise a moment later."""


def iter_exception_chain(exc: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on, each once.

    The cause of an error is its ``__cause__``, or what was being handled when it was raised.
    """
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def exception_chain_contains_type(
    exc: BaseException, error_types: tuple[type[BaseException], ...]
) -> bool:
    """Whether an error, or one behind it, is of one of these types."""
    return any(isinstance(one, error_types) for one in iter_exception_chain(exc))


def exception_chain_has_status_code(exc: BaseException, status_codes: Collection[int]) -> bool:
    """Whether an error, or one behind it, tells of one of these HTTP status codes.

    It is looked for where clients of HTTP keep it: ``status_code``, ``http_code`` and
    ``response.status_code``.
    """
    return any(
        isinstance(code, int) and code in status_codes
        for one in iter_exception_chain(exc)
        for code in (
            getattr(one, "status_code", None),
            getattr(one, "http_code", None),
            getattr(getattr(one, "response", None), "status_code", None),
        )
    )


def retry_async(
    *,
    interval: float = DEFAULT_TRANSIENT_RETRY_INTERVAL_S,
    max_attempt: int = DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT,
    backoff: BackoffStrategy = DEFAULT_TRANSIENT_RETRY_BACKOFF,
    retry_if: Callable[..., bool],
    on_retry: Callable[..., object] | None = None,
) -> Callable[
    [Callable[P, Coroutine[object, object, T]]], Callable[P, Coroutine[object, object, T]]
]:
    """Make a decorator that calls an async function again while it fails for passing reasons.

    A cancellation ends it at once. The last error is raised as it is.

    Args:
        interval: seconds before the second attempt.
        max_attempt: attempts, the first included.
        backoff: how the wait grows.
        retry_if: called with the error and the function's own arguments; True tries again.
        on_retry: called before each wait with the error, the number of the attempt that failed,
            ``max_attempt``, the seconds to wait, and the function's own arguments. What it returns is
            awaited where that is possible.

    Raises:
        ArgumentError: an argument has an impossible value.

    Example:
        >>> @retry_async(retry_if=lambda error: isinstance(error, ConnectionError))
        ... async def fetch(url: str) -> bytes: ...
    """
    _check(interval, max_attempt, backoff)

    def decorate(
        function: Callable[P, Coroutine[object, object, T]],
    ) -> Callable[P, Coroutine[object, object, T]]:
        @functools.wraps(function)
        async def attempts(*args: P.args, **kwargs: P.kwargs) -> T:
            attempt = 0
            while True:
                attempt += 1
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    if attempt >= max_attempt or not retry_if(error, *args, **kwargs):
                        raise
                    wait = _wait(backoff, interval, attempt)
                    if on_retry is not None:
                        heard = on_retry(error, attempt, max_attempt, wait, *args, **kwargs)
                        if inspect.isawaitable(heard):
                            await heard
                await asyncio.sleep(wait)

        return attempts

    return decorate


def _check(interval: float, max_attempt: int, backoff: BackoffStrategy) -> None:
    """Refuse what can't be carried out."""
    if max_attempt < 1:
        raise _impossible("max_attempt", "at least 1", max_attempt)
    if not interval >= 0:  # neither is NaN
        raise _impossible("interval", "0 or more seconds", interval)
    if not isinstance(backoff, BackoffStrategy):
        raise _impossible("backoff", "a BackoffStrategy", backoff)


def _wait(backoff: BackoffStrategy, interval: float, attempt: int) -> float:
    """Seconds to wait after an attempt, counted from 1."""
    if backoff is BackoffStrategy.EXPONENTIAL:
        return interval * 2.0 ** (attempt - 1)
    return interval * attempt if backoff is BackoffStrategy.LINEAR else interval


def _impossible(argument: str, what: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"{argument} is {what}, not {shown(value)}", op="util", argument=argument, value=value
    )
