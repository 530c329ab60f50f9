"""Searches: what is found, what is bounded, and that the policy and the sandbox hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard import (
    ArgumentError,
    ExecTimeoutError,
    GrepMatch,
    Manifest,
    Policy,
    PolicyDeniedError,
    SandboxError,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceReadNotFoundError,
)
from sandyard.file_verbs.matches import MatchReader

FILES = {
    "a.py": b"def f(x):\n    return x\n\ndef g(y)\r\n",
    "sub/b.txt": "über the def\nDEF\n".encode(),
    "sub/latin": b"def \xe9\n",
    "sub/binary": b"def\0def\n",
    "odd\nname": b"def\n",
    "-r": b"def\n",
    "long": b"x" * 5_000 + b"def\n",
    "closed/secret": b"def\n",
    ".hidden/file": b"def\n",
}


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[UnixLocalSandboxSession]:
    base = tmp_path / "work"
    for name, content in FILES.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(content)
    (base / "outside").symlink_to("/etc")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/granted").write_bytes(b"def\n")
    policy = Policy(deny=(f"{base}/closed",), reads=(f"{tmp_path}/data",))
    client = UnixLocalSandboxClient(policy=policy)
    made = await client.create(manifest=Manifest(root=str(base)))
    async with made:
        yield made
    await client.delete(made)


def short(session: UnixLocalSandboxSession, matches: tuple[GrepMatch, ...]) -> set[tuple[str, int]]:
    root = session.state.manifest.root
    return {(match.path.removeprefix(f"{root}/"), match.line) for match in matches}


async def test_what_is_found(session: UnixLocalSandboxSession, tmp_path: Path) -> None:
    found = await session.grep("def")
    text = {("a.py", 1), ("a.py", 4), ("sub/b.txt", 1), ("odd\nname", 1), ("-r", 1), ("long", 1)}
    assert short(session, found.matches) == text | {(".hidden/file", 1)}
    assert not found.truncated
    assert not found.complete
    everything = await session.grep("def", "sub", binary=True, ignore_case=True)
    assert short(session, everything.matches) == {
        ("sub/b.txt", 1), ("sub/b.txt", 2), ("sub/latin", 1), ("sub/binary", 1)
    }  # fmt: skip
    (line,) = (await session.grep(r"def \w\(y\)", "a.py", syntax="perl")).matches
    assert line == GrepMatch(f"{session.state.manifest.root}/a.py", 4, "def g(y)")
    (long,) = (await session.grep("def", "long")).matches
    assert (long.cut, len(long.text)) == (True, 2_000)
    (granted,) = (await session.grep("def", f"{tmp_path}/data")).matches
    assert granted.path == f"{tmp_path}/data/granted"
    assert short(session, (await session.grep("def", include="*.py")).matches) == {
        ("a.py", 1), ("a.py", 4)
    }  # fmt: skip
    assert (await session.grep("nowhere")).matches == ()


async def test_results_are_bounded(session: UnixLocalSandboxSession) -> None:
    await session.write("many", b"word\n" * 1_000_000)
    found = await session.grep("word", "many", max_matches=7)
    assert [match.line for match in found.matches] == list(range(1, 8))
    assert found.truncated
    assert found.complete


async def test_what_is_refused(session: UnixLocalSandboxSession) -> None:
    wrong: tuple[tuple[type[SandboxError], str, dict[str, object]], ...] = (
        (ArgumentError, "(", {"syntax": "extended"}),
        (ArgumentError, "(", {"syntax": "perl"}),
        (ArgumentError, "a\nb", {}),
        (ArgumentError, "a\0b", {}),
        (ArgumentError, "a", {"syntax": "python"}),
        (ArgumentError, "a", {"max_matches": 0}),
        (ArgumentError, "a", {"user": "root"}),
        (ArgumentError, "x" * 40_000, {}),
        (WorkspaceReadNotFoundError, "a", {"path": "missing"}),
        (PolicyDeniedError, "a", {"path": "closed"}),
    )
    for kind, pattern, more in wrong:
        with pytest.raises(kind):
            await session.grep(pattern, **more)  # type: ignore[arg-type]
    await session.shutdown()
    with pytest.raises(SessionClosedError):
        await session.grep("a")


async def test_endless_search_is_ended(session: UnixLocalSandboxSession) -> None:
    assert (await session.exec("mkfifo pipe; mkfifo sub/pipe")).exit_code == 0
    assert (await session.grep("def", "pipe")).matches == ()
    await session.write("large", bytes([97]) * 50_000_000)
    with pytest.raises(ExecTimeoutError):
        await session.grep(r"(a+)+$b", "large", syntax="extended", binary=True, timeout=0.05)


@settings(max_examples=300, deadline=None)
@given(
    records=st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=20).filter(lambda raw: 0 not in raw),
            st.integers(1, 10**6),
            st.binary(max_size=30).filter(lambda raw: b"\n" not in raw),
        ),
        max_size=5,
    ),
    cuts=st.lists(st.integers(1, 9), max_size=50),
)
def test_output_in_any_pieces(records: list[tuple[bytes, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(b"%b\0%d:%b\n" % record for record in records)
    reader = MatchReader()
    for cut in cuts:
        reader.feed(data[:cut])
        data = data[cut:]
    reader.feed(data)
    expected = [(path.decode("utf-8", "surrogateescape"), line) for path, line, _ in records]
    assert [(match.path, match.line) for match in reader.found] == expected
