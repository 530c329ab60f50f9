"""WorkspaceRoot: the directory of one workspace, held by its descriptor."""

from __future__ import annotations

import errno
import os
import posixpath
import secrets
import stat
import struct
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from sandyard.errors import ArgumentError, SessionClosedError, WorkspaceStartError, shown
from sandyard.manifest.paths import absolute_path
from sandyard.workspace.kernel import closed_on_error
from sandyard.workspace.opener import Opener
from sandyard.workspace.removal import empty_directory
from sandyard.workspace.ward import NO_RULES, Ward

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from sandyard.errors import OpName
    from sandyard.workspace.deputy import Deputies

__all__ = ["Granted", "Inode", "Layered", "Owner", "WorkspaceRoot"]

_PREFIX: Final = "sandbox-local-"
_NAME_BYTES: Final = 8
"""Random bytes in the name of a private directory: nobody guesses it, and none is taken twice."""

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# acl(5) as the kernel takes it (linux/posix_acl_xattr.h).
_ACL_VERSION: Final = struct.Struct("<I")
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_OWNER, _ACL_USER, _ACL_MASK = 0x01, 0x02, 0x10
_ACL_REST: Final = (0x04, _ACL_MASK, 0x20)
"""The owner's group, what all but the owner have at most, and others; in this order."""
_ACL_NOBODY: Final = 0xFFFF_FFFF
"""The id of an entry that needs none."""


class Inode(NamedTuple):
    """What a directory is, whatever it is called.

    Attributes:
        device: ``st_dev``.
        number: ``st_ino``.
    """

    device: int
    number: int


class Owner(NamedTuple):
    """Whose something is, on the host.

    Attributes:
        uid: user id.
        gid: group id.
    """

    uid: int
    gid: int


class Granted(NamedTuple):
    """A tree besides the workspace that the policy grants.

    Attributes:
        path: as the policy names it, or its directory if it is a file.
        tree: the directory; of a file, the one that it stands in.
        inode: what is granted itself.
        name: of a file; empty for a directory.
    """

    path: str
    tree: WorkspaceRoot
    inode: tuple[int, int]
    name: str


class Layered(Protocol):
    """Several directories seen as one, of which only the uppermost is changed."""

    top: int
    """Descriptor of the top directory; it stays the tree's."""

    def close(self) -> None:
        """Let go of it; doing it again does nothing."""


class WorkspaceRoot:
    """The directory of one workspace, held by its descriptor.

    It is a context manager; leaving it closes the descriptor and removes nothing.

    Attributes:
        path: absolute path on the host.
        real_path: the same without symlinks.
        inside: absolute path under which commands in the sandbox know it.
        owned: True if the library made it, so that it may be deleted.
        inode: what it is, to recognise it by.
        obstacle: the first error of a deletion that left something; None before and otherwise.
        ward: what of it, and of what is granted, the policy closes; nothing until a start said it.
        granted: trees that the policy grants besides; they are this object's, and closed with it.
        marks: where what is being unpacked is noted, if the directory is the caller's; else None.
        names: what users and groups besides the owner are called, by their ids on disk.
        layered: the tree that is the directory, if it is one of several layers over the directory at
            ``path``; it is this object's, and closed with it. Else None.
        is_layer: whether it is a layer that is being filled: overlayfs will read what is in it.
    """

    def __init__(self, fd: int, path: str, *, inside: str | None = None, owned: bool) -> None:
        """Look through a descriptor that is somebody's; use ``adopt`` to take one over."""
        facts = os.fstat(fd)
        self._fd: int | None = fd
        self.path = path
        self.real_path = posixpath.join(
            os.path.realpath(posixpath.dirname(path)), posixpath.basename(path)
        )
        self.inside = path if inside is None else inside
        self.owned = owned
        self.inode = Inode(facts.st_dev, facts.st_ino)
        self.obstacle: OSError | None = None
        self.ward: Ward = NO_RULES
        self.granted: tuple[Granted, ...] = ()
        self.marks: str | None = None
        self.names: Mapping[int, str] = {}
        self._deputies: Deputies | None = None
        self.layered: Layered | None = None
        self.is_layer = False
        self._past: tuple[Granted, ...] = ()  # of former starts: work may be under way in them

    @classmethod
    def adopt(
        cls, fd: int, path: str, *, inside: str | None = None, owned: bool = False
    ) -> WorkspaceRoot:
        """Take over a directory's descriptor, which is closed also where that fails.

        Raises:
            OSError: what it is can't be told.
        """
        with closed_on_error(fd):
            return cls(fd, path, inside=inside, owned=owned)

    @staticmethod
    def private_path() -> str:
        """Return the path of a private directory that could be made; nothing is made.

        Raises:
            WorkspaceStartError: there is no directory for temporary files.
        """
        try:
            place = os.path.realpath(tempfile.gettempdir())
        except OSError as error:
            raise WorkspaceStartError(path="/tmp", cause=error) from error  # noqa: S108  # named only
        return posixpath.join(place, _PREFIX + secrets.token_hex(_NAME_BYTES))

    @classmethod
    def create_private(cls, path: str | None = None, *, inside: str | None = None) -> WorkspaceRoot:
        """Make a new, empty directory (mode 0700) in the directory for temporary files.

        Args:
            path: what ``private_path`` returned (default: call it).
            inside: absolute path under which commands know it (default: the same).

        Raises:
            WorkspaceStartError: it can't be made; then nothing is left.
        """
        path = cls.private_path() if path is None else path
        try:
            os.mkdir(path, 0o700)
            try:
                fd = os.open(path, _OPEN)
                with closed_on_error(fd):
                    os.fchmod(fd, 0o700)  # whatever the program's umask has taken away
                return cls.adopt(fd, path, inside=inside, owned=True)
            except OSError:
                os.rmdir(path)
                raise
        except OSError as error:
            raise WorkspaceStartError(path=posixpath.dirname(path), cause=error) from error

    @staticmethod
    def check_private(path: str) -> str:
        """Refuse a path that no private directory has; nothing is looked up.

        Returns:
            The path in normal form.

        Raises:
            ArgumentError: it is no absolute path, or its name is not that of a private directory.
        """
        normal = _checked(path, "delete")
        _check_name(normal, "delete")
        return normal

    @classmethod
    def find(cls, path: str, inode: Inode, *, inside: str | None = None) -> WorkspaceRoot | None:
        """Open a private directory that was made before, if it still stands at its path.

        It may have any mode: one that its owner may not read is given back mode 0700.

        Args:
            path: absolute path on the host, with the name of a private directory.
            inode: what it was when it was made.
            inside: absolute path under which commands know it (default: the same).

        Returns:
            The directory, owned; None if there is nothing or something else, such as a symlink.

        Raises:
            ArgumentError: the path is no absolute one, or its name is not that of a private one.
            WorkspaceStartError: it can't be opened.
        """
        normal = cls.check_private(path)
        try:
            fd = _reopened(normal, inode)
            return None if fd is None else cls.adopt(fd, normal, inside=inside, owned=True)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None
            raise _refused(normal, error) from error

    @staticmethod
    def check(path: object) -> str:
        """Refuse early what ``open`` would refuse; nothing is made or opened.

        Args:
            path: absolute path on the host, not ``/``; it need not exist.

        Returns:
            The path in normal form.

        Raises:
            ArgumentError: the path is relative, ``/``, or can't be a path.
            WorkspaceStartError: it is a symlink or no directory, or can't be reached.
        """
        normal = _checked(path, "create")
        try:
            kind = os.lstat(normal).st_mode
            if not stat.S_ISDIR(kind):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), normal)
        except FileNotFoundError:
            pass  # open() makes it
        except OSError as error:
            raise _refused(normal, error) from error
        return normal

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, inside: str | None = None, owned: bool = False
    ) -> WorkspaceRoot:
        """Use a directory of the caller's; it is made, with its parents, if it is missing.

        Args:
            path: absolute path on the host, not ``/``.
            inside: absolute path under which commands know it (default: the same).
            owned: True claims that ``create_private`` made it, which its name must bear out.

        Raises:
            ArgumentError: the path is relative, ``/``, or can't be a path; or an owned directory
                does not have the name of one.
            WorkspaceStartError: it is a symlink or no directory, or it can't be made or opened.
        """
        normal = _checked(path, "start")
        if owned:
            _check_name(normal, "resume")
        try:
            return cls.adopt(_opened(normal), normal, inside=inside, owned=owned)
        except OSError as error:
            raise _refused(normal, error) from error

    @classmethod
    def show(cls, layered: Layered, path: str) -> WorkspaceRoot:
        """Use a layered tree as what is at a path; it is the root's from now on.

        Args:
            layered: the tree.
            path: absolute path on the host and inside, of the directory that it is laid over.

        Raises:
            WorkspaceStartError: there is no descriptor left; the tree is closed.
        """
        try:
            root = cls.adopt(os.open(".", _OPEN, dir_fd=layered.top), path)
        except OSError as error:
            layered.close()
            raise _refused(path, error) from error
        root.layered = layered
        return root

    @property
    def fd(self) -> int:
        """The directory's descriptor; it stays this object's.

        Raises:
            SessionClosedError: it is closed.
        """
        return self._held("read")

    @property
    def owner(self) -> Owner:
        """Whose the directory is; what is made in it is given to the same."""
        facts = os.fstat(self.fd)
        return Owner(facts.st_uid, facts.st_gid)

    @property
    def opener(self) -> Opener:
        """The opener of what lies beneath."""
        return Opener(self.fd, self.inside, self.ward)

    def admit(self, ids: Iterable[int]) -> None:
        """Let further users look into a private directory and go through it; nobody else.

        Raises:
            WorkspaceStartError: its file system has no access control lists (acl(5)).
        """
        entries = [(_ACL_OWNER, 7, _ACL_NOBODY)]
        entries += [(_ACL_USER, 5, uid) for uid in ids]
        entries += [(tag, 5 if tag == _ACL_MASK else 0, _ACL_NOBODY) for tag in _ACL_REST]
        value = _ACL_VERSION.pack(2) + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)
        try:
            os.setxattr(self.fd, "system.posix_acl_access", value)
        except OSError as error:
            raise WorkspaceStartError(
                path=self.path,
                message=f"{shown(self.path)} can't be opened to the manifest's users: its file system "
                f"has no access control lists ({error.strerror}); set TMPDIR to a directory on one "
                "that has, or give the manifest a root whose permissions let them in",
                context={"reason": "no_access_lists"},
                cause=error,
            ) from error

    @property
    def gone(self) -> bool:
        """Whether somebody removed the directory that is held; what can't be told is there."""
        with suppress(OSError):
            return os.fstat(self.fd).st_nlink == 0
        return False

    def govern(self, ward: Ward, granted: tuple[Granted, ...]) -> None:
        """Take over what a start found out: rules, and trees that are reached besides."""
        self._past += tuple(each for each in self.granted if each not in granted)
        self.ward, self.granted = ward, granted
        for each in granted:
            each.tree.ward = ward

    def close(self) -> None:
        """Close the descriptors; doing it again does nothing."""
        granted, self.granted, self._past = (*self._past, *self.granted), (), ()
        for each in granted:
            each.tree.close()
        deputies, self._deputies = self._deputies, None
        if deputies is not None:
            deputies.close()
        layered, self.layered = self.layered, None
        if layered is not None:
            layered.close()
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    @property
    def deputies(self) -> Deputies:
        """What works here for other users, where this program can't become them."""
        if self._deputies is None:
            from sandyard.workspace.deputy import Deputies  # noqa: PLC0415  # few have others

            self._deputies = Deputies()
        return self._deputies

    def delete(self) -> bool:
        """Remove the directory and all in it, if it is owned and still stands at its path.

        Symlinks are removed, not followed; what is mounted in it is left alone.

        Returns:
            True if it is gone; False if it is not owned (then nothing is touched), if something
            else stands at its path (likewise), or if some of it could not be removed.

        Raises:
            SessionClosedError: it is closed.
        """
        fd = self._held("delete")
        if not self.owned:
            return False
        parent, self.obstacle = -1, None
        try:
            if not os.fstat(fd).st_nlink:
                return True
            parent = os.open(posixpath.dirname(self.real_path), _HANDLE & ~os.O_NOFOLLOW)
            name = posixpath.basename(self.real_path)
            if self._stands_at(parent, name):
                failures = empty_directory(fd)
                if failures and (failures := self._emptied_for_all(failures)):
                    raise failures[0]
                os.rmdir(name, dir_fd=parent)
            return not os.fstat(fd).st_nlink
        except OSError as error:
            self.obstacle = error
            return self.gone
        finally:
            if parent >= 0:
                os.close(parent)

    def _emptied_for_all(self, failures: list[OSError]) -> list[OSError]:
        from sandyard.workspace.deputy import emptied_for_all  # noqa: PLC0415  # few have others

        return emptied_for_all(self, failures)

    def _stands_at(self, parent: int, name: str) -> bool:
        """Tell whether the name still leads to the directory that is held."""
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return Inode(facts.st_dev, facts.st_ino) == self.inode

    def _held(self, op: OpName) -> int:
        if self._fd is None:
            raise SessionClosedError(op=op, state="closed")
        return self._fd

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the descriptor."""
        self.close()


def _checked(path: object, op: OpName) -> str:
    """Return a caller's root in normal form."""
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    try:
        return absolute_path(given, "root")
    except ValueError as error:
        raise ArgumentError(str(error), op=op, argument="root", value=path, cause=error) from error


def _check_name(path: str, op: OpName) -> None:
    """Refuse to believe that we made a directory that has another name than ours."""
    if not posixpath.basename(path).startswith(_PREFIX):
        raise ArgumentError(
            f"root {shown(path)} can't be one that this library made, since its name does "
            f"not begin with {_PREFIX!r}; give owned=False, and it will never be deleted",
            op=op,
            argument="owned",
            value=True,
        )


def _reopened(path: str, inode: Inode) -> int | None:
    """Open a directory for reading, if it is a certain one; nothing else is touched."""
    handle = os.open(path, _HANDLE)
    try:
        facts = os.fstat(handle)
        if Inode(facts.st_dev, facts.st_ino) != inode:
            return None
        try:
            return os.open(".", _OPEN, dir_fd=handle)
        except PermissionError:
            # fchmod(2) refuses an O_PATH descriptor; its magic link is the way round (open(2)).
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
            return os.open(".", _OPEN, dir_fd=handle)
    finally:
        os.close(handle)


def _opened(path: str) -> int:
    """Open a directory, making it first if it is missing."""
    try:
        return os.open(path, _OPEN)
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)
        return os.open(path, _OPEN)


def _refused(path: str, error: OSError) -> WorkspaceStartError:
    """Say why a directory can't be a root."""
    message, reason = None, errno.errorcode.get(error.errno or 0, "unknown")
    if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EEXIST}:
        link = os.path.islink(path)
        reason = "symlink" if link else "not_a_directory"
        what = "is a symlink; give the path that it points to"
        message = f"root {shown(path)} {what if link else 'or a part of it is not a directory'}"
    return WorkspaceStartError(
        path=path, message=message, context={"reason": reason}, cause=error, retryable=False
    )
