"""Owns the sessions whose terminals are tested, those of the session's tests and of the hostile ones."""

from __future__ import annotations

from tests.fuzz.conftest import deceived, play
from tests.session.conftest import client, session

__all__ = ["client", "deceived", "play", "session"]
