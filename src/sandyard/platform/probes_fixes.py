"""The words of fixes: what to change, on which machine, for what is missing. Each stands here once."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final

from sandyard.platform.fixes import ID_MAPS, KERNEL, LIMITS, REINSTALL
from sandyard.platform.probes_facts import MachineFacts, Tried

__all__ = [
    "ID_MAPS",
    "KERNEL",
    "LIMITS",
    "REINSTALL",
    "Fix",
    "call_fix",
    "host_proc_fix",
    "mount_fix",
    "namespace_fix",
    "proc_fix",
    "process_fix",
    "program_fix",
]

_NAMESPACE_COUNT: Final = 15_000
"""Namespaces to allow where none are: what distributions that set a number of their own choose."""

_PROCESS_COUNT: Final = 4096
"""Processes to allow a user: what a session's commands are given."""

_PLAIN_PATH: Final = re.compile(r"[\w./+@:-]+", re.ASCII)
"""Paths that mean themselves to AppArmor and to a shell."""

_WEAKER: Final = (
    "It takes away a wall of the container's, and what else runs in it loses that wall too"
)


@dataclass(frozen=True, slots=True)
class Fix:
    """What to change.

    Attributes:
        text: a sentence.
        commands: lines to be run or written as they are, if any.
    """

    text: str
    commands: tuple[str, ...] = ()


def namespace_fix(facts: MachineFacts, tried: Tried, setting: str) -> Fix:
    """The fix for a namespace that can't be made; ``setting`` is the one that bounds its number."""
    settings = facts.settings
    if tried.errno in (errno.ENOSPC, errno.EUSERS) or settings.get(f"user/{setting}", 1) == 0:
        return _count_fix(facts, setting)
    if tried.errno in (errno.ENOSYS, errno.EINVAL):
        return Fix(
            "use a kernel with CONFIG_NAMESPACES, CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS"
        )
    if facts.chrooted:
        return Fix(
            "the kernel makes no user namespace within chroot(2); enter this tree in another way, "
            "which makes it a root of its own",
            ("sudo systemd-nspawn --directory=TREE",),
        )
    if facts.euid != 0 and settings.get("kernel/unprivileged_userns_clone", 1) == 0:
        return Fix(
            "allow ordinary users to make user namespaces, as newer Debian does by default",
            (
                "echo kernel.unprivileged_userns_clone=1 |",
                "  sudo tee /etc/sysctl.d/60-user-namespaces.conf",
                "sudo sysctl --system",
            ),
        )
    return mount_fix(facts, tried)


def mount_fix(facts: MachineFacts, tried: Tried) -> Fix:
    """The fix for what is refused to us within or by namespaces, by whatever guards this machine."""
    restricted = facts.settings.get("kernel/apparmor_restrict_unprivileged_userns", 0) != 0
    if facts.euid != 0 and restricted and tried.errno in (errno.EPERM, errno.EACCES):
        return _apparmor_fix(facts)
    if tried.errno in (errno.ENOSYS, errno.EINVAL):
        return Fix(KERNEL)
    lacking = facts.euid == 0 and facts.privileged is False
    if facts.container and (facts.filtered or lacking or tried.errno == errno.EACCES):
        return _container_fix(facts, tried)
    if facts.filtered:
        return Fix(
            "a seccomp filter binds this process already (Seccomp: 2 in /proc/self/status), and "
            "nothing that it starts can lose it: start from outside the program that set it; in a "
            "systemd unit, set RestrictNamespaces=no and SystemCallFilter="
        )
    if facts.selinux:
        return Fix(
            "SELinux enforces here: look for the denial, and allow it by a module of its own",
            ("sudo ausearch -m avc -ts recent",),
        )
    if lacking:
        return Fix(
            "this root lacks CAP_SYS_ADMIN: run as an ordinary user, or give it that capability"
        )
    return Fix(
        "look for a security module's denial in the kernel's log, and allow user namespaces and "
        "mounts in them for this program; or run as root",
        ("sudo dmesg | tail",),
    )


def proc_fix(facts: MachineFacts, tried: Tried) -> Fix:
    """The fix for a fresh /proc that is refused while other mounts are allowed."""
    if facts.covered and facts.container == "kubernetes":
        return Fix(
            "the container's /proc is partly covered, and then an ordinary user gets no fresh one; "
            f"uncover it in the pod. {_WEAKER}",
            ("spec.hostUsers: false", "spec.containers[].securityContext.procMount: Unmasked"),
        )
    if facts.covered and facts.container:
        option = "unmask=ALL" if facts.container == "podman" else "systempaths=unconfined"
        return Fix(
            "the container's /proc is partly covered, and then an ordinary user gets no fresh one; "
            f"start the container with it uncovered. {_WEAKER}",
            (f"{_engine(facts)} run --security-opt {option} ...",),
        )
    if facts.covered:
        points = facts.covered[:3]
        return Fix(
            "something is mounted on parts of /proc, and then an ordinary user gets no fresh one; "
            "take that away, or run as root",
            tuple(f"sudo umount {point}" for point in points),
        )
    return mount_fix(facts, tried)


def host_proc_fix(tried: Tried) -> Fix:
    """The fix for a /proc of the host that is not there, or can't be written."""
    if tried.errno == errno.EROFS:
        return Fix("make /proc writable", ("sudo mount -o remount,rw /proc",))
    return Fix(
        "mount the kernel's process list where it belongs", ("sudo mount -t proc proc /proc",)
    )


def call_fix(facts: MachineFacts, tried: Tried, call: str, since: str) -> Fix:
    """The fix for a system call that is not there, or that a filter refuses."""
    if tried.errno == errno.EPERM or tried.text.startswith("ended by signal"):
        if facts.container:
            return Fix(
                f"the container's seccomp filter is older than {call}: on its host, bring the "
                "container engine (Docker: 20.10 or later) and libseccomp up to date"
            )
        return Fix(f"a seccomp filter refuses {call}: start from outside the program that set it")
    if tried.errno == errno.ENOSYS:
        return Fix(f"use Linux {since} or later, or a container engine that knows {call}")
    return Fix(f"allow {call}")


def process_fix(facts: MachineFacts) -> Fix:
    """The fix for processes or threads that can't be started."""
    soft, hard = facts.limits.get("processes", (-1, -1))
    if 0 <= soft < _PROCESS_COUNT and (hard < 0 or hard >= _PROCESS_COUNT):
        return Fix("raise the limit on processes", (f"ulimit -u {_PROCESS_COUNT}",))
    return Fix(
        f'raise the limit on processes: "nproc" in /etc/security/limits.conf (it is {hard} now), '
        "LimitNPROC= and TasksMax= of a systemd unit, --pids-limit of a container; or end some"
    )


def program_fix(facts: MachineFacts, tried: Tried) -> Fix:
    """The fix for a native program that can't be used."""
    if not facts.program.present:
        return Fix(f"{REINSTALL}; building it needs a C compiler", _install_commands(facts))
    if tried.errno == errno.EACCES and facts.program.executable:
        return Fix(
            "install sandyard on a file system that is not mounted noexec",
            ("findmnt --target " + facts.program.path,),
        )
    if tried.errno == errno.EACCES:
        return Fix("make it executable", (f"chmod 755 {facts.program.path}",))
    if tried.errno == errno.ENOEXEC:
        return Fix(f"it was built for another processor: {REINSTALL}")
    return Fix(REINSTALL)


def _install_commands(facts: MachineFacts) -> tuple[str, ...]:
    again = "pip install --force-reinstall '.[cli]'  # in a checkout"
    if {"debian", "ubuntu"} & set(facts.distribution):
        return ("sudo apt install gcc libc6-dev", again)
    if {"fedora", "rhel", "centos"} & set(facts.distribution):
        return ("sudo dnf install gcc glibc-static kernel-headers", again)
    return (again,)


def _count_fix(facts: MachineFacts, setting: str) -> Fix:
    if facts.container:
        return Fix(
            "no more namespaces are allowed: raise the number on the container's host",
            (f"sudo sysctl -w user.{setting}={_NAMESPACE_COUNT}",),
        )
    return Fix(
        "no more namespaces are allowed here: raise their number, also in the user namespaces "
        "around this one, or end some",
        (
            f"echo user.{setting}={_NAMESPACE_COUNT} |",
            "  sudo tee /etc/sysctl.d/60-namespaces.conf",
            "sudo sysctl --system",
        ),
    )


def _engine(facts: MachineFacts) -> str:
    return "podman" if facts.container == "podman" else "docker"


def _container_fix(facts: MachineFacts, tried: Tried) -> Fix:
    user = "" if facts.euid != 0 else ", as an ordinary user,"
    if facts.container == "kubernetes":
        return Fix(
            f"let the pod make namespaces{user} in its securityContext. {_WEAKER}",
            (
                "runAsNonRoot: true",
                "seccompProfile: {type: Unconfined}",
                "appArmorProfile: {type: Unconfined}",
                "procMount: Unmasked",
            ),
        )
    if facts.container not in ("docker", "podman"):
        return Fix(
            f"allow user namespaces and mounts in them to this container ({facts.container})"
            f"{user} by its seccomp profile and security module. {_WEAKER}"
        )
    proc = "unmask=ALL" if facts.container == "podman" else "systempaths=unconfined"
    commands = [f"{_engine(facts)} run \\"]
    if facts.euid == 0:
        commands.append("  --user 1000:1000 \\")
    commands += [
        "  --security-opt seccomp=unconfined \\",
        "  --security-opt apparmor=unconfined \\",
        f"  --security-opt {proc} ...",
    ]
    cause = "its security module" if tried.errno == errno.EACCES else "its seccomp filter"
    return Fix(
        f"the container forbids it, most likely by {cause}: start it{user} with the options below, "
        f"or with profiles of your own that allow namespaces and mounts. {_WEAKER}",
        tuple(commands),
    )


def _apparmor_fix(facts: MachineFacts) -> Fix:
    """A profile for the one program that needs it, if nobody else can put another in its place."""
    program = facts.program
    if program.replaceable_at:
        return Fix(
            "AppArmor lets only programs with a profile use user namespaces. A profile for "
            f"{program.path} would open them to every program, since {program.replaceable_at} "
            "can be changed by others than root. Install sandyard where only root can write, "
            "and run its doctor again",
            (
                "sudo python3 -m venv /opt/sandyard",
                "sudo /opt/sandyard/bin/pip install '.[cli]'  # in a checkout",
                "/opt/sandyard/bin/sandyard doctor",
            ),
        )
    if not _PLAIN_PATH.fullmatch(program.path):
        return Fix(
            "AppArmor lets only programs with a profile use user namespaces, and the path of "
            "sandyard's holds characters that mean something else in a profile. Install it at a "
            "path of plain letters, such as /opt/sandyard, and run its doctor again"
        )
    return Fix(
        "AppArmor lets only programs with a profile use user namespaces: give sandyard's native "
        "program one",
        (
            "sudo tee /etc/apparmor.d/sandyard-init >/dev/null <<'END'",
            "abi <abi/4.0>,",
            "include <tunables/global>",
            f"profile sandyard-init {program.path} flags=(unconfined) {{",
            "  userns,",
            "}",
            "END",
            "sudo apparmor_parser -r /etc/apparmor.d/sandyard-init",
        ),
    )
