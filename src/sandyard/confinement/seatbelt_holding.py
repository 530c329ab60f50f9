"""What holds for a policy under Seatbelt, dimension by dimension. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandyard.confinement.footing import Held
from sandyard.confinement.seatbelt import SeatbeltFacts
from sandyard.policy import Dimension, Policy

__all__ = ["seatbelt_holding"]

_EXISTENCE: Final = Held(
    "partial",
    "there is no mount namespace: that a path exists, and the host's name, show; a hard link "
    "elsewhere to a file that is denied or masked is another name, which no rule is about",
    slight=True,
)
_DENIED_LINKS: Final = Held(
    "partial",
    "rules name paths: what is denied can be read by another name of the same file (a hard link) in "
    "what is shown",
)
_KEPT_LINKS: Final = Held(
    "partial",
    "rules name paths: what is protected, denied or granted for reading can be written to by another "
    "name of the same file (a hard link) in a writable tree",
)
_HOST_NETWORK: Final = Held("absent", "the policy shares the host's network", chosen=True)
_ONE_LOOPBACK: Final = Held(
    "partial",
    "there is no network namespace: services on the host's loopback can be connected to, and "
    "programs of the host can connect to the session's",
)
_NO_OWNER: Final = Held(
    "partial",
    "there is no PID namespace: that processes outside exist shows, a process that leaves its "
    "command's group outlives the command and the session, and what runs when the program is killed "
    "goes on",
)
_SHARED_NAMES: Final = (
    "POSIX semaphores and memory have one set of names on the machine: those of Python's "
    "multiprocessing, of your other programs too, can be opened"
)
_GRANTED_SOCKETS: Final = (
    "Unix sockets that programs of the host put into writable directories can be connected to"
)
_ANY_CALL: Final = Held(
    "absent",
    "a profile decides about what is done, and not about calls: any call reaches the kernel",
)
_BY_PROCESS: Final = Held(
    "partial",
    "there are no cgroups: memory and processor time are not limited, processes are counted with all "
    "of yours, open files and sizes of files process by process, and HOME and TMPDIR lie on a disk",
    slight=True,
)


def seatbelt_holding(policy: Policy, facts: SeatbeltFacts) -> Mapping[Dimension, Held]:
    """How well each dimension holds under the profile that ``plan_seatbelt`` makes."""
    return {
        "read": _DENIED_LINKS if facts.denied else _EXISTENCE,
        "write": _written(facts),
        "network": _network(policy),
        "processes": _NO_OWNER,
        "ipc": _shared(policy, facts),
        "syscalls": _ANY_CALL,
        "resources": _BY_PROCESS,
    }


def _written(facts: SeatbeltFacts) -> Held:
    kept = facts.protected or facts.denied or any(not grant.writable for grant in facts.grants)
    return _KEPT_LINKS if kept else Held()


def _network(policy: Policy) -> Held:
    if policy.network == "host":
        return _HOST_NETWORK
    # A loopback of the session's own can't be had; it is closed unless sharing the host's was accepted.
    return _ONE_LOOPBACK if "network" in policy.accept else Held()


def _shared(policy: Policy, facts: SeatbeltFacts) -> Held:
    theirs = not facts.owned or any(grant.writable for grant in facts.grants)
    if theirs and "no-unix-sockets" not in policy.syscalls:
        return Held("partial", f"{_SHARED_NAMES}; {_GRANTED_SOCKETS}")
    return Held("partial", _SHARED_NAMES)
