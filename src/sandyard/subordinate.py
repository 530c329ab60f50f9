"""Subordinate ids: what subuid(5) and subgid(5) give an ordinary user, and the programs that map them.

The kernel lets nobody but root map ids that are not the caller's own; newuidmap(1) and newgidmap(1) are
root's for the ranges that an administrator gave away. They are run by the names that systems have them
under, never by PATH, and what they wrote is read back.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.accounts import ACCOUNTS_MOST
from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import ID_MAP_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["IdRange", "common_range", "given_ranges", "own_range", "write_id_maps"]

_FILES: Final = ("/etc/subuid", "/etc/subgid")
_FILE_BYTES: Final = 4 * 1024 * 1024
"""Most that is read of one of them: tens of thousands of lines."""
_PLACES: Final = ("/usr/bin", "/bin", "/run/wrappers/bin")
"""Where systems have the two programs; the last is that of NixOS."""
_PROGRAMS: Final = {"uid_map": "newuidmap", "gid_map": "newgidmap"}
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_FIELDS: Final = 3
_ID_DIGITS: Final = 10
_COMPLAINT_CHARS: Final = 200
_WHAT: Final = "the manifest's users and groups can't be made"
_INSTALL: Final = "install the package that has newuidmap and newgidmap (Debian and Ubuntu: uidmap)"


class IdRange(NamedTuple):
    """A line of a user namespace's map.

    Attributes:
        inside: the first id inside.
        outside: the first id outside.
        size: how many there are.
    """

    inside: int
    outside: int
    size: int


def given_ranges(text: str, names: Iterable[str]) -> list[range]:
    """The ranges that a file in the form of subuid(5) gives to a user.

    Args:
        text: the file.
        names: what it may call the user: the login name, and the number.
    """
    known = frozenset(names)
    found = []
    for line in text.splitlines():
        name, *numbers = line.strip().split(":")
        if name not in known or len(numbers) != _FIELDS - 1:
            continue
        first, count = (int(n) if _is_number(n) else 0 for n in numbers)
        if first > 0 and count > 0:  # what begins with root's id is a mistake
            found.append(range(first, first + count))
    return found


def common_range(users: Iterable[range], groups: Iterable[range]) -> range | None:
    """The last ids of the longest range that is a user's as user ids and as group ids; or None.

    The same ones in every session, however many it has: whose a file is must not change. The last
    ones, since containers of the same user begin with the first.
    """
    groups = tuple(groups)
    shared = (range(max(u.start, g.start), min(u.stop, g.stop)) for u in users for g in groups)
    best = max(shared, key=len, default=range(0))
    return range(max(best.start, best.stop - ACCOUNTS_MOST), best.stop) if best else None


def own_range(count: int) -> range:
    """The ids that this program's user has for other users of its sessions (blocking).

    Args:
        count: how many are needed.

    Raises:
        ConfinementUnavailableError: there are too few, or the programs that map them are missing.
    """
    for program in _PROGRAMS.values():
        _program(program)
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise _missing(
            f"newuidmap serves users with a name, and user {os.getuid()} has none here",
            "give the user an entry in /etc/passwd, or run as root",
        ) from None
    users, groups = (given_ranges(_read(path), (name, str(os.getuid()))) for path in _FILES)
    found = common_range(users, groups)
    if found is None or len(found) < count:
        lacking = [path for path, has in zip(_FILES, (users, groups), strict=True) if not has]
        have = (
            f"{' and '.join(lacking)} give {name!r} no ids"
            if lacking
            else f"{' and '.join(_FILES)} give {name!r} {len(found or ())} ids in common, and "
            f"{count} are needed"
        )
        raise _missing(
            have,
            f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} (with "
            "numbers that nobody else has there), or run as root",
        )
    return found


def write_id_maps(pid: int, users: tuple[IdRange, ...], groups: tuple[IdRange, ...]) -> None:
    """Write the maps of a process that is alone in a new user namespace (blocking).

    Args:
        pid: a child of a child of ours, or our own, that nobody has waited for.
        users: the lines of its uid_map.
        groups: the lines of its gid_map.

    Raises:
        ConfinementUnavailableError: a program is missing, refuses, or wrote something else.
        OSError: this program or the machine is short of something.
    """
    for name, lines in (("uid_map", users), ("gid_map", groups)):
        program = _program(_PROGRAMS[name])
        _run(program, pid, lines)
        if _present_map(pid, name) != sorted(lines):
            raise _missing(
                f"{program} wrote another map than it was asked for", "look for a security module"
            )


def _run(program: str, pid: int, lines: tuple[IdRange, ...]) -> None:
    words = [str(number) for line in lines for number in line]
    try:
        done = subprocess.run(
            [program, str(pid), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            timeout=ID_MAP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _missing(
            f"{program} did not end within {ID_MAP_TIMEOUT_S:g} s",
            "look for what holds up the machine's lists of accounts (nsswitch.conf)",
            error,
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[:_COMPLAINT_CHARS]
        raise _missing(
            f"{program} refused: {said or f'it ended with {done.returncode}'}", _refused_fix()
        )


def _refused_fix() -> str:
    """What to change where a program is there and may not do its work."""
    if _has_no_new_privileges():
        return (
            "run this program without no_new_privs, which keeps setuid programs from their work "
            "(systemd: NoNewPrivileges=no; Docker: without --security-opt no-new-privileges)"
        )
    return (
        "see that newuidmap and newgidmap are setuid root or have CAP_SETUID and CAP_SETGID, that "
        "no mount option nosuid takes that from them, and that /etc/subuid and /etc/subgid give "
        "this user ranges; or run as root"
    )


def _has_no_new_privileges() -> bool:
    try:
        return "\nNoNewPrivs:\t1\n" in _read("/proc/self/status")
    except ConfinementUnavailableError:
        return False


def _present_map(pid: int, name: str) -> list[IdRange]:
    found = (line.split() for line in _read(f"/proc/{pid}/{name}").splitlines())
    return sorted(IdRange(*map(int, fields)) for fields in found if len(fields) == _FIELDS)


def _program(name: str) -> str:
    """Where a program lies that only root can have put there.

    Raises:
        ConfinementUnavailableError: nowhere.
    """
    for place in _PLACES:
        path = f"{place}/{name}"
        try:
            facts = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(facts.st_mode) and facts.st_uid == 0 and not facts.st_mode & _OTHERS_WRITE:
            return path
    raise _missing(
        f"an ordinary user's sandbox has one id, the user's own, where {name} is missing",
        f"{_INSTALL}, or run as root",
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_FILE_BYTES)
    except FileNotFoundError:
        return ""
    except PermissionError as error:
        raise _missing(f"{path} can't be read", f"let everybody read {path}", error) from error


def _is_number(text: str) -> bool:
    return len(text) <= _ID_DIGITS and text.isascii() and text.isdigit()


def _missing(
    cause: str, fix: str, error: BaseException | None = None
) -> ConfinementUnavailableError:
    """The refusal of several users for want of ids."""
    return ConfinementUnavailableError(
        _WHAT, dimension="processes", cause_text=cause, fix=fix, cause=error
    )
