"""Denials of one narrowed command: what the kernel refuses it is told, and nothing else, with a true grant."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sandyard import Denial, ExecResult, Narrowing, Policy, UnixLocalSandboxSession
from tests.explain.probing import opened

Session = UnixLocalSandboxSession

PATHS = ("top", "src/a.py", "src/new", "src/secret/key", "src/secret/new", "out/x", "out/new")
READ, WRITE = "cat {} >/dev/null", "echo x >> {}"

NARROWINGS = (
    Narrowing(writes=()),
    Narrowing(writes=("out",)),
    Narrowing(reads=("src",)),
    Narrowing(reads=("src", "out"), writes=("out",)),
    Narrowing(deny=("src/secret",)),
    Narrowing(reads=("src",), deny=("src/secret",), writes=("src",)),
)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    for name in ("top", "src/a.py", "src/secret/key", "out/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content\n")
    async with opened(tmp_path, Policy()) as made:
        yield made


def widened(narrowing: Narrowing, grant: str) -> Narrowing:
    """A narrowing with a grant added to it."""
    given = eval(grant, {"Narrowing": Narrowing})  # noqa: S307  # it is written to be Python
    assert isinstance(given, Narrowing)
    changed: dict[str, Any] = {}
    for field in fields(Narrowing):
        own, more = getattr(narrowing, field.name), getattr(given, field.name)
        if more != field.default:
            changed[field.name] = (*own, *more) if isinstance(more, tuple) else more
    assert changed
    return replace(narrowing, **changed)


async def check_command(
    session: Session, command: str, path: str, narrowing: Narrowing
) -> Denial | None:
    """Run a command that has less, and the same with what its denial grants."""
    result = await session.exec(command.format(path), narrow=narrowing)
    if result.exit_code == 0 or b"No such file" in result.stderr:
        assert result.denials == (), result.stderr
        return None
    (denial,) = result.denials
    assert denial.kind == "path"
    assert denial.subject.endswith("/" + path)
    assert "Narrowing." in denial.rule
    if denial.grant is not None:
        again = await session.exec(command.format(path), narrow=widened(narrowing, denial.grant))
        assert again.exit_code == 0, (denial, again.stderr)
    return denial


@pytest.mark.parametrize("narrowing", NARROWINGS, ids=str)
async def test_refused_is_told(session: Session, narrowing: Narrowing, tmp_path: Path) -> None:
    told: list[Denial] = []
    for path in PATHS:
        for command in (READ, WRITE):
            denial = await check_command(session, command, path, narrowing)
            told += [] if denial is None else [denial]
        for new in ("src/new", "src/secret/new", "out/new"):
            (tmp_path / new).unlink(missing_ok=True)
    assert told
    assert {denial.error for denial in told} == {"EACCES"}
    closed = [str(tmp_path / denied) for denied in narrowing.deny]
    for denial in told:
        inner = any(denial.subject.startswith(f"{each}/") for each in closed)
        assert inner <= (denial.grant is None), denial


async def test_moving_is_told(session: Session, tmp_path: Path) -> None:
    for command in ("mv src/a.py out/", "rm src/a.py", "mkdir src/made", "ln top out/linked"):
        result = await session.exec(command, narrow=Narrowing(writes=("out",)))
        assert result.exit_code != 0, command
        assert [denial.kind for denial in result.denials] == ["path"], (command, result.stderr)
        assert result.denials[0].rule == "read-only: Narrowing.writes does not name it"
    assert (tmp_path / "src/a.py").exists()


async def test_private_directory_is_told() -> None:
    """Where the workspace lies in /tmp, that is closed with it: it has no grant but another place."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        async with opened(Path(place), Policy()) as session:
            result = await session.exec("echo x > /tmp/x", narrow=Narrowing(writes=()))
            (denial,) = result.denials
            assert (denial.subject, denial.grant) == ("/tmp/x", None)
            assert "TMPDIR" in denial.rule
            assert (await session.exec('echo x > "$TMPDIR/x"', narrow=Narrowing(writes=()))).ok()


QUIET = (
    "cat missing",
    "touch out/shut; chmod 000 out/shut; cat out/shut",
    "echo 'PermissionError: [Errno 13] Permission denied' >&2; exit 1",
    "echo 'x: src: Permission denied' >&2; true",
    "false",
)


@pytest.mark.parametrize("command", QUIET)
async def test_nothing_is_guessed(session: Session, command: str) -> None:
    narrowing = Narrowing(reads=("out", "src"), writes=("out",))
    assert (await session.exec(command, narrow=narrowing)).denials == ()


async def test_neighbours_are_told_nothing(session: Session) -> None:
    """What one command has less is not held against another one."""
    narrowing = Narrowing(writes=())
    ours, theirs = await asyncio.gather(
        session.exec("echo x > top", narrow=narrowing),
        session.exec("echo 'sh: cannot create top: Permission denied' >&2; exit 1"),
    )
    assert [len(each.denials) for each in (ours, theirs)] == [1, 0]


async def test_policy_comes_first(session: Session) -> None:
    result = await session.exec("cat /srv/x", narrow=Narrowing(writes=()))
    assert result.denials[0].grant == "Policy(reads=('/srv/x',))"


def told_by(result: ExecResult) -> list[tuple[str, str | None]]:
    return [(denial.subject, denial.grant) for denial in result.denials]


async def test_sockets_are_told(session: Session) -> None:
    said = "echo 'curl: (7) Failed to connect to {} port 80'; exit 7"
    narrowing = Narrowing(network=False)
    result = await session.exec(said.format("127.0.0.1"), narrow=narrowing)
    assert told_by(result) == [("127.0.0.1:80", "Narrowing(network=True)")]
    result = await session.exec(said.format("example.org"), narrow=narrowing)
    assert told_by(result) == [("example.org:80", "Policy(network='host')")]


async def test_own_limits_are_told(session: Session) -> None:
    command = "python3 -c 'x = [open(\"/dev/null\") for _ in range(99)]'"
    result = await session.exec(command, narrow=Narrowing(open_files=64))
    assert told_by(result) == [("open_files", "Narrowing(open_files=128)")]
    assert result.denials[0].rule == "the command's own limit is 64"


async def test_every_way_to_run(session: Session) -> None:
    narrowing, expected = Narrowing(writes=("out",)), "read-only: Narrowing.writes does not name it"
    async with session.stream("echo x > top", narrow=narrowing) as running:
        async for _ in running:
            pass
    process = await session.start_process("echo x > top", narrow=narrowing)
    terminal = await session.terminal("echo x > top", narrow=narrowing)
    results = running.result, await process.wait(20), await terminal.result()
    for result in results:
        assert [denial.rule for denial in result.denials] == [expected], result
