"""A loop that is closed while tasks of it wait: the session still closes, and nobody is woken."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.session.closed_loop import WORKS
from tests.session.host import find_survivors, make_token


@pytest.mark.parametrize("work", WORKS)
def test_session_still_closes(work: str) -> None:
    token = make_token()
    words = [sys.executable, "-m", "tests.session.closed_loop", work, token]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("closed\n", "")
    assert not find_survivors(token)
