"""A program that takes from Python what another system lacks, and then uses the library; run as a child.

What it takes away is a part of what differs. It shows that nothing of ours is loaded or looked at too
early, and not that another system works.
"""

from __future__ import annotations

import asyncio.unix_events
import json
import multiprocessing
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zoneinfo
from pathlib import Path
from types import ModuleType

import pydantic

# What is not ours was loaded on Linux, with all that it takes from there.
LOADED = (
    *(asyncio.unix_events, multiprocessing, select, signal, socket, subprocess, tempfile),
    *(urllib.request, zipfile, zoneinfo, pydantic.BaseModel),
)

LINUX_ONLY: dict[str, str] = {
    "os": "O_PATH O_TMPFILE O_NOATIME memfd_create MFD_CLOEXEC MFD_ALLOW_SEALING pidfd_open P_PIDFD "
    "setns unshare copy_file_range sched_getaffinity getxattr setxattr listxattr removexattr eventfd "
    "posix_fadvise splice setresuid setresgid",
    "select": "epoll EPOLLIN EPOLLOUT",
    "socket": "AF_NETLINK SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED SCM_CREDENTIALS MSG_CMSG_CLOEXEC",
    "signal": "pidfd_send_signal SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT sigtimedwait",
    "fcntl": "F_ADD_SEALS F_SEAL_WRITE F_SEAL_SHRINK F_SEAL_GROW F_SEAL_SEAL F_OFD_SETLK "
    "F_GETPIPE_SZ F_SETPIPE_SZ",
    "resource": "prlimit",
}

UNIX_ONLY: dict[str, str] = {
    "os": "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_NOCTTY geteuid getuid getgid getegid "
    "getgroups uname fork forkpty openpty pread pwrite mkfifo mknod chown lchown setsid killpg "
    "register_at_fork WIFEXITED WNOHANG statvfs fchdir sendfile waitid getpgid setpgid",
    "select": "poll POLLIN POLLOUT",
    "socket": "AF_UNIX SOCK_SEQPACKET SCM_RIGHTS send_fds recv_fds",
    "signal": "SIGKILL SIGHUP SIGCHLD SIGSTOP SIGCONT SIGTSTP SIGQUIT SIGWINCH SIGUSR1 SIGUSR2 "
    "SIGPIPE SIGALRM SIGTTIN SIGTTOU pthread_sigmask",
}

UNIX_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")


def take_away(names: dict[str, str]) -> None:
    """Remove names from modules of the standard library."""
    for module, words in names.items():
        found: ModuleType | None = sys.modules.get(module)
        for word in words.split():
            if found is not None and hasattr(found, word):
                delattr(found, word)


def pretend(system: str) -> None:
    """Become another system, as far as that goes."""
    if system == "darwin":
        import fcntl  # noqa: F401, PLC0415  # to be cut down
        import resource  # noqa: F401, PLC0415  # likewise
    take_away(LINUX_ONLY)
    if system == "win32":
        take_away(UNIX_ONLY)
        sys.modules.update(dict.fromkeys(UNIX_MODULES))  # type: ignore[arg-type]  # None: no such module
    sys.platform = system


def report(system: str) -> dict[str, object]:
    """Load every public name, then try to make a client, and a scripted session."""
    pretend(system)
    import sandyard  # noqa: PLC0415  # not before

    missing = [
        name
        for name in sandyard.__all__
        if (found := getattr(sandyard, name)) and getattr(found, "__module__", "") == "sandyard"
    ]
    said: dict[str, object] = {"missing": missing, "results": sandyard.ExecResult.__module__}
    try:
        sandyard.UnixLocalSandboxClient()
    except sandyard.ConfinementUnavailableError as error:
        said["refused"] = str(error)
    if system == "darwin":
        # asyncio's own epoll was taken away with the rest.
        with asyncio.Runner(loop_factory=selecting_loop) as runner:
            said["scripted"] = runner.run(scripted())
    return said


def selecting_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def scripted() -> str:
    """Use a session that needs no kernel."""
    from sandyard.testing import ScriptedSession  # noqa: PLC0415  # not before

    async with ScriptedSession(files={"a": "hi"}) as session:
        session.answer("cat a", does=lambda _: session.read_bounded("a", max_bytes=9))
        return (await session.exec("cat a", timeout=60)).stdout.decode()


if __name__ == "__main__":
    before = sorted(str(path) for path in Path().rglob("*"))
    told = report(sys.argv[1])
    told["made"] = [str(path) for path in Path().rglob("*") if str(path) not in before]
    os.write(1, json.dumps(told).encode())
