"""Owns a watch over files that nobody may touch: their state before and after, and every opening."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
# Opened, read, written, changed, made in, removed from, moved; see inotify(7). O_PATH opens nothing.
EVERYTHING = 0x001 | 0x002 | 0x004 | 0x008 | 0x010 | 0x020 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400
OPENED = 0x020
QUIET = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME


class Facts(NamedTuple):
    """What a file is, all of it."""

    mode: int
    owner: tuple[int, int]
    inode: int
    size: int
    times: tuple[int, ...]
    content: str


def describe(path: Path, *, linked: bool) -> Facts:
    """What there is to know about a path; of one that others link to, not what linking changes."""
    facts = path.lstat()
    content = ""
    if stat.S_ISREG(facts.st_mode):
        opened = os.open(path, QUIET)
        try:
            content = hashlib.sha256(os.read(opened, 1 << 20)).hexdigest()
        finally:
            os.close(opened)
    times = (facts.st_mtime_ns,) if linked else (facts.st_mtime_ns, facts.st_ctime_ns)
    return Facts(
        facts.st_mode,
        (facts.st_uid, facts.st_gid),
        facts.st_ino,
        0 if stat.S_ISDIR(facts.st_mode) else facts.st_size,
        times,
        content,
    )


def describe_tree(top: Path) -> dict[str, Facts]:
    """All that is beneath a directory and the directory, which may itself be renamed meanwhile."""
    found = {".": describe(top, linked=True)}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = top / directory / name
            found[str(path.relative_to(top))] = describe(path, linked=name == "linked")
    return found


class Watch:
    """Events on files and directories, from now until it is closed."""

    def __init__(self, paths: list[Path], mask: int = EVERYTHING) -> None:
        self._fd = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._mask = mask
        self._names: dict[int, str] = {}
        for path in paths:
            number = LIBC.inotify_add_watch(self._fd, os.fsencode(path), mask)
            assert number > 0, os.strerror(ctypes.get_errno())
            self._names[number] = str(path)

    def events(self) -> list[str]:
        """What happened since the last question."""
        found = []
        with suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                at = 0
                while at < len(data):
                    number, mask, _, length = struct.unpack_from("iIII", data, at)
                    name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
                    if mask & self._mask:  # not that the watch ends, since the file does
                        found.append(f"{mask:#x} {self._names.get(number)} {name}")
                    at += 16 + length
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
