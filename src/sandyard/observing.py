"""The seam between a session's verbs and whoever wants to hear of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import Context
from functools import wraps
from io import IOBase
from typing import Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

from sandyard.errors import OpName, SandboxError
from sandyard.limits import ENDS_TOLD_S
from sandyard.loading import UNLOADED, as_told

__all__ = [
    "Followed",
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
            try:
                await operation.finish(result)
            except BaseException:  # nobody gets the result to close it
                await _close(result)
                raise
            return result

        return told

    return decorate


async def _close(result: object) -> None:
    """Give back what a result holds."""
    if isinstance(result, Closing):
        await result.aclose()
    elif isinstance(result, IOBase):
        result.close()


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


class Followed:
    """Operations that go on after the calls that began them; owns what waits for their ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(
        self,
        observer: Observer,
        op: OpName,
        about: tuple[str, str, tuple[str, ...]],
        end: Callable[[], Awaitable[object]],
    ) -> None:
        """Tell that something runs from now on, and, when it has ended, how; this returns at once.

        Args:
            observer: who hears of it; nobody keeps it from going on.
            op: what it is.
            about: its id, its name and its command.
            end: waits for its end, and gives what it ended with, or raises why it did not.
        """
        operation = await observer.begin(op, _running, about, {}, nests=False, ends=True)
        self._take(_told_end(operation, end))

    def report(self, observer: Observer, op: OpName, result: object) -> None:
        """Tell of something that has happened by itself; this returns at once."""

        async def tell() -> None:
            operation = await observer.begin(op, _happened, (), {}, nests=False, ends=True)
            await operation.finish(result)

        # It is nobody's call: not a part of what happens to be called meanwhile.
        self._take(tell(), Context())

    def _take(self, work: Coroutine[None, None, None], context: Context | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Have all ends told, now that nothing runs any more; what is not heard of then is told as lost."""
        # A loop that is closed tells nothing any more.
        own = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is own]
        self._tasks.clear()
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=ENDS_TOLD_S)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)


def _running(session: object, process_id: str, name: str, command: tuple[str, ...]) -> None:
    """Nothing: it says what is told of what runs, as the verbs do by their arguments."""


def _happened(session: object) -> None:
    """Nothing, likewise."""


async def _told_end(operation: Operation, end: Callable[[], Awaitable[object]]) -> None:
    try:
        result = await end()
    except BaseException as error:
        await operation.fail(error)
        if not isinstance(error, SandboxError):
            raise
    else:
        await operation.finish(result)
