"""Dependencies: values and factories that a client's sessions share or have each for themselves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Self

from sandyard.errors import (
    ArgumentError,
    DependenciesBindingError,
    DependenciesMissingDependencyError,
    shown,
)

__all__ = ["Dependencies", "DependencyKey"]

DependencyKey = str
"""What a dependency is asked for by."""

Factory = Callable[["Dependencies"], object | Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Value:
    value: object


@dataclass(frozen=True, slots=True)
class _Factory:
    make: Factory
    cache: bool
    owns_result: bool


class Dependencies:
    """Values, and functions that make them when they are first asked for, by name.

    A client holds a template; each of its sessions has a clone of its own, which the session closes.
    ``bind_value`` and ``bind_factory`` return the object itself, so that they can be chained.

    Example:
        >>> shared = Dependencies().bind_value("model", "small")
        >>> client = UnixLocalSandboxClient(dependencies=shared)
    """

    def __init__(self) -> None:
        self._bindings: dict[DependencyKey, _Value | _Factory] = {}
        self._made: dict[DependencyKey, object] = {}
        self._making: dict[DependencyKey, asyncio.Task[object]] = {}
        self._owned: list[object] = []
        self._closed = False

    @classmethod
    def with_values(cls, values: Mapping[DependencyKey, object]) -> Self:
        """Dependencies with these values.

        Raises:
            ArgumentError: a name is empty or no text.
        """
        dependencies = cls()
        for key, value in values.items():
            dependencies.bind_value(key, value)
        return dependencies

    def bind_value(self, key: DependencyKey, value: object, *, overwrite: bool = False) -> Self:
        """Give a name to a value.

        Args:
            key: the name.
            value: anything; None counts as missing where it is required.
            overwrite: whether another binding of that name may be replaced (default: no).

        Raises:
            ArgumentError: the name is empty or no text.
            DependenciesBindingError: it is bound already, or all is closed.
        """
        return self._bind(key, _Value(value), overwrite=overwrite)

    def bind_factory(
        self,
        key: DependencyKey,
        factory: Factory,
        *,
        cache: bool = True,
        overwrite: bool = False,
        owns_result: bool = False,
    ) -> Self:
        """Give a name to a function that makes the value.

        Args:
            key: the name.
            factory: takes these dependencies; returns the value, or an awaitable of it.
            cache: whether it is called once (default) or each time. Who asks at the same time
                waits for the same call.
            overwrite: as for ``bind_value``.
            owns_result: whether ``aclose`` closes what it made, by its ``aclose`` or ``close``.

        Raises:
            ArgumentError: the name is empty or no text, or the factory can't be called.
            DependenciesBindingError: it is bound already, or all is closed.
        """
        if not callable(factory):
            raise ArgumentError(
                f"a factory is a function of the dependencies, not {shown(factory)}",
                op="dependencies",
                argument="factory",
                value=factory,
            )
        return self._bind(key, _Factory(factory, cache, owns_result), overwrite=overwrite)

    async def get(self, key: DependencyKey) -> object:
        """The value of a name, made if need be; None if the name is not bound.

        Raises:
            DependenciesBindingError: the name was bound anew, or all was closed, meanwhile.
            Exception: whatever the factory raises; it is called again the next time.
        """
        self._check_open(key)
        binding = self._bindings.get(key)
        if binding is None:
            return None
        if isinstance(binding, _Value):
            return binding.value
        if not binding.cache:
            return await self._make(key, binding)
        if key in self._made:
            return self._made[key]
        task = self._making.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._make(key, binding))
            self._making[key] = task
            task.add_done_callback(lambda done: self._keep(key, binding, done))
        return await self._awaited(key, task)

    async def require(self, key: DependencyKey, *, consumer: str | None = None) -> object:
        """The value of a name, which must be there.

        Args:
            key: the name.
            consumer: who needs it, for the message.

        Raises:
            DependenciesMissingDependencyError: it is not bound, or is None.
            DependenciesBindingError: as for ``get``.
        """
        value = await self.get(key)
        if value is None:
            who = f", which {consumer} needs" if consumer else ""
            raise DependenciesMissingDependencyError(
                f"nothing is bound to {shown(key)}{who}; bind_value or bind_factory it at the client's "
                "dependencies",
                key=key,
            )
        return value

    def clone(self) -> Dependencies:
        """The same bindings, with nothing made yet."""
        other = Dependencies()
        other._bindings = dict(self._bindings)
        return other

    async def aclose(self) -> None:
        """Cancel what is being made, and close what is owned, the newest first. Again: does nothing.

        Errors of what is closed are not raised.
        """
        self._closed = True
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._making.clear()
        self._made.clear()
        while self._owned:
            await _close(self._owned.pop())

    def _bind(self, key: DependencyKey, binding: _Value | _Factory, *, overwrite: bool) -> Self:
        _check_key(key)
        self._check_open(key)
        if key in self._bindings and not overwrite:
            raise DependenciesBindingError(
                f"{shown(key)} is bound already; overwrite=True replaces it", key=key
            )
        self._bindings[key] = binding
        self._made.pop(key, None)
        task = self._making.pop(key, None)
        if task is not None:
            task.cancel()
        return self

    def _check_open(self, key: DependencyKey) -> None:
        if self._closed:
            raise DependenciesBindingError("these dependencies are closed", key=key)

    async def _awaited(self, key: DependencyKey, task: asyncio.Task[object]) -> object:
        """Waits for a call that others wait for too: whoever is cancelled leaves it running."""
        await asyncio.wait([task])
        if task.cancelled():
            raise _withdrawn(key)
        return task.result()

    async def _make(self, key: DependencyKey, binding: _Factory) -> object:
        value = binding.make(self)
        if inspect.isawaitable(value):
            value = await value
        if binding.owns_result:
            if self._closed or self._bindings.get(key) is not binding:
                await _close(value)
                raise _withdrawn(key)
            self._owned.append(value)
        return value

    def _keep(self, key: DependencyKey, binding: _Factory, task: asyncio.Task[object]) -> None:
        if self._making.get(key) is task:
            del self._making[key]
        if task.cancelled() or task.exception() is not None:
            return
        if self._bindings.get(key) is binding and not self._closed:
            self._made[key] = task.result()


def _withdrawn(key: DependencyKey) -> DependenciesBindingError:
    return DependenciesBindingError(
        f"{shown(key)} was bound anew, or all was closed, while it was made", key=key
    )


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key:
        raise ArgumentError(
            f"a dependency's name is a text that is not empty, not {shown(key)}",
            op="dependencies",
            argument="key",
            value=key,
        )


async def _close(value: object) -> None:
    """Closes a value that was made for its users."""
    for name in ("aclose", "close"):
        close = getattr(value, name, None)
        if not callable(close):
            continue
        try:
            ended = close()
            if inspect.isawaitable(ended):
                await ended
        except Exception:  # noqa: BLE001, S110  # a border: the caller's code; all else is closed still
            pass
        return
