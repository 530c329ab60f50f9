"""Explains what one command may do less than its session: what its own layer of the wall takes away.

Pure. It asks the very rules that the kernel was given, so that what is told is what is held; the
narrowing's words say only which of its fields it was.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sandyard.confinement.explanation import Explanation, narrowing_text
from sandyard.confinement.landlock import READ_FILE, WRITE_FILE
from sandyard.confinement.narrowing import narrowed_place, private_directories
from sandyard.platform import is_beneath, is_within

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced
    from sandyard.plan import LandlockRuleset
    from sandyard.types import LimitName

__all__ = ["lessened", "lessened_address", "lessened_call", "own_limit"]

_NO_SOCKETS = "Narrowing.network is False: it can make no sockets but Unix ones"
_TRACING = frozenset({"ptrace", "process_vm_readv", "process_vm_writev"})


def lessened(
    told: Explanation,
    real: str,
    enforced: Enforced,
    stands: Callable[[str], bool],
    *,
    writing: bool,
) -> Explanation:
    """What is left to the command of what its session may do with a path.

    Args:
        told: what the session may do.
        real: the path, without symlinks.
        enforced: what the session enforces, and the command besides.
        stands: tells whether something is at a path inside.
        writing: True wants to write.
    """
    less = enforced.less
    if less is None or less.layer is None or told.access == "none":
        return told
    reads = _is_allowed(less.layer, real, READ_FILE)
    writes = told.access == "read" or _is_allowed(less.layer, real, WRITE_FILE)
    if reads and writes:
        return told
    field = "reads" if writes or not (reads or writing) else "writes"
    rule, grant = _reason(real, field, enforced, stands)
    return replace(told, access="read" if reads else "none", rule=rule, grant=grant)


def lessened_address(told: Explanation, enforced: Enforced) -> Explanation:
    """What is left of an address, or of the network."""
    if enforced.less is None or enforced.less.narrowing.network or told.access == "none":
        return told
    return Explanation(told.subject, "none", _NO_SOCKETS, narrowing_text("network", value=True))


def lessened_call(told: Explanation, enforced: Enforced) -> Explanation:
    """What is left of a system call."""
    if enforced.less is None or told.access == "none":
        return told
    narrowing, name = enforced.less.narrowing, told.subject
    if name in _TRACING and not narrowing.ptrace:
        grant = narrowing_text("ptrace", value=True)
        return Explanation(name, "none", "Narrowing.ptrace is False", grant)
    if name != "socket" or (narrowing.network and narrowing.unix_sockets):
        return told
    if narrowing.network:
        rule = "Narrowing.unix_sockets is False: it can make no Unix sockets"
        return Explanation(name, "read", rule, narrowing_text("unix_sockets", value=True))
    if narrowing.unix_sockets:
        return Explanation(name, "read", _NO_SOCKETS, narrowing_text("network", value=True))
    rule = "Narrowing.network and Narrowing.unix_sockets are False: it can make no sockets"
    return Explanation(name, "none", rule, "Narrowing(network=True, unix_sockets=True)")


def own_limit(name: LimitName, enforced: Enforced, ceiling: float) -> Explanation | None:
    """The command's own limit; None where the session's is the one.

    Args:
        name: of the limit.
        enforced: what the session enforces, and the command besides.
        ceiling: what the calling program itself may have.
    """
    own: int | None = (
        None if enforced.less is None else getattr(enforced.less.narrowing, name, None)
    )
    if own is None or own > ceiling:
        return None
    most = min(getattr(enforced.policy.limits, name) or ceiling, ceiling)
    larger = int(min(2 * own, most))
    grant = narrowing_text(name, larger) if larger > own else None
    return Explanation(name, "none", f"the command's own limit is {own}", grant)


def _is_allowed(layer: LandlockRuleset, path: str, right: int) -> bool:
    if not layer.handled & right:
        return True
    return any(rule.access & right and is_within(path, rule.path) for rule in layer.rules)


def _reason(
    real: str, field: str, enforced: Enforced, stands: Callable[[str], bool]
) -> tuple[str, str | None]:
    """The rule and the grant of what a field of the narrowing takes away."""
    assert enforced.less is not None  # noqa: S101  # only of a narrowed command
    for named in enforced.less.narrowing.deny:
        place = narrowed_place(named, enforced)
        if is_within(real, place):
            return f"denied: Narrowing.deny names {place}", None
        if is_beneath(place, real) or is_within(place, posixpath.dirname(real)):
            return (
                f"Narrowing.deny names {place}: nothing can be made, moved or removed in the "
                "directories that lead there, and what others make in them stays closed"
            ), None
    tree = _tree_of(real, enforced)
    if tree is None:
        rule = f"closed: what Narrowing.{field} withholds lies beneath the same directory"
        private = any(is_within(real, each) for each in private_directories(enforced))
        return f"{rule}; TMPDIR names another" if private else rule, None
    while real != tree and not stands(real):
        real = posixpath.dirname(real)  # what does not exist when a command starts is not opened
    words = "closed" if field == "reads" else "read-only"
    return f"{words}: Narrowing.{field} does not name it", narrowing_text(field, (real,))


def _tree_of(real: str, enforced: Enforced) -> str | None:
    """The workspace or the grant that a path lies in; None for what is not the caller's."""
    trees = (enforced.workspace, *(grant.source for grant in enforced.grants))
    return max((tree for tree in trees if is_within(real, tree)), key=len, default=None)
