"""Owns the injector's program, and the plan that is started under it."""

from __future__ import annotations

import pytest

from tests.faults_native.inject import build_injector
from tests.process.conftest import records

__all__ = ["injector", "records"]


@pytest.fixture(scope="session")
def injector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The injector, compiled once."""
    return build_injector(tmp_path_factory.mktemp("inject"))
