"""Runs the behaviours against a kind of session, and says which of them it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Literal

from sandyard.contract import BaseSandboxSession
from sandyard.errors import SandboxError, UnsupportedOperationError
from sandyard.limits import BEHAVIOUR_PATIENCE_S
from sandyard.testing.behaviours import Behaviour, Place, SessionFactory
from sandyard.testing.suite import (
    commands,
    handles,
    life,
    links,
    reading,
    searching,
    trees,
    wall,
    writing,
)

__all__ = ["BEHAVIOURS", "Conformance", "Outcome", "run_conformance"]

BEHAVIOURS: Final[tuple[Behaviour, ...]] = tuple(
    behaviour
    for part in (commands, handles, reading, writing, searching, links, trees, wall, life)
    for behaviour in part.SUITE.behaviours
)
"""What any session does, in the order in which it is tried."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one behaviour.

    Attributes:
        behaviour: which.
        verdict: ``"passed"``, ``"failed"``, or ``"not offered"`` where the session raised an
            ``UnsupportedOperationError``.
        why: what it did instead, or what it does not offer, such as ``"stdin= of exec()"``; empty
            where it passed.
    """

    behaviour: Behaviour
    verdict: Literal["passed", "failed", "not offered"]
    why: str = ""

    def __str__(self) -> str:
        """One line."""
        told = f"{self.behaviour.name}: {self.verdict}"
        return f"{told}: {self.why}" if self.why else told


class Conformance(tuple[Outcome, ...]):
    """What came of a run: the outcomes, in the order of ``BEHAVIOURS``."""

    __slots__ = ()

    @property
    def passed(self) -> tuple[Outcome, ...]:
        """The behaviours that the session shows."""
        return tuple(one for one in self if one.verdict == "passed")

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The behaviours that it does not show."""
        return tuple(one for one in self if one.verdict == "failed")

    @property
    def not_offered(self) -> tuple[Outcome, ...]:
        """The behaviours that need what it says it does not have."""
        return tuple(one for one in self if one.verdict == "not offered")

    def __str__(self) -> str:
        """A summary, then a line for each that is not shown."""
        counts = (
            f"{len(self.passed)} passed",
            f"{len(self.failed)} failed",
            f"{len(self.not_offered)} not offered",
        )
        return "\n".join([", ".join(counts), *map(str, self.failed), *map(str, self.not_offered)])


async def run_conformance(
    make: SessionFactory,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
    patience: float = BEHAVIOUR_PATIENCE_S,
) -> Conformance:
    """Try the behaviours on sessions of one kind, one after the other.

    Most share one session, each in an empty directory of its own; those that start, stop or end
    sessions have their own. It raises nothing for what a session does.

    Args:
        make: gives a new session, not started, for the length of a block, and deletes it then.
        only: names of behaviours or groups, such as ``"reading"`` or ``"writing.appends"``
            (default: all).
        without: names of behaviours or groups to leave out (default: none).
        patience: seconds that one behaviour may take before it has failed.

    Raises:
        ValueError: a name is none of a behaviour or a group.

    Example:
        >>> @asynccontextmanager
        ... async def make():
        ...     client = UnixLocalSandboxClient()
        ...     session = await client.create()
        ...     try:
        ...         yield session
        ...     finally:
        ...         await client.delete(session)
        >>> result = await run_conformance(make)
        >>> assert not result.failed, result
    """
    chosen = _chosen(tuple(only), tuple(without))
    async with _Bench(make, patience) as bench:
        return Conformance([await bench.attempt(behaviour) for behaviour in chosen])


def _chosen(only: Sequence[str], without: Sequence[str]) -> list[Behaviour]:
    known = {name for one in BEHAVIOURS for name in (one.name, one.group)}
    if odd := sorted({*only, *without} - known):
        raise ValueError(f"no behaviour or group has this name: {', '.join(odd)}")
    return [
        one
        for one in BEHAVIOURS
        if (not only or {one.name, one.group} & set(only))
        and not {one.name, one.group} & set(without)
    ]


class _Bench:
    """Owns the session that behaviours share; one that has ended is replaced."""

    def __init__(self, make: SessionFactory, patience: float) -> None:
        self._make = make
        self._patience = patience
        self._stack = AsyncExitStack()
        self._session: BaseSandboxSession | None = None

    async def __aenter__(self) -> _Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def attempt(self, behaviour: Behaviour) -> Outcome:
        """Try one behaviour."""
        try:
            async with asyncio.timeout(self._patience):
                if behaviour.own:
                    async with self._make() as session:
                        await behaviour.trial(Place(session, "", self._make))
                else:
                    await behaviour.trial(await self._place(behaviour))
        except UnsupportedOperationError as error:
            return Outcome(behaviour, "not offered", _missing(error))
        except TimeoutError as error:
            return Outcome(behaviour, "failed", _words(error) or f"not within {self._patience:g} s")
        except Exception as error:  # noqa: BLE001  # whatever a foreign session raises is its answer
            return Outcome(behaviour, "failed", _words(error))
        return Outcome(behaviour, "passed")

    async def _place(self, behaviour: Behaviour) -> Place:
        session = self._session
        if session is None or not await session.running():
            self._session = None
            await self._stack.aclose()
            session = await self._stack.enter_async_context(self._make())
            await self._stack.enter_async_context(session)
            self._session = session
        await session.mkdir(behaviour.name)
        return Place(session, behaviour.name, self._make)


def _missing(error: UnsupportedOperationError) -> str:
    method, argument = error.context.get("method"), error.context.get("argument")
    return f"{method}()" if argument is None else f"{argument}= of {method}()"


def _words(error: BaseException) -> str:
    """What an error says, on one line."""
    text = error.message if isinstance(error, SandboxError) else str(error)
    line = " ".join(text.split())
    if isinstance(error, AssertionError) or not line:
        return line
    return f"{type(error).__name__}: {line}"
