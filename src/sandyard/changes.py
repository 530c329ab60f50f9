"""Overlays as values: which directory one is laid over, what was changed in it, what was applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["Overlay"]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A workspace that is an overlay: commands see a directory of yours and change it, and it stays.

    What they change is kept apart. ``session.diff()`` tells what it is, ``session.apply()`` puts it
    into the directory, ``session.discard()`` throws it away.

    Attributes:
        path: the directory, absolute; it exists, and is yours unless you are root. It should not be
            changed outside while the session runs: commands may or may not see that.

    Example:
        >>> session = await client.create(workspace=Overlay("/home/me/project"))
    """

    path: str | PurePath
