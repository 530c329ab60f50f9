"""A tree with something of everything that is saved, and all that is to be restored of one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fill", "looks"]


def looks(top: bytes) -> dict[bytes, tuple[object, ...]]:
    """All that is to be restored of a tree."""
    found: dict[bytes, tuple[object, ...]] = {}
    names: dict[int, bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(top, path)
        facts = os.lstat(full)
        kept: bytes | None = None
        attributes: dict[str, bytes] = {}
        if stat.S_ISLNK(facts.st_mode):
            kept = os.readlink(full)
        elif stat.S_ISREG(facts.st_mode):
            with open(full, "rb") as file:
                kept = file.read()
        else:
            todo += [os.path.join(path, name) for name in sorted(os.listdir(full), reverse=True)]
        if not stat.S_ISLNK(facts.st_mode):
            attributes = {name: os.getxattr(full, name) for name in os.listxattr(full)}
        mode = 0 if not path else facts.st_mode  # the workspace's own stays as it is
        first = names.setdefault(facts.st_ino, path)
        found[path] = (mode, facts.st_mtime_ns, kept, attributes, first)
    return found


def fill(base: Path) -> None:
    """Something of everything that is restored."""
    (base / "d/empty").mkdir(parents=True)
    (base / "d/tool").write_bytes(b"#!/bin/sh\n")
    (base / "d/tool").chmod(0o751)
    os.link(base / "d/tool", base / "d/tool2")
    (base / "d/dangling").symlink_to("nowhere/at/all")
    (base / "d/absolute").symlink_to("/etc/hostname")
    (base / "d/up").symlink_to("../../..")
    os.link(base / "d/up", base / "linked link", follow_symlinks=False)
    (base / "read only").write_bytes(b"kept")
    (base / "read only").chmod(0o444)
    with open(base / "sparse", "wb") as file:
        file.truncate(20_000_000)
        file.seek(10_000_000)
        file.write(b"data")
    with open(os.fsencode(base) + b"/odd \xff\n\\\x01", "wb") as file:
        file.write(b"odd")
    (base / "c:\\drive").touch()
    (base / ("n" * 200) / ("m" * 200)).mkdir(parents=True)
    (base / "large").write_bytes(os.urandom(700_000))
    os.utime(base / "d/tool", ns=(1, 1_234_567_890_123_456_789))
    os.utime(base / "d/dangling", ns=(1, 7), follow_symlinks=False)
    os.utime(base / "large", ns=(1, -1_500_000_000))
    try:
        os.setxattr(base / "large", "user.note", b"kept\0too")
        os.setxattr(base / "d", "user.note", b"of a directory")
    except OSError:
        pass  # a file system without
    (base / "shut").mkdir()
    (base / "shut/file").touch()
    (base / "shut").chmod(0o555)
    os.utime(base / "d", ns=(1, 99))
    os.utime(base, ns=(1, 1_000_000_001))
