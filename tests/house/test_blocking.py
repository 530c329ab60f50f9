"""A blocking call inside a watched package fails an async test, and only there."""

from __future__ import annotations

from pathlib import Path

from tests.house.inner import run_pytest

PACKAGE = """
import os, time

def pause():
    time.sleep(0.001)

def sync(fd):
    os.fsync(fd)

def wait_for(pid):
    os.waitpid(pid, 0)

def poll(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
"""

BODY = """
import made_up

async def test_pause():
    made_up.pause()

async def test_sync():
    made_up.sync(1)

async def test_wait():
    made_up.wait_for(1)

async def test_poll():
    made_up.poll(1)

async def test_thread():
    await asyncio.to_thread(made_up.pause)

async def test_outside():
    time.sleep(0.001)

def test_no_loop():
    made_up.pause()
"""


def test_blocking_calls_fail(tmp_path: Path) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").write_text(PACKAGE)
    done = run_pytest(tmp_path, BODY, SANDYARD_WATCHED_PACKAGE="made_up")
    for name, call in (("pause", "time.sleep"), ("sync", "os.fsync"), ("wait", "os.waitpid")):
        assert f"FAILED test_made_up.py::test_{name}" in done.stdout
        assert f"BlockingError: Blocking call to {call}" in done.stdout
    assert "3 failed, 4 passed" in done.stdout, done.stdout + done.stderr
