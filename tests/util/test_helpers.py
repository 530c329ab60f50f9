"""The small helpers: merging, listings, retries, gathering, streams, and paths of a workspace."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

import sandyard
from sandyard import ArgumentError, ArgumentTypeError, EntryKind, InvalidManifestPathError, util
from sandyard.util import (
    BackoffStrategy,
    IteratorIO,
    deep_merge,
    exception_chain_contains_type,
    exception_chain_has_status_code,
    gather_in_order,
    iter_exception_chain,
    parse_ls_la,
    retry_async,
    sha256_file,
    sha256_io,
)


def test_names_are_the_library_own_too() -> None:
    assert all(getattr(sandyard, name) is getattr(util, name) for name in util.__all__)


def test_merging() -> None:
    under: dict[str, object] = {"a": {"x": 1, "y": {"z": 2}}, "b": 1, "c": {"x": 1}}
    over: dict[str, object] = {"a": {"y": {"w": 3}}, "b": {"x": 1}, "c": 2}
    merged = deep_merge(under, over)
    assert merged == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": {"x": 1}, "c": 2}
    assert under == {"a": {"x": 1, "y": {"z": 2}}, "b": 1, "c": {"x": 1}}


LISTING = """\
total 8
drwxr-xr-x  2 root root     4096 Jan  1 00:00 .
drwxr-xr-x 20 root root     4096 Jan  1 00:00 ..
drwxr-x---. 2 ann  staff    4096 Jan  1  2024 src
-rwsr--r--+ 1 ann  staff      12 Jan  1 00:00  two  words
lrwxrwxrwx  1 ann  staff       3 Jan  1 00:00 link -> src/a -> b
crw-rw-rw-  1 root root   1,   3 Jan  1 00:00 null
brw-rw----  1 root root 0x3000002 Jan  1 00:00 disk
ls: cannot access 'gone': No such file or directory at all
-rw-r--r--  1 ann  staff       x Jan  1 00:00 odd
"""


def test_listing() -> None:
    entries = parse_ls_la(LISTING, base="/w/")
    assert [(one.path, one.kind, one.size, str(one.permissions)) for one in entries] == [
        ("/w/src", EntryKind.DIRECTORY, 4096, "drwxr-x---"),
        ("/w/ two  words", EntryKind.FILE, 12, "-rwxr--r--"),
        ("/w/link", EntryKind.SYMLINK, 3, "-rwxrwxrwx"),
        ("/w/null", EntryKind.OTHER, 0, "-rw-rw-rw-"),
        ("/w/disk", EntryKind.OTHER, 0, "-rw-rw----"),
    ]
    assert (entries[0].owner, entries[0].group, entries[2].target) == ("ann", "staff", "src/a -> b")
    assert next(iter(parse_ls_la(LISTING, base="/"))).path == "/src"


class AnswerError(Exception):
    """An answer of an HTTP server."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.status_code = code


def test_what_is_behind_an_error() -> None:
    last, first = KeyError("b"), AnswerError(503)
    last.__cause__ = RuntimeError("a")
    last.__cause__.__context__ = first
    first.__cause__ = last  # round in a circle
    assert list(iter_exception_chain(last)) == [last, last.__cause__, first]
    assert exception_chain_contains_type(last, (OSError, RuntimeError))
    assert not exception_chain_contains_type(last, (OSError,))
    assert not exception_chain_contains_type(last, ())
    assert exception_chain_has_status_code(last, util.TRANSIENT_HTTP_STATUS_CODES)
    assert not exception_chain_has_status_code(last, {404})


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("fixed", [1, 1, 1]), ("linear", [1, 2, 3]), ("exponential", [1, 2, 4])],
)
async def test_tries_again(backoff: str, waits: list[int]) -> None:
    heard: list[tuple[object, ...]] = []
    moment = 2.0**-20  # it is doubled without a loss

    async def hear(*facts: object) -> None:
        heard.append(facts)

    calls = 0

    @retry_async(
        interval=moment,
        max_attempt=4,
        backoff=BackoffStrategy(backoff),
        retry_if=lambda error, name: isinstance(error, AnswerError) and name == "x",
        on_retry=hear,
    )
    async def fetch(name: str) -> int:
        nonlocal calls
        calls += 1
        raise AnswerError(calls)

    with pytest.raises(AnswerError, match="4"):
        await fetch("x")
    assert [facts[1:] for facts in heard] == [
        (number, 4, wait * moment, "x") for number, wait in enumerate(waits, 1)
    ]
    with pytest.raises(AnswerError, match="5"):
        await fetch("y")
    assert calls == 5


@pytest.mark.parametrize(
    "odd", [{"max_attempt": 0}, {"interval": -1}, {"interval": float("nan")}, {"backoff": "fast"}]
)
def test_impossible_retries(odd: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(odd))):
        retry_async(retry_if=lambda _: True, **odd)  # type: ignore[arg-type]


async def test_gathers_in_order() -> None:
    running, most = 0, 0
    first = asyncio.Event()

    def make(number: int) -> Callable[[], asyncio.Task[int]]:
        async def work() -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if number == 0:
                await first.wait()
            elif number == 4:
                first.set()
            running -= 1
            return number

        return lambda: asyncio.create_task(work())

    assert await gather_in_order([make(number) for number in range(5)], max_concurrency=2) == [
        *range(5)
    ]
    assert most == 2
    assert await gather_in_order([]) == []
    with pytest.raises(ArgumentError, match="at least 1"):
        await gather_in_order([make(0)], max_concurrency=0)


async def test_first_error_ends_the_others() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("wait")

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await gather_in_order([wait, fail, wait])
    assert ended == ["wait", "wait"]


def test_stream_of_pieces() -> None:
    closed: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield from (b"ab", b"", b"cdef", b"g")
        finally:
            closed.append("pieces")

    stream = IteratorIO(pieces(), on_close=lambda: closed.append("stream"))
    assert (stream.readable(), stream.read(3), stream.read(0)) == (True, b"abc", b"")
    buffer = bytearray(2)
    assert (stream.readinto(buffer), bytes(buffer)) == (2, b"de")
    assert (stream.read(), stream.read(), stream.read(5), closed) == (
        b"fg",
        b"",
        b"",
        ["pieces", "stream"],
    )
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read()
    early = IteratorIO(pieces(), on_close=lambda: closed.append("early"))
    assert io.BufferedReader(early).read(1) == b"a"
    early.close()
    assert closed == ["pieces", "stream", "pieces", "early"]


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    known = hashlib.sha256(b"hello").hexdigest()
    stream = io.BytesIO(b"...hello")
    stream.seek(3)
    assert (sha256_io(stream, chunk_size=2), stream.tell()) == (known, 3)
    pieces = IteratorIO(iter([b"he", b"llo"]))
    text = io.StringIO("hello")
    assert (sha256_io(pieces), sha256_io(text), sha256_file(tmp_path / "a")) == (known,) * 3

    class Numbers(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return [1]  # type: ignore[return-value]

    with pytest.raises(ArgumentTypeError, match="bytes or text"):
        sha256_io(Numbers())


def test_paths_of_a_workspace(tmp_path: Path) -> None:
    resolve = sandyard.resolve_workspace_path
    assert resolve("/w", "a//b/.") == Path("/w/a/b")
    assert resolve(PurePosixPath("/w"), ".") == Path("/w")
    assert resolve("/w", "/w/a/../b", allow_absolute_within_root=True) == Path("/w/b")
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    refused = [
        ("/w", "a/../b", True, "escape_root"),
        ("/w", "/w/a", False, "absolute"),
        ("/w", "/wide", True, "absolute"),
        ("/w", "/w/../x", True, "absolute"),
        (str(root), str(root / "out/x"), True, "absolute"),
    ]
    for top, path, allowed, reason in refused:
        with pytest.raises(InvalidManifestPathError) as caught:
            resolve(top, path, allow_absolute_within_root=allowed)
        assert caught.value.context["reason"] == reason, path
