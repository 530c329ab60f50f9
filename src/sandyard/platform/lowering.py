"""What lower rungs need to know of the host: what stands around hidden things, and when to ask anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from sandyard.platform.facts import Grant, HostFacts, is_beneath, is_within
from sandyard.platform.shortage import refuse_shortage

__all__ = ["facts_around", "grants_around", "machine_key", "proc_copies"]

_COPIED: Final = ("cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version")
"""Files of /proc that speak of the machine and of no process, and that programs ask for."""

_COPY_BYTES: Final = 256 * 1024
"""Most that is copied of one; /proc/cpuinfo has about 1.5 KiB for each processor."""

_DECIDING: Final = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/user/max_mnt_namespaces",
    "/proc/sys/user/max_pid_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/self/attr/current",
    "/proc/self/mountinfo",
    "/proc/self/uid_map",
)
"""What decides besides the kernel and the user whether namespaces and mounts are allowed."""

_STATUS: Final = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters")
"""What a process may lose while it runs, as /proc/PID/status names it."""


def machine_key() -> tuple[object, ...]:
    """What the rung depends on; where it is equal, so is the rung. Reads files (blocking)."""
    words = [_read(path) for path in _DECIDING]
    status = _read("/proc/thread-self/status").splitlines()
    kept = tuple(line for line in status if line.partition(b":")[0].decode() in _STATUS)
    uname = os.uname()
    return (uname.release, uname.version, os.geteuid(), os.getegid(), *words, kept)


def proc_copies() -> tuple[tuple[str, bytes], ...]:
    """What some files of /proc say now."""
    found = ((name, _read(f"/proc/{name}")) for name in _COPIED)
    return tuple((name, content) for name, content in found if content)


def facts_around(facts: HostFacts, denied: Iterable[str]) -> HostFacts:
    """The facts without what must not show, where nothing can be put over it (blocking).

    Whatever holds a credential of a toolchain, or something denied, is replaced by what lies
    beside that. Its own directory can then not be listed. Root's commands run as somebody else,
    for whom a toolchain in root's home is out of reach.
    """
    hidden = (*facts.toolchains.masks, *denied)
    whole = tuple(entry for entry in facts.root_entries if not _holds(entry.source, hidden))
    split = {entry.source for entry in facts.root_entries} - {entry.source for entry in whole}
    trees = (*facts.system_trees, *sorted(split))
    found = (path for root in facts.toolchains.roots for path in _around(root, hidden))
    roots = tuple(path for path in found if facts.euid != 0 or _is_open(path))
    shown = tuple(path for tree in trees for path in _around(tree, hidden))
    around = (*shown, *roots, *(entry.path for entry in whole))
    return replace(
        facts,
        system_trees=shown,
        root_entries=whole,
        etc=tuple(entry for entry in facts.etc if not _holds(entry.source, hidden)),
        network_etc=tuple(entry for entry in facts.network_etc if not _holds(entry.source, hidden)),
        toolchains=replace(facts.toolchains, roots=roots, masks=()),
        search_path=tuple(
            path for path in facts.search_path if any(is_within(path, tree) for tree in around)
        ),
    )


def grants_around(grants: Iterable[Grant], denied: Iterable[str]) -> Iterator[Grant]:
    """The grants without what is denied; of what can be written to only the whole (blocking)."""
    hidden = tuple(denied)
    for grant in grants:
        if grant.writable:
            if not any(is_within(grant.source, path) for path in hidden):
                yield grant
            continue
        for path in _around(grant.source, hidden):
            if path == grant.source:
                yield grant
                continue
            try:
                facts = os.lstat(path)
            except OSError as error:  # it has gone
                refuse_shortage(error)
                continue
            yield replace(grant, path=path, source=path, inode=(facts.st_dev, facts.st_ino))


def _holds(tree: str, hidden: tuple[str, ...]) -> bool:
    return any(is_within(path, tree) or is_within(tree, path) for path in hidden)


def _around(tree: str, hidden: tuple[str, ...]) -> Iterator[str]:
    """``tree``, or the parts of it that hold nothing hidden."""
    if any(is_within(tree, path) for path in hidden):
        return
    if not any(is_beneath(path, tree) for path in hidden):
        yield tree
        return
    try:
        names = sorted(os.listdir(tree))
    except OSError as error:
        refuse_shortage(error)
        return
    for name in names:
        path = os.path.join(tree, name)
        if not os.path.islink(path):  # its end is shown in its own place, or is not shown
            yield from _around(path, hidden)


def _is_open(path: str) -> bool:
    """Whether anybody may walk to ``path``."""
    try:
        while path != "/":
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return False
            path = os.path.dirname(path)
    except OSError as error:
        refuse_shortage(error)
        return False
    return True


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_COPY_BYTES)
    except OSError as error:
        refuse_shortage(error)
        return b""
