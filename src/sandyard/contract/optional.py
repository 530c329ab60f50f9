"""Methods that a kind of session may leave out: called all the same, they say so."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

from sandyard.errors import OpName, UnsupportedOperationError

__all__ = ["optional"]

F = TypeVar("F", bound=Callable[..., object])


def optional(op: OpName) -> Callable[[F], F]:
    """Mark a method of the contract as one that a kind of session may leave out.

    Its body is never run. Whoever implements the method overrides it; where nobody did, a call raises
    ``UnsupportedOperationError``, when it is awaited if the method is asynchronous.
    """

    def decorate(verb: F) -> F:
        def refuse(session: object) -> UnsupportedOperationError:
            return UnsupportedOperationError(
                op=op, method=verb.__name__, session=type(session).__name__
            )

        @wraps(verb)
        def refused(session: object, *_: object, **__: object) -> None:
            raise refuse(session)

        @wraps(verb)
        async def refused_later(session: object, *_: object, **__: object) -> None:
            raise refuse(session)

        return cast(F, refused_later if inspect.iscoroutinefunction(verb) else refused)

    return decorate
