"""What a command uses up is its own: processes, descriptors, space, and what users share."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from tests.escape.inside import run_host, run_python, sandbox

BOMB = """
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int count = 0;
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) { pause(); _exit(0); }
        if (pid < 0) break;
        if (++count > 20000) break;
    }
    printf("%d %d\\n", count, errno == EAGAIN);
    fflush(stdout);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_fork_bomb_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "bomb.c").write_text(BOMB)
    async with sandbox(root=tmp_path) as session, sandbox() as other:
        assert (await session.exec("cc -O2 bomb.c -o bomb")).ok()
        result = await session.exec("./bomb", shell=False, timeout=20, leftovers="keep")
        count, refused = map(int, result.stdout.split())
        assert refused
        assert 1000 < count <= 4096
        # Whoever has the same number on the host is not counted together with it.
        run_host("true")
        assert (await other.exec("true")).ok()
    async with sandbox(root=tmp_path) as session:
        assert (await session.exec("true")).ok()


async def test_limits_stay_as_they_are() -> None:
    code = """
import resource
for which in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
    soft, hard = resource.getrlimit(which)
    tell(soft, hard)
    for wanted in (hard + 1, resource.RLIM_INFINITY):
        try: resource.setrlimit(which, (soft, wanted)); tell("ESCAPE", which)
        except (OSError, ValueError): pass
"""
    async with sandbox() as session:
        result = await run_python(session, code)
    assert b"ESCAPE" not in result.stdout, result
    core, processes, files = (line.split() for line in result.stdout.decode().splitlines())
    assert core == ["1", "1"]  # 0 would still run a host's crash handler
    assert int(processes[1]) <= 4096
    assert int(files[1]) <= 4096


async def test_descriptors_are_bounded() -> None:
    code = """
held = []
try:
    while len(held) < 100_000: held.append(os.dup(0))
except OSError as error: tell(error.errno, len(held))
"""
    async with sandbox() as session:
        error, count = map(int, (await run_python(session, code)).stdout.split())
    assert error == 24
    assert count <= min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


async def test_private_space_is_bounded_and_private() -> None:
    code = """
for place in ("/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"], "/run"):
    try: held = os.open(place + "/large", os.O_CREAT | os.O_RDWR)
    except PermissionError: tell("closed"); continue
    facts = os.fstatvfs(held)
    try: os.posix_fallocate(held, 0, facts.f_blocks * facts.f_frsize + 4096); tell("ESCAPE", place)
    except OSError as error: tell(error.errno, facts.f_blocks * facts.f_frsize, facts.f_files)
    os.write(held, bytes(32 * 2**20))
"""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    places = ("/tmp", "/var/tmp", "/dev/shm")
    async with sandbox() as session:
        result = await run_python(session, code)
        # "large" is nobody's name for a file of their own in these places.
        assert not [place for place in places if "large" in os.listdir(place)]
        written = await session.exec("stat -c %s /tmp/large /var/tmp/large /dev/shm/large")
        assert written.stdout.split() == [str(32 * 2**20).encode()] * 3
    assert b"ESCAPE" not in result.stdout, result
    for line in result.stdout.decode().splitlines():
        if line != "closed":
            error, size, files = map(int, line.split())
            assert error == 28
            assert 0 < size <= memory // 2 + 2**26
            assert 0 < files <= 2**20
