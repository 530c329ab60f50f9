"""Facts about the host, as values: what confinement needs to know and never looks up itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Grant", "HostEntry", "HostFacts", "Toolchains", "is_beneath", "is_within"]


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A file or directory of the host that has the same name inside.

    Attributes:
        path: the name.
        source: where the thing is, without symlinks.
        link: the target of a symlink that does the same inside, because its end is visible there
            anyway; None where ``source`` has to be mounted.
    """

    path: str
    source: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Toolchains:
    """Interpreters and toolchains outside the system directories.

    Attributes:
        roots: real paths to be mounted read-only at their own path; none lies beneath another.
        links: ``(path, target)`` symlinks that make other names of them work.
        masks: what within ``roots`` and the system directories may hold credentials.
        variables: ``(name, value)`` pairs without which they look for themselves in HOME.
    """

    roots: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    masks: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What this host is and has. Whatever is missing on it is an absent fact, never an error.

    Attributes:
        system: the kernel, as ``sys.platform`` names it.
        machine: the processor, as uname(2) names it.
        euid: the caller's effective user id.
        egid: the caller's effective group id.
        landlock_abi: version of Landlock; 0 without it.
        memory_bytes: size of the machine's memory.
        shell: the shell for ``agent``.
        system_trees: whole trees that are mounted read-only at their own path.
        root_entries: the names in ``/`` that lead to programs and libraries.
        etc: the entries of ``/etc`` that are shared, by their path.
        network_etc: those that are shared only together with the host's network.
        toolchains: what is mounted besides the system.
        search_path: directories for PATH that are visible inside with ``toolchains``.
        audited: whether the machine's audit is on, and tells this program what Landlock refuses.
    """

    system: str
    machine: str
    euid: int
    egid: int
    landlock_abi: int
    memory_bytes: int
    shell: str
    system_trees: tuple[str, ...]
    root_entries: tuple[HostEntry, ...]
    etc: tuple[HostEntry, ...]
    network_etc: tuple[HostEntry, ...]
    toolchains: Toolchains
    search_path: tuple[str, ...]
    audited: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A path of a policy, as found on the host.

    Attributes:
        path: as the policy names it.
        source: where it is, without symlinks.
        writable: whether it was granted for writing.
        inode: its ``(st_dev, st_ino)``, so that no other file can take its place meanwhile.
    """

    path: str
    source: str
    writable: bool
    inode: tuple[int, int]


def is_within(path: str, tree: str) -> bool:
    """Whether ``path`` is ``tree`` or lies beneath it, by components and not by letters.

    Both are absolute and normalised.
    """
    return path == tree or is_beneath(path, tree)


def is_beneath(path: str, tree: str) -> bool:
    """Whether ``path`` lies beneath ``tree``; a path does not lie beneath itself."""
    return path != tree and path.startswith(tree if tree == "/" else tree + "/")
