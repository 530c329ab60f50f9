"""A program that has no descriptor left is told so by the doctor: a finding, and no error."""

from __future__ import annotations

import os

import pytest

from sandyard.checkup import doctor
from tests.session.short import no_descriptor_left


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 5, 8, 12])
async def test_no_descriptor_is_found(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Facts are kept by the variables that they depend on; these were never looked at before.
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/nowhere/{spare}")
    with no_descriptor_left(spare):
        report = await doctor()
    assert not report.holds
    assert report.cause is not None
    assert report.cause.startswith("open_files: Too many open files")
    assert report.fix is not None
    assert "limit on open files" in report.fix
    missing = {row.key for row in report.rows if row.state == "missing" and row.required}
    assert missing == {"open_files"}
    assert (await doctor()).holds
