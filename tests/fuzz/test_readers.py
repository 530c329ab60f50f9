"""The readers of archives and patches take what a search led by coverage has come to."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.readers import CORPUS, TARGETS

ALTERED = 40
"""Variants of each input, so that the targets themselves are known to work."""


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus_is_taken(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    chance = random.Random(name)  # noqa: S311  # to alter inputs the same way each time
    for path in inputs:
        data = path.read_bytes()
        TARGETS[name](data)
        for _ in range(ALTERED):
            altered = bytearray(data)
            for _ in range(chance.randrange(1, 4)):
                altered[chance.randrange(len(altered))] = chance.randrange(256)
            TARGETS[name](bytes(altered))
