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
from sandyard.workspace.acting import acting_as, has_all_powers
from sandyard.workspace.kernel import PATH_ONLY, reopen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandyard.workspace.names import Names
    from sandyard.workspace.root import Owner, WorkspaceRoot
    from sandyard.workspace.ward import Ward

__all__ = [
    "Look",
    "Target",
    "discard",
    "facts_of",
    "finish_directory",
    "found_target",
    "is_temporary",
    "made_directory",
    "open_or_make",
    "put_file",
    "put_link",
    "refuse_odd",
    "stage_file",
    "temporary_name",
    "unlock",
    "write_all",
]

_PERMISSIONS: Final = 0o777
_NEW_FILE: Final = 0o666
_NEW_DIRECTORY: Final = 0o777
_PRIVATE_FILE: Final = 0o600
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_WRITABLE: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
_LOOK: Final = PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_LATER: Final = frozenset({errno.ETXTBSY, errno.EAGAIN})
"""What opening says of a file that may be written, but is executed or leased just now."""

_BEFORE: Final = ".sandyard-"
_BEHIND: Final = ".tmp"

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Look:
    """What something new looks like, apart from its content.

    Attributes:
        owner: whom it is made as; None is this program.
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


@contextmanager
def found_target(root: WorkspaceRoot, names: Names, owner: Owner | None) -> Iterator[Target]:
    """Find where a file is to be written; missing directories on the way are made.

    A symlink is followed if it stays in the workspace, also to where nothing is yet.

    Args:
        root: the workspace.
        names: the path.
        owner: whom to be meanwhile.

    Raises:
        OSError: EISDIR if a directory is there, EXDEV if the path leaves the workspace, or else.
    """
    with acting_as(owner):
        target = _straight(root, names) or _made_parent(root, names)
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
    target = _target(root, directory, names[-1], links=True)
    if target.facts is not None and stat.S_ISLNK(target.facts.st_mode):
        os.close(directory)
        return None
    return target


def _target(root: WorkspaceRoot, directory: int, name: str, *, links: bool = False) -> Target:
    """Look at a name that may be replaced; the descriptor is closed if that fails.

    Args:
        links: True lets a symlink through, which is followed, and so is itself not replaced.
    """
    try:
        facts = facts_of(directory, name)
        if not links or facts is None or not stat.S_ISLNK(facts.st_mode):
            root.ward.check_entry(directory, name)
        return Target(directory, name, facts)
    except OSError:
        os.close(directory)
        raise


def _made_parent(root: WorkspaceRoot, names: Names) -> Target:
    """Walk to the parent, along symlinks, and make what is missing of it."""
    for _ in range(PARENT_RETRIES):
        with root.opener.place(names) as place:
            if not place.rest:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "/".join(names))
            root.ward.check_directory(place.directory)  # before anything is made in it
            try:
                directory = _below(root.ward, place.directory, place.rest[:-1])
            except FileNotFoundError:
                continue  # somebody removed a directory that was just made or found
            return _target(root, directory, place.rest[-1])
    raise OSError(errno.EAGAIN, "its directory is removed again and again")


def made_directory(root: WorkspaceRoot, names: Names, owner: Owner | None) -> int:
    """Open a directory for reading; what is missing of the way to it is made.

    Returns:
        Its descriptor, the caller's to close.

    Raises:
        OSError: ENOTDIR if something else is there, EXDEV if the path leaves the workspace, or else.
    """
    for _ in range(PARENT_RETRIES):
        with acting_as(owner), root.opener.place(names) as place:
            try:
                return _below(root.ward, place.directory, place.rest)
            except FileNotFoundError:
                continue
    raise OSError(errno.EAGAIN, "it is removed again and again")


def _below(ward: Ward, directory: int, names: Names) -> int:
    """Open the directory that ``names`` leads to, making each one that is missing.

    Each is asked about: somebody may put a directory there that holds what is closed.
    """
    here = os.open(".", _OPEN_DIRECTORY, dir_fd=directory)
    try:
        for name in names:
            ward.check_directory(here)
            deeper, _ = open_or_make(here, name)
            os.close(here)
            here = deeper
        return os.dup(here)
    finally:
        os.close(here)


def open_or_make(directory: int, name: str, mode: int = _NEW_DIRECTORY) -> tuple[int, bool]:
    """Make and open a directory, or open the one that is there.

    Returns:
        Its descriptor, the caller's to close, and whether it was made.
    """
    made = True
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        made = False
    return os.open(name, _OPEN_DIRECTORY, dir_fd=directory), made


def unlock(directory: int, owner: Owner | None) -> None:
    """Let us write into a read-only directory; whoever calls this sets its permissions afterwards.

    Raises:
        OSError: EPERM if it is somebody else's.
    """
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with acting_as(owner):
            os.fchmod(directory, mode | stat.S_IRWXU)


def finish_directory(directory: int, owner: Owner | None, mode: int, like: os.stat_result) -> None:
    """Give a directory its permissions and another's times, once everything in it is there.

    Raises:
        OSError: EPERM if it is somebody else's.
    """
    with acting_as(owner):
        os.fchmod(directory, mode)
        os.utime(directory, ns=(like.st_atime_ns, like.st_mtime_ns))


def put_file(target: Target, fill: Callable[[int], None], look: Look) -> None:
    """Write a file beside its target and rename it over, so that readers see the old or the new.

    Args:
        target: where it is to stand.
        fill: writes the content to the descriptor that it is given. It runs as this program,
            whoever the file is made as, since it may be a caller's code.
        look: what else it gets. What root replaces in a workspace of its own keeps its owner.

    Raises:
        OSError: EISDIR or EINVAL if what is there is no regular file, or else; then nothing has
            changed.
    """
    staged = stage_file(target, fill, look)
    try:
        with acting_as(look.owner):
            _rename(target.directory, staged, target.name)
        staged = ""
    finally:
        if staged:
            discard(target.directory, staged, look.owner)


def stage_file(target: Target, fill: Callable[[int], None], look: Look) -> str:
    """Write a file beside its target, ready to be renamed over it; takes what ``put_file`` takes.

    Returns:
        Its name in the target's directory, to be renamed or discarded.

    Raises:
        OSError: as ``put_file``; then nothing is left.
    """
    facts = target.facts
    mode = look.mode
    if mode is None and facts is not None:
        mode = facts.st_mode & _PERMISSIONS
    with acting_as(look.owner):
        _refuse_replacing(target, look.owner)
        # A new file of no special mode gets the umask from the kernel, which alone can read it
        # safely.
        private = _NEW_FILE if mode is None else _PRIVATE_FILE
        opened, temporary = _temporary_file(target, private)
    try:
        try:
            fill(opened)
            # By descriptor, so these reach no other file. As who made it: the thread may be a
            # reader meanwhile, who may not.
            if facts is not None and has_all_powers(look.owner):
                os.fchown(opened, facts.st_uid, facts.st_gid)
            with acting_as(look.owner):
                if mode is not None:  # after the owner: a change of owner clears bits
                    os.fchmod(opened, mode)
                if look.times is not None:
                    os.utime(opened, ns=look.times)
        finally:
            os.close(opened)
    except BaseException:
        discard(target.directory, temporary, look.owner)
        raise
    return temporary


def put_link(target: Target, points_to: str, look: Look) -> None:
    """Make a symlink, replacing a file or symlink that has its name.

    Args:
        target: where it is to stand.
        points_to: its text, kept as it is.
        look: whom it is made as, and its times; it has no mode.

    Raises:
        OSError: EISDIR or EINVAL if what is there is neither a file nor a symlink, or else.
    """
    here = target.directory
    with acting_as(look.owner):
        if target.facts is not None and not stat.S_ISLNK(target.facts.st_mode):
            _refuse_replacing(target, look.owner)
        temporary = _temporary_link(target, points_to)
        try:
            if look.times is not None:
                os.utime(temporary, ns=look.times, dir_fd=here, follow_symlinks=False)
            _rename(here, temporary, target.name)
        except OSError:
            discard(here, temporary, look.owner)
            raise


def _refuse_replacing(target: Target, owner: Owner | None) -> None:
    """Refuse to put a file where a directory, FIFO or device is, or one that may not be written."""
    if target.facts is None:
        return
    refuse_odd(target.facts, target.name)
    # A rename would replace a read-only file, which no command could write to.
    if not has_all_powers(owner):
        _refuse_unwritable(target)


def refuse_odd(facts: os.stat_result, name: str) -> None:
    """Refuse what is no regular file."""
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)


def _refuse_unwritable(target: Target) -> None:
    """Refuse a file that the user of this thread may not write to.

    The kernel is asked by opening it, since access(2) follows a symlink that may have taken its
    place, and asks for another identity than this thread's.
    """
    try:
        handle = os.open(target.name, _LOOK, dir_fd=target.directory)
    except FileNotFoundError:
        return
    try:
        refuse_odd(os.fstat(handle), target.name)
        os.close(reopen(handle, _OPEN_WRITABLE))
    except OSError as error:
        if error.errno not in _WRITABLE_LATER:
            raise
    finally:
        os.close(handle)


def _temporary_link(target: Target, points_to: str) -> str:
    """Create a symlink that nobody else has, in the target's directory."""
    for _ in range(TEMPORARY_NAME_TRIES):
        name = temporary_name()
        try:
            os.symlink(points_to, name, dir_fd=target.directory)
        except FileExistsError:
            continue
        return name
    raise FileExistsError(errno.EEXIST, "no temporary name is free", target.name)


def _temporary_file(target: Target, mode: int) -> tuple[int, str]:
    """Create a file that nobody else has, in the target's directory."""
    for _ in range(TEMPORARY_NAME_TRIES):
        name = temporary_name()
        try:
            return os.open(name, _CREATE, mode, dir_fd=target.directory), name
        except FileExistsError:
            continue
    raise FileExistsError(errno.EEXIST, "no temporary name is free", target.name)


def temporary_name() -> str:
    """A name that nobody else has, and nobody guesses."""
    return f"{_BEFORE}{secrets.token_hex(8)}{_BEHIND}"


def is_temporary(name: str) -> bool:
    """Tell whether a name is one of those."""
    return name.startswith(_BEFORE) and name.endswith(_BEHIND)


def _rename(directory: int, name: str, to: str) -> None:
    os.rename(name, to, src_dir_fd=directory, dst_dir_fd=directory)


def discard(directory: int, name: str, owner: Owner | None) -> None:
    """Remove a file that was staged."""
    with suppress(OSError), acting_as(owner):  # somebody inside may have removed it already
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
