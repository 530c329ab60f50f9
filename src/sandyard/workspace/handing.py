"""Gives what was restored to whom it belonged: by a deputy, where this program may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandyard.workspace.deputy import Deputy

__all__ = ["handing_over"]

Hand = Callable[[bytes | str, tuple[int, int], int], None]


@contextmanager
def handing_over() -> Iterator[Hand]:
    """Give a function that gives entries away: a name, whose it is to be, and its directory.

    A deputy that it takes is started by the first entry that needs it, and ends with the block.
    """
    with ExitStack() as held:
        deputies: list[Deputy] = []

        def hand(name: bytes | str, owner: tuple[int, int], directory: int) -> None:
            try:
                _give(name, owner, directory)
            except PermissionError:
                if os.geteuid() == 0:
                    raise
                from sandyard.workspace import deputy  # noqa: PLC0415  # few have others
                from sandyard.workspace.deputy_wire import Passed  # noqa: PLC0415  # likewise

                if not deputies:
                    deputies.append(held.enter_context(deputy.Deputy("whole")))
                deputies[0].do(partial(_give, name, owner, Passed(directory)))

        yield hand


def _give(name: bytes | str, owner: tuple[int, int], directory: int) -> None:
    os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
