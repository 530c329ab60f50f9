"""Reads a Git configuration file as data: which keys it sets, nothing expanded and nothing run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from sandyard.planted import GIT_KEYS

__all__ = ["executing_keys", "parse_config"]

_SECTION: Final = re.compile(r'\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]\s*')
_KEY: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?$", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)")
_FIRST: Final = r"\1"
_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b"}


def parse_config(text: str) -> Iterator[tuple[str, str]]:
    """The keys and values of a configuration file, in its order (git-config(1), "Syntax").

    Keys are ``section.subsection.key``, section and key in lower case. What can't be understood is
    left out: Git would refuse the whole file.
    """
    section = ""
    for line in _lines(text):
        rest = line.strip()
        while found := _SECTION.match(rest):
            name, sub = found.group(1).lower(), found.group(2)
            section = name if sub is None else f"{name}.{_ESCAPED.sub(_FIRST, sub)}"
            rest = rest[found.end() :]
        if found := _KEY.match(rest):
            value = "true" if found.group(2) is None else _value(found.group(2))
            yield f"{section}.{found.group(1).lower()}", value


def executing_keys(text: str) -> tuple[tuple[str, str], ...]:
    """Those keys of a configuration that make Git run or obey something else, with their values.

    An alias counts only if it is a command of the shell's.
    """
    return tuple(
        (key, value)
        for key, value in parse_config(text)
        if any(fnmatchcase(key.lower(), pattern) for pattern in GIT_KEYS)
        and (not key.startswith("alias.") or value.startswith("!"))
    )


def _lines(text: str) -> Iterator[str]:
    """Logical lines: a backslash at the end of one joins the next."""
    joined = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        joined += line
        backslashes = len(joined) - len(joined.rstrip("\\"))
        if backslashes % 2:
            joined = joined[:-1]
            continue
        yield joined
        joined = ""
    if joined:
        yield joined


def _value(raw: str) -> str:
    """A value without its quotes, escapes and comment."""
    text, quoted, escaped = "", False, False
    for character in raw:
        if escaped:
            text += _ESCAPES.get(character, character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character in "#;" and not quoted:
            break
        else:
            text += character
    return text.strip()
