"""Impossible arguments: each is a typed error that names the argument, before anything happens."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    UnixLocalSandboxSession,
    User,
)
from sandyard.process.budget import descriptor_budget
from tests.session.host import root_of

Session = UnixLocalSandboxSession

WRONG_TYPE: list[tuple[str, object]] = [
    ("timeout", "5"),
    ("timeout", True),
    ("timeout", [1]),
    ("timeout", 1j),
    ("shell", "bash"),
    ("shell", b"bash"),
    ("shell", 1),
    ("shell", {"sh": 1}),
    ("shell", ["sh", 1]),
    ("shell", None),
    ("user", 1000),
    ("user", b"agent"),
    ("cwd", 5),
    ("cwd", b"/tmp"),
    ("cwd", ["tmp"]),
    ("env", ["A=1"]),
    ("env", "A=1"),
    ("env", {"A": 1}),
    ("env", {"A": None}),
    ("env", {1: "A"}),
    ("env", {b"A": b"1"}),
    ("stdin", "text"),
    ("stdin", 0),
    ("stdin", sys.stdout),
    ("stdin", io.StringIO("text")),
    ("stdin", ["a"]),
    ("stdin", object()),
    ("output_limit", "1"),
    ("output_limit", 1.5),
    ("output_limit", True),
]
WRONG_VALUE: list[tuple[str, object]] = [
    ("timeout", 0),
    ("timeout", 0.0),
    ("timeout", -1),
    ("timeout", -math.inf),
    ("timeout", math.inf),
    ("timeout", math.nan),
    ("timeout", 1e12),
    ("timeout", 10**400),
    ("shell", ["sh\0", "-c"]),
    ("user", "root"),
    ("user", ""),
    ("user", User(name="nobody")),
    ("cwd", ""),
    ("cwd", "a\0b"),
    ("cwd", "\ud800"),
    ("env", {"": "1"}),
    ("env", {"A=B": "1"}),
    ("env", {"A": "1\0"}),
    ("env", {"A\0": "1"}),
    ("env", {"A": "\ud800"}),
    ("leftovers", "stay"),
    ("leftovers", ""),
    ("leftovers", None),
    ("leftovers", True),
    ("leftovers", ["keep"]),
    ("output_limit", -1),
    ("output_limit", 1024**3 + 1),
    ("output_limit", 10**30),
]
WRONG_WORDS: list[tuple[tuple[object, ...], type[ArgumentError]]] = [
    ((), ArgumentError),
    ((b"true",), ArgumentTypeError),
    ((1,), ArgumentTypeError),
    ((None,), ArgumentTypeError),
    ((["echo", "hi"],), ArgumentTypeError),
    (("echo", 1), ArgumentTypeError),
    (("echo", "a\0b"), ArgumentError),
    (("touch ran\0",), ArgumentError),
    (("echo", "\ud800"), ArgumentError),
]


async def assert_refused(
    session: Session,
    words: tuple[object, ...],
    options: Mapping[str, object],
    kind: type[Exception],
) -> ArgumentError:
    """The error of a call that is refused, as ``exec`` and ``stream`` give it."""
    with pytest.raises(ArgumentError) as caught:
        await session.exec(*words, **options)  # type: ignore[arg-type]  # on purpose
    assert type(caught.value) is kind
    assert caught.value.op == "exec"
    assert caught.value.retryable is False
    if "output_limit" not in options:
        with pytest.raises(ArgumentError) as streamed:
            async with session.stream(*words, **options):  # type: ignore[arg-type]  # on purpose
                pass
        assert type(streamed.value) is kind
    assert descriptor_budget.used == 0
    assert not (root_of(session) / "ran").exists()
    return caught.value


async def test_wrong_types_are_refused(session: Session) -> None:
    for argument, value in WRONG_TYPE:
        error = await assert_refused(session, ("touch ran",), {argument: value}, ArgumentTypeError)
        assert error.context["argument"] == argument, (argument, value)
        assert isinstance(error, TypeError)
        assert isinstance(error, ValueError)


async def test_wrong_values_are_refused(session: Session) -> None:
    for argument, value in WRONG_VALUE:
        error = await assert_refused(session, ("touch ran",), {argument: value}, ArgumentError)
        assert error.context["argument"] == argument, (argument, value)


async def test_wrong_words_are_refused(session: Session) -> None:
    for words, kind in WRONG_WORDS:
        for shell in (True, False):
            error = await assert_refused(session, words, {"shell": shell}, kind)
            assert error.context["argument"] == "command", words


async def test_right_values_are_taken(session: Session) -> None:
    options: list[dict[str, object]] = [
        {"timeout": 5},
        {"timeout": 365 * 24 * 3600},
        {"timeout": None},
        {"shell": ("bash", "-c")},
        {"user": "agent"},
        {"user": User(name="agent")},
        {"env": {}},
        {"env": None},
        {"leftovers": "keep"},
        {"output_limit": 1024**3},
        {"output_limit": 1},
    ]
    for option in options:
        result = await session.exec("true", **option)  # type: ignore[arg-type]  # a table
        assert result.ok(), option


async def test_lists_change_nothing_later(session: Session) -> None:
    shell, env = ["bash", "-c"], {"A": "1"}
    await session.exec("true", shell=shell, env=env)
    assert (shell, env) == (["bash", "-c"], {"A": "1"})
