"""Owns the bait of the escape tests, laid once for each of their files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandyard import Manifest
from tests.escape.bait import HOST_SECRETS, SECRET, Bait, lay_bait

# The first manifest makes pydantic look for plugins on the disk, which no event loop may wait for.
Manifest()


@pytest.fixture(scope="module")
def bait() -> Iterator[Bait]:
    with pytest.MonkeyPatch.context() as patch, lay_bait() as laid:
        for name in HOST_SECRETS:
            patch.setenv(name, SECRET)
        yield laid
