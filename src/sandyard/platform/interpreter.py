"""Which Python runs what of this library must stand alone, outside of the sandbox."""

from __future__ import annotations

import sys

__all__ = ["own_interpreter"]


def own_interpreter() -> str:
    """Its path; "" where the program does not know it.

    It is the one that a virtual environment was made of, known since this program began. The
    environment may lie in what commands can write to, and with it the link to that one.
    """
    return getattr(sys, "_base_executable", None) or sys.executable or ""
