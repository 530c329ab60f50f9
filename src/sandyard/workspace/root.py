"""WorkspaceRoot: the directory of one workspace, held by its descriptor."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from sandyard.errors import ArgumentError, SessionClosedError, WorkspaceStartError, shown
from sandyard.manifest.paths import absolute_path
from sandyard.workspace.opener import Opener
from sandyard.workspace.removal import empty_directory

if TYPE_CHECKING:
    from types import TracebackType

    from sandyard.errors import OpName

__all__ = ["Inode", "Owner", "WorkspaceRoot"]

_PREFIX: Final = "sandbox-local-"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


class WorkspaceRoot:
    """The directory of one workspace, held by its descriptor.

    It is a context manager; leaving it closes the descriptor and removes nothing.

    Attributes:
        path: absolute path on the host.
        real_path: the same without symlinks.
        inside: absolute path under which commands in the sandbox know it.
        owned: True if the library made it, so that it may be deleted.
        inode: what it is, to recognise it by.
    """

    def __init__(self, fd: int, path: str, *, inside: str | None = None, owned: bool) -> None:
        """Take over a descriptor; use ``create_private`` or ``open`` instead."""
        facts = os.fstat(fd)
        self._fd: int | None = fd
        self.path = path
        self.real_path = posixpath.join(
            os.path.realpath(posixpath.dirname(path)), posixpath.basename(path)
        )
        self.inside = path if inside is None else inside
        self.owned = owned
        self.inode = Inode(facts.st_dev, facts.st_ino)

    @classmethod
    def create_private(cls) -> WorkspaceRoot:
        """Make a new, empty directory (mode 0700) in the directory for temporary files.

        Raises:
            WorkspaceStartError: it can't be made.
        """
        try:
            path = os.path.realpath(tempfile.mkdtemp(prefix=_PREFIX))
            return cls(os.open(path, _OPEN), path, owned=True)
        except OSError as error:
            raise WorkspaceStartError(path=tempfile.gettempdir(), cause=error) from error

    @staticmethod
    def check(path: str | os.PathLike[str]) -> str:
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
        if owned and not posixpath.basename(normal).startswith(_PREFIX):
            raise ArgumentError(
                f"root {shown(normal)} can't be one that this library made, since its name does "
                f"not begin with {_PREFIX!r}; give owned=False, and it will never be deleted",
                op="resume",
                argument="owned",
                value=owned,
            )
        try:
            return cls(_opened(normal), normal, inside=inside, owned=owned)
        except OSError as error:
            raise _refused(normal, error) from error

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
        return Opener(self.fd, self.inside)

    @property
    def gone(self) -> bool:
        """Whether somebody removed the directory that is held."""
        return os.fstat(self.fd).st_nlink == 0

    def close(self) -> None:
        """Close the descriptor; doing it again does nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

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
        if self.gone:
            return True
        parent = -1
        try:
            parent = os.open(posixpath.dirname(self.real_path), os.O_RDONLY | os.O_CLOEXEC)
            name = posixpath.basename(self.real_path)
            if self._stands_at(parent, name) and not empty_directory(fd):
                os.rmdir(name, dir_fd=parent)
        except OSError:
            pass  # the answer says it: what could not be removed is still there
        finally:
            if parent >= 0:
                os.close(parent)
        return self.gone

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
