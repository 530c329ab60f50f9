"""The limits of a session: what a policy allows and a host has become rlimits and control groups.

Each limit that is given is held by something, which is said together with how well; what nothing
here can hold is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.confinement.sizes import (
    RLIMIT_CORE,
    RLIMIT_CPU,
    RLIMIT_DATA,
    RLIMIT_FSIZE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    scratch_for,
    scratch_of,
)
from sandyard.errors import ConfinementUnavailableError
from sandyard.limits import CPU_PERIOD_US, MEMORY_SHARE
from sandyard.plan import CgroupPlace, CgroupPlan, ResourceLimit, Scratch
from sandyard.resources import EnforcedLimit

if TYPE_CHECKING:
    from sandyard.platform import CgroupFacts, CgroupParent, HostFacts
    from sandyard.resources import ResourceLimits

__all__ = ["LimitsPlan", "plan_limits", "wants_cgroups"]

_PER_PROCESS: Final = "rlimit per process"

_SECOND_VERSION: Final = 2

_DATA_WHY: Final = (
    "each process alone is held to it, and what processes share or keep in /tmp, HOME and /dev/shm "
    "does not count, since no control group can be used: {}"
)

_SEVERAL_WHY: Final = (
    "the processes of each of the session's users are counted alone, since no control group can be "
    "used: {}"
)

_SCAN_WHY: Final = (
    "the workspace is looked through while commands run: what is written between two looks, files "
    "open without a name, and directories that commands made unreadable are not seen"
)

_NO_SWAP_WHY: Final = "this kernel does not count swap for control groups"

_INHERITED_WHY: Final = (
    "it is the calling program's own limit, which it shares with all its sessions, since no "
    "control group can be made below its own: {}"
)

_CGROUP_FIX: Final = (
    "run as root; or start the program in a control group that is delegated to it, such as "
    "'systemd-run --user --scope -p Delegate=yes PROGRAM'; or leave the limit unset"
)


@dataclass(frozen=True, slots=True)
class LimitsPlan:
    """What holds the limits of one session.

    Attributes:
        rlimits: limits of every process inside.
        scratch: how much the private directories may hold.
        cgroup: its control groups, or None where no limit asks for one or none can be made.
        enforced: each limit that there is, and what holds it.
    """

    rlimits: tuple[ResourceLimit, ...]
    scratch: Scratch
    cgroup: CgroupPlan | None
    enforced: tuple[EnforcedLimit, ...]


def wants_cgroups(limits: ResourceLimits, groups: CgroupFacts, *, several: bool = False) -> bool:
    """Whether a session needs control groups.

    A limit asks for one, or the caller has a limit, or several users are to be counted together.
    """
    asked = limits.memory is not None or limits.cpus is not None
    return asked or several or groups.memory_limit is not None


def plan_limits(
    limits: ResourceLimits, facts: HostFacts, groups: CgroupFacts, *, several: bool = False
) -> LimitsPlan:
    """Plan what holds the limits of a session.

    Args:
        limits: what the policy allows.
        facts: the host.
        groups: what control groups offer, tried where ``wants_cgroups`` says so.
        several: whether the session has several users (default: False). A limit per user namespace
            counts each of them alone, a control group all of them together.

    Raises:
        ConfinementUnavailableError: a limit can't be enforced at all.
    """
    memory = limits.memory
    if memory is None and groups.memory_limit is not None and groups.parent_of("memory"):
        memory = groups.memory_limit // MEMORY_SHARE
    if limits.cpus is not None and groups.parent_of("cpu") is None:
        raise ConfinementUnavailableError(
            "the limit on cpus can't be enforced",
            dimension="resources",
            cause_text=f"it needs a control group, and {groups.refusal_of('cpu')}",
            fix=_CGROUP_FIX,
        )
    scratch = _scratch(limits, facts, groups, memory)
    settings = _cgroup_settings(limits, groups, memory, several=several)
    return LimitsPlan(
        rlimits=_rlimits(limits, has_group=_is_held(settings, "memory")),
        scratch=scratch,
        cgroup=_cgroup(settings),
        enforced=(
            *_memory_held(limits, groups, memory),
            _processes_held(limits, settings, groups, several=several),
            *_cpus_held(limits, groups),
            *_commands_held(limits),
            EnforcedLimit(
                limit="scratch_size", value=scratch.size, by="tmpfs size", scope="session"
            ),
            EnforcedLimit(limit="output", value=limits.output, by="host capture", scope="stream"),
        ),
    )


# --- what the kernel is told --------------------------------------------------------------------


def _rlimits(limits: ResourceLimits, *, has_group: bool) -> tuple[ResourceLimit, ...]:
    # core(5): 1 rather than 0, since a core_pattern that is a pipe runs its handler, as root of the
    # host, for 0 too; 1 is the value with which the kernel refuses it.
    wanted = [
        (RLIMIT_CORE, 1),
        # Counted per user namespace (Linux 5.14).
        (RLIMIT_NPROC, limits.processes),
        (RLIMIT_NOFILE, limits.open_files),
        (RLIMIT_FSIZE, _largest_file(limits)),
        # Not RLIMIT_AS: runtimes such as Java's reserve far more than they use.
        (RLIMIT_DATA, None if has_group else limits.memory),
        (RLIMIT_CPU, limits.cpu_time),
    ]
    return tuple(ResourceLimit(number, value) for number, value in wanted if value is not None)


def _largest_file(limits: ResourceLimits) -> int | None:
    sizes = [size for size in (limits.file_size, limits.workspace_size) if size is not None]
    return min(sizes, default=None)


def _scratch(
    limits: ResourceLimits, facts: HostFacts, groups: CgroupFacts, memory: int | None
) -> Scratch:
    if limits.scratch_size is not None:
        return scratch_of(limits.scratch_size)
    sizes = (facts.memory_bytes, groups.memory_limit, memory)
    return scratch_for(min(size for size in sizes if size is not None))


_Setting = tuple[str, str, str]
"""A controller, a file of it, and what is written there."""


def _cgroup_settings(
    limits: ResourceLimits, groups: CgroupFacts, memory: int | None, *, several: bool
) -> dict[CgroupParent, list[_Setting]]:
    """What is set, by the group below which it is; empty where no limit needs a group."""
    found: dict[CgroupParent, list[_Setting]] = {}

    def add(controller: str, first: tuple[str, str], second: tuple[str, str]) -> None:
        parent = groups.parent_of(controller)
        if parent is not None:
            file, value = second if parent.version == _SECOND_VERSION else first
            found.setdefault(parent, []).append((controller, file, value))

    if memory is not None:
        bytes_ = str(memory)
        add("memory", ("memory.limit_in_bytes", bytes_), ("memory.max", bytes_))
        parent = groups.parent_of("memory")
        if parent is not None and parent.counts_swap:
            # Memory and swap together, in both versions.
            add("memory", ("memory.memsw.limit_in_bytes", bytes_), ("memory.swap.max", "0"))
        if parent is not None and parent.version == _SECOND_VERSION:
            # One process is ended and not all: the first process lives to tell.
            add("memory", ("", ""), ("memory.oom.group", "0"))
    if limits.cpus is not None:
        period, quota = str(CPU_PERIOD_US), str(round(limits.cpus * CPU_PERIOD_US))
        if (parent := groups.parent_of("cpu")) is not None and parent.version == 1:
            add("cpu", ("cpu.cfs_period_us", period), ("", ""))
        add("cpu", ("cpu.cfs_quota_us", quota), ("cpu.max", f"{quota} {period}"))
    if found or several:
        # Before the rlimit is reached, so that a hit is counted.
        count = str(limits.processes)
        add("pids", ("pids.max", count), ("pids.max", count))
    return found


def _cgroup(settings: dict[CgroupParent, list[_Setting]]) -> CgroupPlan | None:
    if not settings:
        return None
    return CgroupPlan(
        tuple(
            CgroupPlace(
                version=parent.version,
                parent=parent.directory,
                settings=tuple((file, value) for _, file, value in chosen),
                enable=parent.enable,  # also for what later sessions ask for
            )
            for parent, chosen in settings.items()
        )
    )


def _is_held(settings: dict[CgroupParent, list[_Setting]], controller: str) -> bool:
    return any(name == controller for chosen in settings.values() for name, _, _ in chosen)


# --- what is said of it -------------------------------------------------------------------------


def _memory_held(
    limits: ResourceLimits, groups: CgroupFacts, memory: int | None
) -> tuple[EnforcedLimit, ...]:
    parent = groups.parent_of("memory")
    if memory is not None and parent is not None:
        return (
            EnforcedLimit(
                limit="memory",
                value=memory,
                by=f"cgroup v{parent.version} memory",
                scope="session",
                strength="enforced" if parent.counts_swap else "partial",
                why="" if parent.counts_swap else _NO_SWAP_WHY,
            ),
        )
    if limits.memory is not None:
        return (
            EnforcedLimit(
                limit="memory",
                value=limits.memory,
                by=_PER_PROCESS,
                scope="process",
                strength="partial",
                why=_DATA_WHY.format(groups.refusal_of("memory")),
            ),
        )
    if groups.memory_limit is not None:
        return (
            EnforcedLimit(
                limit="memory",
                value=groups.memory_limit,
                by="the calling program's cgroup",
                scope="session",
                strength="partial",
                why=_INHERITED_WHY.format(groups.refusal_of("memory")),
            ),
        )
    return ()


def _processes_held(
    limits: ResourceLimits,
    settings: dict[CgroupParent, list[_Setting]],
    groups: CgroupFacts,
    *,
    several: bool,
) -> EnforcedLimit:
    why = ""
    for parent, chosen in settings.items():
        if any(name == "pids" for name, _, _ in chosen):
            by = f"cgroup v{parent.version} pids"
            break
    else:
        by = "rlimit per user namespace"
        if several:
            why = _SEVERAL_WHY.format(groups.refusal_of("pids"))
    return EnforcedLimit(
        limit="processes",
        value=limits.processes,
        by=by,
        scope="session",
        strength="partial" if why else "enforced",
        why=why,
    )


def _cpus_held(limits: ResourceLimits, groups: CgroupFacts) -> tuple[EnforcedLimit, ...]:
    parent = groups.parent_of("cpu")
    if limits.cpus is None or parent is None:
        return ()
    by = f"cgroup v{parent.version} cpu"
    return (EnforcedLimit(limit="cpus", value=limits.cpus, by=by, scope="session"),)


def _commands_held(limits: ResourceLimits) -> tuple[EnforcedLimit, ...]:
    """The limits that need nothing of the host."""
    held = [
        EnforcedLimit(limit="open_files", value=limits.open_files, by=_PER_PROCESS, scope="process")
    ]
    if limits.cpu_time is not None:
        held.append(
            EnforcedLimit(limit="cpu_time", value=limits.cpu_time, by=_PER_PROCESS, scope="process")
        )
    if limits.file_size is not None:
        held.append(
            EnforcedLimit(
                limit="file_size", value=limits.file_size, by=_PER_PROCESS, scope="process"
            )
        )
    if limits.workspace_size is not None:
        held.append(
            EnforcedLimit(
                limit="workspace_size",
                value=limits.workspace_size,
                by="scan",
                scope="session",
                strength="partial",
                why=_SCAN_WHY,
            )
        )
    if limits.wall_time is not None:
        held.append(
            EnforcedLimit(
                limit="wall_time", value=limits.wall_time, by="host timer", scope="command"
            )
        )
    return tuple(held)
