"""A host program: what a session explains on the rung its machine allows, beside what it does there.

It is told fields of a policy, and prints as JSON the explanation of each system call, what each said
when it was tried, and what became of commands that were refused something.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import Any, Final

from sandyard import Policy, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.confinement.syscalls import SYSCALL_TABLES
from sandyard.policy import DIMENSIONS

HARMFUL: Final = {"reboot", "kexec_load"}
"""Not tried, in case they work."""

CALL_ALL: Final = """
import ctypes, errno, json, sys
call = ctypes.CDLL(None, use_errno=True).syscall
told = {}
for name, number in json.load(sys.stdin).items():
    ctypes.set_errno(0)
    answer = call(number, -1, -1, -1, -1, -1, -1)
    told[name] = errno.errorcode.get(ctypes.get_errno(), "") if answer == -1 else "fine"
json.dump(told, sys.stdout)
"""

QUIET: Final = """
import ctypes, os, sys, threading
number, times, threads = map(int, sys.argv[1:])
call = ctypes.CDLL(None).syscall
for turn in range(times):
    thread = threading.Thread(target=call, args=(number, 0, 0, 0, 0, 0))
    if turn < threads:
        thread.start()
        thread.join()
    else:
        thread.run()
os._exit(3)
"""
"""Fails without a word, some of the times in a thread."""

ADDRESSES: Final = ("example.org:443", "127.0.0.1:80")


async def attempt(session: UnixLocalSandboxSession) -> dict[str, Any]:
    numbers = SYSCALL_TABLES[os.uname().machine].numbers
    told = {name: await session.why(syscall=name) for name in numbers}
    whole = {n: numbers[n] for n in told if told[n].access == "none" and n not in HARMFUL}
    tried = await session.exec("/usr/bin/python3", "-c", CALL_ALL, stdin=json.dumps(whole).encode())
    knows_threads = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9)
    words = (str(numbers["mount"]), "5", "2" if knows_threads else "0")
    silent = await session.exec("/usr/bin/python3", "-c", QUIET, *words, shell=False)
    report = session.confinement
    assert report is not None
    return {
        "rung": report.rung,
        "rules": {name: each.rule for name, each in told.items()},
        "access": {name: each.access for name, each in told.items()},
        "addresses": {name: str(await session.why(name)) for name in ADDRESSES},
        "tried": json.loads(tried.stdout),
        "denials": [asdict(denial) for denial in silent.denials],
        "refused": silent.refused,
        "code": silent.exit_code,
    }


async def run(order: dict[str, str]) -> dict[str, Any]:
    client = UnixLocalSandboxClient(policy=Policy(**order, accept=DIMENSIONS))  # type: ignore[arg-type]
    session = await client.create()
    try:
        async with session:
            return await attempt(session)
    finally:
        await client.delete(session)


if __name__ == "__main__":
    json.dump(asyncio.run(run(json.loads(sys.stdin.read()) or {})), sys.stdout)
