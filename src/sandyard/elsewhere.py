"""Systems other than Linux: what says there that this library loads, and makes no sessions."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

from sandyard.errors import ConfinementUnavailableError

__all__ = ["missing_part", "stand_in", "unavailable"]

_UNIX_MODULES: Final = frozenset({"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"})
"""Modules of the standard library that Windows lacks."""

_SYSTEMS: Final = {"darwin": "macOS", "win32": "Windows"}


def missing_part(error: ImportError | AttributeError, system: str = sys.platform) -> bool:
    """Whether a module of ours could not be loaded because this system is not the one it is for.

    A dependency that is not installed is something else, on every system.
    """
    if system == "linux":
        return False
    return isinstance(error, AttributeError) or error.name in _UNIX_MODULES


def stand_in(name: str, error: ImportError | AttributeError, system: str = sys.platform) -> type:
    """What a public name is where its module can't be loaded: a class that refuses to be called."""

    def refuse(cls: type, *_: object, **__: object) -> NoReturn:
        raise unavailable(system, error)

    told = {"__new__": refuse, "__module__": "sandyard", "__doc__": _cause(system)}
    return type(name, (), told)


def unavailable(
    system: str = sys.platform, error: Exception | None = None
) -> ConfinementUnavailableError:
    """The error of whatever needs a session where there is no wall for its commands."""
    return ConfinementUnavailableError(
        "a session can't be made on this system",
        dimension="processes",
        cause_text=_cause(system),
        fix="run this on Linux: in a virtual machine, or on Windows in WSL 2",
        cause=error,
    )


def _cause(system: str) -> str:
    return (
        f"this is {_SYSTEMS.get(system, system)}, and what confines commands here is a part of the "
        "Linux kernel"
    )
