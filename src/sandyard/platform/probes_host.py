"""What can be read of this machine without trying anything: names, settings, limits, mounts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from sandyard.platform.probes_facts import ProgramFacts
from sandyard.platform.state_home import state_directory

__all__ = [
    "find_container",
    "find_covered",
    "find_places",
    "has_privilege",
    "is_chrooted",
    "is_filtered",
    "own_cgroups",
    "proc_option",
    "program_facts",
    "read_distribution",
    "read_limits",
    "read_settings",
    "read_text",
]

_SETTINGS: Final = (
    "fs/mount-max",
    "fs/pipe-user-pages-soft",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_userns_clone",
    "user/max_cgroup_namespaces",
    "user/max_ipc_namespaces",
    "user/max_mnt_namespaces",
    "user/max_net_namespaces",
    "user/max_pid_namespaces",
    "user/max_user_namespaces",
    "user/max_uts_namespaces",
)
"""The settings of the kernel that a refusal may come from."""

_LIMITS: Final = {"open_files": "RLIMIT_NOFILE", "processes": "RLIMIT_NPROC"}

_CAP_SYS_ADMIN: Final = 21

_MOST_BYTES: Final = 1024 * 1024
"""Bytes read of one file: the longest of them, the mounts of a busy machine, is far shorter."""


def read_text(path: str) -> str:
    """The beginning of a file, or nothing where it can't be read."""
    with suppress(OSError, ValueError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_BYTES)
    return ""


def read_distribution() -> tuple[tuple[str, ...], str]:
    """The names of the distribution and of those it is like, and the one for people."""
    text = read_text("/etc/os-release") or read_text("/usr/lib/os-release")
    pairs = (line.partition("=") for line in text.splitlines())
    values = {key: value.strip("\"' ") for key, _, value in pairs}
    names = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".split()
    return tuple(names), values.get("PRETTY_NAME", "")


def find_container(environ: Mapping[str, str]) -> str:
    """What kind of container this is, as far as its maker left a sign, or nothing."""
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if os.path.exists("/.dockerenv"):
        return "docker"
    return read_text("/run/systemd/container").strip() or environ.get("container", "")


def read_settings() -> dict[str, int]:
    """Those settings of the kernel that are there."""
    found = {}
    for name in _SETTINGS:
        text = read_text(f"/proc/sys/{name}").strip()
        if text.isascii() and text.isdigit():
            found[name] = int(text)
    return found


def read_limits() -> dict[str, tuple[int, int]]:
    """The limits of this process: soft and hard, -1 for none."""
    import resource  # noqa: PLC0415  # it does not exist everywhere

    found = {}
    for name, constant in _LIMITS.items():
        with suppress(AttributeError, OSError, ValueError):
            soft, hard = resource.getrlimit(getattr(resource, constant))
            found[name] = (soft, hard)
    return found


def _status(name: str) -> str:
    for line in read_text("/proc/self/status").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def has_privilege() -> bool | None:
    """Whether we have CAP_SYS_ADMIN; None where that can't be read."""
    try:
        return bool(int(_status("CapEff"), 16) >> _CAP_SYS_ADMIN & 1)
    except ValueError:
        return None


def is_filtered() -> bool:
    """Whether a seccomp filter binds this process."""
    return _status("Seccomp") == "2"


# --- mounts ---------------------------------------------------------------------------------------


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    """Mount point, type, options of the file system, and what is mounted, of each mount."""
    for line in read_text("/proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(), tail.split()
        if len(fields) > 5 and len(rest) > 1:  # noqa: PLR2004  # proc_pid_mountinfo(5)
            options = rest[2] if len(rest) > 2 else ""  # noqa: PLR2004
            yield fields[4], rest[0], options, fields[3]


def is_chrooted() -> bool:
    """Whether "/" is no mount point of ours, as after chroot(2) into a plain directory."""
    points = [point for point, *_ in _mounts()]
    return bool(points) and "/" not in points


def proc_option() -> str:
    """The value of ``hidepid`` of /proc, or nothing."""
    found = ""
    for point, kind, options, _ in _mounts():
        if point == "/proc" and kind == "proc":
            given = dict(option.partition("=")[::2] for option in options.split(","))
            found = given.get("hidepid", "")
    return "" if found in ("0", "off") else found


def find_covered() -> tuple[str, ...]:
    """Mounts on parts of /proc: with one, the kernel gives an ordinary user no fresh /proc."""
    # What is always there to be filled, such as binfmt_misc, hides nothing.
    points = {point for point, kind, *_ in _mounts() if kind not in ("binfmt_misc", "autofs")}
    return tuple(sorted(point for point in points if point.startswith("/proc/")))


def own_cgroups() -> list[tuple[int, str, tuple[str, ...]]]:
    """The control groups that this process is in: version, directory, controllers."""
    own = {}
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        own[controllers] = path
    found = []
    for point, kind, options, root in _mounts():
        if kind == "cgroup2" and "" in own:
            place = _join(point, own[""], root)
            names = read_text(os.path.join(place, "cgroup.controllers")).split()
            found.append((2, place, tuple(names)))
        elif kind == "cgroup":
            given = set(options.split(","))
            for controllers, path in own.items():
                named = set(controllers.split(","))
                if controllers and "=" not in controllers and named <= given:
                    found.append((1, _join(point, path, root), tuple(sorted(named))))
    return list(dict.fromkeys(found))


def _join(point: str, path: str, root: str) -> str:
    # In a container the mount begins at its own group, and our path may be told from there too.
    inner = path.removeprefix(root) if root != "/" and path.startswith(root) else path
    return os.path.normpath(f"{point}/{inner}")


# --- places ---------------------------------------------------------------------------------------


def find_places(environ: Mapping[str, str]) -> dict[str, str]:
    """Directories by what they are for; they need not exist, and "" is none."""
    state = ""
    with suppress(OSError):  # there is no place for it
        state = state_directory(environ)
    return {
        "temporary": environ.get("TMPDIR", "") or "/tmp",  # noqa: S108  # as tempfile has it
        "state": state,
        "runtime": environ.get("XDG_RUNTIME_DIR", ""),
    }


def program_facts(path: str) -> ProgramFacts:
    """Our native program, and who could put another in its place."""
    real = os.path.realpath(path)
    return ProgramFacts(
        path=real,
        present=os.path.isfile(real),
        executable=os.access(real, os.X_OK),
        replaceable_at=_replaceable_at(real),
    )


def _replaceable_at(path: str) -> str:
    """The highest part of ``path`` that somebody other than root may write or replace."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count]) or "/"
        try:
            found = os.lstat(name)
        except OSError:
            return name
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return name
    return ""
