"""LaunchPlan and Spawn: everything a sandbox, and a command in it, is born with, as frozen values.

The confinement room builds these values and the process room carries them out; neither knows the
other. A plan names no process, descriptor or leased identity, so equal policies give equal plans
and plans can be compared whole in tests and cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Literal, NamedTuple

__all__ = [
    "Bind",
    "CgroupPlace",
    "CgroupPlan",
    "Deny",
    "DevPts",
    "Device",
    "Directory",
    "HostIdentity",
    "Identity",
    "KeptPart",
    "LandlockRule",
    "LandlockRuleset",
    "LateMount",
    "LaunchPlan",
    "Mask",
    "MountStep",
    "Namespaces",
    "Narrowed",
    "Private",
    "Proc",
    "ReadOnly",
    "ResourceLimit",
    "Scratch",
    "Spawn",
    "SpawnUser",
    "Symlink",
    "TextFile",
]


class Namespaces(IntFlag):
    """Namespaces a session gets of its own; the values are the kernel's CLONE_NEW* bits."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


class HostIdentity(Enum):
    """Who the sandbox is on the host, seen from outside its user namespace."""

    CALLER = "caller"
    """The calling user itself: an unprivileged user namespace maps ``agent`` to the caller."""

    LEASED = "leased"
    """A uid leased for this session alone: what root gives its sandboxes, never uid 0."""

    SUBORDINATE = "subordinate"
    """The calling user for ``agent``, and ids that subuid(5) gives that user for the others."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who exists inside: ``agent``, and where there are ids for them as many others as are asked for.

    Attributes:
        uid: inside user id of ``agent``; those of others follow it.
        gid: inside group id of ``agent``, likewise.
        host: who that is on the host.
        further: how many ids the others have, of users and of groups alike.
        disk: the first of as many ids that they have on disk; 0 where there are none.
    """

    uid: int
    gid: int
    host: HostIdentity
    further: int = 0
    disk: int = 0


# --- what stands in the new root, in the order in which it is put there ------------------------
#
# Every path is absolute, normalised, without symlinks in its parents, and seen from inside.


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory on the sandbox's own tmpfs; parents appear with mode 0755."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class TextFile:
    """A small file on the sandbox's own tmpfs, written once and read-only from then on."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link on the sandbox's own tmpfs."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Bind:
    """A host file or directory, made visible inside (always nosuid, submounts included).

    Attributes:
        source: host path; no component of it may be a symlink when it is opened.
        target: path inside; the mount point is created where our own tmpfs lies beneath it.
        writable: False mounts it read-only.
        devices: True keeps device nodes usable (for the few nodes of /dev only).
        as_owner: True makes the owner of ``source`` appear as ``agent`` (an idmapped mount), where
            the identity is leased; files written inside stay the owner's on disk. It has no
            effect where the caller is itself the owner.
        optional: True skips a source that does not exist; otherwise the start fails.
        inode: ``(st_dev, st_ino)`` that the source must still have, or None for no check.
        origin: ``"host"``: the source is a path of the host's. ``"passed"``: it is the layered tree
            that is handed over with the plan, and ``source`` only names it; one step can be so.
            ``"inside"``: it is a path inside, where it stands already. The latter two show the owner
            as ``agent`` by themselves, and always exist.
    """

    source: str
    target: str
    writable: bool = False
    devices: bool = False
    as_owner: bool = False
    optional: bool = False
    inode: tuple[int, int] | None = None
    origin: Literal["host", "passed", "inside"] = "host"


@dataclass(frozen=True, slots=True)
class Private:
    """An empty, writable directory of a user's on the sandbox's own tmpfs (nosuid, nodev).

    Attributes:
        path: where it stands.
        mode: its permission bits.
        owner: whose it is: 0 for ``agent``, n for the n-th user after it.
    """

    path: str
    mode: int
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Proc:
    """A fresh procfs of the session's own pid namespace."""

    target: str = "/proc"


@dataclass(frozen=True, slots=True)
class DevPts:
    """A devpts instance of the session's own; ``ptmx`` in it is open to everyone inside."""

    target: str = "/dev/pts"


@dataclass(frozen=True, slots=True)
class Device:
    """A character device node of the sandbox's own that ``agent`` may open, where it is leased.

    What the host's node allows does not matter, so only root can plan one.

    Attributes:
        target: where it stands inside.
        major: number of its driver.
        minor: number of the device.
    """

    target: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """What stands at ``target`` inside becomes read-only; skipped where nothing stands."""

    target: str


@dataclass(frozen=True, slots=True)
class Mask:
    """What stands at ``target`` inside is covered by emptiness; skipped where nothing stands."""

    target: str


@dataclass(frozen=True, slots=True)
class Deny:
    """What stands at ``target`` inside can't be opened, listed, written or moved (EACCES).

    Unlike a mask, which reads as nothing, so that programs go on without what it hides. Skipped
    where nothing stands.
    """

    target: str


MountStep = (
    Directory
    | TextFile
    | Symlink
    | Bind
    | Private
    | Proc
    | DevPts
    | Device
    | ReadOnly
    | Mask
    | Deny
)


@dataclass(frozen=True, slots=True)
class Scratch:
    """What the sandbox's own tmpfs may hold: all private directories together.

    Attributes:
        size: bytes; they count as memory.
        inodes: files and directories.
    """

    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class ResourceLimit:
    """One rlimit: soft and hard get one value, the caller's hard limit where that is smaller.

    Attributes:
        resource: the kernel's RLIMIT_* number.
        value: the limit in the resource's own unit.
    """

    resource: int
    value: int


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A control group for the session, in one hierarchy.

    Attributes:
        version: 1 or 2.
        parent: the directory that it is made in: the calling program's own group.
        settings: ``(file, value)`` pairs, written in this order.
        enable: controllers that must first be enabled for the groups in ``parent``, for which the
            calling program's own process moves into a group there (version 2).
    """

    version: int
    parent: str
    settings: tuple[tuple[str, str], ...]
    enable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CgroupPlan:
    """The control groups of a session, made before its first process does anything.

    Attributes:
        places: one for each hierarchy.
    """

    places: tuple[CgroupPlace, ...]


@dataclass(frozen=True, slots=True)
class LandlockRule:
    """Rights (LANDLOCK_ACCESS_FS_* bits) beneath an inside path.

    A path that is missing, or that the sandbox's user can't reach, is skipped.

    Attributes:
        path: the path; symlinks in it are followed.
        access: the rights.
        inode: ``(st_dev, st_ino)`` that it must have, or None for no check.
    """

    path: str
    access: int
    inode: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class LandlockRuleset:
    """A Landlock ruleset; what ``handled`` names is denied except beneath the rules' paths.

    Attributes:
        handled: LANDLOCK_ACCESS_FS_* bits that the ruleset decides on.
        scoped: LANDLOCK_SCOPE_* bits (0 where the kernel's ABI is older than 6).
        rules: the exceptions.
        logged: whether the kernel's audit hears what it denies to commands (ABI 7 and later).
    """

    handled: int
    scoped: int
    rules: tuple[LandlockRule, ...]
    logged: bool = False


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One sandbox, before it exists.

    Without namespaces there is no root of its own, and what makes one is absent: ``steps`` and
    ``hostname`` are empty, ``scratch`` is None, paths are the host's, and Landlock is the wall.

    The new root is an empty tmpfs; ``steps`` fill it in order; then it becomes read-only and the
    old root goes away. Capabilities, no_new_privs and dumpable are not options: they are always
    dropped, set and cleared.

    Attributes:
        identity: who runs inside; its inside ids count in a user namespace only.
        namespaces: which namespaces are new: the user, mount and PID namespaces and any others,
            or none.
        hostname: the name inside.
        loopback: True brings ``lo`` up in the new network namespace.
        scratch: how much the root's tmpfs may hold; None where there is none.
        steps: the root file system.
        limits: rlimits of every process inside.
        landlock: the Landlock layer, or None where the kernel has none.
        seccomp: the classic BPF program, as an array of ``struct sock_filter``.
        cgroup: the control groups, or None where no limit asks for one.
        outer_proc: True where there is no procfs inside. The first process then finds the processes
            of a command in the one outside, by a descriptor that no command gets; the rules of
            ``landlock`` bind commands, and let it look there.
        unconfined: True has no wall at all: no namespaces, no ``landlock``, and ``seccomp`` is empty.
            Without it a plan that lacks them is refused.
    """

    identity: Identity
    namespaces: Namespaces
    hostname: str
    loopback: bool
    scratch: Scratch | None
    steps: tuple[MountStep, ...]
    limits: tuple[ResourceLimit, ...]
    landlock: LandlockRuleset | None
    seccomp: bytes
    cgroup: CgroupPlan | None = None
    outer_proc: bool = False
    unconfined: bool = False


@dataclass(frozen=True, slots=True)
class KeptPart:
    """What lies in a mount and is kept in its place, by a mount of its own.

    Attributes:
        path: beneath the mount's source; begins with a slash.
        inode: its ``(st_dev, st_ino)``.
        read_only: False only holds it: it can be changed, not moved or replaced.
    """

    path: str
    inode: tuple[int, int]
    read_only: bool


@dataclass(frozen=True, slots=True)
class LateMount:
    """What is mounted in a sandbox that already stands (always nosuid, nodev).

    Attributes:
        kind: ``"bind"`` shows a directory of the host, ``"tmpfs"`` is an empty file system in memory,
            ``"overlay"`` shows a directory and keeps what is written in memory.
        target: an existing directory inside, absolute, which no symlink leads to.
        inode: ``(st_dev, st_ino)`` that it must have, seen from inside.
        writable: False mounts it read-only.
        as_owner: the owner of the source appears as ``agent``, as with ``Bind``.
        size: bytes of a file system in memory; else 0.
        inodes: its files and directories; else 0.
        parts: what of a source that can be written to is kept in its place.
    """

    kind: Literal["bind", "tmpfs", "overlay"]
    target: str
    inode: tuple[int, int]
    writable: bool
    as_owner: bool = False
    size: int = 0
    inodes: int = 0
    parts: tuple[KeptPart, ...] = ()


class Layer(NamedTuple):
    """One directory of a layered tree.

    Attributes:
        path: on the host, absolute; no component may be a symlink.
        inode: ``(st_dev, st_ino)`` that it must have.
    """

    path: str
    inode: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What one command has less than its session. Each part is one more wall; none replaces any.

    Attributes:
        landlock: another layer, or None. Its paths are walked without following a symlink.
        limits: lower rlimits.
        seccomp: another program, empty for none.
    """

    landlock: LandlockRuleset | None = None
    limits: tuple[ResourceLimit, ...] = ()
    seccomp: bytes = b""


@dataclass(frozen=True, slots=True)
class SpawnUser:
    """Whom a command runs as, where it is not ``agent`` alone.

    Attributes:
        number: 0 for ``agent``, n for the n-th id after it.
        groups: ids of groups besides the user's own, numbered likewise.
    """

    number: int
    groups: tuple[int, ...] = ()


class Spawn(NamedTuple):
    """One command, before it runs.

    Attributes:
        argv: the words of the command; a first word without a slash is looked up in the PATH of
            ``environment``.
        environment: the whole environment, as ``(name, value)`` pairs.
        cwd: absolute directory inside.
        end_leftovers: True ends what the command left running as soon as it exits.
        narrowed: what it has less than its session, or None.
        window: rows and columns of a terminal that is its standard streams; None for descriptors.
        user: whom it runs as; None for ``agent``, in no groups but its own.
    """

    argv: tuple[bytes, ...]
    environment: tuple[tuple[bytes, bytes], ...]
    cwd: bytes
    end_leftovers: bool = False
    narrowed: Narrowed | None = None
    window: tuple[int, int] | None = None
    user: SpawnUser | None = None
