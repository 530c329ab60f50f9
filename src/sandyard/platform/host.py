"""The one look at the host: which Unix this is, what it can do, and where its programs lie."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from sandyard.platform.facts import HostEntry, HostFacts, Toolchains, is_within
from sandyard.platform.shared_etc import NETWORK_ETC, SHARED_ETC
from sandyard.platform.shortage import refuse_shortage
from sandyard.platform.toolchains import ToolchainSearch, find_toolchains

__all__ = ["AUDITED_ABI", "bare_facts", "host_facts"]

_CONSULTED: Final = ("PATH", "HOME", "VIRTUAL_ENV", "RUSTUP_HOME")
"""The variables on which facts depend."""

_CACHED_HOSTS: Final = 16
"""Sets of these variables whose facts are kept; a program has one, or a few."""

_ROOT_NAMES: Final = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin")
"""Where the programs and libraries of the system are named besides /usr (FHS 3.0, 3.2)."""

_SYSTEM_TREES: Final = ("/usr", "/nix/store", "/gnu/store")
"""Trees of programs and libraries that hold no one's data."""

_SHOWN_SYSFS: Final = ("/sys/devices/system/cpu", "/sys/devices/system/node")
"""How many processors and memory nodes there are: what runtimes size their thread pools by."""

_DEFAULT_PATH: Final = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)

_FALLBACK_MEMORY: Final = 1024**3
"""What is assumed of a machine that does not tell its memory: little, so that limits derived from
it are safe."""

_SYS_LANDLOCK_CREATE: Final = 444
"""landlock_create_ruleset(2): the same number on every architecture."""

_LANDLOCK_VERSION_FLAG: Final = 1

AUDITED_ABI: Final = 7
"""The first version of Landlock (Linux 6.15) that tells the audit what it refuses."""


def host_facts(environ: Mapping[str, str]) -> HostFacts:
    """Look at the host through ``environ``'s PATH, HOME and VIRTUAL_ENV.

    Blocks on the file system for some milliseconds, so loops call it in a thread; the answer is
    kept for the life of the program. What can't be read is an absent fact.

    Raises:
        OSError: this program, or the machine, has no descriptor left to look with.
    """
    return _facts(tuple((name, environ.get(name, "")) for name in _CONSULTED), os.geteuid())


def bare_facts() -> HostFacts:
    """What can be told of the host without a descriptor to look with: no trees, and no toolchains."""
    return HostFacts(
        system=sys.platform,
        machine=os.uname().machine,
        euid=os.geteuid(),
        egid=os.getegid(),
        landlock_abi=_landlock_abi(),
        memory_bytes=_memory_bytes(),
        shell="/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh",
        system_trees=(),
        root_entries=(),
        etc=(),
        network_etc=(),
        toolchains=Toolchains(),
        search_path=_DEFAULT_PATH,
    )


@lru_cache(maxsize=_CACHED_HOSTS)
def _facts(consulted: tuple[tuple[str, str], ...], euid: int) -> HostFacts:
    # No real environment holds a NUL, but a caller's mapping may, and the kernel takes none.
    environ = {name: value for name, value in consulted if value and "\0" not in value}
    trees = tuple(tree for tree in _SYSTEM_TREES if os.path.isdir(tree))
    root_entries = tuple(_root_entries(trees))
    visible = trees + tuple(entry.path for entry in root_entries)
    named = tuple(_named_directories(environ.get("PATH", "")))
    search = ToolchainSearch(
        directories=named + tuple(_interpreter_places(environ)),
        home=_home(environ, euid),
        environ=environ,
        visible=visible,
    )
    toolchains = find_toolchains(search)
    shown = visible + toolchains.roots + tuple(path for path, _ in toolchains.links)
    return replace(
        bare_facts(),
        system_trees=trees + tuple(path for path in _SHOWN_SYSFS if os.path.isdir(path)),
        root_entries=root_entries,
        etc=_etc_entries(SHARED_ETC, visible),
        network_etc=_etc_entries(NETWORK_ETC, visible),
        toolchains=toolchains,
        search_path=_search_path(named, shown),
        audited=_is_audited(),
    )


def _home(environ: Mapping[str, str], euid: int) -> str:
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(euid).pw_dir
        except KeyError:
            home = "/root"
    return os.path.realpath(home)


def _named_directories(path: str) -> Iterator[str]:
    """The absolute entries of PATH, each once; a relative one would mean the caller's cwd."""
    seen = set[str]()
    for entry in path.split(":"):
        if entry.startswith("/") and "\0" not in entry:
            name = "/" + os.path.normpath(entry).lstrip("/")
            if name not in seen:
                seen.add(name)
                yield name


def _interpreter_places(environ: Mapping[str, str]) -> Iterator[str]:
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, environ.get("VIRTUAL_ENV", "")):
        if prefix:
            yield os.path.normpath(os.path.join(prefix, "bin"))
    if sys.executable:
        yield os.path.dirname(os.path.normpath(sys.executable))


def _search_path(named: tuple[str, ...], shown: tuple[str, ...]) -> tuple[str, ...]:
    useful = [
        path
        for path in named
        if os.path.isdir(path) and any(is_within(path, tree) for tree in shown)
    ]
    usual = (path for path in _DEFAULT_PATH if os.path.isdir(path))
    return tuple(dict.fromkeys((*useful, *usual)))


def _root_entries(trees: tuple[str, ...]) -> Iterator[HostEntry]:
    for path in _ROOT_NAMES:
        if not os.path.isdir(path):
            continue
        source = os.path.realpath(path)
        known = trees + tuple(name for name in _ROOT_NAMES if not os.path.islink(name))
        if source != path and any(is_within(source, tree) for tree in known):
            yield HostEntry(path, source, os.readlink(path))
        else:
            yield HostEntry(path, source)


def _etc_entries(
    names: tuple[tuple[str, str], ...], visible: tuple[str, ...]
) -> tuple[HostEntry, ...]:
    paths = (f"/etc/{name}" for pattern, _ in names for name in _matching(pattern))
    found = (_etc_entry(path, visible) for path in dict.fromkeys(paths))
    return tuple(entry for entry in found if entry is not None)


def _matching(pattern: str) -> list[str]:
    if not pattern.endswith("*"):
        return [pattern]
    return sorted(name for name in _etc_names() if name.startswith(pattern[:-1]))


@lru_cache(maxsize=1)
def _etc_names() -> tuple[str, ...]:
    try:
        return tuple(os.listdir("/etc"))
    except OSError as error:
        refuse_shortage(error)
        return ()


def _etc_entry(path: str, visible: tuple[str, ...]) -> HostEntry | None:
    if not os.path.lexists(path):  # most are other distributions'
        return None
    source = os.path.realpath(path)
    if not os.path.isfile(source) and not os.path.isdir(source):
        return None
    for target in (_first_target(path), source):
        # The first step is better than the last where it is visible: programs read the name of
        # the time zone from the target of /etc/localtime.
        if target != path and any(is_within(target, tree) for tree in visible):
            return HostEntry(path, source, target)
    return HostEntry(path, source)


def _first_target(path: str) -> str:
    try:
        target = os.readlink(path)
    except OSError:
        return path
    return os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(path)), target))


def _memory_bytes() -> int:
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        size = os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _FALLBACK_MEMORY
    return pages * size if pages > 0 and size > 0 else _FALLBACK_MEMORY


def _is_audited() -> bool:
    if _landlock_abi() < AUDITED_ABI or os.geteuid() != 0:
        return False
    from sandyard.platform.auditing import audit_standing  # noqa: PLC0415  # few machines get here

    return audit_standing() == "read"


def _landlock_abi() -> int:
    """The version of Landlock, or 0; landlock_create_ruleset(2) tells it."""
    if sys.platform != "linux":
        return 0
    import ctypes  # noqa: PLC0415  # slow to load, and needed for this one call

    try:
        call = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return 0
    call.restype = ctypes.c_long
    null = ctypes.c_void_p()
    version: object = call(
        ctypes.c_long(_SYS_LANDLOCK_CREATE),
        null,
        ctypes.c_size_t(0),
        ctypes.c_uint32(_LANDLOCK_VERSION_FLAG),
    )
    return version if isinstance(version, int) and version > 0 else 0
