"""Whom a session is made for: this program, or another one that asked it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Caller"]


class Caller(NamedTuple):
    """The program that a session is made for.

    Attributes:
        environ: its variables; None for those of this program, as they are at each start.
        directory: where relative sources of its manifest begin; None for the working directory.
    """

    environ: Mapping[str, str] | None = None
    directory: str | None = None

    def variables(self) -> dict[str, str]:
        """Its variables as they are now."""
        return dict(os.environ if self.environ is None else self.environ)
