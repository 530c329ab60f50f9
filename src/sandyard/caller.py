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
        allowed: names of the variables that may get into a sandbox; None for those that always may.
    """

    environ: Mapping[str, str] | None = None
    directory: str | None = None
    allowed: frozenset[str] | None = None

    def variables(self) -> dict[str, str]:
        """Its variables as they are now."""
        return dict(os.environ if self.environ is None else self.environ)

    def passed_on(self, variables: dict[str, str]) -> dict[str, str]:
        """Those of its variables that may get into a sandbox."""
        if self.allowed is None:
            return variables
        return {name: value for name, value in variables.items() if name in self.allowed}
