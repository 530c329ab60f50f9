"""Owns the Python that carries out these tests' calls of the command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import PREPARED, prepared


@pytest.fixture(scope="package", autouse=True)
def prepared_python() -> Iterator[None]:
    """Starts it before anybody looks for what the first test leaves behind."""
    # Beside the directory of temporary files, whose entries tests count.
    place = tempfile.mkdtemp(prefix="cli-", dir=Path(tempfile.gettempdir()).parent)
    path = f"{place}/socket"
    with subprocess.Popen(
        [*PREPARED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        prepared.append(path)
        yield
        prepared.clear()
        process.stdin.close()
    shutil.rmtree(place)
    assert process.returncode == 0
