"""What programs say when something is refused: one table of phrases, and who writes each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["OPERATIONS", "PHRASES", "TAIL_BYTES", "Phrase", "SubjectKind"]

TAIL_BYTES: Final = 32 * 1024
"""Bytes of output that are looked at, the last ones: a program that gives up says why at its end."""

SubjectKind = Literal[
    "path",
    "program",
    "host",
    "address",
    "network",
    "syscall",
    "open_files",
    "processes",
    "file_size",
]
"""What a phrase is about: a subject to be found beside it (an address has a port, and a program an
absolute path), or the network or a limit as such."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that tell of a refusal.

    Attributes:
        text: in lower case, as bytes; they are looked for in any case.
        kind: what is refused.
        error: the name of the errno behind it.
        source: who says so.
        subject: a system call that is meant where the words name none.
    """

    text: bytes
    kind: SubjectKind
    error: str
    source: str
    subject: str = ""


PHRASES: Final = (
    # --- strerror(3), which nearly every program quotes ---
    Phrase(b"permission denied", "path", "EACCES", "the C library: shells, coreutils, git, Go"),
    Phrase(b"read-only file system", "path", "EROFS", "the C library; Node after EROFS:"),
    Phrase(b"no such file", "path", "ENOENT", "the C library, whole; dash without its end"),
    Phrase(b"device or resource busy", "path", "EBUSY", "the C library"),
    Phrase(b"invalid cross-device link", "path", "EXDEV", "the C library"),
    Phrase(b"no space left on device", "path", "ENOSPC", "the C library; Node after ENOSPC:"),
    # --- the same in other words ---
    Phrase(b"resource busy or locked", "path", "EBUSY", "Node (libuv)"),
    Phrase(b"cross-device link not permitted", "path", "EXDEV", "Node (libuv)"),
    Phrase(b"directory nonexistent", "path", "ENOENT", "dash: cannot create X"),
    Phrase(b"accessdeniedexception", "path", "EACCES", "Java (java.nio.file)"),
    Phrase(b"nosuchfileexception", "path", "ENOENT", "Java (java.nio.file)"),
    Phrase(b"cannot find module", "path", "ENOENT", "Node: the script that it was given"),
    Phrase(b": not found", "program", "ENOENT", "dash: a program by its path"),
    # --- names and addresses ---
    Phrase(b"could not resolve host", "host", "EAI_AGAIN", "curl, ssh, git through them, cargo"),
    Phrase(b"couldn't resolve host", "host", "EAI_AGAIN", "older curl"),
    Phrase(b"unable to resolve host address", "host", "EAI_AGAIN", "wget"),
    Phrase(b"getaddrinfo enotfound", "host", "EAI_NONAME", "Node, npm"),
    Phrase(b"getaddrinfo eai_again", "host", "EAI_AGAIN", "Node, npm"),
    Phrase(b"unknownhostexception:", "host", "EAI_NONAME", "Java"),
    Phrase(b"dial tcp: lookup", "host", "EAI_AGAIN", "Go"),
    Phrase(b"failed to connect to", "address", "ECONNREFUSED", "curl, git: X port N"),
    Phrase(b"connect to host", "address", "ENETUNREACH", "ssh: X port N"),
    Phrase(b"connect enetunreach", "address", "ENETUNREACH", "Node"),
    Phrase(b"connect econnrefused", "address", "ECONNREFUSED", "Node"),
    Phrase(b"dial tcp", "address", "ECONNREFUSED", "Go: X:N"),
    Phrase(b"... failed: ", "address", "ECONNREFUSED", "wget: Connecting to X:N... failed"),
    Phrase(b"connection to server at", "address", "ECONNREFUSED", 'psql: "X" (A), port N failed'),
    Phrase(b"(host=", "address", "EAI_AGAIN", "urllib3: pip, requests: (host='X', port=N)"),
    Phrase(b"temporary failure in name resolution", "network", "EAI_AGAIN", "the C library"),
    Phrase(b"name or service not known", "network", "EAI_NONAME", "the C library"),
    Phrase(b"network is unreachable", "network", "ENETUNREACH", "the C library"),
    # --- system calls ---
    Phrase(b"operation not permitted", "syscall", "EPERM", "the C library, after a call's name"),
    Phrase(b"function not implemented", "syscall", "ENOSYS", "the C library, likewise"),
    Phrase(b"cannot change root directory", "syscall", "EPERM", "chroot", "chroot"),
    Phrase(b"creating new namespace failed", "syscall", "EPERM", "bwrap", "unshare"),
    Phrase(b"reassociate to namespace", "syscall", "EPERM", "nsenter", "setns"),
    Phrase(b"read kernel buffer failed", "syscall", "EPERM", "dmesg", "syslog"),
    Phrase(b"must be superuser to use mount", "syscall", "EPERM", "mount", "mount"),
    Phrase(b"cannot set date", "syscall", "EPERM", "date", "clock_settime"),
    Phrase(b"could not trace the inferior", "syscall", "EPERM", "gdb", "ptrace"),
    Phrase(b"ptrace_traceme", "syscall", "EPERM", "strace", "ptrace"),
    # --- limits ---
    Phrase(b"too many open files", "open_files", "EMFILE", "the C library; Node after EMFILE:"),
    Phrase(b"file too large", "file_size", "EFBIG", "the C library"),
    Phrase(b"cannot fork", "processes", "EAGAIN", "dash, perl"),
    Phrase(b"fork: retry", "processes", "EAGAIN", "bash"),
    Phrase(b"fork: resource temporarily unavailable", "processes", "EAGAIN", "bash, make, git"),
    Phrase(b"blockingioerror: [errno 11] resource temp", "processes", "EAGAIN", "Python: fork"),
    Phrase(b"can't start new thread", "processes", "EAGAIN", "Python: threads"),
    Phrase(b"unable to create native thread", "processes", "EAGAIN", "Java"),
    Phrase(b"pthread_create failed", "processes", "EAGAIN", "Go, OpenBLAS"),
    Phrase(b"failed to spawn thread", "processes", "EAGAIN", "Rust"),
)  # fmt: skip
"""Each phrase that is looked for. That one is found means little: the policy is asked about what it
names, and only what the policy denies is told."""

OPERATIONS: Final[dict[str, tuple[bytes, ...]]] = {
    "create": (b"create", b"creating", b"mkdir", b"mknod", b"symlink", b"link"),
    "write": (
        b"touch", b"write", b"writing", b"save", b"append", b"truncate", b"lock", b"changing",
        b"chmod", b"chown", b"utime", b"setting", b"copyfile", b"overwrite",
    ),
    "remove": (b"remove", b"unlink", b"rmdir", b"delete"),
    "move": (b"move", b"rename"),
    "read": (b"read", b"access", b"scandir", b"opendir", b"lstat", b"stat", b"readlink"),
}  # fmt: skip
"""The words by which messages tell what was tried; what is in none of these is not told."""
