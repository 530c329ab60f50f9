"""The doctor's judgement: what was found and tried becomes rows, a rung, a cause and a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sandyard.confinement.doctor_places import machine_rows, place_rows
from sandyard.confinement.doctor_rows import kernel_rows
from sandyard.confinement.doctor_values import DoctorCanary, DoctorReport, DoctorRow, Rung
from sandyard.platform.probes_facts import Tried
from sandyard.policy import RUNGS

if TYPE_CHECKING:
    from sandyard.platform.probes_facts import MachineFacts

__all__ = ["judge"]

SCHEMA: Final = 1
"""Version of the report's keys: it rises when one changes its meaning or goes away."""


_LAYERS: Final = (
    "processor", "no_new_privileges", "seccomp", "landlock", "pidfd", "memfd", "openat2", "subreaper"
)  # fmt: skip
"""The rows that a sandbox without namespaces needs."""


def judge(
    facts: MachineFacts,
    trials: Mapping[str, Tried],
    canaries: tuple[DoctorCanary, ...],
    seconds: float,
) -> DoctorReport:
    """Judge what was found.

    Args:
        facts: the machine.
        trials: what came of asking the native program, by part; ``session`` is the real session,
            with the words of its error as ``text`` and of its fix as ``value``.
        canaries: what came of the attempts to get out.
        seconds: how long all of it took.
    """
    rows = (
        *machine_rows(facts, trials),
        *kernel_rows(facts, trials),
        *place_rows(facts, trials),
    )
    session = trials.get("session", Tried("unknown", text="no session was tried"))
    broken = [canary for canary in canaries if canary.state == "broken"]
    holds = session.ok and not broken
    cause: str | None = None
    fix: str | None = None
    commands: tuple[str, ...] = ()
    missing = [row for row in rows if row.required and row.state == "missing"]
    culprit = next(iter(missing), None)
    rung = _rung(rows, session)
    wall = next((row for row in missing if row.kernel), None) if rung != "full" else None
    if session.ok and broken:
        cause = f"commands got out: {', '.join(canary.key for canary in broken)}"
        fix = "do not rely on this machine's wall; report what you see here as SECURITY.md says"
    elif not session.ok and culprit is not None:
        cause, fix = f"{culprit.key}: {culprit.cause}", culprit.fix
        commands = culprit.commands
    elif not session.ok:
        cause, fix = session.text or "no session could be started", session.value or None
    if wall is not None and not commands:
        commands = wall.commands
    return DoctorReport(
        schema=SCHEMA,
        version=facts.version,
        machine=_in_words(facts),
        holds=holds,
        proven=holds and bool(canaries) and all(canary.state == "held" for canary in canaries),
        rung=rung,
        starts_on=RUNGS,
        lacks=None if wall is None else f"{wall.key}: {wall.cause}",
        raises=None if wall is None else wall.fix,
        cause=cause,
        fix=fix,
        commands=commands,
        rows=rows,
        canaries=canaries,
        seconds=round(seconds, 3),
    )


def _in_words(facts: MachineFacts) -> str:
    who = "root" if facts.euid == 0 else f"uid {facts.euid}"
    name = facts.distribution_name or "an unnamed system"
    return f"{name}, {facts.system} {facts.kernel}, {facts.machine}, as {who}"


def _rung(rows: tuple[DoctorRow, ...], session: Tried) -> Rung:
    """The rung of the session; else the highest whose parts all work, as far as they were tried."""
    started = [rung for rung in RUNGS if session.ok and session.value in (rung, "")]
    if started:
        return started[0]
    states = {row.key: row.state for row in rows}
    needed = [row.key for row in rows if row.required and row.kernel]
    lacking = {key for key in needed if states[key] not in ("ok", "partial")}
    if not lacking:
        return "full"
    if lacking == {"proc"}:
        return "full_without_proc"
    if all(states.get(key) in ("ok", "partial") for key in _LAYERS):
        return "landlock_seccomp"
    return "none"
