"""The seam between a session's verbs and whoever wants to hear of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import wraps
from io import IOBase
from typing import Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from sandyard.errors import OpName
from sandyard.loading import UNLOADED, as_told

__all__ = [
    "Observable",
    "Observer",
    "Operation",
    "observed",
    "observed_block",
    "observed_pieces",
]

P = ParamSpec("P")
T = TypeVar("T")


class Operation(Protocol):
    """One operation that has begun and was told of."""

    async def finish(self, result: object) -> None:
        """Tell how it ended well."""

    async def fail(self, error: BaseException) -> None:
        """Tell why it did not; a cancellation is a reason too."""


class Observer(Protocol):
    """Who hears of a session's operations."""

    async def begin(
        self,
        op: OpName,
        verb: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        nests: bool = True,
        ends: bool = False,
    ) -> Operation:
        """Tell that an operation begins, and with which arguments of which method.

        ``nests`` is False if the caller's own code runs before it ends: what that calls is no part
        of the operation. ``ends`` is True if the operation saves or gives back what a session holds:
        nobody who hears of it can keep it from going on.
        """

    async def close(self) -> None:
        """Hand over what is left; nothing is heard afterwards."""


@runtime_checkable
class Closing(Protocol):
    """A result that holds something, such as a stream."""

    async def aclose(self) -> None:
        """Give it back."""


class Observable:
    """A session whose operations can be heard of.

    Attributes:
        observer: who hears of them; None for nobody, which costs nothing.
    """

    observer: Observer | None = None


O = TypeVar("O", bound=Observable)  # noqa: E741  # an observable
Verb = Callable[Concatenate[O, P], Coroutine[None, None, T]]


def observed(op: OpName, *, ends: bool = False) -> Callable[[Verb[O, P, T]], Verb[O, P, T]]:
    """Make a method of a session tell its observer when it begins and how it ends.

    ``ends`` is True for what is done at a session's end, as ``Observer.begin`` says.
    """

    def decorate(verb: Verb[O, P, T]) -> Verb[O, P, T]:
        @wraps(verb)
        async def told(session: O, /, *args: P.args, **kwargs: P.kwargs) -> T:
            observer = session.observer
            if observer is None:
                try:
                    return await verb(session, *args, **kwargs)
                except UNLOADED as error:
                    raise as_told(error, op)  # noqa: B904  # it has its cause
            operation = await observer.begin(op, verb, args, kwargs, ends=ends)
            try:
                result = await verb(session, *args, **kwargs)
            except BaseException as error:
                seen = as_told(error, op)
                await operation.fail(seen)
                if seen is not error:
                    raise seen from error
                raise
            await _tell(operation, result)
            return result

        return told

    return decorate


async def _tell(operation: Operation, result: object) -> None:
    """Tell of a result; where that fails the operation, nobody gets the result to close it."""
    try:
        await operation.finish(result)
    except BaseException:
        if isinstance(result, Closing):
            await result.aclose()
        elif isinstance(result, IOBase):
            result.close()
        raise


Block = Callable[Concatenate[O, P], AbstractAsyncContextManager[T]]


def observed_block(op: OpName) -> Callable[[Block[O, P, T]], Block[O, P, T]]:
    """The same for a method that is used with ``async with``: told of from its entry to its end."""

    def decorate(verb: Block[O, P, T]) -> Block[O, P, T]:
        @wraps(verb)
        @asynccontextmanager
        async def told(session: O, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            observer = session.observer
            if observer is None:
                try:
                    async with verb(session, *args, **kwargs) as value:
                        yield value
                except UNLOADED as error:
                    raise as_told(error, op)  # noqa: B904  # it has its cause
                return
            operation = await observer.begin(op, verb, args, kwargs, nests=False)
            try:
                async with verb(session, *args, **kwargs) as value:
                    yield value
            except BaseException as error:
                seen = as_told(error, op)
                await operation.fail(seen)
                if seen is not error:
                    raise seen from error
                raise
            await operation.finish(value)

        return told

    return decorate


Pieces = Callable[Concatenate[O, P], AsyncGenerator[T, None]]


def observed_pieces(op: OpName) -> Callable[[Pieces[O, P, T]], Pieces[O, P, T]]:
    """The same for a method that yields pieces: told of from the first that is asked for."""

    def decorate(verb: Pieces[O, P, T]) -> Pieces[O, P, T]:
        @wraps(verb)
        async def told(session: O, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
            observer = session.observer
            async with aclosing(verb(session, *args, **kwargs)) as pieces:
                if observer is None:
                    try:
                        async for piece in pieces:
                            yield piece
                    except UNLOADED as error:
                        raise as_told(error, op)  # noqa: B904  # it has its cause
                    return
                operation = await observer.begin(op, verb, args, kwargs, nests=False)
                try:
                    async for piece in pieces:
                        yield piece
                except GeneratorExit:  # the caller has enough
                    await operation.finish(None)
                    raise
                except BaseException as error:
                    seen = as_told(error, op)
                    await operation.fail(seen)
                    if seen is not error:
                        raise seen from error
                    raise
                await operation.finish(None)

        return told

    return decorate
