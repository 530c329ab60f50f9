"""`sandyard shell` in a terminal that many use: keys, sizes, leaving and coming back, by tmux."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import SANDYARD, call
from tests.supervisor.conftest import home
from tests.supervisor.living import wait_until

__all__ = ["home"]

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("tmux") is None, reason="needs tmux (Debian: apt install tmux)"
    ),
]


class Pane:
    """A window of a tmux of its own, with a shell in it."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ("tmux", "-S", str(socket), "-f", "/dev/null")
        self.run("new-session", "-d", "-x", "80", "-y", "20", "env", "PS1=outside> ", "sh")

    def run(self, *words: str) -> str:
        """Have tmux do something."""
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, text: str) -> None:
        """Type a line."""
        self.run("send-keys", "-l", text)
        self.run("send-keys", "Enter")

    def wait_for(self, line: str) -> None:
        """Wait until the window shows a line, and nothing else in it."""
        wait_until(lambda: line in map(str.rstrip, self.run("capture-pane", "-p").splitlines()))


@pytest.fixture
def pane(home: Path) -> Iterator[Pane]:
    """A window; its tmux ends with the test."""
    opened = Pane(home / "tmux")
    yield opened
    opened.run("kill-server")


def test_shell_in_tmux(home: Path, pane: Pane) -> None:
    assert call("create", "--name", "web").returncode == 0
    pane.wait_for("outside>")
    sandyard = " ".join(SANDYARD)
    pane.type(f"clear; {sandyard} shell --env PS1='inside> ' web sh; echo code $?")
    pane.wait_for("inside>")
    pane.type("stty size")
    pane.wait_for("20 80")
    pane.run("resize-window", "-x", "100", "-y", "25")
    pane.type("until stty size | grep '25 100'; do :; done")
    pane.wait_for("25 100")
    pane.type("clear; echo here; cat")
    pane.wait_for("here")
    pane.run("send-keys", "C-c")  # it ends cat, and neither us nor the shell
    pane.type("echo code $?")
    pane.wait_for("code 130")
    pane.type("clear; kept=$((40 + 2))")
    pane.run("send-keys", "C-]")
    pane.wait_for("code 0")
    pane.type(f"clear; {sandyard} attach web; echo left $?")
    pane.wait_for("inside>")
    pane.type("echo kept $kept")
    pane.wait_for("kept 42")
    pane.type("exit 7")
    pane.wait_for("left 7")
    pane.type("stty -a | grep -o -w 'icanon'")  # our terminal is as it was
    pane.wait_for("icanon")
