"""Owns the sessions that tests of background processes use."""

from __future__ import annotations

from tests.session.conftest import client, session

__all__ = ["client", "session"]
