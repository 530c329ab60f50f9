"""Facts about control groups: which the calling program is in, and what can be limited below them.

Nothing is believed that can be tried: a group is made below the program's own, looked at, and
removed.
"""

from __future__ import annotations

import os
import posixpath
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CONTROLLERS",
    "HOST_PREFIX",
    "NO_CGROUPS",
    "PROBE_PREFIX",
    "SESSION_PREFIX",
    "CgroupFacts",
    "CgroupParent",
    "cgroup_facts",
    "look_at_cgroups",
]

CONTROLLERS: Final = ("memory", "pids", "cpu")
"""The controllers that limits need."""

SESSION_PREFIX: Final = "sandyard-"
"""What the name of a session's group begins with."""

HOST_PREFIX: Final = "sandyard-host-"
"""What the name of a group begins with that a calling program moved itself to."""

PROBE_PREFIX: Final = "sandyard-probe-"
"""What the name of a group begins with that is made to look at it."""

_NO_LIMIT_V1: Final = 2**60
"""From here on a limit of version 1 is none: the kernel tells the largest number of pages."""

_FIRST_FILES: Final = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"},
    2: {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"},
}
"""The file of each controller without which it can't limit anything."""

_SECOND_VERSION: Final = 2

_SWAP_FILES: Final = {1: "memory.memsw.limit_in_bytes", 2: "memory.swap.max"}


@dataclass(frozen=True, slots=True)
class CgroupParent:
    """The calling program's own group in one hierarchy, where something can be limited below it.

    Attributes:
        version: 1 or 2.
        directory: where it is.
        controllers: those of ``CONTROLLERS`` that can be used below it.
        enable: those of them that are first to be enabled, which the program can do because
            nobody but itself is in the group.
        counts_swap: whether swap can be limited with memory.
    """

    version: int
    directory: str
    controllers: tuple[str, ...]
    enable: tuple[str, ...] = ()
    counts_swap: bool = True


@dataclass(frozen=True, slots=True)
class CgroupFacts:
    """What control groups offer to the calling program.

    Attributes:
        parents: where groups can be made; empty if that was not tried.
        memory_limit: the least memory limit of its own groups and those above, or None.
        refusals: ``(controller, why)`` pairs for those that can't be used.
        directories: its own groups, for a sweep.
    """

    parents: tuple[CgroupParent, ...] = ()
    memory_limit: int | None = None
    refusals: tuple[tuple[str, str], ...] = ()
    directories: tuple[str, ...] = ()

    def parent_of(self, controller: str) -> CgroupParent | None:
        """Where a controller can be used, or None."""
        return next((p for p in self.parents if controller in p.controllers), None)

    def refusal_of(self, controller: str) -> str:
        """Why a controller can't be used."""
        return dict(self.refusals).get(controller, "this kernel has no such controller")


NO_CGROUPS: Final = CgroupFacts()
"""A host without control groups."""


@dataclass(frozen=True, slots=True)
class _OwnGroup:
    """The calling program's group in one hierarchy.

    Attributes:
        version: 1 or 2.
        directory: where it is mounted.
        mount: where its hierarchy's mount begins.
        controllers: those of ``CONTROLLERS`` that the hierarchy may have.
    """

    version: int
    directory: str
    mount: str
    controllers: tuple[str, ...]


class _Kept:
    """What was found out for one process, as long as it is that process.

    Attributes:
        pid: the process.
        facts: what it was told first.
        tried: what it was told after trying, if everything can be used.
        cgroup: the groups in which that is so, as the kernel names them.
    """

    pid = 0
    facts = NO_CGROUPS
    tried: CgroupFacts | None = None
    cgroup = ""


def cgroup_facts(*, tried: bool) -> CgroupFacts:
    """Look at the control groups of this program (blocks for a fraction of a millisecond).

    Args:
        tried: True finds out what can be used, by making groups and removing them; an answer
            without a refusal is kept for as long as the program is in the same groups. False
            tells only whether the program's memory is limited; that is kept for its life.
    """
    if _Kept.pid != os.getpid():
        _Kept.pid, _Kept.tried = os.getpid(), None
        _Kept.facts = look_at_cgroups(
            _read("/proc/self/cgroup"), _read("/proc/self/mountinfo"), tried=False
        )
    if not tried:
        return _Kept.facts
    cgroup = _read("/proc/self/cgroup")
    if _Kept.tried is not None and _Kept.cgroup == cgroup:
        return _Kept.tried
    facts = look_at_cgroups(cgroup, _read("/proc/self/mountinfo"), tried=True)
    whole = not facts.refusals and not any(parent.enable for parent in facts.parents)
    _Kept.tried, _Kept.cgroup = facts if whole else None, cgroup
    return facts


def look_at_cgroups(cgroup: str, mountinfo: str, *, tried: bool) -> CgroupFacts:
    """Look at the groups that a process is in.

    Args:
        cgroup: what /proc/PID/cgroup says.
        mountinfo: what /proc/PID/mountinfo says.
        tried: whether to make groups and remove them.
    """
    own = _own_groups(cgroup, mountinfo)
    limits = [limit for group in own for limit in _memory_limits(group)]
    refusals: dict[str, str] = {}
    parents = tuple(_tried(group, refusals) for group in own) if tried else ()
    usable = tuple(parent for parent in parents if parent.controllers)
    found = {name for parent in usable for name in parent.controllers}
    return CgroupFacts(
        parents=usable,
        memory_limit=min(limits, default=None),
        refusals=tuple((n, why) for n, why in sorted(refusals.items()) if n not in found),
        directories=tuple(group.directory for group in own),
    )


# --- which groups -------------------------------------------------------------------------------


def _own_groups(cgroup: str, mountinfo: str) -> tuple[_OwnGroup, ...]:
    names = dict(_own_names(cgroup))
    found: dict[str, _OwnGroup] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        before, after = fields.split(), rest.split()
        if len(before) < 5 or len(after) < 3:  # noqa: PLR2004  # as proc(5) has them
            continue
        root, mount = _unescaped(before[3]), _unescaped(before[4])
        group = _group(after[0], after[2], names, root, mount)
        if group is not None and os.path.isdir(group.directory):
            found.setdefault(group.directory, group)
    return tuple(found.values())


def _own_names(cgroup: str) -> list[tuple[str, str]]:
    """Pairs of a controller (empty for version 2) and the group's path in its hierarchy."""
    pairs: list[tuple[str, str]] = []
    for line in cgroup.splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        pairs.extend((controller, path) for controller in controllers.split(","))
    return pairs


def _group(
    kind: str, options: str, names: dict[str, str], root: str, mount: str
) -> _OwnGroup | None:
    controllers: tuple[str, ...] = CONTROLLERS
    if kind == "cgroup2":
        path = names.get("")
    elif kind == "cgroup":
        chosen = options.split(",")
        controllers = tuple(name for name in CONTROLLERS if name in chosen)
        path = names.get(controllers[0]) if controllers else None
    else:
        return None
    if path is None:
        return None
    directory = _beneath(path, root, mount)
    if directory is None:
        return None
    # A program that moved itself aside makes its sessions' groups where it came from.
    if posixpath.basename(directory).startswith(HOST_PREFIX):
        directory = posixpath.dirname(directory)
    return _OwnGroup(2 if kind == "cgroup2" else 1, directory, mount, controllers)


def _beneath(path: str, root: str, mount: str) -> str | None:
    """Where a group is, if the mount shows it: in a container only a part may be mounted."""
    relative = posixpath.relpath(path, root)
    if relative.startswith("..") or "/.." in path:
        return None
    return mount if relative == "." else posixpath.join(mount, relative)


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


# --- what they say ------------------------------------------------------------------------------


def _memory_limits(group: _OwnGroup) -> list[int]:
    """The memory limits of a group and those above that can be seen."""
    if "memory" not in group.controllers:
        return []
    if group.version == 1:
        lines = _read(f"{group.directory}/memory.stat").splitlines()
        pairs = (line.split() for line in lines)
        said = [value for name, value in pairs if name == "hierarchical_memory_limit"]
        return [int(value) for value in said if int(value) < _NO_LIMIT_V1]
    limits = []
    directory = group.directory
    while True:
        text = _read(f"{directory}/memory.max").strip()
        if text.isdigit():
            limits.append(int(text))
        if directory in (group.mount, "/"):
            return limits
        directory = posixpath.dirname(directory)


def _tried(group: _OwnGroup, refusals: dict[str, str]) -> CgroupParent:
    enable: tuple[str, ...] = ()
    if group.version == _SECOND_VERSION:
        enable = _to_enable(group, refusals)
        if not enable and not set(group.controllers) - refusals.keys():
            return CgroupParent(group.version, group.directory, ())  # nothing to be tried
    probe = f"{group.directory}/{PROBE_PREFIX}{secrets.token_hex(8)}"
    try:
        os.mkdir(probe)
    except OSError as error:
        why = f"no group can be made in {group.directory}: {error.strerror}"
        refusals.update(dict.fromkeys(group.controllers, why))
        return CgroupParent(group.version, group.directory, ())
    try:
        files = _FIRST_FILES[group.version]
        there = [n for n in group.controllers if os.path.exists(f"{probe}/{files[n]}")]
        swap = os.path.exists(f"{probe}/{_SWAP_FILES[group.version]}")
    finally:
        with suppress(OSError):
            os.rmdir(probe)
    controllers = tuple(n for n in group.controllers if n in there or n in enable)
    for name in group.controllers:
        if name not in controllers:
            refusals.setdefault(name, f"{group.directory} does not have it for groups below")
    if "memory" in enable:  # what is not enabled yet can't be looked at
        swap = os.path.exists("/proc/swaps")
    return CgroupParent(group.version, group.directory, controllers, enable, swap)


def _to_enable(group: _OwnGroup, refusals: dict[str, str]) -> tuple[str, ...]:
    """Controllers of version 2 that the program may enable below its group without harm.

    A group with processes can't share out controllers among groups below it (cgroups(7), "no
    internal processes"). So they are either enabled already, or the program is alone in a group
    that was delegated to it, and can go aside. A foreign process is never moved, and the topmost
    group, which is everybody's, never changed.
    """
    place = group.directory
    there = _read(f"{place}/cgroup.controllers").split()
    enabled = _read(f"{place}/cgroup.subtree_control").split()
    wanted = tuple(name for name in group.controllers if name in there and name not in enabled)
    why = _not_alone(place)
    for name in group.controllers:
        if name not in there:  # it may be another hierarchy's, which has said why not
            refusals.setdefault(name, f"{place} was not given the controller")
        elif name in wanted and why is not None:
            refusals[name] = why
    return wanted if why is None else ()


def _not_alone(place: str) -> str | None:
    """Why this program may not share out the controllers of a group; None if it may."""
    if not os.path.exists(f"{place}/cgroup.type"):
        return f"{place} is the topmost group, and shares out no such controller"
    effective = os.access in os.supports_effective_ids
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        if not os.access(f"{place}/{name}", os.W_OK, effective_ids=effective):
            return f"{place} is not delegated to this program"
    if _read(f"{place}/cgroup.procs").split() != [str(os.getpid())]:
        return f"{place} holds other processes than this program"
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
