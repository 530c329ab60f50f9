"""Owns where one session on layers keeps what it changes: a directory beside the session's lease.

With it lies the list of the frozen layers beneath. It blocks on the file system.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import WorkspaceStartError
from sandyard.limits import LAYERS_RECORD_BYTES
from sandyard.plan import Layer
from sandyard.workspace.extract_stage import clear_abandoned
from sandyard.workspace.layer_marks import is_kernels
from sandyard.workspace.layer_store import LayerStore
from sandyard.workspace.overlay_place import clear_changes
from sandyard.workspace.removal import remove_tree
from sandyard.workspace.root import WorkspaceRoot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandyard.workspace.lease import Lease

__all__ = ["LayeredPlace", "NewLayer", "Stack", "changes_path"]

_CHANGES: Final = "changes"
_RECORD: Final = "layers"
_VERSION: Final = 1

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Stack(NamedTuple):
    """What a workspace on layers is made of.

    Attributes:
        changes: what takes its changes.
        lowers: what lies beneath, the uppermost first.
    """

    changes: Layer
    lowers: tuple[Layer, ...]


class NewLayer(NamedTuple):
    """A layer that is being filled.

    Attributes:
        name: its name.
        root: what is filled; it is whoever's who fills it.
    """

    name: str
    root: WorkspaceRoot


def changes_path(state: str, session_id: str) -> str:
    """Path of a session's changes in a state directory."""
    return posixpath.join(state, "sessions", session_id, _CHANGES)


class LayeredPlace:
    """Where one session on layers keeps what it changes.

    Args:
        lease: the session's, which is held.
    """

    def __init__(self, lease: Lease) -> None:
        self._directory = lease.directory
        self.session_id = posixpath.basename(lease.directory)
        self.state = posixpath.dirname(posixpath.dirname(lease.directory))
        self.store = LayerStore(self.state)

    @property
    def upper(self) -> str:
        """Path of the directory in which the kernel puts what is changed."""
        return posixpath.join(self._directory, _CHANGES, "upper")

    def begin(self, names: tuple[str, ...]) -> None:
        """Make the place of a new session; the list of its layers comes last.

        Args:
            names: the layers beneath, the uppermost first; somebody who uses them lives on meanwhile.

        Raises:
            WorkspaceStartError: it can't be made, or a layer is gone.
        """
        try:
            self.store.use(names, self.session_id)
            self._clear()
            os.mkdir(self._path(_CHANGES), 0o700)
            for part in ("work", "bottom"):
                os.mkdir(posixpath.join(self._path(_CHANGES), part), 0o700)
            self._make_upper(names)
            self._note(names)
        except OSError as error:
            raise WorkspaceStartError(path=self._path(_CHANGES), cause=error) from error

    def is_untouched(self) -> bool:
        """Whether nothing lies beneath, and nothing was changed.

        Raises:
            WorkspaceStartError: that can't be told.
        """
        if self.names():
            return False
        try:
            return not os.listdir(self.upper)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise WorkspaceStartError(path=self.upper, cause=error) from error

    def lay_under(self, name: str) -> None:
        """Put a layer that the session uses beneath a workspace in which nothing was changed.

        Raises:
            WorkspaceStartError: it can't be done.
        """
        if self.names() is None:
            self.begin((name,))
            return
        try:
            with suppress(FileNotFoundError):
                os.rmdir(self.upper)  # the new one looks as the layer does
            self._note((name,))
            self._finish((name,))
        except OSError as error:
            raise WorkspaceStartError(path=self.upper, cause=error) from error

    def prepare(self) -> tuple[str, ...]:
        """Find the place as it was left, or make an empty one; return the layers beneath.

        Raises:
            WorkspaceStartError: it can't be used.
        """
        names = self.names()
        if names is None:
            self.begin(())
            return ()
        try:
            self._finish(names)
            upper = self._opened_upper()
            try:
                clear_abandoned(upper, None)
            finally:
                os.close(upper)
            self.store.leave_others(self.session_id, names)
        except OSError as error:
            raise WorkspaceStartError(path=self.upper, cause=error) from error
        return names

    def names(self) -> tuple[str, ...] | None:
        """The layers beneath, the uppermost first; None if the place was never made.

        Raises:
            WorkspaceStartError: the list can't be read.
        """
        try:
            with open(os.open(self._path(_RECORD), _READ), "rb") as file:
                return _decoded(file.read(LAYERS_RECORD_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise WorkspaceStartError(
                path=self._path(_RECORD),
                message="the list of the layers that the workspace lies upon can't be read; what was "
                f"changed is in {self.upper}",
                context={"reason": "no_record"},
                cause=error,
                retryable=False,
            ) from error

    def stack(self, names: tuple[str, ...]) -> Stack:
        """What the kernel is told; without a layer beneath there is an empty one.

        Raises:
            WorkspaceStartError: something is missing.
        """
        path = os.path.realpath(self._path(_CHANGES))
        lowers = self.store.layers(names)
        try:
            changes = _layer(path)
            return Stack(changes, lowers or (_layer(posixpath.join(path, "bottom")),))
        except OSError as error:
            raise WorkspaceStartError(path=path, cause=error) from error

    def freeze(self) -> tuple[str, ...]:
        """Make a layer of what was changed, and begin anew upon it; nobody may work in it.

        Nothing is copied. Who is killed meanwhile loses nothing: ``prepare`` does the rest.

        Returns:
            The layers beneath from now on, the uppermost first.

        Raises:
            WorkspaceStartError: it can't be done.
        """
        names = self.prepare()
        try:
            if not os.listdir(self.upper):
                return names
            names = (self.store.begin(self.session_id), *names)
            self._note(names)
            self._finish(names)
        except OSError as error:
            raise WorkspaceStartError(path=self.upper, cause=error) from error
        return names

    @contextmanager
    def filling(self) -> Iterator[NewLayer]:
        """A new layer that the session uses; it is whole when the block ends, and gone if that fails.

        Raises:
            WorkspaceStartError: it can't be made.
        """
        try:
            name = self.store.begin(self.session_id)
        except OSError as error:
            raise WorkspaceStartError(path=self._directory, cause=error) from error
        new = f"{self.store.tree(name)}.new"
        try:
            try:
                os.mkdir(new, 0o700)
                root = WorkspaceRoot(os.open(new, _DIRECTORY), new, owned=False)
            except OSError as error:
                raise WorkspaceStartError(path=new, cause=error) from error
            with root:
                root.is_layer = True
                yield NewLayer(name, root)
            try:
                os.rename(new, self.store.tree(name))
            except OSError as error:
                raise WorkspaceStartError(path=new, cause=error) from error
        except BaseException:
            self.store.leave(self.session_id, (name,))
            raise

    def remove(self) -> None:
        """Remove all of it, and the layers that nobody else uses.

        Raises:
            WorkspaceStopError: something can't be removed; all else is gone.
        """
        clear_changes(self._directory)
        self.store.leave(self.session_id)

    def _finish(self, names: tuple[str, ...]) -> None:
        """Let the uppermost layer take what was changed, if it was to; then there is room for more."""
        tree = self.store.tree(names[0]) if names else ""
        if names and not os.path.lexists(tree):
            self._move_upper(tree)
        if not os.path.lexists(self.upper):
            self._make_upper(names)

    def _opened_upper(self) -> int:
        """Open the changes, which their owner can look at, whatever a command has set."""
        if ~os.lstat(self.upper).st_mode & (stat.S_IRUSR | stat.S_IXUSR):
            os.chmod(self.upper, stat.S_IRWXU)  # as of any workspace of the library's own
        return os.open(self.upper, _DIRECTORY)

    def _move_upper(self, tree: str) -> None:
        """Make a layer of the changes; a directory moves only if its owner may write to it."""
        mode = stat.S_IMODE(os.lstat(self.upper).st_mode)
        if not mode & stat.S_IWUSR:
            os.chmod(self.upper, mode | stat.S_IWUSR)
        os.rename(self.upper, tree)
        if not mode & stat.S_IWUSR:
            os.chmod(tree, mode)

    def _make_upper(self, names: tuple[str, ...]) -> None:
        """Make room for changes; the workspace's own directory looks as it did."""
        new = f"{self.upper}.new"
        with suppress(FileNotFoundError):
            os.rmdir(new)  # a killed program began it
        os.mkdir(new, 0o700)
        if names:
            tree = self.store.tree(names[0])
            facts = os.lstat(tree)
            for name in os.listxattr(tree):
                if name.startswith("user.") and not is_kernels(os.fsencode(name)):
                    os.setxattr(new, name, os.getxattr(tree, name))
            os.chmod(new, stat.S_IMODE(facts.st_mode))
            os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.rename(new, self.upper)

    def _clear(self) -> None:
        """Remove what a killed program began."""
        session = os.open(self._directory, _DIRECTORY)
        try:
            if failures := remove_tree(session, _CHANGES):
                raise failures[0]
        finally:
            os.close(session)

    def _note(self, names: tuple[str, ...]) -> None:
        new = self._path(f"{_RECORD}.new")
        with open(os.open(new, _NEW, 0o600), "w", encoding="ascii") as file:
            json.dump({"version": _VERSION, "layers": names}, file)
        os.rename(new, self._path(_RECORD))

    def _path(self, name: str) -> str:
        return posixpath.join(self._directory, name)


def _layer(path: str) -> Layer:
    facts = os.lstat(path)
    return Layer(path, (facts.st_dev, facts.st_ino))


def _decoded(raw: bytes) -> tuple[str, ...]:
    match json.loads(raw):
        case {"version": 1, "layers": list(names)} if all(_is_name(name) for name in names):
            return tuple(names)
        case _:
            raise ValueError("it is not of this version")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isalnum()
