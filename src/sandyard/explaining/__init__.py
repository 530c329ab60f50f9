"""Explains refusals of one session: to who asks why, and in the results of commands that failed."""

from __future__ import annotations

from sandyard.explaining.explainer import Explainer

__all__ = ["Explainer"]
