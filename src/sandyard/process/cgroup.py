"""Owns a session's control groups: made below the calling program's own, and removed with all in them.

A group is held by a lock on its directory. One that nobody holds was left by a program that died,
and is removed by the next start of the same user below the same group (``sweep_groups``).

Version 2 lets no group with processes share out controllers. Where the calling program is alone in a
group that was delegated to it, it therefore goes aside: its own process, and never another, moves to
a group ``sandyard-host-…`` beside those of its sessions, and back when the last of these has ended
(unless it started other programs there meanwhile).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import posixpath
import secrets
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import (
    CGROUP_NAME_TRIES,
    CGROUP_PROBE_S,
    CGROUP_REMOVE_S,
    CGROUP_RETRY_S,
    SWEEP_EVERY_S,
)
from sandyard.plan import CgroupPlace, CgroupPlan
from sandyard.platform.cgroups import HOST_PREFIX, PROBE_PREFIX, SESSION_PREFIX

__all__ = ["Cgroup", "CgroupCounts", "sweep_groups"]

_logger = logging.getLogger("sandyard.process")

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EVENTS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_EVENTS_BYTES: Final = 4_096  # each of these files has a few lines

_MEMORY_EVENTS: Final = {1: "memory.oom_control", 2: "memory.events"}
_SECOND_VERSION: Final = 2
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
_GONE: Final = (errno.ENOENT, errno.ENODEV)


@dataclass(frozen=True, slots=True)
class CgroupCounts:
    """What the kernel has counted for a session so far.

    Attributes:
        killed: processes that it ended because the memory was full.
        refused: processes and threads that it refused to make.
    """

    killed: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Member:
    """The group of one hierarchy.

    Attributes:
        version: 1 or 2.
        path: its directory.
        fd: that, open and locked.
        events: what counts, by the name of the counter, open.
    """

    version: int
    path: str
    fd: int
    events: dict[str, int] = field(default_factory=dict)


class Cgroup:
    """The control groups of one session, one for each hierarchy that a limit needs.

    Use ``Cgroup.create(plan)`` and leave it by ``close()``, or as a context manager. All but
    ``count`` may block for a moment.
    """

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._beside: list[str] = []  # parents for which the calling program is held aside
        self._last = CgroupCounts()

    @classmethod
    def create(cls, plan: CgroupPlan) -> Self:
        """Makes the groups and sets their limits.

        Raises:
            ConfinementUnavailableError: if one can't be made or set; then nothing is left.
            OSError: if this program has no descriptor left.
        """
        group = cls()
        with ExitStack() as on_failure:
            on_failure.callback(group.close)
            for place in plan.places:
                try:
                    group._add_place(place)
                except OSError as error:
                    if error.errno in _NO_DESCRIPTOR:
                        raise
                    raise _refusal(place, error) from error
            on_failure.pop_all()
        return group

    def add(self, pid: int) -> None:
        """Puts a process into the groups; what it starts from then on is in them too.

        Raises:
            ConfinementUnavailableError: if the kernel refuses.
        """
        for member in self._members:
            try:
                _write(member.fd, member.path, "cgroup.procs", str(pid))
            except OSError as error:
                raise ConfinementUnavailableError(
                    "the session's first process could not be put into its control group",
                    dimension="resources",
                    cause_text=f"{member.path}: {error.strerror}",
                    fix="let nothing else change the control groups of this program, "
                    "or leave memory and cpus of the limits unset",
                    cause=error,
                ) from error

    def count(self) -> CgroupCounts:
        """What was counted until now, or until the groups were closed."""
        found = {"oom_kill": 0, "max": 0}
        for member in self._members:
            for name, fd in member.events.items():
                found[name] = _counter(fd, name)
        if self._members:
            self._last = CgroupCounts(killed=found["oom_kill"], refused=found["max"])
        return self._last

    def close(self) -> None:
        """Ends what is still in the groups and removes them; doing it again does nothing."""
        with suppress(OSError):
            self.count()
        members, self._members = self._members, []
        for member in members:
            for fd in member.events.values():
                os.close(fd)
            if not _remove(member):
                _logger.warning("the control group %s could not be removed", member.path)
            os.close(member.fd)
        beside, self._beside = self._beside, []
        for parent in beside:
            _aside.leave(parent)

    def __enter__(self) -> Self:
        """Holds the groups for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the groups."""
        self.close()

    def _add_place(self, place: CgroupPlace) -> None:
        if place.version == _SECOND_VERSION and _aside.enter(place):
            self._beside.append(place.parent)
        path, fd = _make(place.parent, SESSION_PREFIX)
        member = _Member(place.version, path, fd)
        self._members.append(member)
        for file, value in place.settings:
            _write(fd, path, file, value)
        wanted = {"oom_kill": _MEMORY_EVENTS[place.version], "max": "pids.events"}
        chosen = {file.partition(".")[0] for file, _ in place.settings}
        for name, file in wanted.items():
            if file.partition(".")[0] in chosen:
                member.events[name] = os.open(file, _EVENTS, dir_fd=fd)


def _refusal(place: CgroupPlace, error: OSError) -> ConfinementUnavailableError:
    what = error.filename if isinstance(error.filename, str) else place.parent
    return ConfinementUnavailableError(
        "the session's control group could not be made",
        dimension="resources",
        cause_text=f"{what}: {error.strerror}",
        fix="ask for no more memory and cpus than the control group of this program has, and let "
        "nothing else change it",
        cause=error,
    )


# --- the calling program's own process --------------------------------------------------------


class _Aside:
    """The group that the calling program's own process moved to, while sessions need that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0  # a forked process has not moved itself
        self._parent = ""
        self._enabled: tuple[str, ...] = ()
        self._path = ""
        self._fd = -1
        self._users = 0

    def enter(self, place: CgroupPlace) -> bool:
        """Holds the process aside for one more session; False where that is not needed.

        Raises:
            OSError: if the kernel refuses; then the process is where it was.
        """
        with self._lock:
            if self._users and self._owner == os.getpid() and self._parent == place.parent:
                self._users += 1
                return True
            if not place.enable:
                return False
            self._go(place)
            self._users = 1
            return True

    def leave(self, parent: str) -> None:
        """Lets go of it for one session; after the last one, the process moves back."""
        with self._lock:
            if self._owner != os.getpid() or self._parent != parent:
                return
            self._users -= 1
            if self._users == 0:
                try:
                    self._return()
                except OSError as error:
                    _logger.warning("the program stays in the group %s: %s", self._path, error)
                os.close(self._fd)  # whoever finds the group empty, and not locked, removes it

    def _go(self, place: CgroupPlace) -> None:
        path, fd = _make(place.parent, HOST_PREFIX)
        try:
            _write(fd, path, "cgroup.procs", str(os.getpid()))
            _share(place.parent, "+", place.enable)
        except OSError:
            with suppress(OSError):
                _write_path(f"{place.parent}/cgroup.procs", str(os.getpid()))
            with suppress(OSError):
                os.rmdir(path)
            os.close(fd)
            raise
        self._owner, self._parent, self._enabled = os.getpid(), place.parent, place.enable
        self._path, self._fd = path, fd

    def _return(self) -> None:
        with open(f"{self._path}/cgroup.procs", encoding="ascii") as members:
            if members.read().split() != [str(os.getpid())]:
                return  # what this program started would be left without a place to go back to
        _share(self._parent, "-", self._enabled)
        _write_path(f"{self._parent}/cgroup.procs", str(os.getpid()))
        os.rmdir(self._path)


_aside = _Aside()


def _share(parent: str, sign: str, controllers: tuple[str, ...]) -> None:
    words = " ".join(sign + name for name in controllers)
    _write_path(f"{parent}/cgroup.subtree_control", words)


# --- directories and files --------------------------------------------------------------------


def _make(parent: str, prefix: str) -> tuple[str, int]:
    """Make a group and lock it; a sweep may come in between, then another one is made."""
    for _ in range(CGROUP_NAME_TRIES):
        path = f"{parent}/{prefix}{secrets.token_hex(8)}"
        os.mkdir(path)
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            continue
        except OSError:
            os.rmdir(path)
            raise
        if _lock(fd) and _is_there(fd, path):
            return path, fd
        os.close(fd)
        with suppress(OSError):
            os.rmdir(path)
    raise OSError(errno.EAGAIN, "other programs remove groups as they are made", parent)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write(directory: int, path: str, file: str, value: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(fd, value.encode("ascii"))
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{value!r} to {path}/{file}") from error


def _write_path(path: str, value: str) -> None:
    fd = os.open(posixpath.dirname(path), _DIRECTORY)
    try:
        _write(fd, posixpath.dirname(path), posixpath.basename(path), value)
    finally:
        os.close(fd)


def _counter(fd: int, name: str) -> int:
    for line in os.pread(fd, _EVENTS_BYTES, 0).split(b"\n"):
        word, _, number = line.partition(b" ")
        if word == name.encode("ascii") and number.strip().isdigit():
            return int(number)
    return 0


def _remove(member: _Member) -> bool:
    """End what is in a group and remove it; False if that took too long."""
    deadline = time.monotonic() + CGROUP_REMOVE_S
    while True:
        try:
            os.rmdir(member.path)
        except OSError as error:
            if error.errno in _GONE:
                return True
            if time.monotonic() > deadline:
                return False
            with suppress(OSError):
                _end_processes(member)
            time.sleep(CGROUP_RETRY_S)
        else:
            return True


def _end_processes(member: _Member) -> None:
    if member.version == _SECOND_VERSION:
        with suppress(FileNotFoundError):  # Linux 5.14
            _write(member.fd, member.path, "cgroup.kill", "1")
            return
    for pid in _processes(member):
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                # Its number may have become another's since it was read, but not since it was held.
                if pid in _processes(member):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _processes(member: _Member) -> list[int]:
    fd = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=member.fd)
    with open(fd, encoding="ascii") as file:
        # Processes of other pid namespaces are 0: they can't be named.
        return [int(pid) for pid in file.read().split() if pid != "0"]


# --- what dead programs left ------------------------------------------------------------------


class _Pace:
    """When this process last swept; a forked one sweeps for itself."""

    last: tuple[int, float] | None = None


def sweep_groups(directories: tuple[str, ...], *, now: bool = False) -> None:
    """Remove groups of this user's that nobody holds; whatever happens, nothing is raised.

    Args:
        directories: where to look.
        now: False (default) does it only if this process has not done it lately.
    """
    last, moment = _Pace.last, time.monotonic()
    if not now and last is not None and last[0] == os.getpid() and moment - last[1] < SWEEP_EVERY_S:
        return
    _Pace.last = (os.getpid(), moment)
    for directory in directories:
        with suppress(OSError):
            for name in os.listdir(directory):
                if name.startswith(SESSION_PREFIX):
                    with suppress(OSError):
                        _sweep(f"{directory}/{name}", name)


def _sweep(path: str, name: str) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid():
            return
        if name.startswith(PROBE_PREFIX):
            # It has no lock, since it lives for microseconds.
            if time.time() - facts.st_mtime > CGROUP_PROBE_S:
                os.rmdir(path)
        elif _lock(fd):
            if name.startswith(HOST_PREFIX):
                os.rmdir(path)  # which fails while somebody is in it: they are not ours to end
            else:
                version = _SECOND_VERSION if os.path.exists(f"{path}/cgroup.type") else 1
                _remove(_Member(version, path, fd))
    finally:
        os.close(fd)
