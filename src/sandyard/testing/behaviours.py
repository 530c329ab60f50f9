"""What a behaviour is: a name, the promise that it belongs to, and a function that tries it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath

from sandyard.contract import BaseSandboxSession
from sandyard.errors import UnsupportedOperationError, shown
from sandyard.finishing import in_thread
from sandyard.types import ExecResult

__all__ = [
    "Behaviour",
    "DiffersError",
    "Place",
    "Promise",
    "SessionFactory",
    "Suite",
    "check",
    "refused",
    "same",
]

SessionFactory = Callable[[], AbstractAsyncContextManager[BaseSandboxSession]]
"""Gives a new session, not started, for the length of a block, and deletes it at its end."""


class Promise(StrEnum):
    """What a behaviour is part of, in words."""

    AS_GIVEN = "the command that was given is the command that runs"
    BACKGROUND = "processes in the background have handles"
    BOUNDED = "output is bounded, and comes as it is written"
    EACH_CALL = "directory, variables and user are each call's own"
    ENDS = "timeout, cancellation and the end of a session leave nothing running"
    ENVIRONMENT = "nothing of the host's environment shows that was not allowed"
    ERRORS = "errors are typed and say what happened"
    FILES = "files are read, written, moved and removed exactly, whole or not at all"
    INPUT = "the input of a command is what the caller gives"
    LIFE = "a session starts, stops and ends in any order of calls"
    LINKS = "links are links, and none leads out"
    ONE_VIEW = "commands and the file API see the same files"
    RETURNS = "a command returns when it exits"
    SAVED = "what was saved is restored, and nothing is half restored"
    SPAWNING = "what can't be run is a result, as in a shell"
    TERMINALS = "terminals are terminals"
    WALL = "commands reach the workspace and the system's programs, and nothing else"


class DiffersError(AssertionError):
    """A session does something else than a behaviour says."""


def check(holds: object, *seen: object) -> None:
    """Fail a behaviour unless something holds, and show what was seen instead."""
    if not holds:
        raise DiffersError("it does something else: " + ", ".join(map(shown, seen)))


def same(seen: object, wanted: object) -> None:
    """Fail a behaviour unless two values are equal."""
    if seen != wanted:
        raise DiffersError(f"it gives {shown(seen)}, not {shown(wanted)}")


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[list[Exception]]:
    """Fail a behaviour unless the block raises one of some errors, which is added to the list given.

    What a session does not offer is no refusal, and goes on as it is.
    """
    caught: list[Exception] = []
    try:
        yield caught
    except UnsupportedOperationError:
        raise
    except kinds as error:
        caught.append(error)
    else:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise DiffersError(f"nothing is raised where {names} should be")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a behaviour is tried: a session that runs, and a directory in it that is empty.

    Attributes:
        session: shared with other behaviours, one after the other, unless the behaviour says
            ``own``: then nobody else has it, and it is not started.
        directory: relative to the workspace; empty where the session is not started.
        make: the factory, for behaviours that want further sessions.
    """

    session: BaseSandboxSession
    directory: str
    make: SessionFactory

    def at(self, name: str) -> str:
        """The path of something in the directory, relative to the workspace."""
        return f"{self.directory}/{name}" if self.directory else name

    async def run(self, text: str) -> ExecResult:
        """Run a line of shell in the directory."""
        return await self.session.exec(f"cd {self.directory or '.'} && {{ {text}\n}}")

    async def said(self, text: str) -> str:
        """Run a line of shell that has to succeed, and give what it wrote."""
        result = await self.run(text)
        check(result.ok(), result)
        return result.stdout.decode()

    async def put(self, name: str, data: bytes = b"content") -> str:
        """Write a file in the directory, and give its path."""
        await self.session.write(self.at(name), data)
        return self.at(name)

    async def content(self, name: str) -> bytes:
        """Read a file of the directory."""
        return await self.read(self.at(name))

    async def read(self, path: str | PurePath) -> bytes:
        """Read a file of the workspace."""
        file = await self.session.read(path)
        try:
            return await in_thread(file.read)
        finally:
            file.close()

    async def names(self, name: str = "") -> list[str]:
        """The names in the directory, or in one beneath, as ``ls`` gives them."""
        listed = await self.session.ls(self.at(name) if name else self.directory)
        return [entry.path.rpartition("/")[2] for entry in listed]


Trial = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Something that a session does.

    Attributes:
        name: its group and its own name, such as ``"writing.replaces_whole"``.
        promise: what it is part of.
        says: the behaviour, in a sentence.
        own: whether it wants a session that nobody else uses.
        trial: tries it: returns if the session does it, raises if not.
    """

    name: str
    promise: Promise
    says: str
    own: bool
    trial: Trial = field(repr=False)

    @property
    def group(self) -> str:
        """The part of the suite that it is in, such as ``"writing"``."""
        return self.name.partition(".")[0]


class Suite:
    """The behaviours of one group, in the order in which they are written."""

    def __init__(self, group: str) -> None:
        self._group = group
        self.behaviours: list[Behaviour] = []

    def says(self, promise: Promise, *, own: bool = False) -> Callable[[Trial], Trial]:
        """Add a function as a behaviour; its docstring says it."""

        def add(trial: Trial) -> Trial:
            name = f"{self._group}.{getattr(trial, '__name__', '')}"
            says = (trial.__doc__ or "").partition("\n")[0]
            self.behaviours.append(Behaviour(name, promise, says, own, trial))
            return trial

        return add
