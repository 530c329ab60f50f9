"""Narrowing: what one command may do less than its session."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Final

from sandyard.errors import PolicyError
from sandyard.limits import MEMORY_MIN_BYTES, OPEN_FILES_MIN, SIZE_MAX_BYTES, TIMEOUT_MAX_S

__all__ = ["Narrowing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowing:
    """What one command of a session, with all that it starts, may do less than the others.

    A session's policy can't be widened, but ``exec(…, narrow=Narrowing(…))`` runs one command behind
    another wall: a linter that must not write, a build without network, a test with little memory.
    The kernel holds it (Landlock, seccomp, rlimits), and where it can't, the command is refused.
    ``Narrowing()`` takes nothing away.

    It is a wall around one command, not between commands: what it writes where it may, the others
    see, and it can talk to what they run.

    Attributes:
        reads: Takes paths, absolute or relative to the workspace. Of the workspace and of what the
            policy grants, the command opens, lists and executes only these and what is beneath
            them; the system, the toolchains and its private directories stay readable, but the
            contents of ``/``, and of ``/tmp`` where the workspace lies in it, can't be listed or
            opened. Default: None, as the session. Empty: nothing of the workspace. A path that
            does not exist when the command starts, or that is a symlink, is not readable later.
            Does not hide names, sizes and modes.
        writes: Takes paths, likewise. Of the workspace and of what the policy grants, the command
            changes only what lies beneath these; private directories stay writable, except ``/tmp``
            where the workspace lies in it: TMPDIR is then another of them. Default: None, as the
            session. Empty: nothing of the workspace. Does not keep modes, owners and times of
            files as they are, for which Landlock has no word.
        deny: Takes paths, likewise: the command neither opens, executes nor changes these, and what
            lies beneath them, whatever ``reads`` and ``writes`` say. In the directories that lead to
            them it makes, renames and removes nothing, and what others make there meanwhile stays
            closed; all else in them is as before. Names can be listed, sizes and modes be asked for,
            and another name of a denied file (a hard link) opens it. A path that does not exist is
            closed when it comes. Each entry beside what is denied takes a rule of the kernel, of which
            there are at most 1,024. Default: nothing.
        network: Takes a bool. False refuses new sockets but Unix ones, the loopback included.
            Default: True, as the session.
        unix_sockets: Takes a bool. False refuses new Unix sockets; pairs of streams work. Default:
            True, as the session.
        ptrace: Takes a bool. False refuses debuggers where the policy allows them. Default: True, as
            the session.
        memory: Takes bytes, 16 MiB at least. Bounds the data of each process alone (RLIMIT_DATA).
            Default: None, as the session; so are the next ones.
        processes: Takes a number. The command starts no process or thread while the session has
            that many, its own first process and helpers included.
        cpu_time: Takes whole seconds of processor time, of each process alone.
        file_size: Takes bytes, of each file that is written or grown.
        open_files: Takes a number of descriptors, 16 at least, of each process alone.

    Raises:
        PolicyError: a field says something impossible. ``exec`` raises it, too, where the session
            itself has no more: a path that it does not show or can't write to, a higher limit.

    Example:
        >>> reading = Narrowing(writes=(), network=False)
        >>> result = await session.exec("ruff check .", narrow=reading)
    """

    reads: tuple[str, ...] | None = None
    writes: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    network: bool = True
    unix_sockets: bool = True
    ptrace: bool = True
    memory: int | None = None
    processes: int | None = None
    cpu_time: int | None = None
    file_size: int | None = None
    open_files: int | None = None

    def __post_init__(self) -> None:
        """Check every field, and bring paths into their one normal form."""
        for field in ("reads", "writes"):
            object.__setattr__(self, field, _paths(getattr(self, field), field))
        object.__setattr__(self, "deny", _paths(self.deny, "deny") or ())
        for field in ("network", "unix_sockets", "ptrace"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise PolicyError(f"{field} is True or False", field=field, value=value)
        for field, (least, most) in _BOUNDS.items():
            _check_limit(getattr(self, field), field, least, most)


_BOUNDS: Final = {
    "memory": (MEMORY_MIN_BYTES, SIZE_MAX_BYTES),
    "processes": (1, SIZE_MAX_BYTES),
    "cpu_time": (1, int(TIMEOUT_MAX_S)),
    "file_size": (1, SIZE_MAX_BYTES),
    "open_files": (OPEN_FILES_MIN, SIZE_MAX_BYTES),
}
"""The least and the most that each limit may be; a session has its own most besides."""


def _check_limit(value: object, field: str, least: int, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(f"{field} is a whole number, or None", field=field, value=value)
    if not least <= value <= most:
        raise PolicyError(f"{field} is from {least} to {most}", field=field, value=value)


def _paths(value: object, field: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (tuple, list)):
        raise PolicyError(f'{field} is a tuple, such as ("src",)', field=field, value=value)
    return tuple(dict.fromkeys(_path(item, field) for item in value))


def _path(value: object, field: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value or ".." in value.split("/"):
        # What ".." means depends on the symlinks before it.
        raise PolicyError(
            f'a path in {field} is absolute, or relative to the workspace, without ".." and NUL',
            field=field,
            value=value,
        )
    normal = posixpath.normpath(value)
    return "/" + normal.lstrip("/") if normal.startswith("/") else normal
