"""The Landlock ruleset of each ABI."""

from __future__ import annotations

import pytest

from sandyard.confinement.landlock import closes_abstract_sockets, landlock_ruleset

HANDLED = {2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF, 6: 0xFFFF, 7: 0xFFFF, 8: 0xFFFF}


@pytest.mark.parametrize("abi", [-1, 0, 1])
def test_unusable_abis_have_no_ruleset(abi: int) -> None:
    assert landlock_ruleset(abi, ("/w",)) is None


@pytest.mark.parametrize("abi", HANDLED)
def test_rights_grow_with_the_abi(abi: int) -> None:
    ruleset = landlock_ruleset(abi, ("/w", "/tmp"))
    assert ruleset is not None
    assert ruleset.handled == HANDLED[abi]
    assert ruleset.scoped == (0b11 if abi >= 6 else 0)
    assert closes_abstract_sockets(ruleset) == (abi >= 6)
    for rule in ruleset.rules:
        # The kernel refuses a rule with a right that the ruleset does not handle.
        assert rule.access & ~ruleset.handled == 0
    assert {rule.path: rule.access for rule in ruleset.rules} == {
        "/": 0b1101,
        "/dev": 0b1110 | (1 << 15 & ruleset.handled),
        "/proc": 0b1111 | (1 << 14 & ruleset.handled),
        "/w": ruleset.handled,
        "/tmp": ruleset.handled,
    }


def test_nothing_closes_sockets_without_landlock() -> None:
    assert not closes_abstract_sockets(None)
