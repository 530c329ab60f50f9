"""A program that has no descriptor left is told so by the doctor: a finding, and no error."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from sandyard.checkup import DoctorReport, doctor
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


@pytest.mark.parametrize("spare", range(7))
def test_lost_threads_leave_no_session(
    spare: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Others take the last ones while the doctor is at work, and keep them.
    start, started = threading.Thread.start, 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal started
        if started == spare:
            raise RuntimeError("can't start new thread")
        started += 1
        start(thread)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    async def ask() -> DoctorReport:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            return await doctor()

    report = asyncio.run(ask())  # without threads it blocks its loop
    if not report.holds:
        assert started == spare
        assert report.cause is not None
        assert report.cause.startswith("processes: ")
    assert list(tmp_path.iterdir()) == []
    assert asyncio.run(doctor()).holds
