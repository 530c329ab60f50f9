"""Owns the injector: builds it, runs a sandbox under it, and tells what it did."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.house.leaks import find_descendants
from tests.process.raw_init import RawInit, wait_until

SOURCE = Path(__file__).with_name("inject.c")
NOTHING = -1


class Call(NamedTuple):
    """One system call of one process of the sandbox, both counted from 0."""

    process: int
    number: int
    name: str


class Fault(NamedTuple):
    """A call that fails, and with what."""

    process: int
    number: int
    error: int
    armed: int = 0
    """1 if only calls after arming count."""


RECORD = Fault(NOTHING, 0, 0)
"""No fault: all calls are written down."""


def build_injector(directory: Path) -> str:
    """Compiles the injector; returns its path."""
    program = directory / "inject"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, *flags, "-o", str(program), str(SOURCE)], check=True)
    return str(program)


@dataclass
class Traced:
    """A sandbox under the injector, and what the injector has said."""

    init: RawInit
    log: int
    said: str = ""

    def read_log(self) -> None:
        """Takes in what was said since."""
        while chunk := os.read(self.log, 65536):
            self.said += chunk.decode()

    def arm(self) -> None:
        """Lets calls be counted from now on."""
        os.kill(self.init.pid, signal.SIGUSR1)
        wait_until(self._is_armed)

    def _is_armed(self) -> bool:
        os.set_blocking(self.log, False)
        try:
            self.said += os.read(self.log, 65536).decode()
        except BlockingIOError:
            pass
        finally:
            os.set_blocking(self.log, True)
        return "A\n" in self.said

    def calls(self) -> list[Call]:
        """What was written down, since arming if there was one."""
        lines = self.said.rpartition("A\n")[2].splitlines()
        return [parse_call(line) for line in lines if line.startswith("S ")]

    def hit(self) -> Call | None:
        """The call that failed, or None if it was never made."""
        hits = [parse_call(line) for line in self.said.splitlines() if line.startswith("H ")]
        assert len(hits) <= 1
        return hits[0] if hits else None


def parse_call(line: str) -> Call:
    """A call, as the injector writes it down."""
    _, process, number, name = line.split()
    return Call(int(process), int(number), name)


@contextmanager
def traced(injector: str, fault: Fault) -> Iterator[Traced]:
    """A sandbox with a fault; when this is left all is gone, and nothing had to be ended for that."""
    log, theirs = os.pipe()
    numbers = map(str, (theirs, *fault))
    before = find_descendants()
    try:
        try:
            init = RawInit(wrapper=[injector, *numbers], passed=[theirs])
        finally:
            os.close(theirs)
        with init:
            run = Traced(init, log)
            yield run
        run.read_log()
        assert "\nL " not in f"\n{run.said}", "processes outlived the first one"
        wait_until(lambda: find_descendants() <= before)
    finally:
        os.close(log)
