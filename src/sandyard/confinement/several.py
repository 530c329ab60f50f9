"""Several users: what a plan has more where a session's manifest names users or groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandyard.confinement.sizes import AGENT_GID, AGENT_UID
from sandyard.errors import ConfinementUnavailableError, ManifestError
from sandyard.plan import Bind, Private, Symlink, TextFile

if TYPE_CHECKING:
    from sandyard.accounts import Accounts
    from sandyard.confinement.footing import Footing
    from sandyard.plan import MountStep
    from sandyard.platform import HostFacts

__all__ = ["add_accounts", "check_several", "user_variables"]

_HOME_MODE = 0o700


def check_several(facts: HostFacts, footing: Footing) -> None:
    """Refuse several users where there can be one only.

    Raises:
        ConfinementUnavailableError: the calling program, the machine or the workspace's file system
            has no ids for them.
    """
    if footing.bare:
        cause = f"without a user namespace they would be users of this machine, and {footing.cause}"
        fix = f"{footing.fix}; or leave users and groups out of the manifest"
    elif footing.given:
        cause = (
            "the workspace's file system can't show its files as somebody else's (idmapped mounts)"
        )
        fix = "put the workspace on ext4, xfs, btrfs or tmpfs, or leave users and groups out"
    else:
        return
    raise ConfinementUnavailableError(
        "the manifest's users and groups can't be made",
        dimension="processes",
        cause_text=cause,
        fix=fix,
    )


def add_accounts(steps: dict[str, MountStep], accounts: Accounts, shell: str) -> None:
    """Name the users and groups in /etc, and give each user a private HOME.

    Args:
        steps: what stands so far, by path.
        accounts: the users and groups.
        shell: the login shell of every user.

    Raises:
        ManifestError: something that the policy grants stands where a HOME would.
    """
    passwd, group = steps["/etc/passwd"], steps["/etc/group"]
    if not isinstance(passwd, TextFile) or not isinstance(group, TextFile):
        raise AssertionError("they are built, and no policy replaces them")
    people, groups = "", ""
    for user in accounts.users[1:]:
        _check_home(steps, user.home)
        steps[user.home] = Private(user.home, _HOME_MODE, owner=user.number)
        uid, gid = AGENT_UID + user.number, AGENT_GID + user.number
        people += f"{user.name}:x:{uid}:{gid}:{user.name}:{user.home}:{shell}\n"
        groups += f"{user.name}:x:{gid}:\n"
    for name, number in accounts.groups:
        groups += f"{name}:x:{AGENT_GID + number}:{','.join(accounts.members(number))}\n"
    steps[passwd.path] = TextFile(passwd.path, passwd.content + people.encode())
    steps[group.path] = TextFile(group.path, group.content + groups.encode())


def _check_home(steps: dict[str, MountStep], home: str) -> None:
    at = home
    while at:
        if isinstance(steps.get(at), (Bind, Symlink)):
            raise ManifestError(
                f"the HOME of a user would be {home}, and {at} is what the policy, or this machine's "
                "system, shows there; choose another name for the user",
                field="users",
            )
        at = at.rpartition("/")[0]


def user_variables(name: str, home: str) -> dict[bytes, bytes]:
    """The variables that say who a command is."""
    said = {"HOME": home, "USER": name, "LOGNAME": name}
    return {key.encode(): value.encode() for key, value in said.items()}
