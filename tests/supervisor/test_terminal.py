"""`sandyard shell` and `attach` in a real terminal: keys, sizes, leaving, coming back, exit codes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from sandyard import ArgumentError
from sandyard.cli.screen import ScreenModes, detach_key
from tests.cli.calling import SANDYARD, call

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 30


class OuterTerminal:
    """A terminal of ours, with the command line in it."""

    def __init__(self, *words: str, rows: int = 20, columns: int = 90) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [*SANDYARD, *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )

    def resize(self, rows: int, columns: int) -> None:
        """Change the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self.master, keys)

    def wait_for(self, wanted: bytes) -> None:
        """Wait until something is shown; what came before it is not looked at again."""
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            ready, _, _ = select.select([self.master], [], [], left)
            if ready:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.partition(wanted)[2]

    def wait(self) -> int:
        """Wait for the program's end, and see that the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if ready:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        assert termios.tcgetattr(self._slave) == self.before
        return self.process.returncode

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def web(home: Path) -> str:
    """A session called "web"."""
    assert call("create", "--name", "web").returncode == 0
    return "web"


def shell(web: str, *options: str) -> OuterTerminal:
    """A shell in the session, with its first prompt seen."""
    opened = OuterTerminal("shell", *options, "--env", "PS1=ready> ", web, "sh")
    opened.wait_for(b"ready> ")
    return opened


def test_exit_code_passes_through(web: str) -> None:
    with shell(web) as terminal:
        terminal.press(b"exit 7\r")
        assert terminal.wait() == 7
    with OuterTerminal("shell", web, "sh", "-c", "kill -9 $$") as terminal:
        assert terminal.wait() == 137


def test_size_follows_window(web: str) -> None:
    with shell(web) as terminal:
        terminal.press(b"stty size\r")
        terminal.wait_for(b"\n20 90\r")
        terminal.resize(31, 101)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.press(b"until stty size | grep '31 101'; do :; done\r")
        terminal.wait_for(b"31 101\r\n")


def test_keys_are_passed_raw(web: str) -> None:
    with shell(web) as terminal:
        # Who answers is there: a shell may lose the key while it begins a program.
        terminal.press(b"cat\r")
        terminal.press(b"again\r")
        terminal.wait_for(b"again\r\n")
        terminal.wait_for(b"again\r\n")
        terminal.press(b"\x03")
        terminal.wait_for(b"ready> ")
        terminal.press(b"echo code $?\r")
        terminal.wait_for(b"code 130\r\n")
        terminal.press(b"\x04")
        assert terminal.wait() == 0


def test_detach_and_attach(web: str) -> None:
    with shell(web, "--name", "main") as terminal:
        terminal.press(b"echo mark-$((40+2))\r")
        terminal.wait_for(b"mark-42\r\n")
        terminal.wait_for(b"ready> ")
        terminal.press(b"\x1d")
        assert terminal.wait() == 0
        assert b"sandyard attach web" in terminal.seen
    assert b"main" in call("ps").stdout
    with OuterTerminal("attach", web, "main") as terminal:
        terminal.wait_for(b"mark-42")  # what was shown before
        terminal.press(b"exit 9\r")
        assert terminal.wait() == 9
    assert b"mark-42" in call("logs", web, "main").stdout
    assert b"main" not in call("ps").stdout


def test_detach_undoes_modes(web: str) -> None:
    with shell(web) as terminal:
        terminal.press(b"printf '\\033[?1049h\\033[?25lfu''ll'\r")
        terminal.wait_for(b"full")
        terminal.press(b"\x1d")
        assert terminal.wait() == 0
        assert b"\x1b[?1049l" in terminal.seen
        assert b"\x1b[?25h" in terminal.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_outlives_signal(web: str, number: signal.Signals) -> None:
    with shell(web) as terminal:
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number
    with OuterTerminal("attach", web) as terminal:
        terminal.wait_for(b"ready> ")


def test_killed_caller_leaves_terminal(web: str) -> None:
    with shell(web) as terminal:
        terminal.press(b"echo st''ill\r")
        terminal.wait_for(b"still\r\n")
        terminal.process.kill()
        terminal.process.wait()
    with OuterTerminal("attach", web) as terminal:
        terminal.wait_for(b"still")


def test_large_paste(web: str) -> None:
    with shell(web) as terminal:
        terminal.press(b"stty -icanon -echo; echo re''ady; head -c 200000 | wc -c\r")
        terminal.wait_for(b"ready\r\n")
        data, sent = b"x" * 200_000, 0
        while sent < len(data):
            sent += os.write(terminal.master, data[sent : sent + 4096])
        terminal.wait_for(b"200000\r\n")


def test_end_of_session_is_told(web: str) -> None:
    with shell(web) as terminal:
        assert call("rm", web).returncode == 0
        assert terminal.wait() == 137
        assert b"sandyard: " in terminal.seen


def test_keys_have_names() -> None:
    assert detach_key("ctrl-]") == b"\x1d"
    assert detach_key("ctrl-p") == b"\x10"
    assert detach_key("none") == b""
    with pytest.raises(ArgumentError):
        detach_key("escape")


def test_modes_across_chunks() -> None:
    modes = ScreenModes()
    for part in (b"text\x1b[?10", b"49;2004h", b"\x1b[?25l", b"\x1b[?2004l"):
        modes.feed(part)
    assert modes.undo() == b"\x1b[?1049l\x1b[?25h\x1b[0m"
