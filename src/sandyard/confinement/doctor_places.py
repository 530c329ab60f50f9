"""The rows about the place that the wall stands in: the machine, our program, limits, directories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

from sandyard.confinement.doctor_rows import blamed_row, cause_words
from sandyard.confinement.doctor_values import DoctorRow
from sandyard.platform.probes_facts import Tried
from sandyard.platform.probes_fixes import ID_MAPS, Fix, host_proc_fix, process_fix, program_fix

if TYPE_CHECKING:
    from sandyard.platform.probes_facts import CgroupFacts, MachineFacts

__all__ = ["machine_rows", "place_rows"]

_MACHINE: Final = "This machine"
_LIMITS: Final = "Limits"
_PLACES: Final = "Places"

State = Literal["ok", "partial", "missing", "unknown"]

_FEW_FILES: Final = 256
"""Open files below which only a few commands run at once: the host program keeps half of them."""

_FEW_PROCESSES: Final = 512
"""Processes below which parallel builds fail."""

_FEW_NAMESPACES: Final = 64
"""Namespaces below which a program that holds many sessions fails."""

_FEW_MOUNTS: Final = 1000
"""Mounts of one namespace below which toolchains and grants may not fit; a session has about 60."""

_FEW_PIPE_PAGES: Final = 1024
"""Pages that one user's pipes may hold, below which the pipes of 20 commands shrink to one page."""

_SMALL_ROOM_BYTES: Final = 64 * 1024**2
"""Free room below which ordinary builds fail."""

_SMALL_ROOM_FILES: Final = 1000

_MEBIBYTE: Final = 1024**2


_UNTRIED: Final = Tried("unknown", text="it was not tried")


def _row(  # noqa: PLR0913  # one for each field of a row
    group: str,
    key: str,
    purpose: str,
    state: State = "ok",
    *,
    found: str = "",
    cause: str = "",
    fix: Fix = Fix(""),  # noqa: B008  # a frozen value
    tried: Tried | None = None,
    required: bool = False,
) -> DoctorRow:
    told = tried is not None and not tried.ok
    return DoctorRow(
        key=key,
        group=group,
        purpose=purpose,
        state=state,
        required=required,
        kernel=key == "processor",
        found=found,
        cause=cause or (cause_words(tried) if tried is not None and told else ""),
        step=tried.step if tried is not None and told else "",
        errno=tried.errno if tried is not None and told else None,
        fix=fix.text,
        commands=fix.commands,
    )


# --- the machine and our program ------------------------------------------------------------------


def machine_rows(facts: MachineFacts, trials: Mapping[str, Tried]) -> Iterator[DoctorRow]:
    """What machine this is, and our program on it."""
    linux = facts.system == "linux"
    yield _row(
        _MACHINE,
        "system",
        "the walls are made of Linux's namespaces",
        "ok" if linux else "missing",
        found=facts.distribution_name or facts.system,
        cause="" if linux else f"this is {facts.system}",
        fix=Fix("" if linux else "run on Linux"),
        required=True,
    )
    yield _row(_MACHINE, "kernel", "only shown: what it can do was tried", found=facts.kernel)
    yield _row(
        _MACHINE,
        "processor",
        "system calls are filtered by their numbers",
        "ok" if facts.supported else "missing",
        found=facts.machine,
        cause="" if facts.supported else f"the numbers of {facts.machine} are not known",
        fix=Fix("" if facts.supported else "run on x86-64 or ARM64"),
        required=True,
    )
    yield _row(_MACHINE, "python", "runs the library", found=facts.python)
    container = f", in a container ({facts.container})" if facts.container else ""
    yield _row(_MACHINE, "sandyard", "this library", found=f"{facts.version}{container}")
    yield _program_row(facts, trials)
    yield _proc_row(blamed_row(facts, trials))
    clock = facts.tried.get("clock", _UNTRIED)
    yield _row(
        _MACHINE, "clock", "timeouts need one that never goes back", _state(clock), tried=clock
    )


def _program_row(facts: MachineFacts, trials: Mapping[str, Tried]) -> DoctorRow:
    purpose = "the first process of each sandbox"
    tried = facts.tried.get("init_program") or facts.tried.get("all", _UNTRIED)
    state, cause = _state(tried), ""
    blamed = blamed_row(facts, trials)
    if not facts.program.present:
        state, cause = "missing", f"{facts.program.path} is not there"
    elif tried.ok and tried.value != facts.protocol:
        state = "missing"
        cause = f"it speaks version {tried.value} of the protocol, and the library {facts.protocol}"
    elif tried.ok and blamed is not None and blamed[0] == "init_program":
        tried, state = blamed[1], "missing"
    return _row(
        _MACHINE,
        "init_program",
        purpose,
        state,
        found=f"{facts.program.path}, protocol {tried.value}" if state == "ok" else "",
        cause=cause,
        fix=program_fix(facts, tried) if state == "missing" else Fix(""),
        tried=tried,
        required=True,
    )


def _proc_row(blamed: tuple[str, Tried] | None) -> DoctorRow:
    tried = blamed[1] if blamed is not None and blamed[0] == "host_proc" else None
    return _row(
        _MACHINE,
        "host_proc",
        "the kernel's process list, which is written to",
        "ok" if tried is None else "missing",
        fix=Fix("") if tried is None else host_proc_fix(tried),
        tried=tried,
        required=True,
    )


def _state(tried: Tried) -> State:
    if tried.ok:
        return "ok"
    return "missing" if tried.outcome == "refused" else "unknown"


# --- limits ---------------------------------------------------------------------------------------


def place_rows(facts: MachineFacts, trials: Mapping[str, Tried]) -> Iterator[DoctorRow]:
    """Limits, then directories and what lies in them."""
    blamed = blamed_row(facts, trials)
    yield _files_row(facts, blamed)
    yield _processes_row(facts, blamed)
    yield _counted_row(facts)
    yield _number_row(
        "namespace_number",
        "how many sessions this user may have at once",
        min(
            (number for name, number in facts.settings.items() if name.startswith("user/max_")),
            default=None,
        ),
        _FEW_NAMESPACES,
        "user.max_*_namespaces",
    )
    yield _number_row(
        "mount_number",
        "how many directories can be shown",
        facts.settings.get("fs/mount-max"),
        _FEW_MOUNTS,
        "fs.mount-max",
    )
    pages = facts.settings.get("fs/pipe-user-pages-soft")
    yield _number_row(
        "pipe_pages",
        "room in the pipes of many commands at once",
        None if pages == 0 or facts.euid == 0 else pages,  # 0 is no limit, and root has none
        _FEW_PIPE_PAGES,
        "fs.pipe-user-pages-soft",
    )
    yield _cgroup_row(facts)
    yield from _directory_rows(facts)
    yield from _root_rows(trials) if facts.euid == 0 else [_users_row(trials)]
    hidden = f"hidepid={facts.hidepid}" if facts.hidepid else "not hidden"
    yield _row(_PLACES, "process_view", "other users' processes in the host's /proc", found=hidden)
    yield _row(
        _PLACES,
        "shell",
        "runs commands that are given as text",
        "ok" if facts.shell else "missing",
        found=facts.shell,
        cause="" if facts.shell else "there is no /bin/sh",
        fix=Fix("" if facts.shell else "install a shell at /bin/sh"),
    )
    yield _row(
        _PLACES,
        "tools",
        "programs that commands will find",
        found=" ".join(facts.tools) or "none of the usual ones",
    )


def _files_row(facts: MachineFacts, blamed: tuple[str, Tried] | None) -> DoctorRow:
    soft, hard = facts.limits.get("open_files", (-1, -1))
    state: State = "partial" if 0 <= soft < _FEW_FILES else "ok"
    tried = None
    if blamed is not None and blamed[0] == "open_files":
        state, tried = "missing", blamed[1]
    fix = Fix("")
    if state != "ok" and (hard < 0 or hard >= _FEW_FILES):
        fix = Fix("raise the limit on open files", ("ulimit -n 4096",))
    elif state != "ok":
        fix = Fix(
            f'raise the hard limit on open files: "nofile" in /etc/security/limits.conf (it is '
            f"{hard} now), LimitNOFILE= of a systemd unit, --ulimit of a container"
        )
    return _row(
        _LIMITS,
        "open_files",
        "each running command holds up to six",
        state,
        found=_limit_words(soft, hard),
        cause=f"few commands run at once with {soft}" if state == "partial" else "",
        fix=fix,
        tried=tried,
        required=True,
    )


def _processes_row(facts: MachineFacts, blamed: tuple[str, Tried] | None) -> DoctorRow:
    soft, hard = facts.limits.get("processes", (-1, -1))
    state: State = "ok"
    if 0 <= soft < _FEW_PROCESSES and facts.euid != 0:
        state = "partial"
    tried = None
    if blamed is not None and blamed[0] == "processes":
        state, tried = "missing", blamed[1]
    return _row(
        _LIMITS,
        "processes",
        "commands start more of them",
        state,
        found=_limit_words(soft, hard),
        cause=f"parallel builds may fail with {soft}" if state == "partial" else "",
        fix=process_fix(facts) if state != "ok" else Fix(""),
        tried=tried,
        required=True,
    )


def _limit_words(soft: int, hard: int) -> str:
    shown = ["no limit" if number < 0 else str(number) for number in (soft, hard)]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]}, at most {shown[1]}"


def _counted_row(facts: MachineFacts) -> DoctorRow:
    tried = facts.tried.get("counted_processes") or facts.tried.get("all") or _UNTRIED
    lost = tried.outcome == "refused" and tried.step == "fork"
    state: State = "ok" if tried.ok else "partial" if lost else "unknown"
    return _row(
        _LIMITS,
        "processes_apart",
        "the limit on processes counts each sandbox alone",
        state,
        cause="processes of all sandboxes of one user are counted together" if lost else "",
        fix=Fix("use Linux 5.14 or later" if lost else ""),
        tried=tried,
    )


def _number_row(key: str, purpose: str, number: int | None, few: int, name: str) -> DoctorRow:
    state: State = "partial" if number is not None and number < few else "ok"
    fix = Fix("")
    if state == "partial":
        fix = Fix(f"raise {name}", (f"sysctl -a | grep '{name.replace('*', '.*')}'",))
    return _row(
        _LIMITS,
        key,
        purpose,
        state,
        found="no limit" if number is None else str(number),
        cause=f"{name} is {number}" if state == "partial" else "",
        fix=fix,
    )


def _cgroup_row(facts: MachineFacts) -> DoctorRow:
    usable = [group for group in facts.cgroups if group.writable.ok and group.controllers]
    names = sorted({name for group in usable for name in group.controllers})
    versions = " and ".join(str(number) for number in sorted({g.version for g in facts.cgroups}))
    complete = {"memory", "pids"} <= set(names)
    cause = ""
    if not facts.cgroups:
        cause = "no control groups are mounted"
    elif not complete:
        cause = "memory and pids are not ours to limit" + _cgroup_refusal(facts.cgroups)
    delegate = "systemd-run --user --scope --property=Delegate=yes sandyard doctor"
    return _row(
        _LIMITS,
        "cgroups",
        "limits on memory and processors",
        "ok" if complete else "partial",
        found=f"version {versions}: {' '.join(names) or 'none writable'}" if versions else "",
        cause=cause,
        fix=Fix("")
        if complete
        else Fix(
            "nothing must be changed now; where systemd runs, it delegates a group", (delegate,)
        ),
    )


def _cgroup_refusal(groups: tuple[CgroupFacts, ...]) -> str:
    for group in groups:
        if group.writable.errno:
            return f": {cause_words(group.writable)}"
    return ""


# --- directories ----------------------------------------------------------------------------------


def _directory_rows(facts: MachineFacts) -> Iterator[DoctorRow]:
    yield _temporary_row(facts)
    for name, purpose, variable in (
        ("state", "says which session uses which directory", "XDG_STATE_HOME"),
        (
            "runtime",
            "holds the supervisor's socket; without one the state directory does",
            "XDG_RUNTIME_DIR",
        ),
    ):
        path = facts.places.get(name, "")
        tried = facts.tried.get(f"writable:{name}") or facts.tried.get("all") or _UNTRIED
        needed = name == "state"
        state: State = "ok" if tried.ok else "missing" if needed else "partial"
        if not path:  # without a state directory there is no temporary one either
            state, tried = ("missing" if needed else "ok"), Tried("refused", text="there is none")
        elif tried.outcome == "unknown":
            state = "unknown"
        bad = state in ("missing", "partial")
        yield _row(
            _PLACES,
            f"{name}_directory",
            purpose,
            state,
            found=path or "not set",
            cause=f"{path}: {cause_words(tried)}" if bad and path else "",
            fix=Fix(f"set {variable} to a directory that you can write" if bad else ""),
            tried=tried if state != "ok" else None,
            required=needed,
        )


def _temporary_row(facts: MachineFacts) -> DoctorRow:
    tried = facts.tried.get("runnable:temporary") or facts.tried.get("all") or _UNTRIED
    path = facts.places.get("temporary", "")
    state, cause, found, fix = _state(tried), "", path, Fix("")
    if state == "missing":
        cause = f"{path}: {cause_words(tried)}"
        fix = Fix("set TMPDIR to a directory that you can write", ("export TMPDIR=DIRECTORY",))
    elif state == "ok":
        room, files, code = (int(word) for word in tried.value.split())
        found = f"{path}, {room // _MEBIBYTE} MiB free"
        if code != 0:
            state, cause = (
                "partial",
                "programs that commands build there can't be executed (noexec)",
            )
        elif room < _SMALL_ROOM_BYTES or 0 <= files < _SMALL_ROOM_FILES:
            state, cause = "partial", f"it is nearly full: {found}, room for {files} files"
        if cause:
            fix = Fix("set TMPDIR to a directory on another file system")
    return _row(
        _PLACES,
        "temporary_directory",
        "holds private workspaces",
        state,
        found=found,
        cause=cause,
        fix=fix,
        tried=tried,
        required=True,
    )


def _users_row(trials: Mapping[str, Tried]) -> DoctorRow:
    """What an ordinary user's sandboxes need for more users than one."""
    tried = trials.get("users", _UNTRIED)
    return _row(
        _PLACES,
        "subordinate_ids",
        "users and groups of a manifest, besides agent",
        _state(tried),
        found=tried.value if tried.ok else "",
        fix=Fix("" if tried.ok else tried.value),
        tried=tried,
    )


def _root_rows(trials: Mapping[str, Tried]) -> Iterator[DoctorRow]:
    """What only root's sandboxes need."""
    lease = trials.get("lease", _UNTRIED)
    yield _row(
        _PLACES,
        "identities",
        "a user id for each sandbox of root's",
        _state(lease),
        found=lease.value if lease.ok else "",
        fix=Fix("" if lease.ok else lease.value),
        tried=lease,
        required=True,
    )
    for name, purpose in (
        ("temporary", "files of private workspaces stay root's"),
        ("current", "files of this directory stay their owner's"),
    ):
        tried = trials.get(f"owners_{name}", _UNTRIED)
        state = _state(tried)
        if name == "current" and state == "missing":
            state = "partial"
        yield _row(
            _PLACES,
            f"owners_{name}",
            purpose,
            state,
            fix=Fix(ID_MAPS if state in ("missing", "partial") else ""),
            tried=tried,
            required=name == "temporary",
        )
