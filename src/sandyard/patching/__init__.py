"""Patches as text: parsed into operations and applied to text, with no file in sight."""

from __future__ import annotations

from sandyard.patching.finding import Effort
from sandyard.patching.operations import Operation, read_operations
from sandyard.patching.unified import apply_hunks, parse_unified
from sandyard.patching.v4a import apply_diff, parse_envelope

__all__ = [
    "Effort",
    "Operation",
    "apply_diff",
    "apply_hunks",
    "parse_envelope",
    "parse_unified",
    "read_operations",
]
