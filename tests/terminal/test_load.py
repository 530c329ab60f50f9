"""Terminals under load: many at once, bulk both ways, a loop that stalls, forks without an end."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator

import pytest

from sandyard import (
    Policy,
    ResourceLimitError,
    ResourceLimits,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.limits import DESCRIPTORS_SPARED
from sandyard.process.budget import descriptor_budget
from tests.exhaustion.shortage import attempt, few_descriptors
from tests.session.host import find_survivors, living_processes, make_token, open_descriptors, until
from tests.terminal.screen import shows, watching

Session = UnixLocalSandboxSession


@pytest.fixture
def few_files() -> Iterator[None]:
    """A soft limit on open files that leaves terminals a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (180, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def assert_many(session: Session, count: int) -> None:
    """Each shows its own lines and exits with its own code, and all are there at once."""
    script = "read go; seq {0} $(({0} + 2000)); exit $(({0} % 200))"
    terminals = [await session.terminal(script.format(number)) for number in range(count)]
    assert (await session.exec("echo on", timeout=30)).stdout == b"on\n"
    assert all(terminal.exit_code is None for terminal in terminals)
    shown = [asyncio.create_task(shows(terminal)) for terminal in terminals]
    for terminal in terminals:
        await terminal.write(b"\n")
    assert (await session.exec("echo on", timeout=30)).stdout == b"on\n"
    for number, seen in enumerate(await asyncio.gather(*shown)):
        expected = b"".join(b"%d\r\n" % n for n in range(number, number + 2001))
        assert seen == b"\r\n" + expected
        assert terminals[number].exit_code == number % 200


async def test_no_descriptor_for_the_master(session: Session) -> None:
    """It is this terminal's misfortune alone: the session and what else runs in it go on."""
    await session.exec("true")
    other = await session.terminal("read line; echo got it")
    token = make_token()
    error = await attempt(session.terminal(f"exec sleep {token}"), few_descriptors(0))
    assert isinstance(error, ResourceLimitError), error
    assert error.context["limit"] == "open_files"
    assert await session.running()
    await until(lambda: find_survivors(token) == [])
    await other.write(b"\n")
    assert await other.wait() == 0
    assert (await session.exec("echo on", timeout=30)).stdout == b"on\n"


async def test_many_print_at_once(session: Session) -> None:
    before = open_descriptors()
    await assert_many(session, 60)
    assert open_descriptors() == before
    assert descriptor_budget.used == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [200, 500, 1000])
async def test_a_thousand_at_once(session: Session, count: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 4 * count:
        pytest.skip("the limit on open files is too low for so many (ulimit -n)")
    await assert_many(session, count)


@pytest.mark.usefixtures("few_files")
async def test_commands_keep_their_share(session: Session) -> None:
    most = descriptor_budget.limit() - DESCRIPTORS_SPARED
    terminals = [await session.terminal("cat") for _ in range(most)]
    with pytest.raises(ResourceLimitError, match="ulimit -n") as caught:
        await session.terminal("cat")
    assert caught.value.context["limit"] == "open_files"
    results = await asyncio.gather(*(session.exec("echo on", timeout=30) for _ in range(20)))
    assert {result.stdout for result in results} == {b"on\n"}
    await terminals[0].close()
    await (await session.terminal("cat")).close()
    await session.stop(processes="end")
    assert descriptor_budget.used == 0


async def test_paste_into_who_does_not_read(session: Session) -> None:
    """A megabyte waits; the loop does not, nor does any other verb."""
    token = make_token()
    terminal = await session.terminal(f"exec sleep {token}")
    typing = asyncio.create_task(terminal.write(b"a line of text\n" * 70_000))
    async with asyncio.timeout(30):
        assert (await session.exec("echo on")).stdout == b"on\n"
        await session.write("file", b"content")
        other = await session.terminal("echo other")
        assert await shows(other) == b"other\r\n"
        assert not typing.done()
        terminal.resize(10, 10)
        await terminal.close()
    await asyncio.wait([typing])
    assert find_survivors(token) == []


async def test_loop_may_stall(session: Session) -> None:
    terminal = await session.terminal("read line; seq 30000; exit 3")
    await terminal.write(b"\n")
    time.sleep(2)  # noqa: ASYNC251  # the host program does something else
    seen = await shows(terminal)
    assert seen == b"\r\n" + b"".join(b"%d\r\n" % number for number in range(1, 30_001))
    assert terminal.exit_code == 3


async def test_forks_without_an_end(client: UnixLocalSandboxClient) -> None:
    made = await client.create(policy=Policy(limits=ResourceLimits(processes=80)))
    try:
        async with made:
            bomb = "f() { f | f & }; f"
            terminal = await made.terminal(f"{bomb}; sleep 60", shell=["bash", "-c"])
            await until(lambda: len(living_processes()) > 60, within=20)
            async with asyncio.timeout(10):
                await terminal.close()
            assert terminal.exit_code == -9
            await until(lambda: len(living_processes()) < 10, within=10)
            assert await shows(await made.terminal("echo on")) == b"on\r\n"
    finally:
        await client.delete(made)


async def test_program_that_only_writes_is_typed_to(session: Session) -> None:
    """What it writes is read while it is typed to: neither waits for the other for ever."""
    begin = "stty raw -echo; echo ready; read line"
    script = f"{begin}; yes | head -c 3000000 & head -c 300000 > got; wait; wc -c < got"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("ready")
        await screen.type("\n")
        typing = asyncio.create_task(screen.terminal.write(b"x" * 300_000))
        await screen.until("300000")
        await typing
