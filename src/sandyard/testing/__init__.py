"""What tests need: the behaviours that any session must show, fixtures, and a scripted session."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sandyard.testing.behaviours import Behaviour, Place, Promise, SessionFactory
    from sandyard.testing.conformance import BEHAVIOURS, Conformance, Outcome, run_conformance
    from sandyard.testing.scripted import ScriptedSession, ScriptedSessionState
    from sandyard.testing.scripted_client import ScriptedClient
    from sandyard.testing.scripting import ScriptedCall

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "Conformance",
    "Outcome",
    "Place",
    "Promise",
    "ScriptedCall",
    "ScriptedClient",
    "ScriptedSession",
    "ScriptedSessionState",
    "SessionFactory",
    "run_conformance",
]

_HOMES: Final = {
    "sandyard.testing.behaviours": ("Behaviour", "Place", "Promise", "SessionFactory"),
    "sandyard.testing.conformance": ("BEHAVIOURS", "Conformance", "Outcome", "run_conformance"),
    "sandyard.testing.scripted": ("ScriptedSession", "ScriptedSessionState"),
    "sandyard.testing.scripted_client": ("ScriptedClient",),
    "sandyard.testing.scripting": ("ScriptedCall",),
}

_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a name when it is asked for: pytest imports this package in runs that use none of it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
