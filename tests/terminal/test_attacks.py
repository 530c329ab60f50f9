"""What a program may try with a terminal: put words into it, reach another one, or lie about it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sandyard import (
    ExecTransportError,
    SandboxError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.fuzz.conftest import Scene, bounded
from tests.session.host import find_survivors, make_token, open_descriptors, until
from tests.terminal.screen import shows, watching

Session = UnixLocalSandboxSession

PUSH = """
import fcntl, sys
for number in (0x5412, 0x5412 | 1 << 32, 0x541c):
    for fd in (0, 1, 2):
        try:
            fcntl.ioctl(fd, number, b"X")
            print("ESCAPED", hex(number))
        except (OSError, OverflowError) as error:
            print(type(error).__name__)
"""


async def test_nothing_is_pushed_into_the_input(session: Session) -> None:
    shown = await shows(await session.terminal("python3", "-c", PUSH, shell=False))
    assert b"ESCAPED" not in shown
    assert shown.count(b"Error") == 9


async def test_other_sessions_have_other_terminals(client: UnixLocalSandboxClient) -> None:
    first, second = await client.create(), await client.create()
    try:
        async with first, second:
            mine = await first.terminal("cat")
            look = "ls /dev/pts; for n in 0 1 2 3; do echo ESCAPED > /dev/pts/$n; done 2>&1; tty"
            seen = await shows(await second.terminal(look))
            assert seen.split()[:2] == [b"0", b"ptmx"]
            assert seen.split()[-1] == b"/dev/pts/0"
            await mine.send_eof()
            assert await mine.wait() == 0
            assert b"ESCAPED" not in mine.scrollback().data
    finally:
        await client.delete(first)
        await client.delete(second)


async def test_host_terminals_are_not_there(session: Session) -> None:
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        script = f"setsid sh -c 'echo ESCAPED > /dev/tty'; echo ESCAPED > {name}x; ls -l {name}"
        shown = await shows(await session.terminal(script))
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 100)
        assert b"ESCAPED" not in shown
    finally:
        os.close(master)
        os.close(slave)


async def test_program_without_a_terminal_gets_none(session: Session) -> None:
    terminal = await session.terminal("cat")
    result = await session.exec("echo ESCAPED > /dev/tty", timeout=10)
    assert result.exit_code != 0
    await terminal.close()
    assert b"ESCAPED" not in terminal.scrollback().data


STEALER = """
import os, signal, sys
for name in os.listdir("/proc"):
    if name.isdigit() and open(f"/proc/{name}/comm").read() == "sandyard-keeper\\n":
        for fd in range(10):
            try:
                print("ESCAPED", os.readlink(f"/proc/{name}/fd/{fd}"))
            except OSError:
                pass
print("looked")
"""


async def test_master_is_nobody_else_s(session: Session) -> None:
    seen = await shows(await session.terminal("python3", "-c", STEALER, shell=False))
    assert seen == b"looked\r\n"


async def test_killed_keeper_is_no_way_to_live_on(session: Session) -> None:
    token = make_token()
    script = f"setsid sleep {token} & read go; kill -9 $PPID; exec sleep {token}"
    terminal = await session.terminal(script)
    await terminal.write(b"\n")
    async with asyncio.timeout(10):
        await terminal.wait()
    await until(lambda: find_survivors(token) == [])
    assert await shows(await session.terminal("echo on")) == b"on\r\n"


async def test_stopped_keeper_does_not_save_it(session: Session) -> None:
    token = make_token()
    script = f"read go; kill -STOP $PPID; exec sleep {token}"
    terminal = await session.terminal(script, timeout=0.3)
    await terminal.write(b"\n")
    async with asyncio.timeout(10):
        await terminal.wait()
    await until(lambda: find_survivors(token) == [])


# --- a first process that lies --------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [
        "nothing",
        "null",
        "directory",
        "pipe",
        "memfd",
        "slave",
        "two",
        "eight",
        "channel",
        "file",
        "void",
    ],
)
async def test_what_is_no_master_is_refused(play: Scene, deceived: Session, what: str) -> None:
    play("passing", what=what)
    await deceived.start()
    before = open_descriptors()
    told = await bounded(deceived.terminal("true"))
    assert isinstance(told, ExecTransportError), told
    assert not await deceived.running(), "whoever sends that is not our init"
    assert {entry.split()[0] for entry in open_descriptors()} <= {
        entry.split()[0] for entry in before
    }


async def test_descriptors_are_taken_for_births_only(play: Scene, deceived: Session) -> None:
    play("giving")
    await deceived.start()
    before = open_descriptors()
    assert not isinstance(await bounded(deceived.exec("true")), SandboxError)
    assert open_descriptors() == before


@pytest.mark.parametrize("scene", ["never_exiting", "never_reading", "vanishing_job"])
async def test_terminal_that_never_comes(
    play: Scene, deceived: Session, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.process.terminal.BIRTH_TIMEOUT_S", 0.3)
    play(scene)
    await deceived.start()
    told = await bounded(deceived.terminal("true"))
    assert isinstance(told, ExecTransportError), told


async def test_timeout_before_the_birth(play: Scene, deceived: Session) -> None:
    play("never_exiting")
    await deceived.start()
    terminal = await deceived.terminal("true", timeout=0.2)
    assert await terminal.wait() == terminal.exit_code == -9
    assert b"took longer than 0.2 s" in terminal.scrollback().data


async def test_master_that_comes_late_is_closed(
    play: Scene, deceived: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.process.terminal.BIRTH_TIMEOUT_S", 0.1)
    play("passing_late")
    await deceived.start()
    before = open_descriptors()
    assert isinstance(await bounded(deceived.terminal("true")), ExecTransportError)
    await until(lambda: open_descriptors() == before)


async def test_exit_before_the_birth(play: Scene, deceived: Session) -> None:
    play("exiting_unborn")
    await deceived.start()
    told = await bounded(deceived.terminal("true"))
    assert isinstance(told, ExecTransportError)
    assert told.context["reason"] == "no_terminal"


# --- the host program's end -----------------------------------------------------------------------

HOST = """
import asyncio, sys
from sandyard import UnixLocalSandboxClient

async def main():
    session = await UnixLocalSandboxClient().create()
    await session.start()
    for _ in range(5):
        await session.terminal(f"trap '' HUP; setsid sleep {sys.argv[1]} & exec sleep {sys.argv[1]}")
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_killed_host_leaves_nothing(tmp_path: Path) -> None:
    token = make_token()
    host = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOST,
        token,
        stdout=asyncio.subprocess.PIPE,
        env={
            "TMPDIR": str(tmp_path),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
        },
    )
    assert host.stdout is not None
    try:
        assert await host.stdout.readline() == b"ready\n"
        await until(lambda: len(find_survivors(token)) >= 10)
    finally:
        host.kill()
        await host.wait()
    await until(lambda: find_survivors(token) == [])


async def test_closed_terminal_hangs_up(session: Session) -> None:
    """Closing is no signal that a program could sleep through."""
    script = "trap '' HUP TERM INT; echo on; while :; do sleep 0.01; done"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("on")
    assert screen.terminal.exit_code == -9
