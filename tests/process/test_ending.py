"""The end of a sandbox that is asked for more than once, or that can't be told what to end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandyard import (
    ExecTransportError,
    PtySessionNotFoundError,
    ResourceLimitError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.plan import LaunchPlan
from sandyard.platform import host_facts
from sandyard.policy import Policy
from sandyard.process import InitProcess, channel
from sandyard.process.channel import send_message
from sandyard.process.wire import Request
from tests.house.leaks import list_children, read_state
from tests.session.host import find_init, find_survivors, make_token, root_of, until
from tests.session.test_death import session_alive

Session = UnixLocalSandboxSession


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    client = UnixLocalSandboxClient()
    made = await client.create()
    try:
        async with made:
            yield made
    finally:
        await client.delete(made)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[], LaunchPlan]:
    """What a sandbox of the usual kind is born with."""
    tmp_path.chmod(0o755)

    def make() -> LaunchPlan:
        found = tmp_path.stat()
        root = WorkspaceRoot(str(tmp_path), str(tmp_path), (found.st_dev, found.st_ino))
        return plan_session(Policy(), host_facts(os.environ), root, ())

    return make


async def test_all_who_close_wait(
    plan: Callable[[], LaunchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second, when the first has to wait for a sandbox that does not go by itself."""
    monkeypatch.setattr("sandyard.process.init.CLOSE_TIMEOUT_S", 0.3)
    sandbox = await InitProcess.start(plan)
    first = find_init()
    (outer,) = [pid for pid in list_children(os.getpid()) if first in list_children(pid)]
    os.kill(outer, signal.SIGSTOP)
    os.kill(first, signal.SIGSTOP)
    closing = [asyncio.create_task(sandbox.close()) for _ in range(2)]
    await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
    assert read_state(outer)[0] in "ZX?"  # which is waited for; its child was killed before it
    await asyncio.gather(*closing)
    await until(lambda: read_state(first)[0] in "ZX?")
    await sandbox.close()


def forbid(kind: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel take no message of a kind: nothing makes a real one do that at will."""

    def send(*args: object) -> None:
        if kind in args:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        send_message(*args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(channel, "send_message", send)


async def test_what_can_not_be_killed_is_ended(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_token()
    forbid(Request.KILL, monkeypatch)
    with pytest.raises(ExecTransportError, match="sandbox ended"):
        await session.exec(f"setsid sleep {token} & sleep {token}", timeout=0.2)
    await until(lambda: not find_survivors(token))
    assert not await session.running()


async def test_signals_that_can_not_be_sent(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = await session.terminal("exec cat")
    process = await session.start_process("exec sleep 60")
    async with session.stream("exec sleep 60") as stream:
        forbid(Request.SIGNAL, monkeypatch)
        for send in (terminal.signal, process.signal, stream.signal):
            with pytest.raises(ResourceLimitError, match="signal could not be sent"):
                await send("INT")
        await process.close()  # which signals as well
        monkeypatch.undo()
        assert process.state == "ended"
        await terminal.signal("INT")
        assert await terminal.wait() == -signal.SIGINT


async def test_last_words_come_before_a_failure(session: Session) -> None:
    script = "until [ -e go ]; do :; done; echo late; touch said; exec sleep 60"
    update = await session.pty_exec_start(script, yield_time_s=0)
    number = update.process_id
    assert number is not None
    await session.write("go", b"")
    await until((root_of(session) / "said").exists)
    os.kill(find_init(), signal.SIGKILL)
    await until(lambda: not session_alive(session))
    update = await session.pty_write_stdin(session_id=number, chars="", yield_time_s=0)
    assert update.output == b"late\n"
    with pytest.raises(ExecTransportError, match="sandbox ended"):
        await session.pty_write_stdin(session_id=number, chars="", yield_time_s=0)
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=number, chars="", yield_time_s=0)
