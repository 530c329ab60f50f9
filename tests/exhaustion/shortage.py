"""Owns shortages of this process, exact and for the length of a block: descriptors, processes, memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, contextmanager

from sandyard import SandboxError

ROOM_FOR_INIT = 512
"""Where the limit lies at least: init inherits it, and this is about the host program alone."""


async def attempt(
    work: Awaitable[object], shortage: AbstractContextManager[object]
) -> SandboxError | None:
    """Do something during a shortage; returns the typed error of a refusal. Others come through."""
    try:
        with shortage:
            await work
    except SandboxError as error:
        return error
    return None


def count_descriptors() -> int:
    """How many this process has open, the one that looks not counted."""
    return len(os.listdir("/proc/self/fd")) - 1


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """The process may open ``spare`` descriptors more, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(ROOM_FOR_INIT, *map(int, os.listdir("/proc/self/fd")))
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] <= highest:  # also the numbers between; what comes next is the lowest free one
        held.append(os.dup(held[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


@contextmanager
def many_descriptors(wanted: int) -> Iterator[bool]:
    """The process may open ``wanted`` descriptors; tells whether that could be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield False
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Fillers:
    """Children that take up all places for processes which the user of this program has left."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._children: list[int] = []

    def fill(self) -> None:
        """Forks until the kernel refuses."""
        while True:
            try:
                pid = os.fork()
            except BlockingIOError:
                return
            if pid == 0:
                os.close(self._write_end)
                os.read(self._read_end, 1)  # its end is the end of whoever fills
                os._exit(0)
            self._children.append(pid)

    def release(self, count: int | None = None) -> None:
        """Frees so many places, or all."""
        chosen = self._children if count is None else self._children[:count]
        for pid in list(chosen):
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            self._children.remove(pid)

    def close(self) -> None:
        """Frees everything."""
        self.release()
        os.close(self._read_end)
        os.close(self._write_end)


def count_processes() -> int:
    """Processes and threads of our user on this machine, as the kernel counts them."""
    count = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return count


@contextmanager
def few_processes(spare: int) -> Iterator[Fillers]:
    """The user of this program may start ``spare`` processes or threads more, and no others.

    Root is not limited. The limit also goes to the sandboxes that are made meanwhile: the kernel
    keeps it with their user namespace.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    fillers = Fillers()
    resource.setrlimit(resource.RLIMIT_NPROC, (count_processes() + 24 + spare, hard))
    try:
        fillers.fill()
        fillers.release(spare)
        yield fillers
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        fillers.close()


@contextmanager
def little_memory(spare: int) -> Iterator[None]:
    """The process may take ``spare`` bytes of addresses more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
