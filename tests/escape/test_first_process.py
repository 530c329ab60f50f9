"""The sandbox's own processes can't be read, traced, robbed or starved by what runs in it."""

from __future__ import annotations

import sys

import pytest

from tests.escape.attacks import read_prelude
from tests.escape.inside import run_host, run_python, sandbox

# Each line is a way to get at a process that is `victim`.
WAYS = {
    "environ": "open(f'/proc/{victim}/environ', 'rb').read()",
    "memory": "open(f'/proc/{victim}/mem', 'r+b', 0)",
    "descriptors": "os.listdir(f'/proc/{victim}/fd')",
    "descriptor": "os.open(f'/proc/{victim}/fd/0', os.O_PATH)",
    "root": "os.listdir(f'/proc/{victim}/root/')",
    "directory": "os.listdir(f'/proc/{victim}/cwd/')",
    "program": "os.readlink(f'/proc/{victim}/exe')",
    "maps": "open(f'/proc/{victim}/maps').read()",
    "namespace": "os.readlink(f'/proc/{victim}/ns/mnt')",
    "score": "open(f'/proc/{victim}/oom_score_adj', 'w')",
    "name": "open(f'/proc/{victim}/comm', 'w')",
    "auxiliary": "open(f'/proc/{victim}/auxv', 'rb').read()",
    "trace": "need(call('ptrace', 0x4206, victim, 0, 0))",
    "steal": "need(call('pidfd_getfd', call('pidfd_open', victim, 0), 0, 0))",
    "limits": "need(call('prlimit64', victim, 7, None, None))",
    "copy": "need(copy_from(victim))",
}

HEAD = """
def need(result):
    if result < 0: raise OSError(-result, "")
def copy_from(victim):
    room = ctypes.create_string_buffer(4)
    pair = ctypes.c_size_t * 2
    there = int(sys.argv[1] or ctypes.addressof(room))
    to, source = pair(ctypes.addressof(room), 4), pair(there, 4)
    return call("process_vm_readv", victim, ctypes.addressof(to), 1, ctypes.addressof(source), 1, 0)
"""

TRY = """
for victim in victims():
    try: {way}
    except OSError as error: tell(victim, error)
    else: tell("ESCAPE", victim)
tell("done")
"""

# The control's victim is a copy of itself, with the same addresses.
OWN_CHILD = """
def victims():
    child = os.fork()
    if child == 0:
        import signal
        signal.pause()
    yield child
    os.kill(child, 9)
"""

EVERY_OTHER = """
def victims():
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid(): yield int(name)
"""


@pytest.mark.parametrize("way", WAYS)
async def test_out_of_reach(way: str) -> None:
    attempt = TRY.format(way=WAYS[way])
    source = f"{read_prelude()}\n{HEAD}{OWN_CHILD}{attempt}"
    control = run_host(sys.executable, "-I", "-c", source, "")
    if b"ESCAPE" not in control.stdout:
        pytest.skip(f"its control fails here: {control.stdout.decode()!r}")
    async with sandbox() as session:
        result = await run_python(session, HEAD + EVERY_OTHER + attempt, "")
    assert b"ESCAPE" not in result.stdout, result
    assert result.stdout.count(b"\n") >= 3, result  # both of them, and the end


async def test_signals_to_everybody_end_nothing_of_ours() -> None:
    code = """
import signal
for number in range(1, 65):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
for number in range(1, 65):
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
        for pid in (1, -1):
            try: os.kill(pid, number)
            except OSError: pass
for number in (signal.SIGSTOP, signal.SIGKILL): os.kill(1, number)
tell("done")
"""
    async with sandbox() as first, sandbox() as second:
        pids = [(await s.exec("sleep 7771 & echo $!")).stdout for s in (first, second)]
        await first.exec(sys.executable, "-I", "-c", f"import os\n{code}", shell=False)
        await first.exec("kill -KILL -1")
        assert await first.running()
        assert (await first.exec("echo on")).stdout == b"on\n"
        gone = await first.exec(f"kill -0 {pids[0].decode()}")
        there = await second.exec(f"kill -0 {pids[1].decode()}")
        assert (gone.ok(), there.ok()) == (False, True)
