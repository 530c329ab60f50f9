"""The terminal that the host program runs on is not there for commands."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.escape.inside import sandbox

PROGRAM = Path(__file__).parent / "host_session.py"
ROOT = PROGRAM.parents[2]

SCRIPTS = {
    "input": "read line; echo ESCAPE $line",
    "stream": "test -t 0 && echo ESCAPE",
    "write": "(echo written > /dev/tty) 2>/dev/null && echo ESCAPE",
    "read": "read line < /dev/tty && echo ESCAPE $line",
    "name": "tty > /dev/null && echo ESCAPE",
    "process": 'test "$(ps -o tty= -p $$ | tr -d "? ")" && echo ESCAPE',
}


def run_on_terminal(kind: str) -> tuple[dict[str, str], bytes]:
    """What scripts say whose host program leads a terminal with lines typed into it.

    Returns:
        The words of each script, and what the terminal has shown.
    """
    master, slave = pty.openpty()
    try:
        os.write(master, b"typed\n" * 9)
        result = subprocess.run(
            ["setsid", "--ctty", sys.executable, str(PROGRAM), kind, *SCRIPTS.values()],
            stdin=slave,
            capture_output=True,
            cwd=ROOT,
            timeout=20,
            check=True,
        )
        shown = os.read(master, 9999)
    finally:
        os.close(master)
        os.close(slave)
    return dict(zip(SCRIPTS, json.loads(result.stdout), strict=True)), shown


def test_terminal_of_the_host() -> None:
    control, shown = run_on_terminal("control")
    assert control["input"] == control["read"] == "ESCAPE typed\n"
    assert all("ESCAPE" in said for said in control.values()), control
    assert b"written" in shown
    confined, shown = run_on_terminal("confined")
    assert confined.pop("input") == "ESCAPE\n"  # the end of an empty input
    assert set(confined.values()) == {""}, confined
    assert b"written" not in shown


@pytest.mark.once  # two of them at once leave the machine few
async def test_terminals_are_bounded() -> None:
    code = """
import errno, os
held = []
try:
    while True: held.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
except OSError as error:
    print(len(held), errno.errorcode[error.errno])
"""
    async with sandbox() as session:
        result = await session.exec(sys.executable, "-c", code, shell=False, timeout=60)
        assert result.stdout == b"1280 ENOSPC\n"
        async with await session.terminal("tty") as terminal:  # they were given back
            async with asyncio.timeout(60):
                assert await terminal.wait() == 0
