"""What the filter refuses is told by the kernel: whose it was, how often, and nothing of others."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Final

import pytest

from sandyard import Policy, SessionClosedError
from sandyard.confinement.syscalls import SYSCALL_TABLES
from tests.explain.probing import opened
from tests.session.host import until

NUMBERS: Final = SYSCALL_TABLES[os.uname().machine].numbers

CALLS: Final = """
import ctypes, os, sys
call = ctypes.CDLL(None).syscall
code, times, *numbers = map(int, sys.argv[1:])
for _ in range(times):
    for number in numbers:
        call(number, 0, 0, 0, 0, 0)
os._exit(code)
"""

ORPHAN: Final = """
import ctypes, os, sys
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            os.sched_yield()
        ctypes.CDLL(None).syscall(int(sys.argv[1]), 0, 0, 0, 0, 0)
        os.write(writer, b"x")
    os._exit(0)
os.wait()
os.read(reader, 1)
os._exit(1)
"""


def words(code: int, times: int, *calls: str) -> tuple[str, ...]:
    """A command that makes refused calls and says nothing."""
    numbers = (str(NUMBERS[call]) for call in calls)
    return ("python3", "-c", CALLS, str(code), str(times), *numbers)


async def test_refused_calls_are_told() -> None:
    async with opened(None, Policy()) as session:
        failed = await session.exec(*words(7, 3, "ptrace", "setns"), shell=False)
        assert [(d.subject, d.error, d.program, d.times, d.grant) for d in failed.denials] == [
            ("ptrace", "EPERM", "python3", 3, "Policy(syscalls=('ptrace',))"),
            ("setns", "EPERM", "python3", 3, None),
        ]
        assert failed.refused == 6
        # A part of a call: words alone leave open who refused it.
        failed = await session.exec("touch f; chmod u+s f 2>/dev/null")
        (denial,) = failed.denials
        assert denial.subject in {"chmod", "fchmodat", "fchmodat2"}
        assert denial.program == "chmod"
        assert "set-user-id" in denial.rule
        # Of a call that words tell of as well, it is told once, by the kernel.
        failed = await session.exec("cat /etc/shadow; unshare -r true")
        assert [denial.subject for denial in failed.denials] == ["/etc/shadow", "unshare"]
        assert failed.denials[1].program == "unshare"
        # Who succeeds was refused all the same, and is not told why.
        done = await session.exec(*words(0, 2, "mount"), shell=False)
        assert (done.denials, done.refused) == ((), 2)
        assert [call[:3] for call in done.refused_calls] == [(2, NUMBERS["mount"], 1)]
        # What programs try in order to find out whether it exists is no refusal.
        quiet = await session.exec(*words(1, 2, "clone3", "openat2"), shell=False)
        assert (quiet.denials, quiet.refused) == ((), 0)


async def test_refusals_have_one_owner() -> None:
    async with opened(None, Policy()) as session:
        calls = ("mount", "unshare", "bpf", "keyctl", "setns", "ptrace")
        many = [session.exec(*words(1, 20, call), shell=False) for call in calls]
        for call, result in zip(calls, await asyncio.gather(*many), strict=True):
            assert [(d.subject, d.times) for d in result.denials] == [(call, 20)]
            assert result.refused == 20
        clean = await session.exec("exit 4")
        assert (clean.denials, clean.refused) == ((), 0)
        # An orphan in a session of its own is still its command's.
        orphan = ("python3", "-c", ORPHAN, str(NUMBERS["mount"]))
        result = await session.exec(*orphan, shell=False, timeout=60)
        assert [(d.subject, d.times) for d in result.denials] == [("mount", 1)]


async def test_leftovers_are_told_of() -> None:
    """What nobody waits for is refused is told once the last of it has ended, without the command's."""
    script = """
        python3 -c "$1" 1 2 "$3"
        (read go < go; python3 -c "$1" 0 5 "$2" "$3") > left 2>&1 &
    """
    async with opened(None, Policy()) as session:
        await session.exec("mkfifo go")
        numbers = (str(NUMBERS["mount"]), str(NUMBERS["bpf"]))
        done = await session.exec("bash", "-c", script, "sh", CALLS, *numbers, shell=False)
        assert [call[:2] for call in done.refused_calls] == [(2, NUMBERS["bpf"])]
        assert len(done.leftovers) == 1
        assert not session.refused_calls
        await session.exec("echo > go")
        await until(lambda: len(session.refused_calls) > 0)
        told = {call.number: call for call in session.refused_calls}
        assert {number: call.times for number, call in told.items()} == {
            NUMBERS["mount"]: 5,
            NUMBERS["bpf"]: 5,
        }
        assert told[NUMBERS["mount"]][2:] == (errno.EPERM, "python3")
    with pytest.raises(SessionClosedError):
        assert session.refused_calls


async def test_flood_is_counted_and_bounded() -> None:
    calls = (
        "mount", "umount2", "setns", "unshare", "bpf", "keyctl", "ptrace", "add_key", "acct", "syslog",
    )  # fmt: skip
    async with opened(None, Policy()) as session:
        flood = asyncio.create_task(session.exec(*words(1, 500, *calls), shell=False))
        others = [await session.exec("true") for _ in range(5)]
        result = await flood
        assert [other.exit_code for other in others] == [0] * 5
        assert result.refused == 500 * len(calls)
        assert len(result.denials) == len(result.refused_calls) == 8
        assert {denial.times for denial in result.denials} == {500}
        # So much is told of the rest: that there is one.
        assert sum(call.times for call in result.refused_calls) == 8 * 500
