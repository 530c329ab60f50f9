"""A command holds its three streams and nothing else, whatever the host program has open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.escape.inside import run_python, sandbox

LIST = """
import stat
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try: facts = os.fstat(int(name))
    except OSError: continue
    kind = stat.filemode(facts.st_mode)[0]
    tell(name, kind, os.readlink(f"/proc/self/fd/{name}"), facts.st_rdev)
"""


@pytest.mark.parametrize("stdin", [None, b"given"])
async def test_only_three(tmp_path: Path, stdin: bytes | None) -> None:
    (tmp_path / "secret").write_text("TOPSECRET")
    held = [os.open(tmp_path / "secret", os.O_RDONLY), os.open("/", os.O_RDONLY | os.O_DIRECTORY)]
    for descriptor in held:
        os.set_inheritable(descriptor, True)
    try:
        async with sandbox() as session:
            listed = (await run_python(session, LIST)).stdout.decode().split("\n")[:-1]
            words = [line.split() for line in listed]
            assert [word[0] for word in words] == ["0", "1", "2"]
            assert words[0][1:3] == ["c", "/dev/null"]
            assert [word[1] for word in words[1:]] == ["p", "p"]
            shown = await session.exec("ls /proc/self/fd; cat", stdin=stdin)
            assert shown.stdout.split()[:3] == [b"0", b"1", b"2"]
            assert len(shown.stdout.split()) == (5 if stdin else 4)  # one is the listing's own
            left = await session.exec("sleep 7772 & ls /proc/$!/fd; ls /proc/$PPID/fd")
            assert set(left.stdout.split()) <= {b"0", b"1", b"2", b"3"}
    finally:
        for descriptor in held:
            os.close(descriptor)


async def test_null_is_the_null_device() -> None:
    async with sandbox() as session:
        first = (await run_python(session, LIST)).stdout.decode().splitlines()[0]
    assert int(first.split()[3]) == os.makedev(1, 3)


async def test_pipes_lead_nowhere_else() -> None:
    """A command's streams reopened by their names are still only its own pipes."""
    code = """
for name in ("1", "2"):
    try: tell("ESCAPE", os.read(os.open(f"/proc/self/fd/{name}", os.O_RDONLY | os.O_NONBLOCK), 9))
    except BlockingIOError: tell("empty")
for name in (".", "..", "../..", "../etc/passwd"):
    for fd in (0, 1, 2):
        try: os.open(name, os.O_RDONLY, dir_fd=fd); tell("ESCAPE", name)
        except OSError as error: tell(error)
"""
    async with sandbox() as session:
        result = await run_python(session, code)
    assert result.stdout.count(b"Not a directory") == 12, result
    # Own output may be read back before the host has taken it; nothing else can be in there.
    assert b"root:" not in result.stdout
