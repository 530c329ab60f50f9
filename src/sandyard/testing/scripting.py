"""What a scripted session answers to which command, and what it was asked: pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from sandyard.errors import ArgumentError, ArgumentTypeError, UnscriptedCommandError, shown
from sandyard.types import ExecResult

__all__ = [
    "Answer",
    "Command",
    "Doing",
    "Script",
    "ScriptedCall",
    "as_bytes",
    "as_result",
    "is_whole",
]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A command that a scripted session was asked to run.

    Attributes:
        words: as they were given.
        text: the one word, or several as a shell would be given them: ``"git commit -m 'a b'"``.
        argv: what would have been executed, such as ``("sh", "-c", "make")``.
        timeout: as given, in seconds; None for none.
        user: name of the user; ``"agent"`` unless another was given.
        cwd: absolute directory that it would have run in.
        env: the variables that were given.
        stdin: all that it could have read.
    """

    words: tuple[str, ...]
    text: str
    argv: tuple[str, ...]
    timeout: float | None = None
    user: str = "agent"
    cwd: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""


Command = str | Sequence[str | PurePath] | re.Pattern[str] | Callable[[ScriptedCall], object]
"""Which commands an answer is for: a text, words, a pattern of the whole text, or a function that tells."""

Told = ExecResult | str | bytes | None
"""What a function says of a command: all of its result, its standard output, or nothing of note."""

Doing = Callable[[ScriptedCall], Told | Awaitable[Told]]


@dataclass(slots=True)
class Answer:
    """One line of a script.

    Attributes:
        command: which commands it is for.
        result: what they are told.
        raises: what is raised instead.
        does: what is called instead, with the command.
        times: how often it may still be given; None for ever.
    """

    command: Command
    result: ExecResult
    raises: BaseException | None = None
    does: Doing | None = None
    times: int | None = None

    def fits(self, call: ScriptedCall) -> bool:
        """Tell whether a command is one of those that it is for."""
        wanted = self.command
        if isinstance(wanted, str):
            return call.text == wanted
        if isinstance(wanted, re.Pattern):
            return wanted.fullmatch(call.text) is not None
        if callable(wanted):
            return bool(wanted(call))
        return call.words == tuple(map(str, wanted))

    def __str__(self) -> str:
        """Which commands it is for, and whether it is used up."""
        wanted = self.command
        if isinstance(wanted, re.Pattern):
            said = f"what matches {wanted.pattern!r}"
        elif callable(wanted) and not isinstance(wanted, str):
            said = f"what {getattr(wanted, '__name__', 'a function')}() says"
        else:
            said = shown(wanted if isinstance(wanted, str) else tuple(map(str, wanted)))
        return said if self.times != 0 else f"{said} (used up)"


class Script:
    """The answers of a session, in the order in which they were given."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []

    def add(self, answer: Answer) -> None:
        """Add an answer; of several that fit, the first that is not used up is given.

        Raises:
            ArgumentError, ArgumentTypeError: it is none.
        """
        wanted: object = answer.command
        if isinstance(wanted, bytes) or not (
            isinstance(wanted, str | Sequence | re.Pattern) or callable(wanted)
        ):
            raise ArgumentTypeError(
                "command is a text, words, a compiled pattern of text, or a function of a "
                f"ScriptedCall, not {shown(wanted)}",
                op="exec",
                argument="command",
                value=wanted,
            )
        if isinstance(wanted, re.Pattern) and isinstance(wanted.pattern, bytes):
            raise ArgumentTypeError(
                "a pattern of commands is one of text; leave out the b before its quotes",
                op="exec",
                argument="command",
                value=wanted,
            )
        if answer.times is not None and (not is_whole(answer.times) or answer.times < 1):
            raise ArgumentError(
                "times is a number, at least 1", op="exec", argument="times", value=answer.times
            )
        self._answers.append(answer)

    def find(self, call: ScriptedCall) -> Answer:
        """The answer to a command, which is then used once.

        Raises:
            UnscriptedCommandError: there is none.
        """
        for answer in self._answers:
            if answer.times != 0 and answer.fits(call):
                if answer.times is not None:
                    answer.times -= 1
                return answer
        raise UnscriptedCommandError(command=call.words, answers=self.known)

    @property
    def known(self) -> tuple[str, ...]:
        """Which commands there are answers to."""
        return tuple(map(str, self._answers))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Answers that should have been given so many times, and were not."""
        return tuple(str(answer) for answer in self._answers if answer.times)


def is_whole(value: object) -> bool:
    """Tell whether something is a number that counts."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_result(told: object) -> ExecResult:
    """The result that a function of a script told.

    Raises:
        ArgumentTypeError: it told something else.
    """
    if isinstance(told, ExecResult):
        return told
    if told is None or isinstance(told, str | bytes):
        return ExecResult(stdout=as_bytes("does", told or b""), stderr=b"", exit_code=0)
    raise ArgumentTypeError(
        f"does= tells an ExecResult, text, bytes or None, not {shown(told)}",
        op="exec",
        argument="does",
        value=told,
    )


def as_bytes(argument: str, text: object) -> bytes:
    """Text of a script as a command would have written it.

    Raises:
        ArgumentTypeError: it is neither text nor bytes.
    """
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise ArgumentTypeError(
        f"{argument} is text or bytes, not {shown(text)}", op="exec", argument=argument, value=text
    )
