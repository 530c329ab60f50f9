"""How anything new comes to stand in a workspace: whole or not at all, and with the right owner."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.limits import PARENT_RETRIES, TEMPORARY_NAME_TRIES
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandyard.workspace.names import Names
    from sandyard.workspace.root import WorkspaceRoot

__all__ = [
    "Look",
    "Target",
    "facts_of",
    "found_target",
    "made_directory",
    "new_owner",
    "open_or_make",
    "put_file",
    "put_link",
    "unlock",
    "write_all",
]

_PERMISSIONS: Final = 0o777
_NEW_FILE: Final = 0o666
_PRIVATE_FILE: Final = 0o600
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Look:
    """What something new looks like, apart from its content.

    Attributes:
        owner: whom it is given to; None leaves it to whoever made it.
        mode: permission bits; None keeps those of what it replaces, else asks the umask.
        times: access and modification time in ns since 1970; None is now.
    """

    owner: Owner | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file is going to stand.

    Attributes:
        directory: descriptor of its directory, valid inside the ``with`` block that gave it.
        name: its name there.
        facts: what has that name now, never a symlink; None if nothing has.
    """

    directory: int
    name: str
    facts: os.stat_result | None


def new_owner(root: WorkspaceRoot) -> Owner | None:
    """Return whom new things are given to: the root's owner, where we are root and it is not us.

    An ordinary user can't give things away, and need not: what it makes is its own, as the root is.
    """
    if os.geteuid() != 0:
        return None
    owner = root.owner
    return None if owner == Owner(os.geteuid(), os.getegid()) else owner


@contextmanager
def found_target(root: WorkspaceRoot, names: Names, owner: Owner | None) -> Iterator[Target]:
    """Find where a file is to be written; missing directories on the way are made.

    A symlink is followed if it stays in the workspace, also to where nothing is yet.

    Args:
        root: the workspace.
        names: the path.
        owner: whom new directories are given to.

    Raises:
        OSError: EISDIR if a directory is there, EXDEV if the path leaves the workspace, or else.
    """
    target = _straight(root, names) or _made_parent(root, names, owner)
    try:
        yield target
    finally:
        os.close(target.directory)


def _straight(root: WorkspaceRoot, names: Names) -> Target | None:
    """Open the parent in one call, where it exists and the name is no symlink."""
    if not names or names[-1] == "..":
        return None
    try:
        directory = root.opener.open_parent(names)
    except FileNotFoundError:
        return None
    target = _target(directory, names[-1])
    if target.facts is not None and stat.S_ISLNK(target.facts.st_mode):
        os.close(directory)
        return None
    return target


def _target(directory: int, name: str) -> Target:
    """Look at a name; the descriptor is closed if that fails."""
    try:
        return Target(directory, name, facts_of(directory, name))
    except OSError:
        os.close(directory)
        raise


def _made_parent(root: WorkspaceRoot, names: Names, owner: Owner | None) -> Target:
    """Walk to the parent, along symlinks, and make what is missing of it."""
    for _ in range(PARENT_RETRIES):
        with root.opener.place(names) as place:
            if not place.rest:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "/".join(names))
            try:
                directory = _below(place.directory, place.rest[:-1], owner)
            except FileNotFoundError:
                continue  # somebody removed a directory that was just made or found
            return _target(directory, place.rest[-1])
    raise FileNotFoundError(errno.ENOENT, "its directory is removed again and again")


def made_directory(root: WorkspaceRoot, names: Names, owner: Owner | None) -> int:
    """Open a directory for reading; what is missing of the way to it is made.

    Returns:
        Its descriptor, the caller's to close.

    Raises:
        OSError: ENOTDIR if something else is there, EXDEV if the path leaves the workspace, or else.
    """
    for _ in range(PARENT_RETRIES):
        with root.opener.place(names) as place:
            try:
                return _below(place.directory, place.rest, owner)
            except FileNotFoundError:
                continue
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again")


def _below(directory: int, names: Names, owner: Owner | None) -> int:
    """Open the directory that ``names`` leads to, making each one that is missing."""
    here = os.open(".", _OPEN_DIRECTORY, dir_fd=directory)
    try:
        for name in names:
            deeper = open_or_make(here, name, owner)
            os.close(here)
            here = deeper
        return os.dup(here)
    finally:
        os.close(here)


def open_or_make(directory: int, name: str, owner: Owner | None) -> int:
    """Make and open a directory, or open the one that is there."""
    created = False
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
        created = True
    opened = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
    if created and owner is not None:
        # By descriptor: the name may mean something else by now, but a directory it is.
        os.fchown(opened, *owner)
    return opened


def unlock(directory: int) -> None:
    """Let us write into a read-only directory; whoever calls this sets its permissions afterwards.

    Raises:
        OSError: EPERM if it is somebody else's.
    """
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(directory, mode | stat.S_IRWXU)


def put_file(target: Target, fill: Callable[[int], None], look: Look) -> None:
    """Write a file beside its target and rename it over, so that readers see the old or the new.

    Args:
        target: where it is to stand.
        fill: writes the content to the descriptor that it is given.
        look: what else it gets. What is replaced keeps its owner where we are root.

    Raises:
        OSError: EISDIR or EINVAL if what is there is no regular file, or else; then nothing has
            changed.
    """
    facts = target.facts
    _refuse_replacing(target)
    mode = look.mode
    if mode is None and facts is not None:
        mode = facts.st_mode & _PERMISSIONS
    owner = look.owner
    if facts is not None and os.geteuid() == 0:
        owner = Owner(facts.st_uid, facts.st_gid)
    # A new file of no special mode gets the umask from the kernel, which alone can read it safely.
    opened, temporary = _temporary_file(target, _NEW_FILE if mode is None else _PRIVATE_FILE)
    try:
        try:
            fill(opened)
            if owner is not None:
                os.fchown(opened, *owner)
            if mode is not None:  # after the owner: a change of owner clears bits
                os.fchmod(opened, mode)
            if look.times is not None:
                os.utime(opened, ns=look.times)
        finally:
            os.close(opened)
        _rename(target.directory, temporary, target.name)
        temporary = ""
    finally:
        if temporary:
            _discard(target.directory, temporary)


def put_link(target: Target, points_to: str, look: Look) -> None:
    """Make a symlink, replacing a file or symlink that has its name.

    Args:
        target: where it is to stand.
        points_to: its text, kept as it is.
        look: its owner and times; it has no mode.

    Raises:
        OSError: EISDIR or EINVAL if what is there is neither a file nor a symlink, or else.
    """
    if target.facts is not None and not stat.S_ISLNK(target.facts.st_mode):
        _refuse_replacing(target)
    for _ in range(TEMPORARY_NAME_TRIES):
        temporary = _temporary_name()
        try:
            os.symlink(points_to, temporary, dir_fd=target.directory)
            break
        except FileExistsError:
            continue
    else:
        raise FileExistsError(errno.EEXIST, "no temporary name is free", target.name)
    here = target.directory
    try:
        if look.owner is not None:
            os.chown(temporary, *look.owner, dir_fd=here, follow_symlinks=False)
        if look.times is not None:
            os.utime(temporary, ns=look.times, dir_fd=here, follow_symlinks=False)
        _rename(here, temporary, target.name)
        temporary = ""
    finally:
        if temporary:
            _discard(here, temporary)


def _refuse_replacing(target: Target) -> None:
    """Refuse to put a file where a directory, FIFO or device is, or one that may not be written."""
    if target.facts is None:
        return
    kind = target.facts.st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target.name)
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), target.name)
    # A rename would replace a read-only file, which no command could write to.
    if os.geteuid() != 0 and not os.access(target.name, os.W_OK, dir_fd=target.directory):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target.name)


def _temporary_file(target: Target, mode: int) -> tuple[int, str]:
    """Create a file that nobody else has, in the target's directory."""
    for _ in range(TEMPORARY_NAME_TRIES):
        name = _temporary_name()
        try:
            return os.open(name, _CREATE, mode, dir_fd=target.directory), name
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, "no temporary name is free", target.name)


def _temporary_name() -> str:
    return f".sandyard-{secrets.token_hex(8)}.tmp"


def _rename(directory: int, name: str, to: str) -> None:
    os.rename(name, to, src_dir_fd=directory, dst_dir_fd=directory)


def _discard(directory: int, name: str) -> None:
    with suppress(OSError):  # somebody inside may have removed it already
        os.unlink(name, dir_fd=directory)


def facts_of(directory: int, name: str) -> os.stat_result | None:
    """Describe what has a name in a directory, itself if it is a symlink; None if nothing has."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def write_all(opened: int, data: memoryview) -> None:
    """Write every byte: write(2) may take fewer at a time."""
    while data:
        data = data[os.write(opened, data) :]
