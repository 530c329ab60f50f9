"""The files API on the host, against what a hostile command left in the workspace."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest

from sandyard import SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.escape.bait import SECRET, Bait
from tests.escape.inside import run_python, sandbox
from tests.escape.runner import confine
from tests.session.host import root_of

Session = UnixLocalSandboxSession

# Each is a name in the workspace, and what a command does to have it lead elsewhere.
TRAPS = {
    "absolute": 'ln -s "$BAIT_HOME" absolute',
    "relative": "ln -s ../home relative",
    "deep": "mkdir -p a/b && ln -s ../../../home a/b/l && ln -s a/b/l deep",
    "chain": 'ln -s two chain; ln -s three two; ln -s "$BAIT_HOME" three',
    "root": "ln -s / root",
    "own_root": "ln -s /proc/self/root root_l; ln -s root_l own_root",
    "own_cwd": "ln -s /proc/self/cwd/../home own_cwd",
    "first_root": 'ln -s "/proc/1/root$BAIT_HOME" first_root',
    "descriptor": "ln -s /proc/self/fd descriptor",
    "loop": "ln -s loop loop",
}
BELOW = ("", "/data", "/.ssh/id_rsa", "/made", "/victim", "/etc/passwd", "/1")


async def provoke(session: Session, path: str) -> bytes:
    """Do everything that the API can do to a path; returns all that it gave."""
    given = b""
    with suppress(SandboxError), await session.read(path) as file:
        given += file.read()
    with suppress(SandboxError):
        given += " ".join(entry.path for entry in await session.ls(path)).encode()
    with suppress(SandboxError):
        given += str(await session.normalize_path(path)).encode()
    for attempt in (
        session.write(path, b"EVIL"),
        session.mkdir(path),
        session.mkdir(f"{path}/x/y", parents=True),
        session.rm(path),
        session.rm(f"{path}/victim", recursive=True),
        session.rm(path, recursive=True),
    ):
        with suppress(SandboxError):
            await attempt
    return given


@pytest.mark.parametrize("trap", TRAPS)
async def test_links_are_not_followed_out(bait: Bait, trap: str) -> None:
    bait.reset()
    for below in BELOW:
        async with confine(bait) as session:
            made = await session.exec(TRAPS[trap], env=dict(bait.variables))
            assert made.ok(), made
            assert (bait.workspace / trap).is_symlink()
            given = await provoke(session, trap + below)
        assert SECRET.encode() not in given
        assert b"id_rsa" not in given.replace((trap + below).encode(), b"")
        assert b"root:" not in given
        assert not bait.damage()


async def test_paths_do_not_walk_out(bait: Bait) -> None:
    async with confine(bait) as session:
        for path in (
            "../home/data",
            "sub/../../home/data",
            f"{bait.base}/home/data",
            f"{bait.workspace}/../home/data",
            "/etc/passwd",
            "out/data",
            "//etc/passwd",
            "sub/./.././../home/data",
        ):
            assert SECRET.encode() not in await provoke(session, path), path
    assert not bait.damage()


async def test_what_is_no_file_never_waits() -> None:
    make = "mkfifo fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"door\")'"
    async with sandbox() as session:
        assert (await session.exec(make)).ok()
        for name in ("fifo", "door"):
            async with asyncio.timeout(5):
                with pytest.raises(SandboxError):
                    await session.read(name)
                with suppress(SandboxError):
                    await session.write(name, b"x")
                await session.rm(name)


@pytest.mark.root
async def test_devices_are_not_opened(bait: Bait) -> None:
    async with confine(bait) as session:
        os.mknod(bait.workspace / "zero", 0o020644, os.makedev(1, 5))
        with pytest.raises(SandboxError):
            await session.read("zero")
        assert not (await session.exec("head -c 1 zero")).ok()


async def test_leased_file_does_not_stop_the_host() -> None:
    code = """
import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = os.open("leased", os.O_RDWR | os.O_CREAT)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
tell("leased")
signal.pause()
"""
    async with sandbox() as session:
        await session.write("other", b"other")
        source = f"import os, sys\ntell = lambda word: os.write(1, word.encode())\n{code}"
        async with session.stream("python3", "-c", source, shell=False) as running:
            async for _ in running:
                break
            async with asyncio.timeout(5):
                for _ in range(8):  # more than there are threads for files
                    with suppress(SandboxError):
                        (await session.read("leased")).close()
                with await session.read("other") as file:
                    assert file.read() == b"other"
                await session.write("leased", b"new")


async def test_large_hole_costs_nothing() -> None:
    async with sandbox() as session:
        await session.exec("truncate -s 8T hole")
        with await session.read("hole") as file:
            assert file.read(10) == bytes(10)


async def test_tree_too_deep_for_names_is_removed() -> None:
    code = """
for _ in range(1500):
    os.mkdir("deep")
    os.chdir("deep")
"""
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await run_python(session, code)
        with suppress(SandboxError):
            await session.ls("deep/" * 900)
    await client.delete(session)
    assert not root_of(session).exists()


async def test_odd_names_are_only_names() -> None:
    names = ("-rf", "--help", "a b", "a\nb", "$(touch x)", "`touch x`", "'", '"', "\\", "*", "~")
    async with sandbox() as session:
        for name in names:
            await session.write(name, b"odd")
        listed = [os.path.basename(entry.path) for entry in await session.ls(".")]
        assert listed == sorted(names)
        for name in names:
            await session.rm(name)
        assert await session.ls(".") == []
