"""The small plans by which the rungs are tried, from the highest down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sandyard.confinement.doctor_plans import PARTS, trial_plan
from sandyard.confinement.landlock import bare_ruleset
from sandyard.plan import LandlockRule, LaunchPlan, Namespaces

if TYPE_CHECKING:
    from sandyard.platform import HostFacts
    from sandyard.policy import Rung

__all__ = ["bare_trial", "rung_trials"]


def rung_trials(facts: HostFacts) -> Iterator[tuple[Rung, LaunchPlan]]:
    """Each rung with the least sandbox that has all that makes it."""
    parts = [part for part in PARTS if part != "landlock" or facts.landlock_abi > 0]
    yield "full", trial_plan(facts, parts)
    rest = [part for part in parts if part != "proc"]
    yield "full_without_proc", replace(trial_plan(facts, rest), outer_proc=True)
    if facts.landlock_abi > 0:
        yield "landlock_seccomp", bare_trial(facts)


def bare_trial(facts: HostFacts) -> LaunchPlan:
    """The least sandbox without namespaces."""
    return replace(
        trial_plan(facts, ("filter",)),
        namespaces=Namespaces(0),
        hostname="",
        scratch=None,
        steps=(),
        landlock=bare_ruleset(
            facts.landlock_abi,
            reads=(LandlockRule("/usr", 0),),
            writes=(),
            devices=("/dev/null",),
        ),
        outer_proc=True,
    )
