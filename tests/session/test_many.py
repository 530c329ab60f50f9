"""Very many commands in a program that may open few descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FEW_DESCRIPTORS = """
import asyncio, os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from sandyard import UnixLocalSandboxClient
from sandyard.process.budget import descriptor_budget

async def main():
    client = UnixLocalSandboxClient()
    sessions = [await client.create() for _ in range({sessions})]
    for session in sessions:
        await session.start()
    before = len(os.listdir("/proc/self/fd"))
    results = await asyncio.gather(
        *(sessions[n % {sessions}].exec("sh", "-c", "cat; echo $0", str(n), shell=False, stdin=b"in")
          for n in range({count})))
    assert [r.stdout for r in results] == [b"in%d\\n" % n for n in range({count})]
    assert descriptor_budget.used == 0
    assert len(os.listdir("/proc/self/fd")) == before
    for session in sessions:
        await client.delete(session)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == {soft}

asyncio.run(main())
"""


def run_program(text: str, tmp_path: Path) -> None:
    """Run a program that uses the library, and expect it to end well."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_1000_at_once_with_1024_descriptors(tmp_path: Path) -> None:
    run_program(FEW_DESCRIPTORS.format(soft=1024, sessions=1, count=1000), tmp_path)


def test_several_sessions_share_few_descriptors(tmp_path: Path) -> None:
    run_program(FEW_DESCRIPTORS.format(soft=200, sessions=4, count=200), tmp_path)
