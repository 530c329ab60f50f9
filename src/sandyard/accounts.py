"""Accounts: the users and groups of a manifest as a session has them, each with a number.

The session's own user, ``agent``, has the number 0; every other user, and then every group, has one
of its own. What the numbers are as ids, inside and outside, is for others to say. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.errors import ManifestError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandyard.types import Group, User

__all__ = ["ACCOUNTS_MOST", "AGENT", "ONLY_AGENT", "Account", "Accounts", "accounts_of"]

AGENT: Final = "agent"
"""The user that every session has, whom its workspace belongs to."""

ACCOUNTS_MOST: Final = 64
"""Users and groups of one session besides its own: far more than roles in a team of agents."""

_RESERVED: Final = frozenset({"root", "nobody", "nogroup"})
"""Names that programs expect to mean something else."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", re.ASCII)
"""What useradd(8) takes, and capitals and dots: nothing that ends a field of passwd(5)."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user inside.

    Attributes:
        name: login name.
        number: which of the session's users; 0 is ``agent``.
        groups: numbers of its groups besides the one that has its own name.
    """

    name: str
    number: int
    groups: tuple[int, ...] = ()

    @property
    def home(self) -> str:
        """Its private HOME."""
        return f"/home/{self.name}"


@dataclass(frozen=True, slots=True)
class Accounts:
    """The users and groups of a session.

    Attributes:
        users: ``agent`` first, then the others in the order of their numbers.
        groups: ``(name, number)`` of what is no user's own group.
        first: the id on disk of the one with the number 1, which the others follow; 0 until it is
            known.
    """

    users: tuple[Account, ...] = (Account(AGENT, 0),)
    groups: tuple[tuple[str, int], ...] = ()
    first: int = 0

    @property
    def further(self) -> int:
        """How many numbers there are besides 0."""
        return len(self.users) - 1 + len(self.groups)

    def user(self, name: str) -> Account | None:
        """The user of that name."""
        return next((user for user in self.users if user.name == name), None)

    def disk_id(self, number: int) -> int:
        """What a number besides 0 is on disk."""
        return self.first + number - 1

    def disk_names(self) -> Mapping[int, str]:
        """What each id on disk is called: of users and their own groups, and of groups, alike."""
        names = [(user.number, user.name) for user in self.users[1:]]
        names += [(number, name) for name, number in self.groups]
        return {self.disk_id(number): name for number, name in names}

    def members(self, number: int) -> tuple[str, ...]:
        """The names of a group's members."""
        return tuple(user.name for user in self.users if number in user.groups)


ONLY_AGENT: Final = Accounts()


def accounts_of(users: Iterable[User], groups: Iterable[Group]) -> Accounts:
    """Number the users and groups of a manifest; members of groups are users as well.

    Raises:
        ManifestError: a name is none that a user or group can have, is taken, or there are too many.
    """
    given = tuple(groups)
    names: dict[str, None] = {AGENT: None}
    for user in users:
        names[_checked(user.name, "users")] = None
    for group in given:
        for user in group.users:
            names[_checked(user.name, "groups")] = None
    numbers: dict[str, int] = {}
    memberships: dict[str, list[int]] = {}
    for number, group in enumerate(given, start=len(names)):
        name = _checked(group.name, "groups")
        if name in names or name in numbers:
            what = "each user has a group of its own name" if name in names else "it is there twice"
            raise ManifestError(
                f"group {shown(name)} can't be made: {what}; choose another name", field="groups"
            )
        numbers[name] = number
        for member in dict.fromkeys(user.name for user in group.users):
            memberships.setdefault(member, []).append(number)
    found = Accounts(
        tuple(
            Account(name, number, tuple(memberships.get(name, ())))
            for number, name in enumerate(names)
        ),
        tuple(numbers.items()),
    )
    if found.further > ACCOUNTS_MOST:
        raise ManifestError(
            f"there are {found.further} users and groups; a session has {ACCOUNTS_MOST} besides "
            f"{AGENT!r}",
            field="users" if len(names) > len(numbers) else "groups",
        )
    return found if found.further else ONLY_AGENT


def _checked(name: str, field: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ManifestError(
            f"{field} has the name {shown(name)}; a name is a letter or underscore and then up to 31 "
            "letters, digits, underscores, dots and hyphens",
            field=field,
        )
    if name in _RESERVED:
        raise ManifestError(
            f"{field} has {shown(name)}, which is the system's own; choose another name",
            field=field,
        )
    return name
