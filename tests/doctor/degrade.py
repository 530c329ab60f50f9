"""Makes the host worse, by the kernel's own means, and becomes another program; a child of a test.

usage: degrade.py HOW[,HOW…] PROGRAM WORD…
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Final

from sandyard.confinement.bpf import NUMBER, Assembler, Label, argument

LIBC = ctypes.CDLL(None, use_errno=True)

AGENT: Final = 1000
NEWNS: Final = 0x00020000
NEWUSER: Final = 0x10000000
NEW_ANY: Final = 0x7E020000
CAPBSET_DROP: Final = 24
CONTAINER_CAPABILITIES: Final = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
"""Numbers of those that container engines leave to root: CAP_CHOWN to CAP_SETFCAP."""
MS_BIND_REC: Final = 0x1000 | 0x4000
MS_PRIVATE_REC: Final = 0x40000 | 0x4000
MS_NODEV_NOSUID: Final = 0x4 | 0x2
SYS_MOUNT_SETATTR: Final = 442
AT_RECURSIVE: Final = 0x8000
MOUNT_ATTR_RDONLY: Final = 1
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
KILL: Final = 0x80000000

SYS_SECCOMP: Final = 317 if os.uname().machine == "x86_64" else 277
NEW_LISTENER: Final = 8

X86: Final = {
    "clone": 56, "unshare": 272, "mount": 165, "umount2": 166, "pivot_root": 155, "setns": 308,
    "memfd_create": 319,
}  # fmt: skip
ARM: Final = {
    "clone": 220, "unshare": 97, "mount": 40, "umount2": 39, "pivot_root": 41, "setns": 268,
    "memfd_create": 279,
}  # fmt: skip
EVERYWHERE: Final = {
    "clone3": 435,
    "pidfd_open": 434,
    "openat2": 437,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
}
CALLS: Final = EVERYWHERE | (X86 if os.uname().machine == "x86_64" else ARM)


def checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


OUTSIDE: Final = os.readlink("/proc/self/ns/mnt")
"""The mounts of the machine itself, which are not to be changed."""


def refuse_outside() -> None:
    if os.readlink("/proc/self/ns/mnt") == OUTSIDE:
        sys.exit("this would change the machine's own mounts: put 'nested' before it")


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    refuse_outside()
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    checked(LIBC.mount(*words, ctypes.c_ulong(flags), None))


# --- filters --------------------------------------------------------------------------------------


def refuse(rules: dict[str, tuple[int, int]]) -> None:
    """Answer calls with an action: always, or where the first argument has a bit of a mask."""
    code = Assembler()
    for name, (mask, action) in rules.items():
        other = Label()
        code.load(NUMBER)
        code.if_equal(CALLS[name], no=other)
        if mask:
            code.load(argument(0))
            code.if_any_bit(mask, no=other)
        code.give(action)
        code.place(other)
    code.give(ALLOW)
    program = code.program()
    buffer = ctypes.create_string_buffer(program)
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    checked(LIBC.prctl(38, 1, 0, 0, 0))
    checked(LIBC.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(head), 0, 0))


def no_user() -> None:
    no = ERRNO | errno.EPERM
    refuse({"unshare": (NEWUSER, no), "clone": (NEWUSER, no), "clone3": (0, ERRNO | errno.ENOSYS)})


def no_mounts() -> None:
    no = ERRNO | errno.EACCES
    refuse(dict.fromkeys(("mount", "move_mount", "fsopen", "mount_setattr"), (0, no)))


def no_landlock() -> None:
    refuse({"landlock_create_ruleset": (0, ERRNO | errno.ENOSYS)})


def container() -> None:
    """As container engines do by default: no namespaces and no mounts, and root without power."""
    if os.geteuid() == 0:
        for number in range(41):
            if number not in CONTAINER_CAPABILITIES:
                checked(LIBC.prctl(CAPBSET_DROP, number, 0, 0, 0))
        words = [sum(1 << number for number in CONTAINER_CAPABILITIES)] * 2 + [0]
        header = struct.pack("=Ii", 0x20080522, 0)
        checked(LIBC.capset(header, struct.pack("=IIIIII", *words, 0, 0, 0)))
    no = ERRNO | errno.EPERM
    calls = ("mount", "umount2", "pivot_root", "setns", "open_tree", "move_mount", "fsopen",
             "fsmount", "mount_setattr", "unshare")  # fmt: skip
    refuse(dict.fromkeys(calls, (0, no)) | {
        "clone": (NEW_ANY, no), "clone3": (0, ERRNO | errno.ENOSYS),
    })  # fmt: skip


def old_filter() -> None:
    refuse(dict.fromkeys(("openat2", "pidfd_open"), (0, ERRNO | errno.EPERM)))


def old_open() -> None:
    refuse({"openat2": (0, ERRNO | errno.EPERM)})


def listened() -> None:
    """Inside of a sandbox that hears what it refuses: of those there can be one."""
    code = Assembler()
    code.give(ALLOW)
    program = code.program()
    buffer = ctypes.create_string_buffer(program)
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    checked(LIBC.prctl(38, 1, 0, 0, 0))
    listener = LIBC.syscall(ctypes.c_long(SYS_SECCOMP), 1, NEW_LISTENER, ctypes.c_char_p(head))
    checked(0 if listener >= 0 else listener)
    os.set_inheritable(listener, True)  # while it is open


def deadly_filter() -> None:
    refuse({"unshare": (0, KILL), "open_tree": (0, KILL)})


# --- namespaces -----------------------------------------------------------------------------------


def nested() -> None:
    """An ordinary user in a user and mount namespace of its own, with all rights until execve."""
    uid, gid = os.geteuid(), os.getegid()
    checked(LIBC.unshare(NEWUSER | NEWNS))
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{AGENT} {uid} 1")
    write("/proc/self/gid_map", f"{AGENT} {gid} 1")
    mount("none", "/", None, MS_PRIVATE_REC)


def no_room() -> None:
    write("/proc/sys/user/max_user_namespaces", "0")


def covered_proc() -> None:
    mount("tmpfs", "/proc/fs", "tmpfs", 0)


def hidden_proc() -> None:
    mount("tmpfs", "/proc", "tmpfs", 0)


def unseen_proc() -> None:
    """A /proc that hides the processes which one may not trace; for root."""
    checked(LIBC.unshare(NEWNS))
    mount("none", "/", None, MS_PRIVATE_REC)
    checked(LIBC.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(0), b"hidepid=2"))


def read_only() -> None:
    """Every file system, except /proc."""
    change_mount(b"/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0)
    change_mount(b"/proc", 0, 0, MOUNT_ATTR_RDONLY)


def change_mount(path: bytes, flags: int, add: int, remove: int) -> None:
    refuse_outside()
    attributes = struct.pack("=QQQQ", add, remove, 0, 0)
    call = ctypes.c_long(SYS_MOUNT_SETATTR)
    checked(LIBC.syscall(call, -100, ctypes.c_char_p(path), flags, attributes, len(attributes)))


def no_idmap() -> None:
    """Temporary files lie on a file system that can't be shown as somebody else's; for root."""
    mount_overlay()
    os.environ["TMPDIR"] = "/mnt/merged"


def crowded_place() -> None:
    """Somebody has mounted such a one beneath the place of temporary files; for root."""
    mount_overlay()
    os.environ["TMPDIR"] = "/mnt"


def mount_overlay() -> None:
    checked(LIBC.unshare(NEWNS))
    mount("none", "/", None, MS_PRIVATE_REC)
    mount("tmpfs", "/mnt", "tmpfs", 0)
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"/mnt/{name}", 0o777)
        os.chmod(f"/mnt/{name}", 0o1777)
    options = b"lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work"
    checked(LIBC.mount(b"overlay", b"/mnt/merged", b"overlay", ctypes.c_ulong(0), options))


def chroot() -> None:
    """All that there is, except /etc, under a root that is no mount point's."""
    where = os.getcwd()
    mount("tmpfs", "/mnt", "tmpfs", MS_NODEV_NOSUID)
    os.mkdir("/mnt/root")
    for name in os.listdir("/"):
        if name in ("etc", "mnt", "lost+found"):
            continue
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"/mnt/root/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"/mnt/root/{name}")
            mount(f"/{name}", f"/mnt/root/{name}", None, MS_BIND_REC)
    os.chroot("/mnt/root")
    os.chdir(where)


# --- limits and the rest --------------------------------------------------------------------------


def few_processes() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def fewest_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))


def ignoring() -> None:
    """Children are not waited for, and signals come late."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGALRM})


def file_for_state() -> None:
    os.environ["XDG_STATE_HOME"] = "/etc/passwd"


def as_it_is() -> None:
    """No worse; what runs there makes something worse by itself."""


def no_home() -> None:
    for name in ("HOME", "USER", "LOGNAME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        os.environ.pop(name, None)


WAYS: Final[dict[str, Callable[[], None]]] = {
    way.__name__: way
    for way in (
        no_user, no_mounts, no_landlock, container, listened, no_idmap, old_filter, old_open, deadly_filter, nested, no_room,
        covered_proc, hidden_proc, unseen_proc, read_only, chroot, few_processes, few_files, fewest_files,
        no_home, ignoring, file_for_state, crowded_place, as_it_is,
    )
}  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        WAYS[name]()
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # no shell is wanted
