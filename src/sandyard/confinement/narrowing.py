"""The plan of a narrowing: what one command has less than its session, as layers over its walls.

Pure. Every part is one more wall, so nothing here can give a command more than its session has; what
a narrowing names beyond that is refused all the same, since whoever wrote it expects it to work.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.confinement.denying import Listing, rules_around
from sandyard.confinement.landlock import (
    READING,
    REFER,
    SCOPE_SIGNAL,
    TRUNCATE,
    WRITE_FILE,
    WRITING,
)
from sandyard.confinement.seccomp import narrowing_program
from sandyard.confinement.sizes import (
    RLIMIT_CPU,
    RLIMIT_DATA,
    RLIMIT_FSIZE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
)
from sandyard.errors import ConfinementUnavailableError, PolicyError
from sandyard.plan import (
    Bind,
    LandlockRule,
    LandlockRuleset,
    Narrowed,
    Private,
    ResourceLimit,
    TextFile,
)
from sandyard.platform import is_within
from sandyard.resources import LIMIT_UNITS, EnforcedLimit

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced
    from sandyard.narrowing import Narrowing
    from sandyard.resources import LimitScope
    from sandyard.types import LimitName

__all__ = ["NarrowedCommand", "narrowed_place", "plan_narrowing", "private_directories"]

_RESOURCES: Final[dict[LimitName, int]] = {
    "memory": RLIMIT_DATA,
    "processes": RLIMIT_NPROC,
    "cpu_time": RLIMIT_CPU,
    "file_size": RLIMIT_FSIZE,
    "open_files": RLIMIT_NOFILE,
}

_TEMPORARY: Final = "/tmp"  # noqa: S108  # a path inside


def _unlisted(source: str, below: str) -> Mapping[str, bool]:
    del source, below
    return {}


@dataclass(frozen=True, slots=True)
class NarrowedCommand:
    """What a narrowing means for one command.

    Attributes:
        narrowed: what is taken away; None if nothing is.
        temporary: the directory for temporary files, where /tmp can't be it; else None.
        held: the lower limits, and what holds them.
    """

    narrowed: Narrowed | None
    temporary: str | None
    held: tuple[EnforcedLimit, ...]


def plan_narrowing(
    narrowing: Narrowing, enforced: Enforced, listing: Listing = _unlisted
) -> NarrowedCommand:
    """Plan what one command has less than its session.

    Args:
        narrowing: what is taken away.
        enforced: what the session enforces.
        listing: lists directories of what it shows, for what is denied (default: they are empty).

    Raises:
        PolicyError: the session does not have what the narrowing names.
        ConfinementUnavailableError: this kernel can't hold it.
    """
    if enforced.unconfined:
        raise ConfinementUnavailableError(
            "a command can't have less than its session here",
            dimension="processes",
            cause_text="the session has no wall, so that the command could have other programs of this "
            "machine do what it may not",
            fix="leave unconfined out of the policy",
        )
    held = tuple(_held_limits(narrowing, enforced))
    limits = tuple(ResourceLimit(_RESOURCES[limit.limit], int(limit.value)) for limit in held)
    ptrace = narrowing.ptrace or "ptrace" not in enforced.policy.syscalls
    program = narrowing_program(
        enforced.machine,
        network=narrowing.network,
        unix_sockets=narrowing.unix_sockets,
        ptrace=ptrace,
    )
    landlock, temporary = None, None
    walls = bool(program or narrowing.deny)
    walls = walls or narrowing.reads is not None or narrowing.writes is not None
    # Lower limits alone hold without Landlock too, as far as other commands are not made to help.
    if walls or (limits and enforced.plan.landlock is not None):
        landlock, temporary = _layer(narrowing, enforced, listing)
    narrowed = Narrowed(landlock, limits, program) if landlock or limits else None
    return NarrowedCommand(narrowed, temporary, held)


def _held_limits(narrowing: Narrowing, enforced: Enforced) -> Iterator[EnforcedLimit]:
    whole = enforced.policy.limits
    pairs: tuple[tuple[LimitName, int | None, int | None], ...] = (
        ("memory", narrowing.memory, whole.memory),
        ("processes", narrowing.processes, whole.processes),
        ("cpu_time", narrowing.cpu_time, whole.cpu_time),
        ("file_size", narrowing.file_size, whole.file_size),
        ("open_files", narrowing.open_files, whole.open_files),
    )
    for name, own, most in pairs:
        if own is None:
            continue
        if most is not None and own > most:
            raise PolicyError(
                f"{name} of a narrowing is at most the session's, {most} {LIMIT_UNITS[name]}",
                field=name,
                value=own,
            )
        scope: LimitScope = "session" if name == "processes" else "process"
        yield EnforcedLimit(limit=name, value=own, by="rlimit of the command", scope=scope)


def _layer(
    narrowing: Narrowing, enforced: Enforced, listing: Listing
) -> tuple[LandlockRuleset, str | None]:
    """The layer of Landlock, and where temporary files go if not to /tmp.

    Also where only a filter or a limit is wanted: in a layer of its own a command can't trace or signal the
    session's other processes, nor write to their memory, and so have them do what it may not.
    """
    session = enforced.plan.landlock
    writing = narrowing.writes is not None or bool(narrowing.deny)
    if session is None or (writing and not session.handled & TRUNCATE):
        raise ConfinementUnavailableError(
            "a command can't have less than its session here",
            dimension="write" if writing else "processes",
            cause_text="this kernel has no Landlock, or one that does not know truncation",
            fix="use Linux 6.2 or later with Landlock enabled (lsm=landlock,…), or a session of its "
            "own with a narrower policy",
        )
    rules = _Rules(enforced)
    private = list(private_directories(enforced))
    handled = REFER
    if narrowing.reads is not None:
        handled |= READING
        named = [rules.named(path, "reads") for path in narrowing.reads]
        withheld = rules.withheld(named, writable=False)
        private = [path for path in private if not _holds(path, withheld)]
        rules.allow(_system_trees(enforced, withheld), READING)
        rules.allow((*named, *private), READING)
    if narrowing.writes is not None:
        handled |= WRITING
        named = [rules.named(path, "writes") for path in narrowing.writes]
        withheld = rules.withheld(named, writable=True)
        private = [path for path in private if not _holds(path, withheld)]
        rules.allow((*named, *private), WRITING)
        rules.allow(("/dev",), WRITE_FILE)
        rules.allow(("/proc",), WRITE_FILE | TRUNCATE)
    else:
        # Landlock refuses it wherever no rule allows it, whether or not it is handled.
        rules.allow(("/",), REFER)
    if narrowing.deny:
        denied = tuple(rules.denied(path) for path in narrowing.deny)
        handled |= READING | WRITING
        rules.allow(("/",), READING if narrowing.reads is None else 0)
        rules.allow(("/",), WRITING if narrowing.writes is None else 0)
        private = [path for path in private if not _holds(path, denied)]
        allowed = rules_around(rules.rights, denied, enforced, listing)
    else:
        allowed = tuple(LandlockRule(path, access) for path, access in rules.rights.items())
    temporary = next(iter(private), None) if _TEMPORARY not in private else None
    scoped = session.scoped & SCOPE_SIGNAL
    return LandlockRuleset(handled, scoped, allowed, session.logged), temporary


class _Rules:
    """Rights by place, of what one session shows."""

    def __init__(self, enforced: Enforced) -> None:
        self._enforced = enforced
        self.rights: dict[str, int] = {}

    def allow(self, paths: Iterable[str], access: int) -> None:
        for path in paths if access else ():
            self.rights[path] = self.rights.get(path, 0) | access

    def denied(self, path: str) -> str:
        """Where a denied path is inside.

        Raises:
            PolicyError: nothing of the caller's or the system's is shown there.
        """
        place = self.named(path, "deny")
        for private in private_directories(self._enforced):
            nearest = [step.target for step in self._binds() if is_within(place, step.target)]
            if is_within(place, private) and not any(is_within(each, private) for each in nearest):
                raise PolicyError(
                    f"{place} in deny of a narrowing lies in {private}, which is the session's own: only "
                    "its programs know what is in it",
                    field="deny",
                    value=path,
                )
        return place

    def _binds(self) -> Iterator[Bind]:
        return (step for step in self._enforced.plan.steps if isinstance(step, Bind))

    def named(self, path: str, field: str) -> str:
        """Where a path of a narrowing is inside.

        Raises:
            PolicyError: the session does not have it.
        """
        place = narrowed_place(path, self._enforced)
        if not any(is_within(place, tree) for tree in self._trees(writable=field == "writes")):
            can = "can write to" if field == "writes" else "shows"
            raise PolicyError(
                f"{place} in {field} of a narrowing is nothing that the session {can}: a command can "
                "have less than its session, not more",
                field=field,
                value=path,
            )
        return place

    def _trees(self, *, writable: bool) -> Iterator[str]:
        yield from private_directories(self._enforced)
        for step in self._binds():
            if step.writable or not writable:
                yield step.target

    def withheld(self, named: list[str], *, writable: bool) -> list[str]:
        """What of the caller's own trees is not wholly in ``named``."""
        return [
            step.target
            for step in self._binds()
            if step.as_owner
            and (step.writable or not writable)
            and not any(is_within(step.target, path) for path in named)
        ]


def narrowed_place(path: str, enforced: Enforced) -> str:
    """Where a path of a narrowing is inside, by its words."""
    place = posixpath.normpath(posixpath.join(enforced.workspace, path))
    for grant in enforced.grants:
        if is_within(place, grant.path):
            place = grant.source + place[len(grant.path) :]
    return place


def private_directories(enforced: Enforced) -> Iterator[str]:
    """The session's own directories, the one for temporary files first."""
    found = [step.path for step in enforced.plan.steps if isinstance(step, Private)]
    # The one that everybody expects first, then the others that are emptied with the session.
    yield from sorted(
        found, key=lambda path: (path != _TEMPORARY, posixpath.basename(path) != "tmp", path)
    )


def _holds(tree: str, withheld: Iterable[str]) -> bool:
    """Whether something withheld lies in a tree: rights of Landlock hold for all that is beneath."""
    return any(is_within(path, tree) for path in withheld)


def _system_trees(enforced: Enforced, withheld: list[str]) -> Iterator[str]:
    """What every program needs to read, whatever it works on.

    Raises:
        PolicyError: something withheld lies in it.
    """
    yield from ("/dev", "/proc")
    for step in enforced.plan.steps:
        if isinstance(step, TextFile):
            yield step.path
        elif isinstance(step, Bind) and not step.as_owner:
            for path in withheld:
                if is_within(path, step.target):
                    raise PolicyError(
                        f"{path} can't be withheld: it lies in {step.target}, which programs need",
                        field="reads",
                        value=path,
                    )
            yield step.target
