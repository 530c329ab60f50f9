"""No place for one more process, outside and inside: typed errors, and nothing done in secret later."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from sandyard import Manifest, ResourceLimitError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.escape.inside import run_host
from tests.exhaustion.few_processes import MOST_PLACES
from tests.exhaustion.programs import run_program
from tests.session.host import find_survivors, make_token, until

NO_PLACE = "ResourceLimitError processes"

# Forks until it is refused, says so, and holds what it got.
GREEDY = """
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int count = 0;
    for (;; count++) {
        pid_t pid = fork();
        if (pid == 0) { pause(); _exit(0); }
        if (pid < 0) break;
    }
    printf("%d\\n", count);
    fflush(stdout);
    while (argc > 2) { /* whatever comes free is taken, too */
        pid_t pid = fork();
        if (pid == 0) { pause(); _exit(0); }
        if (pid < 0) usleep(1000);
    }
    pause();
}
"""


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """How starts went with each number of places, in a program of which every session recovered."""
    lines = run_program("few_processes", "begin", temporary=tmp_path_factory.mktemp("few"))
    return [(spare, said) for spare, _, said in (line.partition(" ") for line in lines)]


@pytest.mark.user
def test_start_recovers(starts: list[tuple[str, str]]) -> None:
    assert [spare for spare, _ in starts] == [str(number) for number in range(MOST_PLACES)]
    assert starts[0][1] != "ok"
    assert starts[-1][1] == "ok"
    assert not [said for _, said in starts if said.startswith("RuntimeError")]


@pytest.mark.user
def test_refusal_names_the_limit(starts: list[tuple[str, str]]) -> None:
    assert {said for _, said in starts} == {"ok", NO_PLACE}


@pytest.mark.user
def test_calls_without_threads(tmp_path: Path) -> None:
    assert set(run_program("few_processes", "begin_cold", temporary=tmp_path)) == {NO_PLACE}


@pytest.mark.user
def test_refused_stays_undone(tmp_path: Path) -> None:
    assert run_program("few_processes", "haunt", temporary=tmp_path) == []


@pytest.mark.user
def test_running_session_goes_on(tmp_path: Path) -> None:
    assert run_program("few_processes", "go_on", temporary=tmp_path) == [NO_PLACE, "ok", ""]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_full_sandbox_refuses_typed(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "greedy.c").write_text(GREEDY)
    token = make_token()
    other, full = await client.create(), await client.create(manifest=Manifest(root=str(tmp_path)))
    async with other, full:
        assert (await full.exec("cc greedy.c -o greedy")).ok()
        async with full.stream(f"exec ./greedy {token}", timeout=40) as running:
            count = int((await anext(running)).data)
            assert 1000 < count <= 4096
            await refuses_typed(full)
            # Whoever has the same number on the host goes on, and so does another sandbox.
            run_host("true")
            assert (await other.exec("echo on")).stdout == b"on\n"
        await until(
            lambda: not find_survivors(token), within=30
        )  # it may take more than a call waits
        assert (await full.exec("echo on")).stdout == b"on\n"
    await client.delete(other)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_full_sandbox_ends_whole(client: UnixLocalSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "greedy.c").write_text(GREEDY)
    token = make_token()
    session = await client.create(manifest=Manifest(root=str(tmp_path)))
    async with session:
        assert (await session.exec("cc greedy.c -o greedy")).ok()
        greedy = f"(./greedy {token} on > count &); until [ -s count ]; do :; done"
        assert (await session.exec(greedy)).exit_code == 0
        async with asyncio.timeout(60):  # what this command had may serve another one for a moment
            while await runs_one(session):
                pass
        await refuses_typed(session)
    await until(lambda: not find_survivors(token))


async def runs_one(session: UnixLocalSandboxSession) -> bool:
    """Whether there is room for one more command."""
    try:
        await session.exec("true", timeout=20)
    except ResourceLimitError:
        return False
    return True


async def refuses_typed(session: UnixLocalSandboxSession) -> None:
    """Whatever is asked of a full sandbox is answered, by words that say what is full."""
    for _ in range(3):
        with pytest.raises(ResourceLimitError) as caught:
            await session.exec("echo lost", timeout=20)
        assert (caught.value.context["limit"], caught.value.retryable) == ("processes", True)
    assert await session.running()
    await session.write("file", b"new")
