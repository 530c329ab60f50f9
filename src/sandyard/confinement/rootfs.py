"""The root file system inside, before a session's own directories: the same for equal hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sandyard.confinement.etc import HOME, etc_steps, host_entry
from sandyard.plan import (
    Bind,
    DevPts,
    Directory,
    Mask,
    MountStep,
    Private,
    Proc,
    ReadOnly,
    Symlink,
    TextFile,
)

if TYPE_CHECKING:
    from sandyard.platform import HostFacts

__all__ = [
    "KERNEL_TREES",
    "PRIVATE_DIRECTORIES",
    "SYSTEM_DIRECTORIES",
    "USUAL_DEVICES",
    "base_steps",
]

KERNEL_TREES: Final = ("/dev", "/proc", "/sys")
"""Trees that are windows into the kernel, of which nothing is granted."""

_PRIVATE: Final = (
    Private("/tmp", 0o1777),  # noqa: S108  # a path inside, as the next two
    Private("/var/tmp", 0o1777),  # noqa: S108
    Private("/dev/shm", 0o1777),  # noqa: S108
    Private("/run", 0o755),
    Private(HOME, 0o700),
)

PRIVATE_DIRECTORIES: Final = tuple(step.path for step in _PRIVATE)
"""Directories that are the session's own, writable and empty at its start."""

SYSTEM_DIRECTORIES: Final = (
    "/bin",
    "/boot",
    "/etc",
    "/gnu",
    "/gnu/store",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/nix/store",
    "/opt",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/var",
    "/var/lib",
)
"""Directories of the system itself, which are nobody's workspace and are never granted for
writing; what lies beneath them may be."""

USUAL_DEVICES: Final = ("full", "null", "random", "tty", "urandom", "zero")
"""Names in /dev of what every program expects."""

_DEVICE_LINKS: Final = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
)

_MASKED_PROC: Final = (
    "kallsyms",  # addresses in the kernel, for who attacks it
    "kcore",  # the machine's memory
    "key-users",  # whose keys there are
    "keys",  # keys of the user id that we share with others
    "sched_debug",  # other processes, by name
    "sysrq-trigger",  # reboots the machine
    "timer_list",  # other processes' timers, and addresses in the kernel
)

_READ_ONLY_PROC: Final = ("sys",)
"""Settings of the kernel: the ones that no namespace owns are the host's. What else can be written
in /proc asks for a capability or for uid 0, and there is neither inside."""


def base_steps(
    facts: HostFacts,
    *,
    host_network: bool,
    copies: tuple[tuple[str, bytes], ...] | None = None,
) -> tuple[MountStep, ...]:
    """What stands in every root, in no particular order and without toolchains and grants.

    Args:
        facts: the host.
        host_network: whether its network is shared.
        copies: the files of /proc where no procfs can be mounted; None for a fresh one.
    """
    return (
        *(Bind(tree, tree) for tree in facts.system_trees),
        *(host_entry(entry, optional=False) for entry in facts.root_entries),
        *etc_steps(facts, host_network=host_network),
        *(_proc_steps() if copies is None else _copied_proc(copies)),
        *_device_steps(),
        *_PRIVATE,
        Symlink("/var/run", "/run"),
        Directory("/root"),
    )


def _proc_steps() -> Iterator[MountStep]:
    yield Proc()
    yield from (ReadOnly(f"/proc/{name}") for name in _READ_ONLY_PROC)
    yield from (Mask(f"/proc/{name}") for name in _MASKED_PROC)


def _copied_proc(copies: tuple[tuple[str, bytes], ...]) -> Iterator[MountStep]:
    """A /proc that knows the machine as it was at the start, and no process. Never the outer one."""
    yield Directory("/proc", 0o555)
    yield from (TextFile(f"/proc/{name}", content, 0o444) for name, content in copies)


def _device_steps() -> Iterator[MountStep]:
    yield Directory("/dev")
    for name in USUAL_DEVICES:
        # Read-only holds the node (its mode and times); a device is written to all the same.
        yield Bind(f"/dev/{name}", f"/dev/{name}", devices=True)
    yield DevPts()
    yield from (Symlink(path, target) for path, target in _DEVICE_LINKS)
