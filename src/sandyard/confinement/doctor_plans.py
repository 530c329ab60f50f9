"""The small plans by which a native program is asked what this machine allows, one part at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from sandyard.confinement.bpf import ARCH, Assembler
from sandyard.confinement.landlock import landlock_ruleset
from sandyard.confinement.seccomp import seccomp_program
from sandyard.confinement.sizes import AGENT_GID, AGENT_UID, SMALLEST_SCRATCH
from sandyard.errors import ConfinementUnavailableError
from sandyard.plan import (
    Bind,
    DevPts,
    HostIdentity,
    Identity,
    LaunchPlan,
    MountStep,
    Namespaces,
    Proc,
    Scratch,
)

if TYPE_CHECKING:
    from sandyard.platform import HostFacts

__all__ = ["NAMESPACE_PARTS", "PARTS", "known_processor", "refused_part", "trial_plan"]

NAMESPACE_PARTS: Final = ("ipc", "cgroup", "network")
"""Parts that are namespaces: one call makes all, and does not tell which of them was refused."""

PARTS: Final = (*NAMESPACE_PARTS, "binds", "devpts", "proc", "landlock", "filter")
"""What a plan may have besides the base, and the default policy has."""

_NAMESPACES: Final = {
    "ipc": Namespaces.IPC,
    "cgroup": Namespaces.CGROUP,
    "network": Namespaces.NET,
}
_BASE: Final = Namespaces.USER | Namespaces.MOUNT | Namespaces.PID | Namespaces.UTS

_RETURN_ALLOW: Final = 0x7FFF0000
"""SECCOMP_RET_ALLOW (linux/seccomp.h)."""

_BY_STEP: Final = {"loopback": "network", "landlock": "landlock", "seccomp": "filter"}
_BY_PATH: Final = {"/proc": "proc", "/dev/pts": "devpts", "/usr": "binds"}


def known_processor(machine: str) -> bool:
    """Whether there is a filter for this processor."""
    try:
        seccomp_program(machine, unix_sockets=True)
    except ConfinementUnavailableError:
        return False
    return True


def trial_plan(facts: HostFacts, parts: Collection[str], bind: Bind | None = None) -> LaunchPlan:
    """A sandbox with an almost empty root and ``parts``; and ``bind``, if there is one."""
    steps: list[MountStep] = [Bind("/dev/null", "/dev/null", devices=True)]
    if "binds" in parts:
        steps.append(Bind("/usr", "/usr"))
    if "devpts" in parts:
        steps.append(DevPts())
    if "proc" in parts:
        steps.append(Proc())
    if bind is not None:
        steps.append(bind)
    namespaces = _BASE
    for part in NAMESPACE_PARTS:
        if part in parts:
            namespaces |= _NAMESPACES[part]
    real = "filter" in parts and known_processor(facts.machine)
    return LaunchPlan(
        identity=Identity(
            uid=AGENT_UID,
            gid=AGENT_GID,
            host=HostIdentity.LEASED if facts.euid == 0 else HostIdentity.CALLER,
        ),
        namespaces=namespaces,
        hostname="doctor",
        loopback="network" in parts,
        scratch=Scratch(size=SMALLEST_SCRATCH, inodes=1024),
        steps=tuple(steps),
        limits=(),
        landlock=landlock_ruleset(facts.landlock_abi, ()) if "landlock" in parts else None,
        seccomp=seccomp_program(facts.machine, unix_sockets=True) if real else _allow_all(),
    )


def _allow_all() -> bytes:
    """The least filter that the native program takes: one that looks at the architecture."""
    code = Assembler()
    code.load(ARCH)
    code.give(_RETURN_ALLOW)
    return code.program()


def refused_part(step: str, path: str) -> str | None:
    """The part that a refused step belongs to, or None where it is the base's."""
    if step in ("source", "mount"):
        return _BY_PATH.get(path)
    return _BY_STEP.get(step)
