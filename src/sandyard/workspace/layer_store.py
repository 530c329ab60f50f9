"""Owns frozen layers: directories of the user's state directory that workspaces lie upon, never changed.

``layers/NAME/tree`` is what is seen, as overlayfs keeps it. ``layers/NAME/users`` has an empty file for
each session that lies upon it, made before the session relies on it, and for a snapshot that it is kept
for. A layer can be removed as soon as
that directory can: rmdir(2) refuses while a name is in it, and nobody can put one into it afterwards. So
whoever is killed between any two steps leaves a layer too much at worst, which the sweep finds: the
directory of the session that is named is gone. It blocks on the file system.
"""

from __future__ import annotations

import os
import posixpath
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.errors import WorkspaceStartError
from sandyard.plan import Layer
from sandyard.workspace.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

__all__ = ["LayerStore"]

_LAYERS: Final = "layers"
_SESSIONS: Final = "sessions"
_TREE: Final = "tree"
_USERS: Final = "users"
_NAME_BYTES: Final = 8
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerStore:
    """The frozen layers of one state directory.

    Args:
        state: the user's state directory, which is there and the user's alone.
    """

    def __init__(self, state: str) -> None:
        self._state = state
        self._place = posixpath.join(state, _LAYERS)

    def tree(self, name: str) -> str:
        """Path of what is seen of a layer; a layer that is being made has none."""
        return posixpath.join(self._place, name, _TREE)

    def begin(self, session_id: str) -> str:
        """Begin a layer, which the session uses from the beginning; return its name.

        Raises:
            OSError: it can't be made.
        """
        while True:
            name = secrets.token_hex(_NAME_BYTES)
            try:
                with suppress(FileExistsError):
                    os.mkdir(self._place, 0o700)
                os.mkdir(posixpath.join(self._place, name), 0o700)
                os.mkdir(posixpath.join(self._place, name, _USERS), 0o700)
                self.use((name,), session_id)
            except FileNotFoundError:  # a sweep took it for one that nobody uses
                continue
            return name

    def use(self, names: Iterable[str], session_id: str) -> None:
        """Let a session use layers.

        Raises:
            OSError: ENOENT where one is gone, or another of the kernel's.
        """
        for name in names:
            os.close(os.open(self._mark(name, session_id), _NEW, 0o600))

    def users(self, name: str) -> set[str]:
        """Who uses a layer; nobody if it is gone."""
        try:
            return set(os.listdir(posixpath.join(self._place, name, _USERS)))
        except OSError:
            return set()

    def layers(self, names: Iterable[str]) -> tuple[Layer, ...]:
        """What the kernel is told of layers.

        Raises:
            WorkspaceStartError: one is missing, or can't be looked at.
        """
        return tuple(self._layer(name) for name in names)

    def _layer(self, name: str) -> Layer:
        path = os.path.realpath(self.tree(name))
        try:
            facts = os.lstat(path)
        except OSError as error:
            raise WorkspaceStartError(
                path=path,
                message="a layer that the workspace lies upon is missing; delete the session, and make "
                "another from what was saved of it",
                context={"reason": "layer_missing"},
                cause=error,
                retryable=False,
            ) from error
        return Layer(path, (facts.st_dev, facts.st_ino))

    def leave(self, session_id: str, names: Iterable[str] | None = None) -> None:
        """Let a session use layers no longer, and remove those that nobody uses.

        Args:
            session_id: the session.
            names: which layers (default: all that there are).
        """
        with suppress(FileNotFoundError):
            for name in os.listdir(self._place) if names is None else names:
                with suppress(OSError):
                    os.unlink(self._mark(name, session_id))
                    self._remove_unused(name)

    def leave_others(self, session_id: str, kept: Collection[str]) -> None:
        """Let a session use no layers but these."""
        with suppress(FileNotFoundError):
            self.leave(session_id, [each for each in os.listdir(self._place) if each not in kept])

    def settle(self, is_user: Callable[[str, str], bool]) -> None:
        """Forget users that are gone, and remove what nobody uses: killed programs left it.

        Args:
            is_user: tells of a layer's name whether somebody uses it who is no session.
        """
        with suppress(OSError):
            for name in os.listdir(self._place):
                with suppress(OSError):
                    self._forget_users(name, is_user)
                self._remove_unused(name)
            os.rmdir(self._place)

    def _forget_users(self, name: str, is_user: Callable[[str, str], bool]) -> None:
        for user in os.listdir(posixpath.join(self._place, name, _USERS)):
            here = os.path.lexists(posixpath.join(self._state, _SESSIONS, user))
            if not here and not is_user(name, user):
                os.unlink(self._mark(name, user))

    def _remove_unused(self, name: str) -> None:
        try:
            os.rmdir(posixpath.join(self._place, name, _USERS))
        except FileNotFoundError:  # a removal that was cut short
            pass
        except OSError:  # it is used
            return
        place = os.open(self._place, _DIRECTORY)
        try:
            remove_tree(place, name)  # what can't be removed now is taken up by the next sweep
        finally:
            os.close(place)

    def _mark(self, name: str, session_id: str) -> str:
        return posixpath.join(self._place, name, _USERS, session_id)
