"""The private directory in a workspace where an archive is unpacked before anybody sees it."""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from sandyard.limits import DESCENT_LEVELS, TEMPORARY_NAME_TRIES
from sandyard.workspace.acting import acting_as
from sandyard.workspace.extract_mark import read_mark, remove_mark, write_mark
from sandyard.workspace.lease import lock_file
from sandyard.workspace.removal import empty_directory, remove_tree
from sandyard.workspace.root import Owner
from sandyard.workspace.ward import NO_RULES, Ward

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sandyard.workspace.extract_mark import Mark

__all__ = [
    "Stage",
    "clear_abandoned",
    "clear_stages",
    "forget_stages",
    "has_stages",
    "is_temporary",
]

_TREE: Final = "new"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME: Final = re.compile(rb"\.sandyard-[0-9a-f]{16}\.(?:stage|tmp)")
_STAGE: Final = re.compile(r"\.sandyard-[0-9a-f]{16}\.stage")


def is_temporary(name: bytes) -> bool:
    """Tell whether a name in a workspace is one that the library gives to what it is about to write."""
    return _NAME.fullmatch(name) is not None


class Stage:
    """A private directory; it is made when it is entered, and removed with all in it on leaving.

    It is locked while it is in use: one that nobody has locked was left by a program that died.

    Args:
        directory: descriptor of where it is made; it stays the caller's.
        owner: whom it is made as.
        ward: what stays, also if somebody moves it into the stage (default: nothing).
        marks: directory in which the stage is noted, so that a sweep finds it (default: nowhere).
    """

    def __init__(
        self,
        directory: int,
        owner: Owner | None,
        ward: Ward = NO_RULES,
        marks: str | None = None,
    ) -> None:
        self._directory = os.dup(directory)
        self._ward = ward
        self._marks = marks
        self._owner = owner
        self._name = ""
        self._fd = self._tree = -1

    @property
    def tree(self) -> int:
        """Descriptor of the directory in it that holds what is to be published."""
        return self._tree

    @property
    def fd(self) -> int:
        """Descriptor of the stage itself, where what is replaced can be put."""
        return self._fd

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            OSError: it can't be made; nothing is left.
        """
        try:
            with acting_as(self._owner):
                self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self) -> None:
        for _ in range(TEMPORARY_NAME_TRIES):
            name = f".sandyard-{secrets.token_hex(8)}.stage"
            try:
                os.mkdir(name, 0o700, dir_fd=self._directory)
            except FileExistsError:
                continue
            self._name = name
            try:
                self._fd = os.open(name, _OPEN, dir_fd=self._directory)
            except FileNotFoundError:  # taken for one that was left
                continue
            with suppress(OSError):  # a file system without locks: nobody takes it for one
                if not lock_file(self._fd):
                    os.close(self._fd)
                    self._fd = -1
                    continue
            if os.fstat(self._fd).st_nlink:
                if self._marks is not None:
                    with self.as_program():
                        write_mark(self._marks, name, self._fd, self._ward)
                os.mkdir(_TREE, 0o700, dir_fd=self._fd)
                self._tree = os.open(_TREE, _OPEN, dir_fd=self._fd)
                return
            os.close(self._fd)
            self._fd = -1
        raise FileExistsError(errno.EEXIST, "no temporary name is free")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it; somebody inside may have done so already."""
        self._remove()

    def _remove(self) -> None:
        if self._name:
            with suppress(OSError), acting_as(self._owner):
                remove_tree(self._directory, self._name, self._ward)
            if self._marks is not None:  # what is left has a rule, and is nobody's to delete later
                with self.as_program():
                    remove_mark(self._marks, self._name)
        for descriptor in (self._tree, self._fd, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._tree = self._fd = self._directory = -1

    def as_program(self) -> AbstractContextManager[None]:
        """Act as this program, whose marks are, though the thread acts as another."""
        return acting_as(None if self._owner is None else Owner(os.geteuid(), os.getegid()))


def clear_stages(directory: int, owner: Owner | None, session: int) -> None:
    """Remove the stages that a session's program left when it died, by their marks.

    Args:
        directory: descriptor of the workspace's root.
        owner: whom the stages were made as.
        session: descriptor of the session's directory in the state directory.

    Raises:
        OSError: the marks can't be listed.
    """
    for name in _marked(session):
        with suppress(OSError):
            mark = read_mark(session, name)
            with acting_as(owner):
                _clear(directory, name, mark)


def clear_abandoned(directory: int, owner: Owner | None) -> None:
    """Remove the stages of a restoring that was killed, before anybody worked in the workspace.

    Args:
        directory: descriptor of the workspace's root, which the library made: no name is another's.
        owner: whom the stages were made as.
    """
    with acting_as(owner):
        for name in os.listdir(directory):
            if _STAGE.fullmatch(name):
                with suppress(OSError):
                    remove_tree(directory, name)


def forget_stages(session: int) -> None:
    """Remove the marks of a session's stages.

    Raises:
        OSError: they can't be listed or removed.
    """
    for name in _marked(session):
        os.unlink(name, dir_fd=session)


def has_stages(session: int) -> bool:
    """Tell whether stages of a session are noted.

    Raises:
        OSError: the session's directory can't be listed.
    """
    return bool(_marked(session))


def _marked(session: int) -> list[str]:
    return [name for name in os.listdir(session) if _STAGE.fullmatch(name)]


def _clear(directory: int, name: str, mark: Mark | None) -> None:
    """Remove what a mark names, if it still is that; without a mark, only what is empty."""
    if mark is not None:
        stage = os.open(name, _OPEN, dir_fd=directory)
        try:
            facts = os.fstat(stage)
            if (facts.st_dev, facts.st_ino) != mark.inode or not lock_file(stage):
                return
            if empty_directory(stage, mark.ward, levels=DESCENT_LEVELS):
                return
        finally:
            os.close(stage)
    os.rmdir(name, dir_fd=directory)
