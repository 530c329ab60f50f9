"""Whether the users and groups of a manifest can be had here, and their way into its workspace."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from sandyard.accounts import accounts_of
from sandyard.errors import ConfinementUnavailableError, ManifestError
from sandyard.process.identity import first_parked

if TYPE_CHECKING:
    from sandyard.accounts import Accounts
    from sandyard.manifest import Manifest
    from sandyard.workspace import WorkspaceRoot

__all__ = ["admit", "possible_accounts"]


def possible_accounts(manifest: Manifest) -> Accounts:
    """The manifest's users and groups, refused before anything is made where none can be (blocking).

    Raises:
        ManifestError: a name is impossible, or an ordinary user has no ids for them.
    """
    accounts = accounts_of(manifest.users, manifest.groups)
    if accounts.further and os.geteuid() != 0:
        try:
            first_parked(accounts.further)
        except ConfinementUnavailableError as error:
            raise ManifestError(
                f"{error.message}; or leave users and groups out of the manifest",
                field="users" if manifest.users else "groups",
                cause=error,
            ) from error
    return accounts


def admit(root: WorkspaceRoot | None, accounts: Accounts) -> None:
    """Let all users into a private directory; what is in it has modes of its own (blocking).

    Args:
        root: the directory; None where it is the caller's, and has the caller's modes.
        accounts: the users.

    Raises:
        WorkspaceStartError: its file system has no access control lists.
    """
    if root is None or not accounts.further:
        return
    found = dataclasses.replace(accounts, first=first_parked(accounts.further))
    root.admit(found.disk_id(user.number) for user in found.users[1:])
    root.names = found.disk_names()  # of what is put into it before its session starts
