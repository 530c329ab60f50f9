"""Owns the merging of nested settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["deep_merge"]


def deep_merge(dict1: Mapping[str, object], dict2: Mapping[str, object]) -> dict[str, object]:
    """Lay one nested dict over another, and change neither.

    Args:
        dict1: what holds where the other says nothing.
        dict2: what holds; where both have a dict under one key, those are merged the same way.

    Example:
        >>> deep_merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": 4})
        {'a': {'x': 1, 'y': 3}, 'b': 4}
    """
    merged = dict(dict1)
    for key, over in dict2.items():
        under = merged.get(key)
        merged[key] = (
            deep_merge(under, over) if isinstance(under, dict) and isinstance(over, dict) else over
        )
    return merged
