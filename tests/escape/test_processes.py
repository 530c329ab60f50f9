"""Processes of the host and of other sessions are not there, and none of ours outlives its session."""

from __future__ import annotations

import asyncio
import os
import subprocess

from sandyard import UnixLocalSandboxSession
from tests.escape.bait import SECRET, Bait
from tests.escape.inside import find_outers, list_tree, run_python, sandbox
from tests.escape.runner import confine
from tests.house.leaks import read_state
from tests.session.host import find_survivors, make_token, until

HIDDEN = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for _ in range(2):
    if os.fork(): os._exit(0)
    os.setsid()
os.closerange(0, 100)
try: open("/proc/self/comm", "w").write("init")
except OSError: pass
os.chdir("/")
os.execv("/bin/sleep", ["sleep", sys.argv[1]])
"""


def start_host(*argv: str) -> subprocess.Popen[bytes]:
    """A process of the host's."""
    return subprocess.Popen(argv)


async def test_only_own_processes_are_listed(bait: Bait) -> None:
    token = make_token()
    code = """
for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
    tell(name, open(f"/proc/{name}/cmdline").read().split(chr(0))[0])
for number in range(1, 400):
    if os.path.exists(f"/proc/{number}/task"): tell(number, "is there")
"""
    async with confine(bait) as first, sandbox() as second:
        await second.exec(f"sleep {token} &", env={"OTHER": SECRET})
        result = await run_python(first, code)
        seen = await first.exec("cat /proc/*/environ /proc/*/cmdline; ps -ef")
    listed = [line for line in result.stdout.decode().splitlines() if "there" not in line]
    assert listed[0].endswith("sandyard-init"), listed
    assert len(listed) == 3, listed  # the first process, its keeper, and the command
    assert result.stdout.count(b"is there") >= 3
    assert token.encode() not in seen.stdout
    assert SECRET.encode() not in seen.stdout
    assert b"pytest" not in seen.stdout


async def test_numbers_are_not_the_host_ones() -> None:
    with start_host("sleep", "100") as host:
        async with sandbox() as session:
            result = await session.exec(f"kill -9 {host.pid}; kill -9 {os.getpid()}; kill -9 -1")
        assert result.exit_code != 0
        assert host.poll() is None
        host.kill()


async def test_flood_of_signals_stays_inside(bait: Bait) -> None:
    """Every number there is, killed as a process and as a group."""
    code = """
import signal
for number in range(2, 40000):
    if number in (os.getpid(), os.getppid()): continue
    for target in (number, -number):
        try: os.kill(target, signal.SIGKILL)
        except OSError: pass
tell("done")
"""
    async with sandbox() as first, sandbox() as second:
        await second.exec("sleep 7773 &")
        before = [set(list_tree(outer)) for outer in find_outers()]
        await run_python(first, code)
        assert set(list_tree(find_outers()[1])) == before[1]
        assert (await second.exec("pgrep -c sleep")).stdout == b"1\n"
    assert read_state(int(bait.variables["BAIT_VICTIM"]))[0] == "S"


async def test_hidden_daemon_ends_with_its_command() -> None:
    token = make_token()
    async with sandbox() as session:
        await run_hidden(session, token, leftovers=False)
        await until(lambda: not find_survivors(token))


async def test_hidden_daemon_ends_with_its_session() -> None:
    token = make_token()
    async with sandbox() as other:
        async with sandbox() as session:
            await run_hidden(session, token, leftovers=True)
            await until(lambda: find_survivors(token))
        await until(lambda: not find_survivors(token), within=1)
        assert (await other.exec("echo on")).stdout == b"on\n"


async def run_hidden(session: UnixLocalSandboxSession, token: str, *, leftovers: bool) -> None:
    """Leave a daemon that hides from whoever looks for it."""
    await session.exec(
        "python3",
        "-c",
        f"import os, sys\n{HIDDEN}",
        token,
        shell=False,
        leftovers="keep" if leftovers else "end",
    )


async def test_closing_under_a_storm_leaves_nothing() -> None:
    """Processes that fork as fast as they are killed."""
    code = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(8): os.fork()
while True:
    if os.fork() == 0: os.setsid()
    else: os._exit(0)
"""
    async with sandbox() as session:
        (outer,) = find_outers()
        storm = asyncio.create_task(
            session.exec("python3", "-c", f"import os\n{code}", shell=False, leftovers="keep")
        )
        await until(lambda: len(list_tree(outer)) > 100)
        storm.cancel()
        await asyncio.gather(storm, return_exceptions=True)
    await until(lambda: not find_outers())
