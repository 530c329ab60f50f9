"""Owns the bait of the escape tests, laid once for each of their files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandyard import Manifest
from tests.escape.bait import HOST_SECRETS, SECRET, Bait, lay_bait
from tests.escape.counting import count_attempts, table

# The first manifest makes pydantic look for plugins on the disk, which no event loop may wait for.
Manifest()


@pytest.fixture(scope="module")
def bait() -> Iterator[Bait]:
    with pytest.MonkeyPatch.context() as patch, lay_bait() as laid:
        for name in HOST_SECRETS:
            patch.setenv(name, SECRET)
        yield laid


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many attempts there were, whenever some were made."""
    outcomes = [
        (report.nodeid, outcome)
        for outcome in ("passed", "skipped", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call"
    ]
    counts, work = count_attempts(outcomes)
    if counts:
        who = "root" if os.geteuid() == 0 else "an ordinary user"
        terminalreporter.section(f"attempts to get out, as {who}")
        for line in table(counts, work):
            terminalreporter.write_line(line)
