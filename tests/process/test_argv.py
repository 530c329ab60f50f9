"""A caller's words become a command's, or an error that names the argument."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePath, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import OUTPUT_LIMIT_MAX_BYTES, TIMEOUT_MAX_S
from sandyard.process.argv import (
    checked_environment,
    checked_leftovers,
    checked_limit,
    checked_stdin,
    checked_timeout,
    command_argv,
    command_directory,
    encoded_words,
)

Words = tuple[str, ...]


def assert_refused(
    kind: type[ArgumentError], argument: str, call: Callable[..., object], *arguments: object
) -> ArgumentError:
    """The call raises exactly this error, about this argument of exec."""
    with pytest.raises(ArgumentError) as caught:
        call(*arguments)
    error = caught.value
    assert type(error) is kind
    assert (error.op, error.context["argument"], error.retryable) == ("exec", argument, False)
    return error


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "shell", "expected"),
    [
        (["true"], False, ("true",)),
        (["echo", "a b", ""], False, ("echo", "a b", "")),
        ([""], False, ("",)),
        ([Path("/bin/ls"), PurePosixPath("x")], False, ("/bin/ls", "x")),
        (["ls"], [], ("ls",)),
        (["ls"], (), ("ls",)),
        (["ls -l | wc"], True, ("sh", "-c", "ls -l | wc")),
        ([""], True, ("sh", "-c", "")),
        (["echo", "a b", "$x", ""], True, ("sh", "-c", "echo 'a b' '$x' ''")),
        (["a'b", "c"], True, ("sh", "-c", "'a'\"'\"'b' c")),
        ([Path("/a b"), "c"], True, ("sh", "-c", "'/a b' c")),
        ([Path("/a b")], True, ("sh", "-c", "/a b")),
        (["x"], ["bash", "-o", "pipefail", "-c"], ("bash", "-o", "pipefail", "-c", "x")),
        (["x", "y z"], (Path("/bin/bash"), "-c"), ("/bin/bash", "-c", "x 'y z'")),
        (["\udcff", "ü\n"], False, ("\udcff", "ü\n")),
    ],
)
def test_words_of_a_command(command: list[str], shell: Any, expected: Words) -> None:  # noqa: ANN401
    assert command_argv(command, shell) == expected
    assert command_argv(tuple(command), shell) == expected


@pytest.mark.parametrize(
    ("command", "shell", "kind", "argument"),
    [
        ([], False, ArgumentError, "command"),
        ([], True, ArgumentError, "command"),
        (["a\0b"], False, ArgumentError, "command"),
        (["a", "\0"], True, ArgumentError, "command"),
        ([PurePath("a\0b")], False, ArgumentError, "command"),
        (["a"], ["sh\0", "-c"], ArgumentError, "shell"),
        ([b"ls"], False, ArgumentTypeError, "command"),
        (["ls", 1], True, ArgumentTypeError, "command"),
        (["ls", None], False, ArgumentTypeError, "command"),
        ([["ls", "-l"]], True, ArgumentTypeError, "command"),
        (["ls"], None, ArgumentTypeError, "shell"),
        (["ls"], 1, ArgumentTypeError, "shell"),
        (["ls"], "bash", ArgumentTypeError, "shell"),
        (["ls"], b"bash", ArgumentTypeError, "shell"),
        (["ls"], {"bash", "-c"}, ArgumentTypeError, "shell"),
        (["ls"], Path("/bin/bash"), ArgumentTypeError, "shell"),
        (["ls"], ["bash", b"-c"], ArgumentTypeError, "shell"),
        (["ls"], bytearray(b"sh"), ArgumentTypeError, "shell"),
    ],
)
def test_impossible_words(
    command: Any,  # noqa: ANN401
    shell: Any,  # noqa: ANN401
    kind: type[ArgumentError],
    argument: str,
) -> None:
    assert_refused(kind, argument, command_argv, command, shell)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ([["ls", "-l"]], "not list; give a list's words one by one: *words"),
        (["sleep", 1], "not int"),
    ],
)
def test_list_as_a_word_is_advised(words: Any, end: str) -> None:  # noqa: ANN401
    error = assert_refused(ArgumentTypeError, "command", command_argv, words, True)
    assert error.message.endswith(end)


def test_words_as_the_kernel_takes_them() -> None:
    assert encoded_words(["a", "", "ü", "\udcff\udc80"]) == (b"a", b"", b"\xc3\xbc", b"\xff\x80")
    for word in ("\ud800", "\udc7f", "\udfff"):  # half a pair, which stands for no byte
        error = assert_refused(ArgumentError, "command", encoded_words, ["a", word])
        assert isinstance(error.__cause__, UnicodeEncodeError)
        assert_refused(ArgumentError, "env", encoded_words, [word], "env")


# --- timeout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [5e-324, 0.001, 1, 7.5, 10**6, TIMEOUT_MAX_S])
def test_timeout(timeout: float) -> None:
    checked = checked_timeout(timeout)
    assert (type(checked), checked) == (float, timeout)


def test_no_timeout() -> None:
    assert checked_timeout(None) is None


@pytest.mark.parametrize(
    "timeout",
    [0, 0.0, -0.0, -1, float("nan"), float("inf"), -float("inf"), TIMEOUT_MAX_S + 1, 10**400],
)
def test_impossible_timeout(timeout: float) -> None:
    assert_refused(ArgumentError, "timeout", checked_timeout, timeout)


@pytest.mark.parametrize("timeout", [True, False, "5", b"5", 1j, [1], object()])
def test_timeout_of_wrong_type(timeout: object) -> None:
    assert_refused(ArgumentTypeError, "timeout", checked_timeout, timeout)


# --- directory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cwd", "expected"),
    [
        (None, b"/w"),
        (".", b"/w/."),
        ("sub/dir", b"/w/sub/dir"),
        ("../x", b"/w/../x"),
        ("/tmp", b"/tmp"),
        ("/", b"/"),
        (Path("sub"), b"/w/sub"),
        (PurePosixPath("/abs"), b"/abs"),
        (Path(), b"/w/."),
        ("ü \n", b"/w/\xc3\xbc \n"),
        ("\udcff", b"/w/\xff"),
    ],
)
def test_directory(cwd: str | PurePath | None, expected: bytes) -> None:
    assert command_directory(cwd, "/w") == expected


def test_directory_of_an_odd_workspace() -> None:
    assert command_directory(None, "/w\udcff") == b"/w\xff"
    assert command_directory("a", "/w\udcff") == b"/w\xff/a"


@pytest.mark.parametrize("cwd", ["", "a\0b", "/\0", PurePath("\0"), "\ud800"])
def test_impossible_directory(cwd: str | PurePath) -> None:
    assert_refused(ArgumentError, "cwd", command_directory, cwd, "/w")


@pytest.mark.parametrize("cwd", [b"/tmp", 5, True, ["a"], object()])
def test_directory_of_wrong_type(cwd: object) -> None:
    assert_refused(ArgumentTypeError, "cwd", command_directory, cwd, "/w")


# --- environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"A": "1", "B": ""}, {b"A": b"1", b"B": b""}),
        ({"A": "=x=y"}, {b"A": b"=x=y"}),
        ({"a b": "c\nd"}, {b"a b": b"c\nd"}),
        ({"Ü": "\udcff"}, {b"\xc3\x9c": b"\xff"}),
        (MappingProxyType({"A": "1"}), {b"A": b"1"}),
        (OrderedDict(Z="1", A="2"), {b"Z": b"1", b"A": b"2"}),
    ],
)
def test_environment(env: object, expected: dict[bytes, bytes]) -> None:
    checked = checked_environment(env)
    assert list(checked.items()) == list(expected.items())


@pytest.mark.parametrize(
    "env",
    [
        {"": "x"},
        {"A=B": "x"},
        {"=": "x"},
        {"A": "x", "A\0B": "y"},
        {"A": "x\0"},
        {"\ud800": "x"},
        {"A": "\ud800"},
    ],
)
def test_impossible_environment(env: object) -> None:
    assert_refused(ArgumentError, "env", checked_environment, env)


@pytest.mark.parametrize(
    "env",
    [
        [],
        [("A", "1")],
        "A=1",
        5,
        True,
        {b"A": "1"},
        {"A": b"1"},
        {"A": 1},
        {"A": None},
        {"A": Path("x")},
        {1: "A"},
        {None: "A"},
    ],
)
def test_environment_of_wrong_type(env: object) -> None:
    assert_refused(ArgumentTypeError, "env", checked_environment, env)


# --- the others -----------------------------------------------------------------------------------


def test_leftovers() -> None:
    assert checked_leftovers("keep") is False
    assert checked_leftovers("end") is True


@pytest.mark.parametrize("leftovers", ["", "END", "kill", None, True, 1, b"end", ["end"], {}])
def test_impossible_leftovers(leftovers: object) -> None:
    assert_refused(ArgumentError, "leftovers", checked_leftovers, leftovers)


@pytest.mark.parametrize("limit", [0, 1, 16 * 1024 * 1024, OUTPUT_LIMIT_MAX_BYTES])
def test_limit(limit: int) -> None:
    assert checked_limit(limit) == limit


def test_impossible_limit() -> None:
    for limit in (-1, OUTPUT_LIMIT_MAX_BYTES + 1, 10**5000, -(10**5000)):
        assert_refused(ArgumentError, "output_limit", checked_limit, limit)


@pytest.mark.parametrize("limit", [None, True, False, 1.0, "1", b"1", [1]])
def test_limit_of_wrong_type(limit: object) -> None:
    assert_refused(ArgumentTypeError, "output_limit", checked_limit, limit)


class Reader:
    """The least that can be read."""

    def read(self, _: int) -> bytes:
        """Nothing."""
        return b""


async def one_chunk() -> AsyncIterator[bytes]:
    yield b"chunk"


def test_stdin(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file, (tmp_path / "file").open("rb", 0) as raw:
        data = memoryview(b"a")
        given = (None, b"", b"a", bytearray(b"a"), data, io.BytesIO(), file, raw, Reader())
        for stdin in (*given, one_chunk()):
            assert checked_stdin(stdin) is stdin


@pytest.mark.parametrize(
    ("stdin", "hint"),
    [
        ("text", True),
        ("", True),
        (io.StringIO("text"), True),
        (5, False),
        (True, False),
        (["a"], False),
        ([b"a"], False),
        (iter([b"a"]), False),
        (Path("/etc/passwd"), False),
        (type("Odd", (), {"read": b""})(), False),
        (object(), False),
    ],
)
def test_stdin_of_wrong_type(stdin: object, hint: bool) -> None:
    error = assert_refused(ArgumentTypeError, "stdin", checked_stdin, stdin)
    assert error.message.endswith("; encode text first") is hint


def test_text_file_is_no_stdin() -> None:
    with open(os.devnull, encoding="utf-8") as file:
        assert_refused(ArgumentTypeError, "stdin", checked_stdin, file)
