"""What a command leaves running: it is listed, lives on, may write, and ends with the session."""

from __future__ import annotations

import time

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.process.budget import descriptor_budget
from tests.session.host import find_survivors, make_token, open_descriptors, root_of, until

Session = UnixLocalSandboxSession

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(float(sys.argv[1]))
    os._exit(0)
os.wait()
"""


async def test_exec_returns_at_the_command_exit(session: Session) -> None:
    began = time.monotonic()
    result = await session.exec("sleep 4 & echo hi")
    assert time.monotonic() - began < 2
    assert result.stdout == b"hi\n"
    (left,) = result.leftovers
    assert left.name in ("sleep", "sh")  # it may not have executed yet


async def test_daemons_are_listed_by_name(session: Session) -> None:
    token = make_token()
    command = (
        f"sleep {token} & setsid sleep {token} & python3 -c '{DAEMON}' {token} & wait $!; "
        f"until [ $(pgrep -c sleep) = 2 ]; do :; done; exec sh -c 'exit 7'"
    )
    result = await session.exec(command)
    assert result.exit_code == 7
    assert sorted(left.name for left in result.leftovers) == ["python3", "sleep", "sleep"]
    listed = " ".join(str(left.pid) for left in result.leftovers)
    shown = await session.exec(
        f"cat /proc/$$/comm; for p in {listed}; do cat /proc/$p/cmdline; done"
    )
    assert shown.stdout.count(token.encode()) == 3
    await until(lambda: len(find_survivors(token)) == 3)


async def test_ended_children_are_not_listed(session: Session) -> None:
    ended = "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)"  # and stays a zombie
    script = f"import os\nfor _ in range(3):\n child = os.fork() or os._exit(0)\n {ended}"
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.leftovers == ()


async def test_more_than_64_are_counted(session: Session) -> None:
    token = make_token()
    result = await session.exec(f"for i in $(seq 100); do sleep {token} & done")
    assert len(result.leftovers) == 64
    await until(lambda: len(find_survivors(token)) == 100)


async def test_they_live_on_and_write_unharmed(session: Session) -> None:
    script = (
        "import time\nfor i in range(3000):\n print('x' * 999, flush=True)\n"
        "open('done', 'w').close()\ntime.sleep(1000)"
    )
    result = await session.exec(f'python3 -c "{script}" & echo started')
    assert result.stdout.startswith(b"started\n") or b"started" in result.stdout
    assert len(result.leftovers) == 1
    await until((root_of(session) / "done").exists)
    pid = result.leftovers[0].pid
    assert (await session.exec(f"kill -0 {pid} && kill {pid}")).exit_code == 0


async def test_descriptors_come_back_when_they_end(session: Session) -> None:
    await session.exec("true")
    before = open_descriptors()
    result = await session.exec("mkfifo gate; (read x < gate; echo late) & echo hi")
    assert len(result.leftovers) == 1
    # Their pipes are here only if the command took longer than a moment.
    assert descriptor_budget.used in (0, 2)
    await session.exec("echo go > gate", timeout=10)
    await until(lambda: descriptor_budget.used == 0)
    assert open_descriptors() == before


async def test_streams_they_closed_are_not_held(session: Session) -> None:
    await session.exec("true")
    before = open_descriptors()
    result = await session.exec(
        "(exec > /dev/null 2>&1; : > up; exec sleep 1000) & until [ -e up ]; do :; done"
    )
    assert len(result.leftovers) == 1
    assert open_descriptors() == before
    assert descriptor_budget.used == 0


async def test_leftovers_end_ends_them_at_once(session: Session) -> None:
    token = make_token()
    command = f"sleep {token} & setsid sleep {token} & python3 -c '{DAEMON}' {token}; echo hi"
    result = await session.exec(command, leftovers="end")
    assert (result.stdout, result.exit_code, result.leftovers) == (b"hi\n", 0, ())
    assert find_survivors(token) == []


async def test_leftovers_end_ignores_no_signal(session: Session) -> None:
    token = make_token()
    stubborn = (
        f"import signal, time; [signal.signal(n, 1) for n in (1, 2, 15)]; time.sleep({token})"
    )
    command = f"python3 -c '{stubborn}' & sleep {token} & kill -STOP $!; echo hi"
    result = await session.exec(command, leftovers="end")
    assert result.stdout == b"hi\n"
    assert find_survivors(token) == []


async def test_leftovers_of_others_stay(session: Session) -> None:
    kept, ended = make_token(), make_token()
    await session.exec(f"setsid sleep {kept} & echo")
    await session.exec(f"setsid sleep {ended} & echo", leftovers="end")
    assert find_survivors(ended) == []
    await until(lambda: len(find_survivors(kept)) == 1)


async def test_they_end_with_the_session(client: UnixLocalSandboxClient) -> None:
    token = make_token()
    session = await client.create()
    async with session:
        await session.exec(
            f"sleep {token} & setsid sleep {token} & python3 -c '{DAEMON}' {token}; "
            f"nohup sleep {token} & (trap '' TERM HUP INT; sleep {token}) & echo"
        )
        await until(lambda: len(find_survivors(token)) >= 4)
    assert find_survivors(token) == []
    await client.delete(session)


async def test_flood_in_background_does_not_hold_exec(session: Session) -> None:
    began = time.monotonic()
    result = await session.exec("yes & yes & yes & yes & sleep 0.2", output_limit=100)
    assert time.monotonic() - began < 3
    assert len(result.leftovers) == 4
    assert (await session.exec("pkill yes; echo hi")).stdout == b"hi\n"
