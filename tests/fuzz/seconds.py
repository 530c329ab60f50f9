"""Owns how long fuzzers run: FUZZ_SECONDS, or a moment in a test run and minutes in a soak."""

from __future__ import annotations

import os
from typing import Final

MOMENT_S: Final = 2.0
"""In each run of the tests; `make test` gives each fuzzer a minute beside it (scripts/fuzz-beside)."""

SOAK_S: Final = 300.0


def fuzz_seconds(*, soak: bool = False) -> float:
    """Seconds for one fuzzer; a run of all tests takes no longer than a moment for it."""
    wanted = float(os.environ.get("FUZZ_SECONDS", SOAK_S if soak else MOMENT_S))
    return wanted if soak else min(wanted, MOMENT_S)
