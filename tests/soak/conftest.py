"""Owns the report of the long runs: one line for each test, after all of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.session.conftest import client, session

__all__ = ["client", "session"]

LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes the line that is printed when everything has run."""
    lines = request.config.stash.setdefault(LINES, [])
    return lines.append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests reported."""
    if lines := config.stash.get(LINES, []):
        terminalreporter.section(f"long runs, as uid {os.geteuid()}")
        for line in lines:
            terminalreporter.write_line(line)
