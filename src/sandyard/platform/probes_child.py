"""A throw-away program that tries what the kernel allows, and prints what came of it as JSON.

It is run by its path, in an interpreter of its own that has one thread, so it imports nothing of the
package. Each attempt is made in a fork of its own: one that is killed, hangs or takes away its own
rights says something about the machine and nothing about the next attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

Answer = dict[str, object]
Attempt = Callable[[], str]

ATTEMPT_S = 2.0
"""Seconds that one attempt may take; each takes milliseconds."""

ALL_S = 10
"""Seconds after which this program ends, whoever started it and whether or not that still lives."""

READ_BYTES = 65536

CLONE_NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
CLONE_NEWUSER = 0x10000000
MS_REC_PRIVATE = 0x4000 | 0x40000
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SYS_OPENAT2 = 437
SYS_LANDLOCK_CREATE = 444
RESOLVE_BENEATH = 0x08
P_PIDFD = 3
NOBODY = 65534
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008

LIBC = ctypes.CDLL(None, use_errno=True)


class RefusedError(Exception):
    """The kernel said no: at which call, with which errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Name the call that an OSError within the block comes from."""
    try:
        yield
    except OSError as error:
        raise RefusedError(name, error.errno or 0) from error


def checked(name: str, result: int) -> int:
    """The result of a C function that tells failure by a negative number."""
    if result < 0:
        raise RefusedError(name, ctypes.get_errno())
    return result


# --- what is tried --------------------------------------------------------------------------------


def new_namespace(flag: int, *, user: bool) -> Attempt:
    """One namespace of its own; for an ordinary user together with a user namespace."""

    def attempt() -> str:
        flags = flag | (CLONE_NEWUSER if user else 0)
        checked("unshare", LIBC.unshare(flags))
        return ""

    return attempt


def mount_inside(*, user: bool) -> Attempt:
    """A mount within new namespaces: some security modules let unshare pass and refuse this."""

    def attempt() -> str:
        flags = CLONE_NEW["mount"] | (CLONE_NEWUSER if user else 0)
        checked("unshare", LIBC.unshare(flags))
        checked("mount", LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC_PRIVATE), None))
        return ""

    return attempt


def no_new_privileges() -> str:
    """A process that can never gain privileges."""
    checked("prctl", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return ""


def seccomp_filter() -> str:
    """A filter that allows everything."""
    no_new_privileges()
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(1, ctypes.cast(allow, ctypes.c_void_p))
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    checked("seccomp", LIBC.prctl(PR_SET_SECCOMP, mode, ctypes.byref(program), 0, 0))
    return ""


def landlock() -> str:
    """A ruleset that is in force: nothing can be executed any more."""
    no_new_privileges()
    handled = (ctypes.c_uint64 * 1)(1)
    call = LIBC.syscall
    call.restype = ctypes.c_long
    size, create = ctypes.c_size_t(ctypes.sizeof(handled)), ctypes.c_long(SYS_LANDLOCK_CREATE)
    rules = checked("landlock_create_ruleset", call(create, ctypes.byref(handled), size, 0))
    restrict = ctypes.c_long(SYS_LANDLOCK_CREATE + 2)
    checked("landlock_restrict_self", call(restrict, ctypes.c_int(rules), 0))
    try:
        os.execv("/bin/sh", ["/bin/sh", "-c", ""])  # noqa: S606  # it must fail
    except PermissionError:
        return ""
    except OSError as error:
        raise RefusedError("execve", error.errno or 0) from error


def pidfd() -> str:
    """A handle for a process: opened, signalled and waited for."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        with step("pidfd_open"):
            handle = os.pidfd_open(child)
        with step("pidfd_send_signal"):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        with step("waitid"):
            os.waitid(P_PIDFD, handle, os.WEXITED)
    except RefusedError:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
        raise
    return ""


def sealed_memory() -> str:
    """A file in memory whose content can be fixed."""
    with step("memfd_create"):
        memory = os.memfd_create("probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memory, b"x")
    with step("fcntl"):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    try:
        os.write(memory, b"y")
    except PermissionError:
        return ""
    raise RefusedError("seal", 0)


def beneath() -> str:
    """A path resolved beneath a directory by the kernel, which refuses to leave it."""
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_BENEATH)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    call = LIBC.syscall
    call.restype = ctypes.c_long
    number = ctypes.c_long(SYS_OPENAT2)
    checked("openat2", call(number, ctypes.c_int(directory), b".", ctypes.byref(how), size))
    if call(number, ctypes.c_int(directory), b"..", ctypes.byref(how), size) >= 0:
        raise RefusedError("RESOLVE_BENEATH", 0)
    return ""


def subreaper() -> str:
    """A process that becomes the parent of its grandchildren when their parent ends."""
    checked("prctl", LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.read(out, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    os.write(into, b"x")
    with step("wait"):
        os.waitpid(-1, 0)  # the grandchild: ECHILD where it went to somebody else
    return ""


def counted_processes() -> str:
    """A limit on processes that counts those of one user namespace alone."""
    if os.geteuid() == 0:  # nothing counts for root
        with step("setuid"):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    out, into = os.pipe()
    for _ in range(2):
        with step("prepare"):
            child = os.fork()
        if child == 0:
            os.close(into)
            os.read(out, 1)  # until everybody else has gone
            os._exit(0)
    checked("unshare", LIBC.unshare(CLONE_NEWUSER))
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    with step("fork"):
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return ""


def first_process(path: str) -> Attempt:
    """Our native program: executed, spoken to, and answering with the version of its protocol."""

    def attempt() -> str:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            os.set_inheritable(theirs.fileno(), True)
            try:
                os.execve(path, [path, str(theirs.fileno())], {})  # noqa: S606  # no shell is wanted
            except OSError as error:
                ours.close()
                theirs.send(struct.pack("=iI", error.errno or errno.EIO, 0))
            os._exit(1)
        theirs.close()
        ours.send(b"what are you?")
        said = ours.recv(READ_BYTES)
        ours.close()
        os.waitpid(child, 0)
        if len(said) == struct.calcsize("=iI"):
            raise RefusedError("exec", struct.unpack_from("=i", said)[0])
        if said[:3] != b"SYD":
            raise RefusedError("answer", errno.EPROTO)
        return str(said[3])

    return attempt


def runnable_place(path: str) -> Attempt:
    """A directory in which a file can be made and executed; tells how much room there is."""

    def attempt() -> str:
        with step("mkdir"):
            os.mkdir(path, 0o700)
        program = os.path.join(path, "program")
        with step("write"):
            fd = os.open(program, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
            os.write(fd, b"#!/bin/sh\nexit 0\n")
            os.close(fd)
        room = os.statvfs(path)
        free = f"{room.f_bavail * room.f_frsize} {room.f_favail if room.f_files else -1}"
        child = os.fork()
        if child == 0:
            code = 0
            try:
                os.execv(program, [program])  # noqa: S606  # as above
            except OSError as error:
                code = error.errno or 1
            os._exit(code)
        _, status = os.waitpid(child, 0)
        return f"{free} {os.waitstatus_to_exitcode(status)}"

    return attempt


def writable_place(path: str) -> Attempt:
    """A directory in which a directory can be made."""

    def attempt() -> str:
        with step("mkdir"):
            os.mkdir(path, 0o700)
        return ""

    return attempt


# --- how it is tried ------------------------------------------------------------------------------


def try_it(attempt: Attempt) -> Answer:
    """Make one attempt in a fork, and wait for what came of it."""
    out, into = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(out)
        os.close(into)
        return {"outcome": "unknown", "step": "fork", "errno": error.errno}
    if child == 0:
        os.close(out)
        tell(into, attempt)
    os.close(into)
    try:
        return read_answer(out, child)
    finally:
        os.close(out)


def tell(into: int, attempt: Attempt) -> None:
    """Make the attempt, say what came of it, and end: never returns."""
    os.setpgid(0, 0)
    signal.alarm(ALL_S)
    try:
        answer: Answer = {"outcome": "ok", "value": attempt()}
    except RefusedError as error:
        answer = {"outcome": "refused", "step": error.step, "errno": error.number}
    except Exception as error:  # noqa: BLE001  # a border: it becomes an answer, in words
        answer = {"outcome": "unknown", "text": f"{type(error).__name__}: {error}"}
    os.write(into, json.dumps(answer).encode())
    os._exit(0)


def read_answer(out: int, child: int) -> Answer:
    """Read an attempt's answer, end all that it left, and say so where it gave none."""
    said = b""
    deadline = time.monotonic() + ATTEMPT_S
    while True:
        ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(out, READ_BYTES) if ready else b""
        said += piece
        if not piece or said.endswith(b"}"):
            break
    if ready and not said:  # it is gone, and what ended it is worth knowing
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    # The numbers cannot be another's: the process has not been waited for.
    for end in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            end(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if said:
        answer: Answer = json.loads(said)
        return answer
    if not ready:
        return {"outcome": "unknown", "text": f"no answer within {ATTEMPT_S:g} s"}
    if os.WIFSIGNALED(status):
        return {"outcome": "refused", "step": "signal", "signal": os.WTERMSIG(status)}
    return {"outcome": "unknown", "text": "it ended without a word"}


def try_place(path: str, attempt: Callable[[str], Attempt]) -> Answer:
    """Try something at a path that does not exist yet, and leave nothing there."""
    try:
        return try_it(attempt(path))
    finally:
        if os.path.isdir(path):
            # A control group holds files that nobody can remove, and goes all the same.
            with contextlib.suppress(OSError):
                os.rmdir(path)
            shutil.rmtree(path, ignore_errors=True)


def try_all(order: dict[str, str]) -> dict[str, Answer]:
    """Try everything; ``order`` names the paths that it is tried with."""
    user = os.geteuid() != 0
    attempts: dict[str, Attempt] = {"user": new_namespace(CLONE_NEWUSER, user=False)}
    for name, flag in CLONE_NEW.items():
        attempts[name] = new_namespace(flag, user=user)
    attempts |= {
        "mount_inside": mount_inside(user=user),
        "no_new_privileges": no_new_privileges,
        "seccomp": seccomp_filter,
        "landlock": landlock,
        "pidfd": pidfd,
        "memfd": sealed_memory,
        "openat2": beneath,
        "subreaper": subreaper,
        "counted_processes": counted_processes,
        "init_program": first_process(order["init"]),
    }
    answers = {name: try_it(attempt) for name, attempt in attempts.items()}
    for name, path in order.items():
        kind, _, _ = name.partition(":")
        if kind == "runnable":
            answers[name] = try_place(path, runnable_place)
        elif kind == "writable":
            answers[name] = try_place(path, writable_place)
    return answers


def hear_signals() -> None:
    """Undo what the program above ignores or blocks: forks must be waited for, and the alarm must come."""
    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    hear_signals()
    signal.alarm(ALL_S)
    json.dump(try_all(json.loads(sys.argv[1])), sys.stdout)
