"""Owns the place of a race: a workspace, what lies outside of it, and an attacker at work."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.workspace.race.watch import OPENED, Watch, describe_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).with_name("attacker.c")
SECRET = b"SECRET of the host"
"""Bytes that stand in files outside, and nowhere else."""

ONLY_OUTSIDE = "only-outside"
"""A name by which a listing of a directory outside is known."""

ATTACKS = ("links", "files", "dots", "magic", "flaps", "hard", "special", "nests", "leases")
CONTROL_S = 30.0
"""How long a naive way may take to leak; it takes milliseconds on a machine with time for us."""


def build_attacker(directory: Path) -> Path:
    """Compile the attacker."""
    program = directory / "attacker"
    words = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*words, "-o", str(program), str(SOURCE)], check=True)
    return program


def fill_outside(top: Path, name: str) -> Path:
    """Make a directory outside, with files of every kind that might be harmed."""
    outside = top / name
    (outside / "sub").mkdir(parents=True)
    (outside / "empty").mkdir(mode=0o711)
    (outside / "secret").write_bytes(SECRET)
    (outside / "secret").chmod(0o640)
    (outside / "sub/file").write_bytes(SECRET)
    (outside / "linked").write_bytes(b"reached by hard links")
    (outside / "tool").write_bytes(b"#!/bin/false\n")
    (outside / "tool").chmod(0o4755)
    (outside / ONLY_OUTSIDE).touch()
    return outside


@contextmanager
def running(words: list[str | None], count: int | None = None) -> Iterator[None]:
    """An attacker is at work in the block; where it counts rounds, a file may be given."""
    given = [word for word in words if word is not None]
    named = {} if count is None else {"ATTACKER_COUNT": f"/proc/{os.getpid()}/fd/{count}"}
    with subprocess.Popen(given, stdout=subprocess.PIPE, env=named) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None, "the attacker gave up"
        finally:
            process.kill()


@dataclass(frozen=True)
class Arena:
    """A workspace beside what nobody may touch.

    Attributes:
        base: the workspace.
        outside: what attacks lead to.
        decoy: the same once more, for naive ways to harm.
        attacker: the program.
    """

    base: Path
    outside: Path
    decoy: Path
    attacker: Path

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Nothing outside is opened, read, made, changed or removed in the block."""
        exit_secret = self.base.parent / "exit/secret"
        tops = [self.outside, self.outside / "sub", self.outside / "empty"]
        before = describe_tree(self.outside)
        inode = self.outside.stat().st_ino
        with Watch([*tops, exit_secret]) as watch:
            yield
            assert self.outside.stat().st_ino == inode
            assert watch.events() == []
        after = describe_tree(self.outside)
        changed = {
            name: (before.get(name), after.get(name)) for name in before.keys() | after.keys()
        }
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        assert not changed, changed
        assert exit_secret.read_bytes() == SECRET
        assert os.listdir(self.base.parent / "exit") == ["secret"]

    @contextmanager
    def attacked(
        self, attack: str, target: Path, link: str | None = None
    ) -> Iterator[Callable[[], int]]:
        """Somebody swaps what stands in the workspace in the block; tells how often so far."""
        words = [str(self.attacker), attack, str(self.base), str(target), link]
        with tempfile.TemporaryFile() as file:
            file.truncate(8)
            with mmap.mmap(file.fileno(), 8) as count, running(words, file.fileno()):
                yield lambda: int.from_bytes(count[:8], sys.byteorder)
        self.clear()

    @contextmanager
    def unopened_device(self) -> Iterator[None]:
        """Put a device into the workspace, which nobody opens in the block; only root can."""
        device = self.base / "device"
        with suppress(PermissionError):
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        if not device.exists():
            yield
            return
        with Watch([device], OPENED) as watch:
            yield
            assert watch.events() == []

    def clear(self) -> None:
        """Empty the workspace, now that nobody works in it, and what an attack carried out."""
        shutil.rmtree(self.base.parent / "exit/n1", ignore_errors=True)
        for path in self.base.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def leaks(self, naive: Callable[[Path], bool]) -> bool:
        """Whether a naive way is led outside by the attack that this attacker runs."""
        before, end = describe_tree(self.decoy), time.monotonic() + CONTROL_S
        with self.attacked("links", self.decoy):
            while time.monotonic() < end:
                for _ in range(16):
                    try:
                        if naive(self.base):
                            return True
                    except OSError:
                        continue
                if describe_tree(self.decoy) != before:
                    return True
        return False


@contextmanager
def opened_descriptors() -> Iterator[None]:
    """Every descriptor that is opened in the block is closed in it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before
