"""The verb that searches in files: by a command inside, since a pattern is a program too."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from sandyard.errors import ArgumentError, ArgumentTypeError, ExecNonZeroError, shown
from sandyard.limits import GREP_ERROR_BYTES, GREP_MATCHES, GREP_MATCHES_MAX, GREP_PATTERN_BYTES
from sandyard.observing import observed
from sandyard.process import CommandStream
from sandyard.types import ExecResult, User
from sandyard.verb_bases import WorkspaceVerbBase
from sandyard.workspace.listing import describe

if TYPE_CHECKING:
    from sandyard.file_verbs.matches import GrepResult

__all__ = ["GrepSyntax", "SearchingVerbs"]

GrepSyntax = Literal["literal", "extended", "perl"]
"""How a pattern is read: as it is, as an extended regular expression (POSIX), or as Perl's."""

_FLAGS: Final[dict[GrepSyntax, str]] = {"literal": "-F", "extended": "-E", "perl": "-P"}
_FOUND: Final = 0
_NONE: Final = 1
_FAILED: Final = 2


class _Order(NamedTuple):
    """What is searched for, checked."""

    pattern: str
    syntax: GrepSyntax
    ignore_case: bool
    binary: bool
    include: str | None

    def words(self, path: str) -> list[str]:
        """The command."""
        flags = ["-r", "-n", "-H", "-Z", "-s", "-D", "skip", _FLAGS[self.syntax]]
        if self.ignore_case:
            flags.append("-i")
        flags.append("-a" if self.binary else "-I")
        if self.include is not None:
            flags.append(f"--include={self.include}")
        return ["grep", "--color=never", *flags, "-e", self.pattern, "--", path]


class SearchingVerbs(WorkspaceVerbBase):
    """How a session searches in its files."""

    @abstractmethod
    def _running_program(
        self, *words: str, timeout: float | None, user: str | User | None
    ) -> AbstractAsyncContextManager[CommandStream]:
        """A program inside, which is ended when the block is left."""

    @observed("grep")
    async def grep(  # noqa: PLR0913 - one keyword for each way to search
        self,
        pattern: str,
        path: str | PurePath = ".",
        *,
        syntax: GrepSyntax = "literal",
        ignore_case: bool = False,
        include: str | None = None,
        binary: bool = False,
        max_matches: int = GREP_MATCHES,
        timeout: float | None = 60,
        user: str | User | None = None,
    ) -> GrepResult:
        """Find lines that match a pattern, in a file or in all files beneath a directory.

        The machine's grep does it, in the sandbox: a pattern that would take for ever takes nothing
        of your program, and what commands may not read is not searched.

        Args:
            pattern: what to look for, in one line.
            path: relative to the workspace, or absolute in it or in a granted directory (default:
                the workspace). Symlinks beneath it are not followed.
            syntax: ``"literal"`` (default) takes the pattern as it is, ``"extended"`` as POSIX does,
                ``"perl"`` as Perl does, where the machine's grep can.
            ignore_case: True finds upper and lower case alike (default: False).
            include: a pattern that names of files match, such as ``"*.py"`` (default: all).
            binary: True searches files that are no UTF-8 text too (default: they are left out).
            max_matches: lines at most (default: 1,000); the search ends there.
            timeout: seconds at most (default: 60); None for as long as it takes.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.

        Returns:
            The lines, and whether there are more.

        Raises:
            ArgumentError, ArgumentTypeError: the pattern can't be one, or a number is impossible.
            WorkspaceReadNotFoundError: there is no such path.
            PolicyDeniedError: the policy denies it.
            ExecTimeoutError: it took too long.
            ExecNonZeroError: this machine's grep can't do it.
            SessionClosedError: the session is not running.

        Example:
            >>> found = await session.grep("TODO", "src", include="*.py")
            >>> [(match.path, match.line) for match in found.matches]
        """
        order = _checked(pattern, syntax, include, ignore_case=ignore_case, binary=binary)
        _check_most(max_matches)
        workspace = self._open_workspace("grep", user)
        entry = await workspace.run("grep", partial(describe, path=path, op="grep"))
        words = order.words(entry.path)
        from sandyard.file_verbs.matches import (  # noqa: PLC0415  # for a search
            GrepResult,
            MatchReader,
        )

        reader, complaints = MatchReader(), bytearray()
        async with self._running_program(*words, timeout=timeout, user=user) as running:
            async for chunk in running:
                if chunk.stream == "stderr":
                    complaints += chunk.data[: GREP_ERROR_BYTES - len(complaints)]
                    continue
                reader.feed(chunk.data)
                if len(reader.found) > max_matches:
                    return GrepResult(tuple(reader.found[:max_matches]), truncated=True)
        result = running.result
        if result.exit_code in {_FOUND, _NONE}:
            return GrepResult(tuple(reader.found))
        said = bytes(complaints) or result.stderr
        if result.exit_code == _FAILED and not said:  # only what -s keeps silent about
            return GrepResult(tuple(reader.found), complete=False)
        raise _refusal(order, words, said, result.exit_code)


def _refusal(order: _Order, words: list[str], said: bytes, code: int) -> Exception:
    """Say what grep refused: the pattern, or to run at all."""
    text = said.decode("utf-8", "replace").strip().removeprefix("grep: ")
    if code == _FAILED and order.syntax != "literal":
        return ArgumentError(
            f"grep can't use the pattern {shown(order.pattern)}: {text}; correct it, or choose "
            "another syntax",
            op="grep",
            argument="pattern",
            value=order.pattern,
        )
    return ExecNonZeroError(ExecResult(stdout=b"", stderr=said, exit_code=code), command=words)


def _checked(
    pattern: object, syntax: object, include: object, *, ignore_case: bool, binary: bool
) -> _Order:
    for argument, value in (("pattern", pattern), ("include", "" if include is None else include)):
        if not isinstance(value, str):
            raise ArgumentTypeError(
                f"{argument} is a str", op="grep", argument=argument, value=value
            )
        if "\0" in value or "\n" in value or len(value) > GREP_PATTERN_BYTES:
            raise ArgumentError(
                f"{argument} is one line without NUL, of {GREP_PATTERN_BYTES} characters at most",
                op="grep",
                argument=argument,
                value=value,
            )
    known = next((each for each in get_args(GrepSyntax) if each == syntax), None)
    if known is None:
        words = ", ".join(repr(each) for each in get_args(GrepSyntax))
        raise ArgumentError(f"syntax is one of {words}", op="grep", argument="syntax", value=syntax)
    return _Order(
        str(pattern), known, ignore_case, binary, None if include is None else str(include)
    )


def _check_most(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= GREP_MATCHES_MAX:
        raise ArgumentError(
            f"max_matches is a number from 1 to {GREP_MATCHES_MAX:,}",
            op="grep",
            argument="max_matches",
            value=value,
        )
