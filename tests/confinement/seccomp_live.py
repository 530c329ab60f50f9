"""Installs a seccomp program in itself and tells what some calls then say; a child of a test."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "unshare": 272, "mount": 165, "keyctl": 250, "clone": 56, "ioctl": 16,
    },
    "aarch64": {
        "ptrace": 117, "unshare": 97, "mount": 40, "keyctl": 219, "clone": 220, "ioctl": 29,
    },
}[os.uname().machine]  # fmt: skip


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Bind this process to ``code`` (prctl(2), PR_SET_NO_NEW_PRIVS and PR_SET_SECCOMP)."""
    program = Program(len(code) // 8, code)
    if LIBC.prctl(38, 1, 0, 0, 0) != 0 or LIBC.prctl(22, 2, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "installing the filter")


def call(number: int, *arguments: int) -> None:
    """Make a system call, or raise what it says."""
    ctypes.set_errno(0)
    if LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")


def tell(name: str, action: Callable[[], object]) -> None:
    """Print what ``action`` says."""
    try:
        result = action()
    except OSError as error:
        print(name, errno.errorcode[error.errno or 0])  # noqa: T201
        return
    if isinstance(result, socket.socket):
        result.close()
    print(name, "ok")  # noqa: T201


def create(mode: int) -> None:
    os.close(os.open("made", os.O_CREAT | os.O_WRONLY, mode))


def run_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def run_command() -> None:
    subprocess.run(["/bin/sh", "-c", "exit 0"], check=True)


def watch_child() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    pidfd = os.pidfd_open(child)
    with contextlib.closing(socket.socketpair()[0]):
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        select.poll().register(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)


def pair(family: int = socket.AF_UNIX, kind: int = socket.SOCK_STREAM) -> None:
    for end in socket.socketpair(family, kind):
        end.close()


def main() -> None:
    high = 0xDEADBEEF << 32
    with open("file", "w", encoding="utf-8"):
        pass
    install(bytes.fromhex(sys.argv[1]))
    tell("ptrace", lambda: call(NUMBERS["ptrace"], 0, 0, 0, 0))
    tell("unshare", lambda: call(NUMBERS["unshare"], 0))
    tell("mount", lambda: call(NUMBERS["mount"], 0, 0, 0, 0, 0))
    tell("keyctl", lambda: call(NUMBERS["keyctl"], 0, -3, 0))
    tell("clone3", lambda: call(435, 0, 0))
    tell("openat2", lambda: call(437, -100, 0, 0, 0))
    tell("number 470", lambda: call(470))
    tell("clone with a namespace", lambda: call(NUMBERS["clone"], 0x10000000 | 17, 0, 0, 0, 0))
    tell("chmod 4755", lambda: os.chmod("file", 0o4755))
    tell("chmod 755", lambda: os.chmod("file", 0o755))
    tell("create 4755", lambda: create(0o4755))
    tell("create 644", lambda: create(0o644))
    tell("mkdir 2755", lambda: os.mkdir("dir", 0o2755))
    tell("TIOCSTI", lambda: call(NUMBERS["ioctl"], 0, 0x5412, 0))
    tell("TIOCSTI with a high half", lambda: call(NUMBERS["ioctl"], 0, 0x5412 | high, 0))
    tell("unix", lambda: socket.socket(socket.AF_UNIX))
    tell("socketpair", pair)
    tell("datagram pair", lambda: pair(kind=socket.SOCK_DGRAM))
    tell("pair of another family", lambda: pair(40))
    tell("inet", lambda: socket.socket(socket.AF_INET))
    tell("netlink route", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    tell("netlink audit", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9))
    tell("packet", lambda: socket.socket(17, socket.SOCK_RAW))
    tell("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
    tell("own limits", lambda: resource.prlimit(0, resource.RLIMIT_NOFILE))
    tell("others' limits", lambda: resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE))
    tell("a thread", run_thread)
    tell("a command", run_command)
    tell("signals and pidfds", watch_child)


if __name__ == "__main__":
    main()
