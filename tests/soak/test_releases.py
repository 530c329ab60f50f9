"""Owns the earlier releases of the frameworks that the adapters are made for."""

from __future__ import annotations

import subprocess

import pytest

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.soak, pytest.mark.root]  # a package index is asked, so only once

EARLIER = ("0.22.3", "0.23.1")


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("version", EARLIER)
def test_agents_release(version: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "test-adapter", version],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
