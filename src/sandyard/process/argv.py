"""Owns the words of a command: what a caller gives becomes an argv, checked before anything runs."""

from __future__ import annotations

import io
import posixpath
import sys
from collections.abc import AsyncIterable, Mapping, Sequence
from pathlib import PurePath
from typing import BinaryIO, cast

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import OUTPUT_LIMIT_MAX_BYTES, TIMEOUT_MAX_S
from sandyard.process.pipes import StdinSource

__all__ = [
    "SHELL",
    "checked_environment",
    "checked_leftovers",
    "checked_limit",
    "checked_stdin",
    "checked_timeout",
    "command_argv",
    "command_directory",
    "encoded_words",
]

_WORD = (str, PurePath)
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""What os.fsencode takes, which looks each time at what it is given."""

SHELL = ("sh", "-c")
"""What runs a command that is given as text: no login shell, so nothing of HOME is executed."""


def command_argv(command: Sequence[str | PurePath], shell: bool | Sequence[str]) -> tuple[str, ...]:
    """The argv of a command.

    Args:
        command: its words. With a shell, one word is the shell's text as it stands; several are
            quoted and joined.
        shell: True for ``sh -c``, a list for another shell and its options, False for none.

    Raises:
        ArgumentError: if there is no word, or one holds a NUL.
        ArgumentTypeError: if a word is no string or path.
    """
    words = tuple(
        [
            word if type(word) is str and "\0" not in word else _word(word, "command")
            for word in command
        ]
    )
    if not words:
        raise ArgumentError("a command needs a word", op="exec", argument="command", value=command)
    if shell is False:
        return words
    if isinstance(shell, str | bytes) or not isinstance(shell, bool | Sequence):
        raise ArgumentTypeError(
            "shell is True, False or a list such as ['bash', '-c']",
            op="exec",
            argument="shell",
            value=shell,
        )
    if not shell:
        return words
    prefix = SHELL if shell is True else tuple(_word(word, "shell") for word in shell)
    if len(words) == 1:
        return (*prefix, words[0])
    from shlex import join  # noqa: PLC0415  # most commands are one text

    return (*prefix, join(words))


def _word(word: object, argument: str) -> str:
    if not isinstance(word, _WORD):
        hint = "; give a list's words one by one: *words" if isinstance(word, list | tuple) else ""
        raise ArgumentTypeError(
            f"a word of {argument} is a string or a path, not {type(word).__name__}{hint}",
            op="exec",
            argument=argument,
            value=word,
        )
    text = str(word)
    _refuse_nul(text, argument)
    return text


def _refuse_nul(text: str, argument: str) -> None:
    if "\0" in text:
        raise ArgumentError(
            f"{argument} holds a NUL character, which no program can be given",
            op="exec",
            argument=argument,
            value=text,
        )


def encoded_words(words: Sequence[str], argument: str = "command") -> tuple[bytes, ...]:
    """Words as the kernel takes them.

    Raises:
        ArgumentError: if a word holds a lone surrogate that stands for no byte.
    """
    try:
        return tuple([word.encode(_ENCODING, _ERRORS) for word in words])
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"{argument} holds characters that can't be encoded: {error.reason}",
            op="exec",
            argument=argument,
            value=words,
            cause=error,
        ) from error


def checked_timeout(timeout: object) -> float | None:
    """A timeout in seconds, or None for none.

    Raises:
        ArgumentTypeError: if it is no number.
        ArgumentError: if it is not above 0, or longer than a year.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise ArgumentTypeError(
            "timeout is a number of seconds, or None", op="exec", argument="timeout", value=timeout
        )
    if not 0 < timeout <= TIMEOUT_MAX_S:  # which NaN is not either
        raise ArgumentError(
            f"timeout is more than 0 and at most {TIMEOUT_MAX_S:.0f} seconds; leave it out for no limit",
            op="exec",
            argument="timeout",
            value=timeout,
        )
    return float(timeout)


def command_directory(cwd: str | PurePath | None, root: str) -> bytes:
    """The absolute directory of a command; ``cwd`` is relative to the workspace, or absolute.

    Symlinks and ".." are the kernel's to resolve, inside.

    Raises:
        ArgumentTypeError: if it is no string or path.
        ArgumentError: if it is empty or holds a NUL.
    """
    if cwd is None:
        return root.encode(_ENCODING, _ERRORS)
    if not isinstance(cwd, str | PurePath):
        raise ArgumentTypeError("cwd is a string or a path", op="exec", argument="cwd", value=cwd)
    text = str(cwd)
    if not text:
        raise ArgumentError("cwd is empty", op="exec", argument="cwd", value=cwd)
    _refuse_nul(text, "cwd")
    return encoded_words([posixpath.join(root, text)], "cwd")[0]


def checked_environment(env: object) -> dict[bytes, bytes]:
    """Variables of one command, as the kernel takes them.

    Raises:
        ArgumentTypeError: if it is no mapping of strings to strings.
        ArgumentError: if a name is empty or holds "=", or anything holds a NUL.
    """
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ArgumentTypeError(
            "env is a mapping of names to values", op="exec", argument="env", value=env
        )
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ArgumentTypeError(
                "names and values of env are strings", op="exec", argument="env", value=name
            )
        if not name or "=" in name:
            raise ArgumentError(
                "a name in env is not empty and holds no '='", op="exec", argument="env", value=name
            )
        _refuse_nul(name + value, "env")
    names, values = encoded_words(list(env), "env"), encoded_words(list(env.values()), "env")
    return dict(zip(names, values, strict=True))


def checked_leftovers(leftovers: object) -> bool:
    """Whether what a command leaves running is to be ended at its exit.

    Raises:
        ArgumentError: if it is neither "keep" nor "end".
    """
    if leftovers not in ("keep", "end"):
        raise ArgumentError(
            "leftovers is 'keep' or 'end'", op="exec", argument="leftovers", value=leftovers
        )
    return leftovers == "end"


def checked_limit(limit: object) -> int:
    """Bytes to keep of a stream.

    Raises:
        ArgumentTypeError: if it is no whole number.
        ArgumentError: if it is negative, or above 1 GiB.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise ArgumentTypeError(
            "output_limit is a number of bytes", op="exec", argument="output_limit", value=limit
        )
    if not 0 <= limit <= OUTPUT_LIMIT_MAX_BYTES:
        raise ArgumentError(
            f"output_limit is from 0 to {OUTPUT_LIMIT_MAX_BYTES} bytes",
            op="exec",
            argument="output_limit",
            value=limit,
        )
    return limit


def checked_stdin(stdin: object) -> StdinSource | None:
    """What a command is given to read.

    Raises:
        ArgumentTypeError: if it is text, or nothing that gives bytes.
    """
    if stdin is None or isinstance(stdin, bytes | bytearray | memoryview | AsyncIterable):
        return stdin
    if isinstance(stdin, io.TextIOBase) or not callable(getattr(stdin, "read", None)):
        hint = "; encode text first" if isinstance(stdin, str | io.TextIOBase) else ""
        raise ArgumentTypeError(
            f"stdin is bytes, a binary file or an async iterable of bytes{hint}",
            op="exec",
            argument="stdin",
            value=stdin,
        )
    return cast(BinaryIO, stdin)
