"""The rows about the kernel: which parts of the wall it gives, and which it refuses, and why."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sandyard.confinement.doctor_values import DoctorRow
from sandyard.platform.probes_facts import Tried
from sandyard.platform.probes_fixes import (
    KERNEL,
    Fix,
    call_fix,
    mount_fix,
    namespace_fix,
    proc_fix,
)

if TYPE_CHECKING:
    from sandyard.platform.probes_facts import MachineFacts

__all__ = ["blamed_row", "cause_words", "kernel_rows"]

_NAMESPACES: Final = "Namespaces and mounts"
_LAYERS: Final = "Further walls"
_CALLS: Final = "Calls that the library makes"


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the wall.

    Attributes:
        key: the row's name.
        group: the row's group.
        purpose: the row's purpose.
        trial: what the native program was asked, or "" where only the probe knows.
        probe: what the throw-away program tried, or "".
        setting: the kernel's setting that bounds the number of such namespaces.
    """

    key: str
    group: str
    purpose: str
    trial: str = ""
    probe: str = ""
    setting: str = ""


_PARTS: Final = (
    _Part("user_namespace", _NAMESPACES, "users of its own: no power outside", "base", "user",
          "max_user_namespaces"),
    _Part("mount_namespace", _NAMESPACES, "a view of files of its own", "base", "mount",
          "max_mnt_namespaces"),
    _Part("mounting", _NAMESPACES, "mounts within that view", "base", "mount_inside"),
    _Part("pid_namespace", _NAMESPACES, "sees and kills only its own processes", "base", "pid",
          "max_pid_namespaces"),
    _Part("uts_namespace", _NAMESPACES, "a hostname of its own", "base", "uts",
          "max_uts_namespaces"),
    _Part("ipc_namespace", _NAMESPACES, "shared memory and queues of its own", "ipc", "ipc",
          "max_ipc_namespaces"),
    _Part("cgroup_namespace", _NAMESPACES, "does not see the host's control groups", "cgroup",
          "cgroup", "max_cgroup_namespaces"),
    _Part("network_namespace", _NAMESPACES, "no network but a loopback of its own", "network",
          "network", "max_net_namespaces"),
    _Part("loopback", _NAMESPACES, "servers inside can be reached inside", "network"),
    _Part("tmpfs", _NAMESPACES, "an empty root to be filled", "base"),
    _Part("pivot_root", _NAMESPACES, "the host's root goes out of sight", "base"),
    _Part("bind_mounts", _NAMESPACES, "shows the system's programs, read-only", "binds"),
    _Part("proc", _NAMESPACES, "a fresh /proc that shows only its own processes", "proc"),
    _Part("devpts", _NAMESPACES, "terminals of its own", "devpts"),
    _Part("no_new_privileges", _LAYERS, "no program inside can gain rights", "base",
          "no_new_privileges"),
    _Part("seccomp", _LAYERS, "refuses system calls that commands do not need", "filter",
          "seccomp"),
    _Part("landlock", _LAYERS, "a second wall around files, by paths", "landlock",
          "landlock"),
    _Part("pidfd", _CALLS, "ends exactly the process that is meant", "", "pidfd"),
    _Part("memfd", _CALLS, "hands over large commands, unchangeable", "", "memfd"),
    _Part("openat2", _CALLS, "file calls that can't leave the workspace", "", "openat2"),
    _Part("subreaper", _CALLS, "knows all that a command started", "", "subreaper"),
)  # fmt: skip

_BY_STEP: Final = {
    "user": "user_namespace",
    "identity": "user_namespace",
    "private_mounts": "mounting",
    "root": "tmpfs",
    "source": "bind_mounts",
    "mount": "bind_mounts",
    "pivot": "pivot_root",
    "hostname": "uts_namespace",
    "capabilities": "no_new_privileges",
    "privileges": "no_new_privileges",
    "seccomp": "seccomp",
    "limits": "processes",
    "serve": "processes",
    "protocol": "init_program",
}
"""The row that a refused step of the base belongs to."""

_SINCE: Final = {"pidfd": "5.4", "openat2": "5.6", "memfd": "3.17", "subreaper": "3.4"}

_LANDLOCK_GIVES: Final = (
    "files",
    "renames between directories",
    "truncation",
    "TCP ports",
    "device ioctls",
    "abstract sockets and signals",
    "audit",
)
"""What each ABI of Landlock adds, from 1 on."""

_AUDIT_TELLS: Final = {
    "": "",
    "read": "; the machine's audit is on, and denials are read from it",
    "off": "; no denials are read from the machine's audit, which is not on",
    "closed": "; no denials are read from the machine's audit, which tells root outside containers alone",
    "distant": "; no denials are read from the machine's audit, which tells its first network namespace "
    "alone",
    "halting": "; no denials are read from the machine's audit, which halts it where a record is lost",
    "none": "; the kernel has no audit that denials could be read from",
}
"""Whether results tell of what only Landlock knows, from ABI 7 on."""

_LANDLOCK_USED: Final = 2
_LANDLOCK_SCOPES: Final = 6


def cause_words(tried: Tried) -> str:
    """Why something was refused, in the kernel's words and with the call that it said them to."""
    if tried.errno:
        words = os.strerror(tried.errno)
        if tried.text and words not in tried.text:
            words = f"{tried.text}: {words}"
        place = f"{tried.step}, " if tried.step else ""
        return f"{words} [{place}errno {tried.errno}]"
    if tried.text:
        return f"{tried.text} [{tried.step}]" if tried.step else tried.text
    return f"it did not do what it should [{tried.step}]" if tried.step else "it was not tried"


def blamed_row(facts: MachineFacts, trials: Mapping[str, Tried]) -> tuple[str, Tried] | None:
    """The one row to which the refusal of the base belongs, and what was refused; or None."""
    base, lease = trials.get("base"), trials.get("lease")
    if lease is not None and lease.outcome == "refused":
        return "identities", lease
    spawned = facts.tried.get("all")
    for tried in (base, spawned, trials.get("session")):
        if tried is not None and tried.errno == errno.EAGAIN:
            return "processes", tried
        if tried is not None and tried.errno in (errno.EMFILE, errno.ENFILE):
            return "open_files", tried
    if not facts.threads:
        return "processes", Tried("refused", step="thread", text="no thread can be started")
    if base is None or base.outcome != "refused":
        return None
    if not facts.procfs or (base.step == "user" and base.errno == errno.EROFS):
        return "host_proc", base
    if base.step == "namespaces":
        return _blamed_namespace(facts, base), base
    probed = _blamed_call(facts, base)
    return probed or (_BY_STEP.get(base.step, "init_program"), base)


def _blamed_call(facts: MachineFacts, base: Tried) -> tuple[str, Tried] | None:
    """The part whose refusal alone explains a start that failed before any step, or at a source."""
    if base.step == "source":
        suspects = [part for part in _PARTS if part.key == "openat2"]
    elif base.step == "start":
        suspects = [part for part in _PARTS if part.probe]
    else:
        return None
    for part in suspects:
        tried = facts.tried.get(part.probe)
        if tried is not None and tried.outcome == "refused" and tried.errno == base.errno:
            return part.key, tried
    return None


def _blamed_namespace(facts: MachineFacts, base: Tried) -> str:
    """All namespaces are made by one call; which one it was shows by trying each alone."""
    alone = [part for part in _PARTS if part.setting and part.trial == "base"]
    if facts.euid == 0:  # root makes its user namespace last, by a call of its own
        alone = alone[1:]
    for part in alone:
        tried = facts.tried.get(part.probe)
        if tried is not None and tried.outcome == "refused" and tried.errno == base.errno:
            return part.key
    return alone[0].key


def kernel_rows(facts: MachineFacts, trials: Mapping[str, Tried]) -> tuple[DoctorRow, ...]:
    """The rows about the kernel, in the order in which a sandbox is built."""
    blamed = blamed_row(facts, trials)
    return tuple(_part_row(part, facts, trials, blamed) for part in _PARTS)


def _part_row(
    part: _Part,
    facts: MachineFacts,
    trials: Mapping[str, Tried],
    blamed: tuple[str, Tried] | None,
) -> DoctorRow:
    tried = _part_tried(part, facts, trials, blamed)
    if part.key == "landlock":
        return _landlock_row(part, facts, tried)
    state: Literal["ok", "missing", "unknown"] = "ok"
    fix = Fix("")
    if not tried.ok:
        state = "missing" if tried.outcome == "refused" else "unknown"
        fix = _part_fix(part, facts, tried) if state == "missing" else fix
    return DoctorRow(
        key=part.key,
        group=part.group,
        purpose=part.purpose,
        state=state,
        required=True,
        kernel=True,
        cause="" if tried.ok else cause_words(tried),
        step=tried.step,
        errno=tried.errno,
        fix=fix.text,
        commands=fix.commands,
    )


def _part_tried(
    part: _Part,
    facts: MachineFacts,
    trials: Mapping[str, Tried],
    blamed: tuple[str, Tried] | None,
) -> Tried:
    """What came of trying a part: what the native program says counts before all else."""
    probed = facts.tried.get(part.probe) if part.probe else None
    if blamed is not None and part.key == blamed[0]:
        return blamed[1]
    asked = trials.get(part.trial) if part.trial else probed
    if part.trial == "network" and asked is not None and not asked.ok:
        asked = _half_of_network(part.key, asked)
    if asked is not None and (asked.ok or part.trial != "base"):
        return asked
    if probed is not None and probed.ok:
        return probed
    if blamed is not None:
        return Tried("unknown", text=f"it could not be tried: {blamed[0]} comes first")
    return facts.tried.get("all") or Tried("unknown", text="it was not tried")


def _half_of_network(key: str, asked: Tried) -> Tried:
    """The part is two: a loopback that stays down shows that its namespace was made."""
    if asked.step == "loopback":
        return asked if key == "loopback" else Tried("ok")
    if key == "loopback":
        return Tried("unknown", text="it could not be tried: network_namespace comes first")
    return asked


def _part_fix(part: _Part, facts: MachineFacts, tried: Tried) -> Fix:
    if part.key in _SINCE:
        return call_fix(facts, tried, part.key, _SINCE[part.key])
    if part.setting:
        return namespace_fix(facts, tried, part.setting)
    if part.key == "proc":
        return proc_fix(facts, tried)
    if part.key in ("seccomp", "no_new_privileges"):
        if tried.errno in (errno.EPERM, errno.EACCES):
            return mount_fix(facts, tried)
        return Fix("use a kernel with CONFIG_SECCOMP_FILTER")
    return mount_fix(facts, tried) if tried.errno in (errno.EPERM, errno.EACCES) else Fix(KERNEL)


def _landlock_row(part: _Part, facts: MachineFacts, tried: Tried) -> DoctorRow:
    """Landlock is a second wall: without it, or with an old one, sessions start all the same."""
    gives = ", ".join(_LANDLOCK_GIVES[: facts.landlock]) + _AUDIT_TELLS[facts.audit]
    state: Literal["ok", "partial", "missing", "unknown"] = "ok"
    cause = fix = ""
    if facts.landlock == 0:
        state, cause = "missing", "the kernel has none, or a filter hides it"
    elif not tried.ok and tried.outcome == "refused":
        state, cause = "missing", cause_words(tried)
    elif facts.landlock < _LANDLOCK_USED:
        state, cause = "partial", "ABI 1 forbids renames between directories, so it is not used"
    elif facts.landlock < _LANDLOCK_SCOPES:
        state, cause = "partial", "abstract sockets and signals need ABI 6 (Linux 6.12)"
    elif not tried.ok:
        state, cause = "unknown", cause_words(tried)
    if state in ("missing", "partial"):
        fix = (
            "nothing must be changed: the mounts hold alone. For the second wall use a kernel with "
            'CONFIG_SECURITY_LANDLOCK and "landlock" in its lsm= list, in a container one whose '
            "filter knows Landlock"
        )
    return DoctorRow(
        key=part.key,
        group=part.group,
        purpose=part.purpose,
        state=state,
        required=tried.outcome == "refused" and facts.landlock >= _LANDLOCK_USED,
        kernel=True,
        found=f"ABI {facts.landlock}: {gives}" if facts.landlock else "",
        cause=cause,
        step=tried.step if state == "missing" else "",
        errno=tried.errno if state == "missing" else None,
        fix=fix,
    )
