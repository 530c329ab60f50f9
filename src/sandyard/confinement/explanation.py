"""The values of explanations: what is explained, by what, and what was found on the way."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from sandyard.confinement.placement import step_path
from sandyard.platform import is_within

if TYPE_CHECKING:
    from sandyard.narrowing import Narrowing
    from sandyard.plan import LandlockRuleset, LaunchPlan, MountStep
    from sandyard.platform import Grant
    from sandyard.policy import Policy, Standing

__all__ = [
    "Access",
    "Enforced",
    "Explanation",
    "Found",
    "Less",
    "Look",
    "Obstacle",
    "narrowing_text",
    "policy_text",
]

Access = Literal["none", "read", "write"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What commands may do with something, and why. ``str`` is one line, short enough for a model.

    Attributes:
        subject: the path, address, system call or limit.
        access: ``"none"``, ``"read"``, or ``"write"``, which includes reading. Of an address or a
            system call ``"write"`` is all of it, and ``"read"`` a part: a loopback that only the
            session's own programs listen on, a call that is refused with some arguments. Modes
            of files decide besides.
        rule: what decides, in words.
        grant: the least to be written to allow more, such as ``Policy(reads=('/srv/data',))``, in
            addition to what the policy says, or the narrowing of a command, whose grant is written
            as ``Narrowing(writes=('build',))``; None where nothing does, and for what the policy
            denies by name or what belongs to the system itself.
        fixed: True if it can't be moved, replaced or removed, whatever else is allowed.
    """

    subject: str
    access: Access
    rule: str
    grant: str | None
    fixed: bool = False

    def __str__(self) -> str:
        """One line: the subject, the rule, the grant."""
        told = f"{self.subject}: {self.rule}"
        return told if self.grant is None else f"{told}; to allow it: {self.grant}"


@dataclass(frozen=True, slots=True)
class Less:
    """What one command has less than its session.

    Attributes:
        narrowing: in words.
        layer: what it was made into, for paths; None where no path is withheld.
    """

    narrowing: Narrowing
    layer: LandlockRuleset | None


@dataclass(frozen=True)
class Enforced:
    """What a session enforces.

    Attributes:
        policy: in words.
        plan: what it was made into.
        machine: the processor, as uname(2) names it.
        workspace: where the workspace is inside.
        grants: what the policy names, as found on the host.
        denied: what it denies, likewise.
        rung: how its wall is built. On one without a root of its own ``plan`` shows where things are,
            as one with it would.
        mounts: what was mounted in the workspace since, by its path inside: whether commands may
            write there.
        less: what one command has less; None for all the others.
    """

    policy: Policy
    plan: LaunchPlan
    machine: str
    workspace: str
    grants: tuple[Grant, ...] = ()
    denied: tuple[str, ...] = ()
    rung: Standing = "full"
    mounts: tuple[tuple[str, bool], ...] = ()
    less: Less | None = None

    @property
    def bare(self) -> bool:
        """Whether there are no namespaces: Landlock and seccomp are the whole wall."""
        return self.rung == "landlock_seccomp"

    @property
    def unconfined(self) -> bool:
        """Whether there is no wall, so that nothing is refused by one."""
        return self.rung == "unconfined"

    def mounted(self, path: str) -> tuple[str, bool] | None:
        """The mount that a path lies in, if it lies in one."""
        return next((each for each in self.mounts if is_within(path, each[0])), None)

    @cached_property
    def steps(self) -> dict[str, MountStep]:
        """What stands inside, by path."""
        return {step_path(step): step for step in self.plan.steps}

    @cached_property
    def skeleton(self) -> frozenset[str]:
        """The directories that lead to what stands inside."""
        found = {"/"}
        for path in self.steps:
            while (path := posixpath.dirname(path)) not in found:
                found.add(path)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a place of a tree that is shown inside.

    Attributes:
        link: the target of a symlink; None for everything else.
        exists: False where nothing is.
        writable: whether its owner, seen from inside, may write to it, if it is granted.
    """

    link: str | None = None
    exists: bool = True
    writable: bool = True


Look = Callable[[str, str], Found]
"""Looks for ``(source, below)``: a host path that is mounted inside, and a path relative to it."""

Obstacle = Callable[[str], str]
"""Says why a path of the host can't be granted for reading; nothing if it can."""


def policy_text(field: str, value: object) -> str:
    """How a policy with one field is written."""
    return f"Policy({field}={value!r})"


def narrowing_text(field: str, value: object) -> str:
    """How a narrowing with one field is written."""
    return f"Narrowing({field}={value!r})"
