"""The doctor's report, as values; their names and fields are what ``--json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sandyard.policy import Dimension

__all__ = ["DoctorCanary", "DoctorReport", "DoctorRow", "Rung"]

Rung = Literal["full", "full_without_proc", "landlock_seccomp", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorRow:
    """One part of the machine.

    Attributes:
        key: its name.
        group: what it belongs to.
        purpose: what it is for.
        state: ``ok``; ``partial``: it works, with the loss that ``cause`` tells; ``missing``;
            ``unknown``: it could not be tried, for the reason that ``cause`` tells.
        required: whether a session with the default policy needs it here.
        kernel: whether it is a part of the wall, and not of the place that the wall stands in.
        found: what was found, where there is more to say than that it works.
        cause: why it is not ``ok``, as the kernel said it, or "".
        step: the call or step that was refused, or "".
        errno: what the kernel answered, or None.
        fix: what to change, or "".
        commands: lines to be run or written for that, as they are.
    """

    key: str
    group: str
    purpose: str
    state: Literal["ok", "partial", "missing", "unknown"]
    required: bool = False
    kernel: bool = False
    found: str = ""
    cause: str = ""
    step: str = ""
    errno: int | None = None
    fix: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DoctorCanary:
    """An attempt to get out of a throw-away session with the default policy.

    Attributes:
        key: its name.
        dimension: what of the wall it tries, such as ``network``; "" for the environment, which is
            built and not walled.
        purpose: what was attempted.
        state: ``held``: refused inside, and the same attempt worked outside. ``broken``: it worked
            inside. ``uncontrolled``: refused inside, but it did not work outside either, so that
            nothing is shown. ``unknown``: it was not made.
        inside: what the attempt said inside.
        outside: what the same attempt said outside.
    """

    key: str
    dimension: Dimension | Literal[""]
    purpose: str
    state: Literal["held", "broken", "uncontrolled", "unknown"]
    inside: str
    outside: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What this machine can hold, found out by trying.

    Attributes:
        schema: version of these names, 1.
        version: the library's.
        machine: the machine in words.
        holds: whether a session with the default policy was started here and nothing got out.
        proven: whether, besides, each attempt to get out worked outside.
        rung: the highest one that the machine allows, on which sessions start if their policy
            accepts what it loses: ``full``; ``full_without_proc``: all but a fresh /proc;
            ``landlock_seccomp``: without namespaces; ``none``.
        starts_on: the rungs that this version starts on; on all others it refuses.
        lacks: why it is no higher rung, else None.
        raises: what to change for a higher one, else None; the lines for it are ``commands``.
        cause: why ``holds`` is False, else None.
        fix: what to change then, else None.
        commands: lines to be run or written for that, or for a higher rung, as they are.
        rows: what was looked at, one by one.
        canaries: the attempts to get out.
        seconds: how long it took.
    """

    schema: int
    version: str
    machine: str
    holds: bool
    proven: bool
    rung: Rung
    starts_on: tuple[Rung, ...]
    lacks: str | None
    raises: str | None
    cause: str | None
    fix: str | None
    commands: tuple[str, ...]
    rows: tuple[DoctorRow, ...]
    canaries: tuple[DoctorCanary, ...]
    seconds: float
