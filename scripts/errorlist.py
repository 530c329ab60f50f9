#!/usr/bin/env python3
"""Writes docs/errors.md: every error, its code, what it tells, and which methods raise it.

scripts/errorlist.py           writes the file
scripts/errorlist.py --check   exits with 1 if it is not up to date
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from reference import Function, find_class, methods

import sandyard
from sandyard import SandboxError, errors

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"

HEAD = """\
# Errors

Whatever this library raises on purpose is a `SandboxError`. It has a `message` that says what happened
and what to change, a stable `error_code`, the operation `op`, facts for programs in `context`, the
`cause` behind it, and `retryable`: whether the same call may succeed later, None where nobody knows.
Names in brackets are builtins that the class is too. This page is made from the source by
`scripts/errorlist.py`.
"""

RAISES = re.compile(r"^Raises:\n((?:    .*\n?|\n)+)", re.MULTILINE)
RAISED = re.compile(r"^    ([A-Z]\w+(?:, [A-Z]\w+)*): ", re.MULTILINE)
ARGS = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
OWNERS = {"UnixLocalSandboxClient": "client", "UnixLocalSandboxSession": "session"}
"""What the examples call them."""

SHARED = frozenset({"message", "context", "cause", "retryable", "op"})
"""What every error has; the head of the page tells it."""


def walk(kind: type[SandboxError]) -> Iterator[type[SandboxError]]:
    """The tree of errors, each after the one that it is a kind of."""
    yield kind
    for name in errors.__all__:
        child = getattr(errors, name)
        if isinstance(child, type) and public_base(child) is kind:
            yield from walk(child)


def public_base(kind: type) -> type | None:
    """The public error that a class is first of all a kind of; helpers are seen through."""
    families = [base for base in kind.__mro__[1:] if issubclass(base, SandboxError)]
    public = [base for base in families if base.__name__ in errors.__all__]
    # The nearest is one that no other of them is a kind of.
    nearest = [
        one for one in public if not any(issubclass(far, one) and far is not one for far in public)
    ]
    return nearest[0] if nearest else None


def code_of(kind: type[SandboxError]) -> str | None:
    """The code that a class gives its errors, or that the first base which says one gives them."""
    for base in kind.__mro__:
        if not issubclass(base, SandboxError):
            continue
        for node in ast.walk(find_class(base)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ErrorCode":
                return str(errors.ErrorCode[node.attr].value)
    return None


def text_of(kind: type) -> str:
    """What a class is, without what it takes."""
    text = inspect.cleandoc(vars(kind).get("__doc__") or "")
    return text.partition("\n\nArgs:")[0].partition("\n\nAttributes:")[0]


def facts_of(kind: type[SandboxError]) -> list[str]:
    """What a class tells besides what all errors tell: its arguments, as list items."""
    for base in kind.__mro__:
        found = ARGS.search(inspect.cleandoc(vars(base).get("__doc__") or ""))
        if found is None:
            continue
        items = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", found[1], re.MULTILINE)
        return [
            f"- `{name}`: {' '.join(said.split())}" for name, said in items if name not in SHARED
        ]
    return []


@cache
def raised_by() -> dict[str, set[str]]:
    """For each error the public methods whose documentation says that they raise it.

    The contract's are left out: those of this machine's sessions and clients say it more exactly.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for name in sandyard.__all__:
        thing = getattr(sandyard, name)
        if not isinstance(thing, type) or issubclass(thing, SandboxError):
            continue
        if thing.__module__.startswith("sandyard.contract"):
            continue
        for owner in (thing, *thing.__mro__[1:]):
            inherited = owner is not thing and owner.__name__ in sandyard.__all__
            if owner.__module__.startswith("sandyard.") and not inherited:
                for function in methods(find_class(owner)):
                    for error in told(function):
                        found[error].add(f"{OWNERS.get(name, name)}.{function.name}")
    return found


def told(function: Function) -> Iterator[str]:
    """The errors that a docstring names."""
    section = RAISES.search(inspect.cleandoc(ast.get_docstring(function) or ""))
    for names in RAISED.findall(section[1] if section else ""):
        yield from names.split(", ")


def describe(kind: type[SandboxError]) -> str:
    """One error."""
    parts = [f"## {kind.__name__}\n"]
    own = [base for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base]
    own = [one for one in own if one not in {Exception, BaseException, object, OSError}]
    outside = [one.__name__ for one in own if not any(one in far.__mro__[1:] for far in own)]
    base, code = public_base(kind), code_of(kind)
    words = [f"Is a `{base.__name__}`." if base else ""]
    if outside:
        words.append(f"Is a {', '.join(f'`{name}`' for name in outside)} as well.")
    if code:
        words.append(f"Code: `{code}`.")
    parts.append(" ".join(word for word in words if word) + "\n")
    parts.append(text_of(kind) + "\n")
    if facts := facts_of(kind):
        parts.append("\n".join(["It tells besides:\n", *facts]) + "\n")
    if methods_of := raised_by().get(kind.__name__):
        parts.append(f"Raised by {', '.join(f'`{name}`' for name in sorted(methods_of))}.\n")
    return "\n".join(parts)


def write_page() -> str:
    """The whole page."""
    tree = (errors.__doc__ or "").partition("    SandboxError\n")[2].partition("\n\nErrors can")[0]
    drawn = "\n".join(line[4:] for line in f"    SandboxError\n{tree}".splitlines())
    kinds = list(walk(SandboxError))
    missing = set(sandyard.__all__) & {
        name for name in errors.__all__ if name.endswith("Error")
    } - {kind.__name__ for kind in kinds}
    if missing:
        raise SystemExit(f"these errors are in no place of the tree: {', '.join(sorted(missing))}")
    return "\n".join([HEAD, f"```text\n{drawn}\n```\n", *map(describe, kinds)])


def main() -> int:
    """Write the page, or compare."""
    page = write_page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
