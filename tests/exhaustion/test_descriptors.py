"""A host program out of descriptors at any moment: typed errors, nothing lost, and then it goes on.

That the whole machine has none left (ENFILE) can't be made here without harming everybody on it;
the library treats both alike, in the same lines.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sandyard import (
    ResourceLimitError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    WorkspaceStartError,
)
from sandyard.process.budget import descriptor_budget
from tests.exhaustion.programs import describe, run_program
from tests.exhaustion.shortage import attempt, count_descriptors, few_descriptors
from tests.exhaustion.verbs import VERBS, Verb
from tests.house.leaks import find_files
from tests.session.host import root_of

SPARES = range(31)
"""How many descriptors are free: none, and one more each time, past the most that a call takes."""

Client = UnixLocalSandboxClient
Session = UnixLocalSandboxSession


async def prepare(session: Session) -> None:
    """Make what the verbs use, and nothing of what they make."""
    await session.rm("made", recursive=True)
    await session.write("kept", b"kept")
    await session.write("tree/inner/leaf", b"")


def list_tree(session: Session) -> list[str]:
    """All names below the workspace."""
    root = root_of(session)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def answered(session: Session, verb: Verb) -> None:
    """Ask, and expect the right answer."""
    assert await verb.ask(session) == verb.answer


async def try_verb(session: Session, verb: Verb, spare: int) -> bool:
    """Try a verb with few descriptors; returns whether it was refused, which must leave nothing."""
    await prepare(session)
    before, tree = count_descriptors(), list_tree(session)
    error = await attempt(answered(session, verb), few_descriptors(spare))
    assert descriptor_budget.used == 0
    assert count_descriptors() == before
    if error is None:
        return False
    assert type(error) is verb.refusal
    assert verb.fact in {error.context.get("limit"), error.context.get("reason")}
    assert verb.piecewise or list_tree(session) == tree
    await prepare(session)
    await answered(session, verb)
    return True


@pytest.mark.parametrize("name", VERBS)
async def test_verb_without_descriptors(session: Session, name: str) -> None:
    await prepare(session)  # which starts the threads for files
    await answered(session, VERBS[name])  # which loads what it needs
    refused = [await try_verb(session, VERBS[name], spare) for spare in SPARES]
    assert refused[0] != VERBS[name].free
    assert not refused[-1]
    assert refused == sorted(refused, reverse=True)  # more room never makes it worse


@pytest.mark.parametrize("spare", SPARES)
async def test_start_without_descriptors(client: Client, spare: int) -> None:
    session = await client.create()
    before = count_descriptors()
    error = await attempt(session.start(), few_descriptors(spare))
    assert await session.running() == (error is None)
    assert error is None or count_descriptors() == before
    await session.start()
    assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)
    # The channel's two ends, two pidfds, and for root the lease of an identity.
    assert error is None or spare < 5
    assert error is not None or spare > 3
    if error is not None:
        assert (describe(error), error.retryable) == ("ResourceLimitError open_files", True)


@pytest.mark.parametrize("spare", range(12))
async def test_create_without_descriptors(client: Client, spare: int) -> None:
    made, sessions = find_files().keys(), []

    async def create() -> None:
        sessions.append(await client.create())

    error = await attempt(create(), few_descriptors(spare))
    assert (error is None) == bool(sessions)
    assert error is None or isinstance(error, WorkspaceStartError | ResourceLimitError)
    for session in sessions:
        await client.delete(session)
    assert not find_files().keys() - made


@pytest.mark.parametrize("end", ["stop", "shutdown", "aclose"])
async def test_ends_need_no_descriptor(client: Client, end: str) -> None:
    for spare in range(4):
        session = await client.create()
        await session.start()
        await session.exec("sleep 1000 &")
        await session.write("file", b"")
        with few_descriptors(spare):
            await getattr(session, end)()
        assert await session.running() == (end == "stop")
        await client.delete(session)


@pytest.mark.parametrize("spare", range(8))
async def test_delete_can_be_repeated(client: Client, spare: int) -> None:
    session = await client.create()
    async with session:
        await session.write("tree/inner/leaf", b"")
    root = root_of(session)
    await attempt(client.delete(session), few_descriptors(spare))
    await client.delete(session)
    assert not root.exists()


async def test_running_stream_needs_none(session: Session) -> None:
    async with session.stream("read line; echo $line; seq 100000", stdin=b"first\n") as running:
        with few_descriptors(0):
            data = b"".join([chunk.data async for chunk in running])
    assert data == b"first\n" + b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert running.result.exit_code == 0


async def test_many_share_few(session: Session) -> None:
    # The budget knows the limit and not what else is open, so these come to the very end of it.
    async def run(number: int) -> bytes:
        try:
            return (await session.exec(f"echo {number}", stdin=b"")).stdout
        except ResourceLimitError:
            return b""

    with few_descriptors(20):
        outputs = await asyncio.gather(*(run(number) for number in range(60)))
    assert any(outputs)
    assert all(said in (b"", b"%d\n" % number) for number, said in enumerate(outputs))
    assert descriptor_budget.used == 0
    assert (await session.exec("echo on")).stdout == b"on\n"


async def test_failing_start_gives_back(client: Client) -> None:
    before = count_descriptors()
    session = await client.create()
    for _ in range(20):
        assert await attempt(session.start(), few_descriptors(2))
    await client.delete(session)
    assert count_descriptors() == before


# --- the first session of a program, which looks at the host and reads what it never reads again ---


@pytest.fixture(scope="module")
def first_lives(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What programs told whose first session met each number of free descriptors."""
    lines = run_program("first_session", temporary=tmp_path_factory.mktemp("first"))
    return [line.split("|") for line in lines]


def test_first_session_recovers(first_lives: list[list[str]]) -> None:
    assert [life[0] for life in first_lives] == [str(spare) for spare in SPARES]
    assert {life[3] for life in first_lives} == {"on"}


def test_first_refusals_are_typed(first_lives: list[list[str]]) -> None:
    typed = {
        "ok",
        "WorkspaceStartError",
        "WorkspaceStartError too_many_open_files",
        "ResourceLimitError open_files",
        "LibraryLoadError too_many_open_files",
    }
    assert {life[1] for life in first_lives} <= typed


def test_facts_are_whole_again(first_lives: list[list[str]]) -> None:
    assert {life[2] for life in first_lives} == {"whole"}


@pytest.mark.parametrize("limit", [16, 24, 40])
def test_small_soft_limit(tmp_path: Path, limit: int) -> None:
    (said,) = run_program("small_limit", str(limit), temporary=tmp_path)
    assert said in {"on", "ResourceLimitError open_files"}
