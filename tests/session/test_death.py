"""The sandbox and its owner may die: nothing outlives the owner, callers learn of the sandbox."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandyard import ExecTransportError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.house.leaks import list_children, read_state
from tests.session.host import find_init, find_survivors, make_token, name_of, names_in, until
from tests.session.test_leftovers import DAEMON

Session = UnixLocalSandboxSession

PATIENCE_S = 20
"""Seconds for what takes milliseconds on a machine that has time for us."""

DAEMONS = f"setsid sleep @ & python3 -c '{DAEMON}' @ & (trap '' TERM HUP; exec sleep @) & "


async def assert_dead(session: Session) -> None:
    """Every call says that the sandbox is gone; its files are still there."""
    await until(lambda: not session_alive(session))
    assert not await session.running()
    with pytest.raises(ExecTransportError, match="ended") as caught:
        await session.exec("true")
    assert caught.value.context["reason"] == "sandbox_ended"
    await session.write("file", b"still")
    with await session.read("file") as file:
        assert file.read() == b"still"


def session_alive(session: Session) -> bool:
    task = session.running()
    try:
        task.send(None)
    except StopIteration as answer:
        return bool(answer.value)
    raise AssertionError("running() had to wait")


@pytest.mark.parametrize("victim", ["init", "outer"])
async def test_killed_sandbox_is_told_at_once(session: Session, victim: str) -> None:
    token = make_token()
    await session.exec(DAEMONS.replace("@", token) + "true")
    pending = [asyncio.create_task(session.exec(f"sleep {token}", timeout=60)) for _ in range(4)]
    await until(lambda: len(find_survivors(token)) >= 7)
    init = find_init()
    outer = next(pid for pid in list_children(os.getpid()) if init in list_children(pid))
    os.kill(init if victim == "init" else outer, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):  # far less than their own
        outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ExecTransportError] * 4
    await assert_dead(session)
    await until(lambda: not find_survivors(token))


async def test_dead_sandbox_can_be_started_anew(session: Session) -> None:
    await session.exec("echo kept > file")
    os.kill(find_init(), signal.SIGKILL)
    await assert_dead(session)
    await session.shutdown()
    await session.start()
    assert (await session.exec("cat file")).stdout == b"still"


async def test_nothing_inside_ends_init(session: Session) -> None:
    script = (
        "import os\nfor n in range(1, 65):\n try: os.kill(1, n)\n except OSError as e: print(e)"
    )
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.exit_code == 0
    assert await session.running()
    assert (await session.exec("echo hi")).stdout == b"hi\n"


HOST = """
import asyncio, os, signal
from sandyard import UnixLocalSandboxClient

async def main():
    {before}
    session = await UnixLocalSandboxClient().create()
    await session.start()
    # The token is not in our own command line, or we were taken for a survivor.
    token = os.environ["TOKEN"]
    pending = asyncio.create_task(session.exec("exec sleep " + token))
    await session.exec({daemons!r}.replace("@", token))
    {after}
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@contextmanager
def run_host(tmp_path: Path, token: str, **parts: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has a session with daemons and a command in it, and waits."""
    defaults = {"before": "", "daemons": "true", "after": ""}
    program = subprocess.Popen(
        [sys.executable, "-c", HOST.format(**defaults | parts)],
        env={
            "TMPDIR": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "TOKEN": token,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
async def test_nothing_outlives_the_host(tmp_path: Path, number: signal.Signals) -> None:
    token = make_token()
    daemons = DAEMONS + "until [ $(pgrep -c sleep) = 3 ]; do :; done"
    with run_host(tmp_path, token, daemons=daemons) as program:
        await until(lambda: len(find_survivors(token)) >= 4)
        program.send_signal(number)
        await until(lambda: not find_survivors(token), within=PATIENCE_S)


async def test_stopped_init_does_not_stay(tmp_path: Path) -> None:
    """Whoever stops the sandbox from outside does not keep it alive."""
    token = make_token()
    daemons = DAEMONS + "until [ $(pgrep -c sleep) = 3 ]; do :; done"
    with run_host(tmp_path, token, daemons=daemons) as program:
        await until(lambda: len(find_survivors(token)) >= 4)
        (outer,) = [pid for pid in list_children(program.pid) if name_of(pid) == "sandyard-init"]
        (init,) = list_children(outer)
        os.kill(init, signal.SIGSTOP)
        await until(lambda: read_state(init)[0] == "T")
        program.kill()
        await until(lambda: not find_survivors(token))
        await until(lambda: {read_state(pid)[0] for pid in (outer, init)} <= set("ZX?"))


async def test_forked_workers_do_not_keep_it(tmp_path: Path) -> None:
    token = make_token()
    after = (
        "workers = [os.fork() or signal.pause() for _ in range(3)]\n"
        f"    open({str(tmp_path / 'workers')!r}, 'w').write(' '.join(map(str, workers)))"
    )
    with run_host(tmp_path, token, after=after) as program:
        workers = [int(pid) for pid in (tmp_path / "workers").read_text().split()]
        try:
            await until(lambda: find_survivors(token))
            program.kill()
            await until(lambda: not find_survivors(token), within=PATIENCE_S)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)


async def test_workers_that_end_do_not_end_it(session: Session) -> None:
    script = """
import asyncio, os
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        print((await session.exec("echo on")).stdout)
    await client.delete(session)

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, timeout=20, check=False
    )
    assert done.stdout == b"b'on\\n'\n", done.stderr


async def test_host_that_ignores_its_children(tmp_path: Path) -> None:
    token = make_token()
    before = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    after = (
        "await session.shutdown(); await session.start(); "
        "again = asyncio.create_task(session.exec('exec sleep ' + token))"
    )
    with run_host(tmp_path, token, before=before, after=after) as program:
        await until(lambda: find_survivors(token))
        program.kill()
        await until(lambda: not find_survivors(token), within=PATIENCE_S)


async def test_workspace_survives_a_killed_host(tmp_path: Path) -> None:
    with run_host(tmp_path, make_token(), daemons="echo kept > file") as program:
        program.kill()
    root, state = names_in(tmp_path)  # without a HOME the state directory lies there too
    assert state.startswith("sandyard-")
    assert (tmp_path / root / "file").read_text() == "kept\n"


async def test_thread_that_started_it_may_end(client: UnixLocalSandboxClient) -> None:
    # The parent death signal is one of a thread's, and the threads of the start have ended here.
    loop = asyncio.get_running_loop()
    first = ThreadPoolExecutor()
    loop.set_default_executor(first)
    session = await client.create()
    async with session:
        first.shutdown()
        loop.set_default_executor(ThreadPoolExecutor())
        assert (await session.exec("echo on")).stdout == b"on\n"
    await client.delete(session)
