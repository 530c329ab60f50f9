"""What holds for a policy on a rung, and whether that is enough for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.confinement.footing import FULL, ConfinementReport, Footing, Held
from sandyard.errors import ConfinementUnavailableError
from sandyard.platform import is_within
from sandyard.policy import DIMENSIONS, RUNGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandyard.platform import Grant, HostFacts
    from sandyard.policy import Dimension, Policy
    from sandyard.resources import EnforcedLimit

__all__ = ["Circumstances", "check_enough", "check_given", "report_holding"]

_SCOPE_ABI: Final = 6

_HOST_NETWORK: Final = Held("absent", "the policy shares the host's network", chosen=True)
_GRANTED_SOCKETS: Final = (
    "Unix sockets that programs of the host put into granted directories can be connected to"
)
_METADATA_SHOWS: Final = (
    "there is no mount namespace: whoever knows a path can ask for the size, owner, mode, times "
    "and attributes of what lies there and where a link leads, and be told of changes to it; the host's name shows"
)
_METADATA_CHANGES: Final = (
    "there is no mount namespace, and Landlock does not hold metadata: modes, times and attributes "
    "of files that are your own can be changed anywhere"
)
_NUMBERS_SHOW: Final = (
    "there is no PID namespace: that processes outside exist, and whose they are, shows"
)
_SIGNALS: Final = (
    "there is no PID namespace, and Landlock before ABI 6 (Linux 6.12) does not keep commands from "
    "sending signals to your other processes"
)
_NO_WALL: Final = Held(
    "absent",
    "the policy takes the wall away: commands do what the user they run as may do on this machine",
    chosen=True,
)
_NO_LIMITS: Final = Held(
    "absent",
    "rlimits hold the session's own processes, each alone, and commands can have programs of this "
    "machine start others",
    chosen=True,
)
_ON_DISK: Final = "HOME and TMPDIR lie on a disk, where nothing limits their size"
_COUNTED_TOGETHER: Final = "the limit on processes counts all that run as this user"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a session's report depends on.

    Attributes:
        facts: the host.
        workspace: the workspace's real path.
        owned: whether the library made the workspace, so that nothing of others lies in it.
        grants: what the policy grants.
        denied: what it denies, as found on the host.
        protected: paths in what can be written to that are to be kept as they are.
        limits: what holds its limits.
        sockets: paths in the workspace and in grants on which programs of the host listen.
    """

    facts: HostFacts
    workspace: str
    owned: bool
    grants: tuple[Grant, ...] = ()
    denied: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    limits: tuple[EnforcedLimit, ...] = ()
    sockets: tuple[str, ...] = ()

    def shown(self) -> tuple[str, ...]:
        """Directories in which programs of the host may listen on sockets."""
        granted = tuple(grant.source for grant in self.grants)
        return granted if self.owned else (self.workspace, *granted)


def report_holding(
    policy: Policy, circumstances: Circumstances, footing: Footing = FULL
) -> ConfinementReport:
    """Say what holds for ``policy`` on ``footing``."""
    if footing.rung == "unconfined":
        none: dict[Dimension, Held] = dict.fromkeys(DIMENSIONS, _NO_WALL) | {
            "resources": _NO_LIMITS
        }
        return ConfinementReport(rung="unconfined", cause=footing.cause, fix=footing.fix, **none)
    bare = footing.bare
    return ConfinementReport(
        rung=footing.rung,
        cause=footing.cause,
        fix=footing.fix,
        read=_bare_read(circumstances) if bare else Held(),
        write=_bare_write(circumstances) if bare else Held(),
        network=_HOST_NETWORK if policy.network == "host" else Held(),
        processes=_bare_processes(circumstances.facts) if bare else Held(),
        ipc=Held() if bare else _ipc(policy, circumstances),
        syscalls=Held(),
        resources=_resources(circumstances, bare=bare),
    )


def _ipc(policy: Policy, circumstances: Circumstances) -> Held:
    # Abstract sockets are closed by the network namespace, by Landlock, or with all Unix sockets.
    closed = "no-unix-sockets" in policy.syscalls
    if closed or not circumstances.shown():
        return Held()
    found = circumstances.sockets
    why = f"{_GRANTED_SOCKETS}; now there is {_some(found)}" if found else _GRANTED_SOCKETS
    return Held("partial", why, chosen=True)


def _bare_read(circumstances: Circumstances) -> Held:
    writable = _writable(circumstances)
    within = [path for path in circumstances.denied if _is_within_any(path, writable)]
    if within:
        return Held("partial", f"Landlock can't deny a part of a writable tree: {_some(within)}")
    return Held("partial", _METADATA_SHOWS, slight=True)


def _bare_write(circumstances: Circumstances) -> Held:
    writable = _writable(circumstances)
    kept = [
        *(
            grant.source
            for grant in circumstances.grants
            if not grant.writable and _is_within_any(grant.source, writable)
        ),
        *circumstances.protected,
    ]
    why = []
    if kept:
        why.append(f"Landlock can't keep a part of a writable tree as it is: {_some(kept)}")
    if circumstances.facts.euid != 0:
        why.append(_METADATA_CHANGES)
    return Held("partial", "; ".join(why)) if why else Held()


def _bare_processes(facts: HostFacts) -> Held:
    if facts.euid != 0 and facts.landlock_abi < _SCOPE_ABI:
        return Held("absent", _SIGNALS)
    return Held("partial", _NUMBERS_SHOW, slight=True)


def _resources(circumstances: Circumstances, *, bare: bool) -> Held:
    why = [
        f"{limit.limit}: {limit.why}"
        for limit in circumstances.limits
        if limit.strength != "enforced"
    ]
    if bare:
        why.append(_ON_DISK)
        if circumstances.facts.euid != 0:
            why.append(_COUNTED_TOGETHER)
    return Held("partial", "; ".join(why), slight=True) if why else Held()


def _writable(circumstances: Circumstances) -> tuple[str, ...]:
    granted = (grant.source for grant in circumstances.grants if grant.writable)
    return (circumstances.workspace, *granted)


def _is_within_any(path: str, trees: Sequence[str]) -> bool:
    return any(is_within(path, tree) for tree in trees)


_SHOWN_PATHS: Final = 3
"""Paths that a sentence names; the rest is counted."""


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_SHOWN_PATHS])
    more = len(paths) - _SHOWN_PATHS
    return shown if more <= 0 else f"{shown} and {more} more"


# --- is it enough ---------------------------------------------------------------------------------


def check_enough(policy: Policy, report: ConfinementReport) -> None:
    """Refuse what is less than the policy asks for.

    Raises:
        ConfinementUnavailableError: a rung or a dimension is not what it must be.
    """
    for name in policy.require:
        if name in RUNGS and RUNGS.index(report.rung) > RUNGS.index(name):
            raise ConfinementUnavailableError(
                f"the rung {name} is required, and this machine allows {report.rung}",
                dimension="processes",
                cause_text=report.cause or "a higher rung was refused",
                fix=report.fix or "run 'sandyard doctor' to see what is missing",
            )
    for name, held in report.dimensions().items():
        if not _is_enough(policy, name, held):
            raise _refusal(policy, name, held, report)


def check_given(circumstances: Circumstances, footing: Footing) -> None:
    """Refuse directories of the caller's that root's commands could not write to.

    They run as a user of their own. Where no mount can show another's files as his, only what the
    library itself made can be given to him.

    Raises:
        ConfinementUnavailableError: the workspace, or a writable grant, is the caller's.
    """
    if not footing.bare or circumstances.facts.euid != 0:
        return
    theirs = _writable(circumstances)[1 if circumstances.owned else 0 :]
    if theirs:
        raise ConfinementUnavailableError(
            f"{_some(theirs)} can't be written to by commands of root's",
            dimension="write",
            cause_text="they run as a user of their own, to whom a directory of yours is not given; "
            f"it would be shown to him by an idmapped mount, but {footing.cause}",
            fix=f"{footing.fix}; or run as the user who owns the directory; or copy its files into "
            "a workspace that the library makes (a manifest without a root)",
        )


def _is_enough(policy: Policy, name: Dimension, held: Held) -> bool:
    if held.state == "enforced" or name in policy.accept:
        return True
    if name in policy.require:
        return False
    return held.chosen or (held.slight and "strict" not in policy.require)


def _refusal(
    policy: Policy, name: Dimension, held: Held, report: ConfinementReport
) -> ConfinementUnavailableError:
    required = name in policy.require or "strict" in policy.require
    words = f"{report.fix}; or accept" if report.fix else "accept"
    fix = f"{words} what is lost: Policy(accept={(name,)!r})"
    if required:
        fix = f"{report.fix or 'change what the cause names'}; or require less"
    if name == "write" and "as it is" in held.why:
        fix += "; or protect less: Policy(protect=())"
    cause = f"{held.why}. It is so since {report.cause}" if report.cause else held.why
    error = ConfinementUnavailableError(
        f"{name} can't be confined as the policy asks",
        dimension=name,
        cause_text=cause,
        fix=fix,
    )
    error.context |= {"rung": report.rung, "state": held.state}
    return error
