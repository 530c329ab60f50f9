"""Commands of several users: each is who it says, with what is its own, and ends like any other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    ExecTimeoutError,
    Manifest,
    Narrowing,
    Policy,
    UnixLocalSandboxSession,
    User,
)
from tests.background.reading import read_until, read_whole, text_of
from tests.session.host import find_survivors, make_token, until
from tests.terminal.screen import watching
from tests.users.conftest import is_refused, people, said

pytestmark = pytest.mark.root

Session = UnixLocalSandboxSession

NO_CAPABILITY = "grep -c 'Cap.*:.*[1-9a-f]' /proc/self/status; grep NoNewPrivs /proc/self/status"


async def test_each_is_who_it_says(session: Session) -> None:
    who = "id; echo $USER $LOGNAME $HOME; cd && pwd; stat -c '%U %G %a' ~"
    assert await said(session, who) == (
        "uid=1000(agent) gid=1000(agent) groups=1000(agent),1003(team)\n"
        "agent agent /home/agent\n/home/agent\nagent agent 700"
    )
    for user in ("reviewer", User(name="reviewer")):
        result = await session.exec(who, user=user)
        assert result.stdout.decode() == (
            "uid=1001(reviewer) gid=1001(reviewer) groups=1001(reviewer),1003(team)\n"
            "reviewer reviewer /home/reviewer\n/home/reviewer\nreviewer reviewer 700\n"
        )
    assert (await said(session, who, "other")).startswith(
        "uid=1002(other) gid=1002(other) groups=1002(other)\n"
    )
    assert await said(session, "getent passwd reviewer && getent group team other") == (
        f"reviewer:x:1001:1001:reviewer:/home/reviewer:{await said(session, 'echo $SHELL')}\n"
        "team:x:1003:agent,reviewer\nother:x:1002:"
    )
    assert await said(session, "echo $HOME $USER", "other") == "/home/other other"
    given = await session.exec("echo $HOME $USER", user="other", env={"HOME": "/tmp"})
    assert given.stdout == b"/tmp other\n"


async def test_nobody_has_more(session: Session) -> None:
    for user in (None, "reviewer"):
        result = await session.exec(NO_CAPABILITY, user=user)
        assert result.stdout == b"0\nNoNewPrivs:\t1\n"


@pytest.mark.parametrize("user", ["nobody", "root", "team", "", "Reviewer", "1001"])
async def test_who_is_not_there(session: Session, user: str) -> None:
    with pytest.raises(ArgumentError, match="'agent', 'reviewer', 'other'") as caught:
        await session.exec("true", user=user)
    assert caught.value.context["argument"] == "user"
    with pytest.raises(ArgumentTypeError):
        await session.exec("true", user=1001)  # type: ignore[arg-type]


async def test_streams_can_be_opened_again(session: Session) -> None:
    result = await session.exec(
        "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin",
        user="other",
        stdin=b"given",
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"out\ngiven", b"err\n")


async def test_timeout_ends_all_of_it(session: Session) -> None:
    token = make_token()
    tree = f"setsid sleep {token} & (trap '' TERM HUP; sleep {token}) & sleep {token}"
    with pytest.raises(ExecTimeoutError):
        await session.exec(f"touch /tmp/begun; {tree}", user="reviewer", timeout=1)
    assert await said(session, "stat -c %U /tmp/begun") == "reviewer"
    assert find_survivors(token) == []


async def test_leftovers_end_with_the_session() -> None:
    token = make_token()
    async with people() as session:
        result = await session.exec(f"setsid sleep {token} & sleep 0", user="reviewer")
        assert len(result.leftovers) == 1
        await until(lambda: find_survivors(token))
        ended = await session.exec(f"sleep {token} &", user="reviewer", leftovers="end")
        assert ended.exit_code == 0
        assert len(find_survivors(token)) == 1
    assert find_survivors(token) == []


async def test_keeper_may_be_lost(session: Session) -> None:
    # Keepers are agent's: it may end them, and what they kept ends with them, whosever it was.
    token = make_token()
    process = await session.start_process(f"setsid sleep {token} & sleep {token}", user="reviewer")
    await until(lambda: len(find_survivors(token)) >= 2)
    await session.exec(f"kill -9 $(awk '/PPid/ {{print $2}}' /proc/{process.pid}/status)")
    await until(lambda: find_survivors(token) == [])
    assert await said(session, "id -un", "reviewer") == "reviewer"


async def test_background_process(session: Session) -> None:
    process = await session.start_process(
        "trap 'echo heard; exit 4' USR1; id -un; read line; echo $line; while :; do sleep 0.01; done",
        user="reviewer",
        stdin=True,
    )
    await process.stdin.write(b"typed\n")
    await read_until(process, b"typed")
    await process.signal(signal.SIGUSR1)
    assert (await process.wait()).exit_code == 4
    assert text_of(await read_whole(process.logs())) == b"reviewer\ntyped\nheard\n"


async def test_all_are_held_still(session: Session) -> None:
    process = await session.start_process("read line; whoami", user="other", stdin=True)
    await session.exec("sleep 300 &", user="reviewer")
    await session.stop(processes="freeze")  # which fails unless all were seen to be stopped
    await process.stdin.write(b"on\n")
    assert text_of(await read_whole(process.logs())) == b"other\n"


async def test_terminal_is_its_own(session: Session) -> None:
    script = "id -un; echo again > $(tty); stat -c '%U %G %a' $(tty); echo $HOME; read line"
    terminal = await session.terminal(script, user="reviewer")
    async with watching(terminal) as screen:
        await screen.until("/home/reviewer")
        assert screen.seen.decode().split() == [
            "reviewer", "again", "reviewer", "reviewer", "620", "/home/reviewer",
        ]  # fmt: skip
        for user in (None, "other"):
            for attempt in ("cat /dev/pts/0", "echo x > /dev/pts/0"):
                assert await is_refused(session, attempt, user)
        async with watching(await session.terminal("stat -c %U $(tty); read line")) as own:
            await own.until("agent")
            assert await is_refused(session, "echo x > /dev/pts/1", "reviewer")
        await terminal.write(b"\n")
        assert await terminal.wait() == 0


async def test_narrowed_as_well(session: Session) -> None:
    await said(session, "mkdir -m 777 open")
    writing = "echo x > open/file"
    assert not await is_refused(session, writing, "reviewer")
    narrowed = await session.exec(writing, user="reviewer", narrow=Narrowing(writes=()))
    assert b"Permission denied" in narrowed.stderr
    result = await session.exec("id -un", user="reviewer", narrow=Narrowing(writes=()))
    assert result.stdout == b"reviewer\n"


async def test_directory_that_is_closed_to_it(session: Session) -> None:
    await said(session, "mkdir -m 700 own")
    with pytest.raises(ArgumentError, match="own"):
        await session.exec("true", user="reviewer", cwd="own")


async def test_again_after_a_shutdown(session: Session) -> None:
    await said(session, "mkdir -m 777 open")
    await said(session, "echo mine > open/file && chmod 600 open/file", "reviewer")
    await session.shutdown()
    await session.start()
    assert await said(session, "cat open/file; stat -c %U:%G open/file", "reviewer") == (
        "mine\nreviewer:reviewer"
    )
    assert await is_refused(session, "cat open/file", None)


async def test_sessions_are_strangers(tmp_path: Path) -> None:
    token = make_token()
    async with people() as one, people() as two:
        for session in (one, two):
            await session.exec(f"sleep {token} &", user="reviewer")
        await until(lambda: len(find_survivors(token)) == 2)
        owners = {os.stat(f"/proc/{line.split()[0]}").st_uid for line in find_survivors(token)}
        assert len(owners) == 2
        assert not owners & {0, 1000, 1001}


async def test_agent_alone_is_no_news(tmp_path: Path) -> None:
    async with people(Manifest(users=[User(name="agent")])) as session:
        assert (
            await said(session, "id", "agent")
            == "uid=1000(agent) gid=1000(agent) groups=1000(agent)"
        )
        assert await said(session, "stat -c %a .") == "700"


async def test_home_stays_private(tmp_path: Path) -> None:
    async with people(policy=Policy(home="workspace")) as session:
        assert await said(session, "echo $HOME", "reviewer") == "/home/reviewer"
