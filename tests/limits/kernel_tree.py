"""A stand-in for the files of control groups version 2, on a kernel that has them elsewhere.

It is a directory of ordinary files. What the kernel does when a group is made or removed, the
stand-in does: files appear and go away. It shows what the driver reads and writes and in which order;
that a real kernel takes it so is shown in the emulator (test_emulated.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "memory": {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "memory.oom.group": "0\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    },
    "pids": {"pids.max": "max\n", "pids.events": "max 0\n"},
    "cpu": {"cpu.max": "max 100000\n"},
}


class KernelTree:
    """A hierarchy of version 2 with one group, in which the present process is."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mount = place / "cgroup"
        self.own = self.mount / "app"
        self.written: list[tuple[str, str]] = []
        self._mkdir, self._rmdir, self._write = os.mkdir, os.rmdir, os.write
        self.refuse: Callable[[str, str], OSError | None] = lambda file, value: None
        self.mount.mkdir()
        self._populate(self.mount)
        (self.mount / "cgroup.type").unlink()  # the topmost group has none
        (self.mount / "cgroup.controllers").write_text("cpu memory pids\n")
        (self.mount / "cgroup.subtree_control").write_text("cpu memory pids\n")
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        monkeypatch.setattr(os, "write", self.write)
        os.mkdir(str(self.own))
        (self.own / "cgroup.procs").write_text(f"{os.getpid()}\n")

    @property
    def cgroup(self) -> str:
        """What /proc/self/cgroup says."""
        return "0::/app\n"

    @property
    def mountinfo(self) -> str:
        """What /proc/self/mountinfo says, with another file system before it."""
        return (
            "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
            f"30 22 0:27 / {self.mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        )

    def groups(self) -> list[Path]:
        """The groups of ours below our own."""
        return sorted(self.own.glob("sandyard-*"))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """Make a directory; below the hierarchy, with the files that the kernel makes."""
        self._mkdir(path, mode)
        if Path(path).is_relative_to(self.mount):
            self._populate(Path(path))

    def rmdir(self, path: str) -> None:
        """Remove a directory; below the hierarchy, a group without processes."""
        place = Path(path)
        if not place.is_relative_to(self.mount):
            self._rmdir(path)
            return
        if not place.exists():
            raise FileNotFoundError(2, "No such file or directory", path)
        if (place / "cgroup.procs").read_text().split():
            raise OSError(16, "Device or resource busy", path)
        self._empty(place)
        self._rmdir(path)

    def write(self, fd: int, data: bytes) -> int:
        """Write to a file; in the hierarchy it replaces, as the kernel's files do."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not Path(path).is_relative_to(self.mount):
            return self._write(fd, data)
        value = data.decode()
        error = self.refuse(path, value)
        if error is not None:
            raise error
        self.written.append((os.path.relpath(path, self.own), value))
        if path.endswith("cgroup.procs"):
            self._move(Path(path), value)
            return len(data)
        if path.endswith("cgroup.subtree_control"):
            value = self._shared(Path(path), value)
        if path.endswith("cgroup.kill"):
            (Path(path).parent / "cgroup.procs").write_text("")
        os.ftruncate(fd, 0)
        self._write(fd, value.encode())
        return len(data)

    def _move(self, target: Path, pid: str) -> None:
        for file in self.mount.rglob("cgroup.procs"):
            others = [line for line in file.read_text().split() if line != pid]
            file.write_text("".join(f"{line}\n" for line in others))
        target.write_text(target.read_text() + f"{pid}\n")

    @staticmethod
    def _shared(file: Path, change: str) -> str:
        enabled = set(file.read_text().split())
        for word in change.split():
            (enabled.add if word[0] == "+" else enabled.discard)(word[1:])
        return " ".join(sorted(enabled)) + "\n"

    def _populate(self, place: Path) -> None:
        given = ""
        if place != self.mount:
            given = (place.parent / "cgroup.subtree_control").read_text()
        files = {"cgroup.procs": "", "cgroup.type": "domain\n", "cgroup.subtree_control": ""}
        files |= {"cgroup.controllers": given, "cgroup.kill": ""}
        for controller in given.split():
            files |= FILES[controller]
        for name, text in files.items():
            (place / name).write_text(text)

    @staticmethod
    def _empty(place: Path) -> None:
        for file in place.iterdir():
            file.unlink()
