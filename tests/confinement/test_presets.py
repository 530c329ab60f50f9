"""Presets say what they are for, and nothing else than the default besides."""

from __future__ import annotations

import dataclasses

import pytest

from sandyard import Narrowing, Policy, ResourceLimits, presets
from sandyard.resources import DEFAULT_LIMITS


def changed(policy: Policy) -> set[str]:
    return {
        field.name
        for field in dataclasses.fields(Policy)
        if getattr(policy, field.name) != getattr(Policy(), field.name)
    }


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("UNTRUSTED_BUILD", {"limits"}),
        ("DEBUGGING", {"syscalls"}),
        ("HOST_NETWORK", {"network"}),
        ("UNCONFINED", {"unconfined", "network", "protect"}),
    ],
)
def test_preset_changes_what_it_says(name: str, fields: set[str]) -> None:
    policy = getattr(presets, name)
    assert isinstance(policy, Policy)
    assert changed(policy) == fields


def test_build_has_less_of_everything() -> None:
    for field in dataclasses.fields(ResourceLimits):
        own = getattr(presets.UNTRUSTED_BUILD.limits, field.name)
        usual = getattr(DEFAULT_LIMITS, field.name)
        assert own == usual or usual is None or own < usual, field.name


def test_every_preset_is_listed() -> None:
    values = {
        name for name, value in vars(presets).items() if isinstance(value, Policy | Narrowing)
    }
    assert values == set(presets.__all__)
