"""Explains a plan: what commands may do with a path, and which rule says so.

Pure: what lies in a shown tree on the host, such as its symlinks, is looked up by a function that
is given. What is not shown is never looked up, so an explanation tells nothing of it.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sandyard.confinement.explaining_narrowing import lessened
from sandyard.confinement.explanation import (
    Enforced,
    Explanation,
    Found,
    Look,
    Obstacle,
    policy_text,
)
from sandyard.confinement.placement import add_grants
from sandyard.confinement.rootfs import KERNEL_TREES, SYSTEM_DIRECTORIES, USUAL_DEVICES
from sandyard.errors import PolicyError
from sandyard.plan import (
    Bind,
    Deny,
    Device,
    DevPts,
    Directory,
    HostIdentity,
    Mask,
    Private,
    Proc,
    ReadOnly,
    Symlink,
    TextFile,
)
from sandyard.planted import GIT_DIRECTORY
from sandyard.platform import Grant, device_option, is_beneath, is_within

if TYPE_CHECKING:
    from sandyard.plan import MountStep

__all__ = ["explain_path", "is_open_to_owner"]

_LINK_HOPS: Final = 40
"""As many symlinks as the kernel follows (path_resolution(7))."""

_UNSEEN: Final = Found()
_NOTHING: Final = Found(exists=False)

_OWN_PROCESSES: Final = ("self", "thread-self")
_SET_OF_PROCESS: Final = frozenset({
    "autogroup", "clear_refs", "comm", "coredump_filter", "loginuid", "mem", "oom_adj",
    "oom_score_adj", "sched", "timerslack_ns",
})  # fmt: skip
"""What in the directory of a process its owner may write to (proc(5))."""

_CLOSED_OF_INIT: Final = frozenset(
    {"auxv", "cwd", "environ", "exe", "fd", "maps", "mem", "ns", "root"}
)
"""What of the first process ptrace(2) would have to allow; nobody may trace it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path leads.

    Attributes:
        real: without the symlinks on the way, as far as they are known.
        step: what shows it or stands in its way, the nearest; None where nothing does.
        below: where it lies beneath that, relative.
        found: what lies there.
    """

    real: str
    step: MountStep | None
    below: str
    found: Found


def explain_path(
    path: str,
    enforced: Enforced,
    *,
    entry: bool = False,
    writing: bool = False,
    look: Look | None = None,
    obstacle: Obstacle | None = None,
) -> Explanation:
    """Explain what commands may do with a path.

    Args:
        path: as commands name it; a relative one is taken from the workspace.
        enforced: what the session enforces.
        entry: True asks for the name itself, in its directory: whether it may be made, moved or
            removed there.
        writing: True wants to write, so that the grant for what is not shown is one for writing.
        look: looks into the trees that are shown (default: everything exists and is no symlink).
        obstacle: says why a path of the host can't be granted, if it can't (default: nobody looks).
    """
    subject = posixpath.join(enforced.workspace, path)
    if ".." not in subject.split("/"):
        subject = posixpath.normpath(subject)
    walk = _Walk(enforced, look, obstacle)
    if not entry or subject == "/":
        return _judged(subject, walk.to(subject), walk, writing=writing)
    directory, name = posixpath.split(subject.rstrip("/"))
    at = walk.to(directory)
    real = posixpath.join(at.real, name)
    step = enforced.steps.get(real)
    stands = (enforced.mounted(real) or ("", False))[0] == real
    if stands or (step is not None and not isinstance(step, Symlink)):
        told = _judged(subject, _Place(real, step, "", _UNSEEN), walk, writing=True)
        # What stands there of its own can't be moved away; neither can what leads to it.
        return replace(told, access="read") if told.access == "write" else told
    around = _judged(at.real, at, walk, writing=True)
    return replace(around, subject=subject, fixed=False)


def is_open_to_owner(path: str, enforced: Enforced, look: Look) -> bool:
    """Whether something is at an absolute path inside, and its mode lets commands write to it."""
    found = _Walk(enforced, look).to(path).found
    return found.exists and found.writable


def _judged(subject: str, place: _Place, walk: _Walk, *, writing: bool) -> Explanation:
    told = _explained(place, walk, writing=writing)
    if place.real != posixpath.normpath(subject):
        return replace(told, subject=subject, rule=f"leads to {place.real}: {told.rule}")
    return replace(told, subject=subject)


def _explained(place: _Place, walk: _Walk, *, writing: bool) -> Explanation:
    told = _shown(place, walk, writing=writing)
    return lessened(told, place.real, walk.enforced, walk.stands, writing=writing)


def _shown(place: _Place, walk: _Walk, *, writing: bool) -> Explanation:
    real, step = place.real, place.step
    mounted = walk.enforced.mounted(real)
    if mounted is not None:
        at, writable = mounted
        rule = f"in what is mounted at {at}" + ("" if writable else ", read-only")
        return Explanation(real, "write" if writable else "read", rule, None, fixed=real == at)
    match step:
        case Deny():
            return _denied(real, step.target, walk.enforced)
        case Mask():
            return _masked(real, step, walk)
        case Private() if walk.is_led_through(place):
            return _unmounted(place, walk, writing=writing)
        case Private():
            rule = f"{step.path} is the session's own, empty at its start"
            return Explanation(real, "write", rule, None, fixed=not place.below)
        case TextFile() if not place.below:
            return Explanation(real, "read", "read-only: it is built for the session", None)
        case Device():
            return _device(real, walk.enforced)
        case Proc() | ReadOnly() | DevPts():
            return _of_kernel(real, step, place.below)
        case Bind() if place.found.exists or place.below or not step.optional:
            return _mounted(place, step, walk)
        case _:
            return _unmounted(place, walk, writing=writing)


def _unmounted(place: _Place, walk: _Walk, *, writing: bool) -> Explanation:
    real, enforced = place.real, walk.enforced
    if isinstance(place.step, Symlink):
        return Explanation(real, "none", "its symlinks lead in circles", None)
    if real in enforced.skeleton or (place.step is not None and not place.below):
        return Explanation(
            real,
            "read",
            f"read-only: of {real} only what leads to other things is shown",
            walk.grant(real, writing=writing),
        )
    for tree in KERNEL_TREES:
        if is_within(real, tree):
            option = device_option(real)
            grant = None if option is None else policy_text("devices", (option,))
            return Explanation(real, "none", f"not shown: {tree} is the kernel's", grant)
    for named in (*enforced.denied, *enforced.policy.deny):
        if is_within(real, named):
            return _denied(real, named, enforced)
    source = _source_of(enforced)
    if is_within(real, source):
        rule = f"not shown: the workspace is {enforced.workspace} inside"
        return Explanation(real, "none", rule, None)
    grant = walk.grant(real, writing=writing)
    reason = "" if grant is None else walk.obstacle(real)
    rule = f"not shown: {reason or 'no rule of the policy names it'}"
    return Explanation(real, "none", rule, None if reason else grant)


def _denied(real: str, target: str, enforced: Enforced) -> Explanation:
    names = [name for name in enforced.policy.deny if is_within(target, name)]
    named = names[0] if names else target
    return Explanation(real, "none", f"denied: Policy.deny names {named}", None, fixed=True)


def _masked(real: str, step: Mask, walk: _Walk) -> Explanation:
    if any(is_within(step.target, tree) for tree in KERNEL_TREES):
        rule = "covered, reads as empty: it tells the kernel's secrets"
        return Explanation(real, "none", rule, None, fixed=True)
    rule = "covered, reads as empty: it may hold credentials"
    grant = walk.grant(step.target, writing=False)
    return Explanation(real, "none", rule, grant, fixed=True)


def _of_kernel(real: str, step: Proc | ReadOnly | DevPts, below: str) -> Explanation:
    match step:
        case Proc():
            return _process_file(real, below)
        case DevPts() if below:
            return Explanation(real, "write", "a terminal of the session's own", None)
        case _:
            return Explanation(real, "read", "read-only: what is in it is the kernel's", None)


def _process_file(real: str, below: str) -> Explanation:
    process, _, name = below.partition("/")
    if process == "1" and name.partition("/")[0] in _CLOSED_OF_INIT:
        return Explanation(real, "none", "the sandbox's first process is closed to commands", None)
    own = process in _OWN_PROCESSES or process.isdecimal()
    if own and (posixpath.basename(name) in _SET_OF_PROCESS or name.startswith(("fd/", "attr/"))):
        return Explanation(real, "write", "the session's own processes", None)
    rule = "read-only: the kernel tells of the session's own processes"
    return Explanation(real, "read", rule, None)


def _mounted(place: _Place, step: Bind, walk: _Walk) -> Explanation:
    if step.devices:
        return _device(place.real, walk.enforced)
    if step.writable:
        return _writable(place, step, walk.enforced)
    rule, grant = _read_only(place, step, walk)
    return Explanation(place.real, "read", f"read-only: {rule}", grant, fixed=not place.below)


def _device(real: str, enforced: Enforced) -> Explanation:
    named = enforced.policy.devices if posixpath.basename(real) not in USUAL_DEVICES else ()
    rule = "Policy.devices names it" if named else "a device that every session has"
    return Explanation(real, "write", rule, None, fixed=True)


def _writable(place: _Place, step: Bind, enforced: Enforced) -> Explanation:
    names = {grant.source: grant.path for grant in enforced.grants if grant.writable}
    top = not place.below
    target: str = step.target
    if top and target != enforced.workspace and target not in names:
        rule = "Policy.protect holds it in its place: it can be changed, not moved or removed"
        grant = policy_text("protect", _unprotected(target, enforced))
        return Explanation(place.real, "write", rule, grant, fixed=True)
    while target not in ("/", enforced.workspace) and target not in names:
        target = posixpath.dirname(target)  # what is only held in its place is its tree's
    if target in names:
        return Explanation(
            place.real, "write", f"Policy.writes names {names[target]}", None, fixed=top
        )
    return Explanation(place.real, "write", "in the workspace", None, fixed=top)


def _read_only(place: _Place, step: Bind, walk: _Walk) -> tuple[str, str | None]:
    """The rule and the grant of what is mounted read-only."""
    enforced = walk.enforced
    names = {grant.source: grant.path for grant in enforced.grants if not grant.writable}
    if step.source in names:
        return f"Policy.reads names {names[step.source]}", walk.grant_within(place, step)
    if step.as_owner:
        grant = policy_text("protect", _unprotected(step.target, enforced))
        return f"Policy.protect keeps {step.target} as it is", grant
    if _is_systematic(step.target):
        return f"{step.target} belongs to the system", None
    return f"{step.target} is a toolchain of the host's", walk.grant_within(place, step)


def _is_systematic(target: str) -> bool:
    """Whether a read-only tree is the system's own; what else is not granted was found on PATH."""
    return target in SYSTEM_DIRECTORIES or any(
        is_beneath(target, tree) for tree in ("/etc", *KERNEL_TREES)
    )


def _unprotected(target: str, enforced: Enforced) -> tuple[str, ...]:
    """The names to protect without the ones that ``target`` is protected for."""
    parts = target.split("/")
    trees = (enforced.workspace, *(grant.source for grant in enforced.grants if grant.writable))
    names = enforced.policy.protect
    guilty = {
        name
        for name in names
        if name in parts
        or any(is_within(target, posixpath.join(tree, name)) for tree in trees if "/" in name)
    }
    # What Git's own files lead to need not have its name: a bare repository, a directory of hooks.
    guilty = guilty or {GIT_DIRECTORY}
    return tuple(name for name in names if name not in guilty)


def _source_of(enforced: Enforced) -> str:
    """Where the workspace is on the host."""
    step = enforced.steps.get(enforced.workspace)
    return step.source if isinstance(step, Bind) else enforced.workspace


class _Walk:
    """Ways through what stands inside, as the kernel goes them."""

    def __init__(
        self, enforced: Enforced, look: Look | None, obstacle: Obstacle | None = None
    ) -> None:
        self.enforced = enforced
        self._look = look or (lambda source, below: _UNSEEN)
        self.obstacle = obstacle or (lambda path: "")

    def to(self, path: str) -> _Place:
        """Follow an absolute path."""
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        at, hops = "/", 0
        while todo:
            part = todo.pop()
            if part == "..":
                at = posixpath.dirname(at)
                continue
            here = self._place(posixpath.join(at, part))
            link = self._link(here)
            if link is not None and hops < _LINK_HOPS:
                hops += 1
                at = "/" if link.startswith("/") else at
                todo += [step for step in reversed(link.split("/")) if step not in ("", ".")]
                continue
            if link is not None:
                return _Place(here.real, Symlink(here.real, link), "", _NOTHING)
            if todo and not self._leads_on(here):
                # ".." leads back only from what is there: then this is what stands in the way.
                rest = () if ".." in todo else reversed(todo)
                return replace(self._place(posixpath.join(here.real, *rest)), found=_NOTHING)
            at = here.real
        return self._place(at)

    def stands(self, path: str) -> bool:
        """Whether something is known to be there."""
        place = self._place(path)
        if isinstance(place.step, Bind):
            return place.found.exists
        return path in self.enforced.skeleton or path in self.enforced.steps

    def grant(self, path: str, *, writing: bool) -> str | None:
        """The grant of a path that is not shown; None where it can't be granted."""
        if not writing:
            return (
                policy_text("reads", (path,)) if self._is_grantable(path, writable=False) else None
            )
        # What does not exist can't be granted, and whether it does is not to be told: so the
        # directory around it, where that can be granted.
        around = path if path in self.enforced.skeleton else posixpath.dirname(path)
        for tree in dict.fromkeys((around, path)):
            if self._is_grantable(tree, writable=True):
                return policy_text("writes", (tree,))
        return None

    def grant_within(self, place: _Place, step: Bind) -> str | None:
        """The grant for writing of the nearest thing that exists in a read-only tree."""
        below, found = place.below, place.found
        while below and not found.exists:
            below = posixpath.dirname(below)
            found = self._look(step.source, below)
        path = posixpath.normpath(posixpath.join(step.source, below))
        if not found.writable or not self._is_grantable(path, writable=True):
            return None
        return policy_text("writes", (path,))

    def _is_grantable(self, path: str, *, writable: bool) -> bool:
        """Whether a policy may name a path, by the rules of placement."""
        try:
            add_grants(dict(self.enforced.steps), (Grant(path, path, writable, (0, 0)),), ())
        except PolicyError:
            return False
        return True

    def _leads_on(self, place: _Place) -> bool:
        """Whether there may be something beneath a place."""
        match place.step:
            case Deny() | Mask() | TextFile():
                return False
            case None | Directory() | Private():
                return place.real in self.enforced.skeleton or place.real in self.enforced.steps
            case _:
                return place.found.exists

    def is_led_through(self, place: _Place) -> bool:
        """Whether the first process made the directory in which a place of a private one lies.

        Where it runs as root, what leads to things that are shown there is not the agent's.
        """
        if self.enforced.plan.identity.host is not HostIdentity.LEASED:
            return False
        below = place.below.split("/")
        top = place.real.removesuffix(place.below) if place.below else place.real + "/"
        return bool(place.below) and top + below[0] in self.enforced.skeleton

    def _place(self, real: str) -> _Place:
        around = real
        while around != "/" and around not in self.enforced.steps:
            around = posixpath.dirname(around)
        step = self.enforced.steps.get(around)
        below = real[len(around) :].lstrip("/") if step is not None else ""
        found = self._look(step.source, below) if isinstance(step, Bind) else _UNSEEN
        return _Place(real, step, below, found)

    def _link(self, place: _Place) -> str | None:
        if isinstance(place.step, Symlink):
            return place.step.target if not place.below else None
        if isinstance(place.step, Proc):
            process, _, name = place.below.partition("/")
            if process in _OWN_PROCESSES and name in ("root", "cwd"):
                return "/" if name == "root" else self.enforced.workspace
        return place.found.link
