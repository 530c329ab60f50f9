"""Seatbelt: a policy as the profile that macOS's ``sandbox-exec`` takes. Pure; nothing is run here.

The rules of a profile are read in order, and the last one that fits decides. So they stand thus:

1. Everything is denied, and what every program needs is allowed: constants, in ``seatbelt_tables``.
2. What is shown stands with the shallower path first, so the deeper of two nested paths decides for
   what lies beneath it, as on Linux.
3. What is protected is denied for writing, and what is denied for everything, over all of these.
4. Rules name paths and not files: a directory that could be renamed would take what lies in it to a
   name without rules. So every directory on the way to a rule within a writable tree is held.

No path of the host's is part of a profile's text: each is a parameter, which ``sandbox-exec`` is told
beside the text, so that no name can end a string and write a rule.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sandyard.confinement.seatbelt_tables import (
    DEVICES,
    LINKS,
    MACHINE_FACTS,
    RESOLVER_SOCKET,
    SERVICES,
    SYSTEM_FILES,
    SYSTEM_TREES,
)
from sandyard.errors import ConfinementUnavailableError
from sandyard.platform import Grant, Toolchains, is_within
from sandyard.policy import Policy

__all__ = [
    "SANDBOX_EXEC",
    "SeatbeltFacts",
    "SeatbeltProfile",
    "confined_command",
    "plan_seatbelt",
]

SANDBOX_EXEC: Final = "/usr/bin/sandbox-exec"
"""The one that belongs to the system: another one on PATH could be anybody's."""

Right = Literal["read", "write", "none"]

_READS: Final = "file-read* file-map-executable process-exec*"
_WRITES: Final = "file-write*"
_ALL: Final = f"{_READS} {_WRITES} file-link file-clone file-ioctl"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeatbeltFacts:
    """What a profile is about, as found on the host.

    Seatbelt compares letters. Each path is absolute, without symlinks, and spelled as the file system
    keeps it, as ``fcntl(F_GETPATH)`` tells: on most Macs ``/Users/me/.SSH`` opens ``.ssh``, but a rule
    for it fits nothing.

    Attributes:
        workspace: the directory that commands work in.
        owned: whether the library made it, so that nothing of others lies in it.
        home: the private directory that is HOME; not used where the policy says ``"workspace"``.
        temporary: the private directory that is TMPDIR.
        toolchains: interpreters and toolchains outside the system's directories.
        grants: what the policy grants.
        denied: what it denies.
        protected: what in the workspace and in grants is to be kept as it is.
    """

    workspace: str
    owned: bool = True
    home: str
    temporary: str
    toolchains: Toolchains = field(default_factory=Toolchains)
    grants: tuple[Grant, ...] = ()
    denied: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeatbeltProfile:
    """What ``sandbox-exec`` is told.

    Attributes:
        text: the profile, in which no path of the host's stands.
        parameters: ``(name, path)``, in the order of their names' first use.
    """

    text: str
    parameters: tuple[tuple[str, str], ...]


def confined_command(profile: SeatbeltProfile, argv: Sequence[str]) -> tuple[str, ...]:
    """The words that run ``argv`` under ``profile``."""
    given = [word for name, path in profile.parameters for word in ("-D", f"{name}={path}")]
    # "--": a program whose name begins with a dash is a program, and no option.
    return (SANDBOX_EXEC, *given, "-p", profile.text, "--", *argv)


def plan_seatbelt(policy: Policy, facts: SeatbeltFacts) -> SeatbeltProfile:
    """The profile for commands of one session.

    Raises:
        ConfinementUnavailableError: the policy asks for a device, or for debuggers, which a profile
            can't give.
    """
    _check_askable(policy)
    page = _Page()
    page.say("(version 1)", "(deny default)")
    _add_basics(page)
    _add_system(page)
    places = _places(policy, facts)
    _add_places(page, facts, places)
    _add_network(page, policy)
    if "no-unix-sockets" not in policy.syscalls:
        _add_sockets(page, [place for place in places if place.right == "write"])
    # What denies comes last, and so over everything that allows.
    _add_denials(page, facts, places)
    return SeatbeltProfile(
        "\n".join(page.lines) + "\n", tuple((name, path) for path, name in page.names.items())
    )


def _check_askable(policy: Policy) -> None:
    if policy.devices:
        raise ConfinementUnavailableError(
            f"the devices {', '.join(policy.devices)} can't be given to commands",
            dimension="read",
            cause_text="a Seatbelt profile has no such devices",
            fix="leave out Policy(devices=…)",
        )
    if "ptrace" in policy.syscalls:
        raise ConfinementUnavailableError(
            "debuggers can't be let in",
            dimension="syscalls",
            cause_text="macOS asks for rights over tasks, and not for a system call",
            fix='leave "ptrace" out of Policy(syscalls=…)',
        )


# --- the text -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Page:
    """A profile as it grows."""

    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)

    def say(self, *lines: str) -> None:
        self.lines.extend(lines)

    def note(self, text: str) -> None:
        self.lines.extend(("", f"; {text}"))

    def rule(self, verb: str, operations: str, filters: Iterable[str]) -> None:
        """One rule; none if it has no filters, as without them it would be for everything."""
        kept = [f"  {text}" for text in filters]
        if kept:
            # The parenthesis has a line of its own: a remark would swallow it.
            self.lines.extend((f"({verb} {operations}", *kept, ")"))

    def parameter(self, label: str, path: str) -> str:
        """The words that stand for a path; the same path has one name."""
        if path not in self.names:
            number = self.counted[label] = self.counted.get(label, -1) + 1
            self.names[path] = f"{label}_{number}"
        return f'(param "{self.names[path]}")'

    def tree(self, label: str, path: str) -> str:
        return f"(subpath {self.parameter(label, path)})"

    def one(self, label: str, path: str) -> str:
        return f"(literal {self.parameter(label, path)})"


def _add_basics(page: _Page) -> None:
    page.note("nothing is started outside: no LaunchServices, no Apple Events, no bundled services")
    page.say(
        "(deny lsopen)", "(deny appleevent-send)", '(deny mach-lookup (xpc-service-name-prefix ""))'
    )
    page.note("these write through descriptors that are open for reading")
    page.say("(deny system-fcntl (fcntl-command 80 110)) ; F_MAKECOMPRESSED, F_TRANSFEREXTENTS")
    page.note("processes of this sandbox, and no others")
    page.say("(allow process-fork)")
    page.say("(allow process-info* (target same-sandbox))", "(allow signal (target same-sandbox))")
    page.note("services")
    page.rule(
        "allow",
        "mach-lookup",
        (f'(global-name "{each.name}") ; {each.reason}' for each in SERVICES if not each.network),
    )
    page.note("the machine")
    page.rule("allow", "sysctl-read", (f'(sysctl-name "{name}")' for name in MACHINE_FACTS))
    page.note("semaphores and memory of Python's multiprocessing; notifications are read")
    page.say('(allow ipc-posix-sem (ipc-posix-name-regex #"^/mp-"))')
    page.say('(allow ipc-posix-shm* (ipc-posix-name-regex #"^/psm_"))')
    page.say('(allow ipc-posix-shm-read* (ipc-posix-name "apple.shm.notification_center"))')
    page.note("devices, and terminals that were made inside")
    page.rule("allow", "file-read*", (f'(literal "{path}")' for path, _ in DEVICES))
    page.rule(
        "allow",
        "file-write-data file-ioctl",
        (f'(literal "{path}")' for path, right in DEVICES if right == "write"),
    )
    page.say(
        "(allow pseudo-tty)", '(allow file-read* file-write-data file-ioctl (literal "/dev/ptmx"))'
    )
    page.rule(
        "allow",
        "file-read* file-write-data file-ioctl",
        ['(require-all (regex #"^/dev/ttys[0-9]+$") (extension "com.apple.sandbox.pty"))'],
    )


def _add_system(page: _Page) -> None:
    page.note("the system")
    page.rule("allow", _READS, (f'(subpath "{path}") ; {why}' for path, why in SYSTEM_TREES))
    page.rule("allow", "file-read*", (f'(literal "{path}") ; {why}' for path, why in SYSTEM_FILES))
    page.rule("allow", "file-read-metadata", (f'(literal "{path}")' for path in LINKS))


# --- what is shown --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A tree, and what commands may do in it."""

    path: str
    right: Right
    label: str


def _places(policy: Policy, facts: SeatbeltFacts) -> list[_Place]:
    """What is shown, or hidden within it, the shallower first; one place a path."""
    granted = [
        _Place(facts.temporary, "write", "TMPDIR"),
        *([] if policy.home == "workspace" else [_Place(facts.home, "write", "HOME")]),
        _Place(facts.workspace, "write", "WORKSPACE"),
        *(_Place(grant.source, "write", "WRITE") for grant in facts.grants if grant.writable),
        *(_Place(grant.source, "read", "READ") for grant in facts.grants if not grant.writable),
    ]
    writable = [place.path for place in granted if place.right == "write"]
    found = [
        *(_Place(path, "none", "MASK") for path in facts.toolchains.masks),
        *(
            _Place(path, "read", "TOOLCHAIN")
            for path in facts.toolchains.roots
            if policy.toolchains
        ),
    ]
    # What was found and not granted changes nothing in a tree that was given for writing, or a
    # virtual environment in the workspace could not be installed into.
    kept = [each for each in found if not _is_within_any(each.path, writable)]
    placed: dict[str, _Place] = {}
    for place in (*granted, *kept):
        placed.setdefault(place.path, place)
    return sorted(placed.values(), key=lambda place: (place.path.count("/"), place.path))


def _add_places(page: _Page, facts: SeatbeltFacts, places: Sequence[_Place]) -> None:
    page.note("what is passed on the way to what is shown: that it exists, and no more")
    above = {over: None for place in places for over in _above(place.path)}
    named = [grant.path for grant in facts.grants] + [path for path, _ in facts.toolchains.links]
    links = {over: None for path in named for over in (path, *_above(path))}
    shown = {place.path for place in places}
    page.rule(
        "allow",
        "file-read-metadata",
        (page.one("ABOVE", path) for path in above | links if path not in shown),
    )
    page.note("what is shown: the deeper of two decides")
    for place in places:
        tree = page.tree(place.label, place.path)
        if place.right == "none":
            page.rule("deny", _ALL, [tree])
            continue
        page.rule("allow", f"{_READS} {_WRITES}" if place.right == "write" else _READS, [tree])
        if place.right == "read":
            page.rule("deny", _WRITES, [tree])


def _add_network(page: _Page, policy: Policy) -> None:
    page.note("network")
    if policy.network == "host":
        page.say('(allow network-outbound (remote ip "*:*"))')
        page.say('(allow network-bind network-inbound (local ip "*:*"))')
        page.say(
            f'(allow network-outbound (remote unix-socket (path-literal "{RESOLVER_SOCKET}")))'
        )
        page.rule(
            "allow",
            "mach-lookup",
            (f'(global-name "{each.name}") ; {each.reason}' for each in SERVICES if each.network),
        )
    elif "network" in policy.accept:
        # There is one loopback, the host's: it is opened only to who has accepted to share it.
        page.say('(allow network-bind network-inbound (local ip "localhost:*"))')
        page.say('(allow network-outbound (remote ip "localhost:*"))')


def _add_sockets(page: _Page, places: Sequence[_Place]) -> None:
    page.note("Unix sockets, where files can be made")
    trees = [page.tree(place.label, place.path) for place in places]
    page.say("(allow system-socket (socket-domain AF_UNIX))")
    page.rule("allow", "network-bind network-inbound", (f"(local unix-socket {t})" for t in trees))
    page.rule("allow", "network-outbound", (f"(remote unix-socket {tree})" for tree in trees))


# --- what is denied -------------------------------------------------------------------------------


def _add_denials(page: _Page, facts: SeatbeltFacts, places: Sequence[_Place]) -> None:
    page.note("no file becomes another user's program")
    page.say("(deny file-write-setugid)")
    if facts.protected:
        page.note("what is kept as it is")
        trees = [page.tree("PROTECT", path) for path in facts.protected]
        page.rule("deny", _WRITES, trees)
    if facts.denied:
        page.note("what is denied")
        trees = [page.tree("DENY", path) for path in facts.denied]
        page.rule("deny", _ALL, trees)
        page.rule(
            "deny", "network-bind network-inbound", (f"(local unix-socket {t})" for t in trees)
        )
        page.rule("deny", "network-outbound", (f"(remote unix-socket {tree})" for tree in trees))
    page.note("what leads to a rule, and so keeps its name")
    page.rule(
        "deny", "file-write-unlink", (page.one("HOLD", path) for path in _held(facts, places))
    )


def _held(facts: SeatbeltFacts, places: Sequence[_Place]) -> list[str]:
    """Directories that must not be renamed or removed, as rules name what lies in them."""
    writable = [place.path for place in places if place.right == "write"]
    ruled = [*(place.path for place in places), *facts.protected, *facts.denied]
    held = dict.fromkeys(writable)
    for path in ruled:
        held |= dict.fromkeys(over for over in _above(path) if _is_within_any(over, writable))
    return list(held)


def _above(path: str) -> Iterable[str]:
    """The directories above a path, the root left out."""
    while (path := posixpath.dirname(path)) not in {"/", ""}:
        yield path


def _is_within_any(path: str, trees: Iterable[str]) -> bool:
    return any(is_within(path, tree) for tree in trees)
