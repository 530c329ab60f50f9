"""The Landlock layer: a second wall, by paths, for a forgotten mount; the first without mounts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sandyard.plan import LandlockRule, LandlockRuleset

__all__ = [
    "READING",
    "READ_DIR",
    "READ_FILE",
    "REFER",
    "SCOPE_SIGNAL",
    "TRUNCATE",
    "WRITE_FILE",
    "WRITING",
    "bare_ruleset",
    "closes_abstract_sockets",
    "landlock_ruleset",
]

# LANDLOCK_ACCESS_FS_* (linux/landlock.h, Documentation/userspace-api/landlock.rst).
_EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REFER: Final = 1 << 13  # ABI 2: rename and link between directories
TRUNCATE: Final = 1 << 14  # ABI 3
_IOCTL_DEV: Final = 1 << 15  # ABI 5

_FIRST_ABI: Final = (1 << 13) - 1
"""Every right of ABI 1, bits 0 to 12."""

READING: Final = _EXECUTE | READ_FILE | READ_DIR
"""All that is reading, which executing is as well."""

WRITING: Final = (_FIRST_ABI & ~READING) | REFER | TRUNCATE
"""All that changes what files hold or which there are."""

_OLDEST_USED: Final = 2
"""With ABI 1 (Linux 5.13 to 5.18) nothing can be renamed from one directory to another, whatever
the rules say: package managers and git fail. The mounts stand there alone."""

_TRUNCATE_ABI: Final = 3
_IOCTL_ABI: Final = 5
_SCOPE_ABI: Final = 6

# LANDLOCK_SCOPE_*: no connection to abstract Unix sockets, and no signal, out of the sandbox.
_SCOPE_ABSTRACT_UNIX: Final = 1 << 0
SCOPE_SIGNAL: Final = 1 << 1


def landlock_ruleset(
    abi: int, writable: Iterable[str], *, logged: bool = False
) -> LandlockRuleset | None:
    """The ruleset for a kernel's ABI, or None where it has none that is usable.

    Args:
        abi: the version that the kernel supports; later ones than we know are used as the last we
            know.
        writable: inside paths beneath which everything is allowed that mounts and modes allow.
        logged: whether the audit hears what it denies.
    """
    if abi < _OLDEST_USED:
        return None
    handled = _handled(abi)
    rules = (
        LandlockRule("/", READING),
        # Terminals need ioctl; which devices there are is decided by the mounts.
        LandlockRule("/dev", (READ_FILE | READ_DIR | WRITE_FILE | _IOCTL_DEV) & handled),
        # oom_score_adj, comm and the like; a shell's ">" truncates, also here.
        LandlockRule("/proc", (READING | WRITE_FILE | TRUNCATE) & handled),
        *(LandlockRule(path, handled) for path in writable),
    )
    return LandlockRuleset(handled=handled, scoped=_scoped(abi), rules=rules, logged=logged)


def bare_ruleset(
    abi: int,
    *,
    reads: tuple[LandlockRule, ...],
    writes: tuple[LandlockRule, ...],
    devices: tuple[str, ...],
    logged: bool = False,
) -> LandlockRuleset:
    """The ruleset for where there are no mounts: what it does not name is closed.

    Args:
        abi: the version that the kernel supports, 1 at least.
        reads: paths to be read and executed; their rights are set here.
        writes: paths beneath which everything is allowed that modes allow.
        devices: device nodes to be read and written.
        logged: whether the audit hears what it denies.
    """
    handled = _handled(abi)
    node = (READ_FILE | WRITE_FILE | TRUNCATE | _IOCTL_DEV) & handled
    # What can be written to is no place for devices that are made elsewhere: no ioctl there.
    whole = handled & ~_IOCTL_DEV
    rules = (
        *(replace(rule, access=READING) for rule in reads),
        *(LandlockRule(path, node) for path in devices),
        *(replace(rule, access=whole) for rule in writes),
    )
    return LandlockRuleset(handled=handled, scoped=_scoped(abi), rules=rules, logged=logged)


def _handled(abi: int) -> int:
    handled = _FIRST_ABI
    if abi >= _OLDEST_USED:
        handled |= REFER
    if abi >= _TRUNCATE_ABI:
        handled |= TRUNCATE
    if abi >= _IOCTL_ABI:
        handled |= _IOCTL_DEV
    return handled


def _scoped(abi: int) -> int:
    return _SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if abi >= _SCOPE_ABI else 0


def closes_abstract_sockets(ruleset: LandlockRuleset | None) -> bool:
    """Whether commands are kept from abstract Unix sockets outside the sandbox."""
    return ruleset is not None and bool(ruleset.scoped & _SCOPE_ABSTRACT_UNIX)
