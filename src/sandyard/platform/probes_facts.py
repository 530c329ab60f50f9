"""What a look at the machine finds, as values: what was tried, what was read, nothing judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from sandyard.platform.auditing import AuditStanding

__all__ = ["CgroupFacts", "MachineFacts", "ProgramFacts", "Tried"]


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of trying one thing.

    Attributes:
        outcome: "ok"; "refused" by the kernel; "unknown" where it could not be tried.
        value: what was found by it, if anything.
        step: the call or step that was refused.
        errno: what the kernel answered, or None.
        text: more about it, such as the path that was meant.
    """

    outcome: Literal["ok", "refused", "unknown"]
    value: str = ""
    step: str = ""
    errno: int | None = None
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """Our native program, as it lies on this machine.

    Attributes:
        path: where, without symlinks.
        present: whether a file is there.
        executable: whether its mode lets us execute it.
        replaceable_at: the first part of its path that somebody other than root can write, or "".
    """

    path: str
    present: bool
    executable: bool
    replaceable_at: str


@dataclass(frozen=True, slots=True)
class CgroupFacts:
    """Our own control group in one hierarchy.

    Attributes:
        version: 1 or 2.
        path: its directory, or where it would be.
        controllers: what can be limited in it.
        writable: whether a group could be made in it.
    """

    version: int
    path: str
    controllers: tuple[str, ...]
    writable: Tried


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """This machine, as it looks to the calling program.

    Attributes:
        system: the kernel, as ``sys.platform`` names it.
        kernel: its release; shown, and never decided by.
        machine: the processor.
        distribution: ``ID`` of /etc/os-release and those it is like, or nothing.
        distribution_name: its name for people.
        python: version of the interpreter.
        version: version of this library.
        euid: the caller's effective user id.
        container: docker, podman, kubernetes or another name; "" where nothing says so.
        chrooted: whether "/" is a directory that was entered by chroot(2), as far as can be seen.
        threads: whether a thread can be started.
        privileged: whether the caller has CAP_SYS_ADMIN, or None where that can't be read.
        filtered: whether a seccomp filter binds us already.
        selinux: whether SELinux enforces.
        settings: numbers from /proc/sys; what is not there is missing.
        limits: soft and hard limits by name; -1 for none.
        procfs: whether /proc tells about this process.
        hidepid: the option of /proc, or "".
        covered: mounts on parts of /proc.
        program: the native program.
        tried: what was tried, by name.
        cgroups: the control groups that we are in.
        places: directories by what they are for.
        shell: the shell for commands.
        tools: names of well-known programs that commands will find.
        landlock: its ABI, or 0.
        audit: whether the machine's audit tells us what Landlock refuses, as ``audit_standing`` says it;
            "" where Landlock tells the audit nothing.
        supported: whether the processor is one that we know the system calls of.
        protocol: the version of the protocol that this library speaks with its native program.
    """

    system: str
    kernel: str
    machine: str
    distribution: tuple[str, ...] = ()
    distribution_name: str = ""
    python: str
    version: str
    euid: int
    container: str = ""
    chrooted: bool = False
    threads: bool = True
    privileged: bool | None = None
    filtered: bool = False
    selinux: bool = False
    settings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    limits: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    procfs: bool = True
    hidepid: str = ""
    covered: tuple[str, ...] = ()
    program: ProgramFacts
    tried: Mapping[str, Tried] = field(default_factory=lambda: MappingProxyType({}))
    cgroups: tuple[CgroupFacts, ...] = ()
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shell: str = ""
    tools: tuple[str, ...] = ()
    landlock: int = 0
    audit: AuditStanding | Literal[""] = ""
    supported: bool = True
    protocol: str = ""
