"""SessionRecord: what outlives a session, or would."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SessionRecord"]


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What is known of a session that is gone, or would be.

    Attributes:
        id: its id.
        name: what it was called.
    """

    id: str
    name: str
