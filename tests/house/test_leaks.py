"""The leak fixture reports each kind of leak, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.house.inner import run_pytest
from tests.house.leaks import SELFTEST, belongs_elsewhere, list_controllers
from tests.house.sources import ROOT

# What leaks, and the line that must say so.
LEAKS = {
    "descriptor": ("os.pipe()", r"descriptor \d+ -> pipe:"),
    "thread": (
        "threading.Thread(target=time.sleep, args=(9,), daemon=True, name='idle').start()",
        r"thread \d+ 'idle'",
    ),
    "executor": (
        "kept.append(ThreadPoolExecutor(1)); kept[-1].submit(int)",
        r"thread \d+ 'ThreadPool",
    ),
    "child": ("kept.append(subprocess.Popen(['sleep', '30']))", r"process \d+ 'sleep' state S"),
    "zombie": ("os.fork() or os._exit(0)", r"process \d+ .*never waited for"),
    "grandchild": (
        "kept.append(subprocess.Popen(['sh', '-c', 'sleep 30 & wait']))",
        r"process \d+ 'sleep' state S",
    ),
    "directory": (
        "tempfile.mkdtemp(prefix='sandbox-local-')",
        r"file or directory .*/sandbox-local-",
    ),
    "state": (
        "os.makedirs(os.environ['XDG_STATE_HOME'] + '/sandyard/sessions/s1')",
        r"session .*/sandyard/sessions/s1",
    ),
    "socket": (
        "kept.append(socket.socket(socket.AF_UNIX)); kept[-1].bind('\\0x'); kept[-1].listen()",
        r"descriptor \d+ -> socket:",
    ),
    "orphan": (
        """shutil.copy(shutil.which('sleep'), tmp_path / 'sandyard-init')
    subprocess.run(['sh', '-c', f'{tmp_path}/sandyard-init 2 >/dev/null 2>&1 & '
        'until grep -q sandyard /proc/$!/comm; do :; done'])""",
        r"orphaned process \d+ 'sandyard-init'",
    ),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run over all leaking tests prints; a clean test follows each."""
    body = "kept = []\n\n"
    for name, (statement, _) in LEAKS.items():
        body += f"def test_{name}(tmp_path):\n    {statement}\n\n"
        body += f"def test_after_{name}():\n    pass\n\n"
    return run_pytest(tmp_path_factory.mktemp("leaks"), body).stdout


@pytest.mark.parametrize("name", LEAKS)
def test_reports_each_kind(name: str, report: str) -> None:
    _, _, section = report.partition(f" ERROR at teardown of test_{name} ")
    section, _, _ = section.partition(" ERROR at teardown of ")
    assert re.search(rf"left behind: {LEAKS[name][1]}", section), report


def test_blames_nobody_else(report: str) -> None:
    assert "ERROR at teardown of test_after" not in report
    assert f"{2 * len(LEAKS)} passed, " in report
    assert f" {len(LEAKS)} errors" in report


def test_clean_work_passes(tmp_path: Path) -> None:
    body = """
async def test_clean():
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await asyncio.to_thread(time.sleep, 0.01)
    with tempfile.TemporaryDirectory() as place:
        server = await asyncio.start_unix_server(lambda r, w: None, place + "/s")
        server.close()
        await server.wait_closed()

def test_ends_late():
    threading.Thread(target=time.sleep, args=(0.1,)).start()
"""
    done = run_pytest(tmp_path, body, SANDYARD_LEAK_GRACE="5")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.root
def test_reports_mount(tmp_path: Path) -> None:
    body = "def test_leaks(tmp_path):\n    os.system(f'mount -t tmpfs none {tmp_path}')\n"
    unshare = shutil.which("unshare")
    assert unshare, "util-linux has unshare"
    # In a mount namespace of its own, so that the leak ends with the run.
    done = run_pytest(tmp_path, body, (unshare, "--mount", "--propagation", "private"))
    assert "left behind: mount" in done.stdout, done.stdout + done.stderr


def test_mount_may_be_another_run() -> None:
    own = "/tmp/pytest-of-me/pytest-7"
    mount = "mount 44 27 0:39 / {}/test_it0/place rw - tmpfs none rw"
    assert belongs_elsewhere(mount.format("/tmp/pytest-of-me/pytest-77"), own)
    for place in (own, "/srv"):
        assert not belongs_elsewhere(mount.format(place), own), place


def test_adopter_gets_orphans(tmp_path: Path) -> None:
    statement, said = LEAKS["orphan"]
    adopting = (sys.executable, str(ROOT / "scripts" / "adopting.py"))
    done = run_pytest(tmp_path, f"def test_leaks(tmp_path):\n    {statement}\n", adopting)
    found = re.search(f"left behind: {said}", done.stdout)
    assert found, done.stdout + done.stderr
    os.kill(int(found[0].split()[4]), signal.SIGKILL)


@pytest.mark.root
def test_reports_cgroup(tmp_path: Path) -> None:
    writable = [place for place in list_controllers() if os.access(place, os.W_OK)]
    if not writable:
        pytest.skip("no cgroup of ours is writable here")
    made = Path(writable[0], f"{SELFTEST}{os.getpid()}")
    try:
        done = run_pytest(tmp_path, f"def test_leaks():\n    os.mkdir({str(made)!r})\n")
        assert f"left behind: cgroup {made}" in done.stdout, done.stdout + done.stderr
        assert belongs_elsewhere(f"cgroup {made.parent}/{SELFTEST}1000000000", "")
    finally:
        made.rmdir()
