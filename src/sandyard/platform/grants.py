"""Grants: the paths of a policy, looked up on the host before anything is created."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from sandyard.errors import PolicyError
from sandyard.platform.facts import Grant

if TYPE_CHECKING:
    from sandyard.policy import Policy

__all__ = ["resolve_denied", "resolve_grants"]


def resolve_grants(policy: Policy) -> tuple[Grant, ...]:
    """Find what ``policy`` names in ``reads`` and ``writes``.

    Blocks on the file system. A path in both is granted for writing.

    Raises:
        PolicyError: a path does not exist, or is neither a file nor a directory.
    """
    named = {path: ("reads", path) for path in policy.reads}
    named |= {path: ("writes", path) for path in policy.writes}
    return tuple(_resolve(path, field) for field, path in named.values())


def resolve_denied(policy: Policy) -> tuple[str, ...]:
    """Where the paths that ``policy`` denies are, without symlinks.

    Blocks on the file system. One that does not exist is where it would be.

    Raises:
        PolicyError: a path can't be looked up.
    """
    found = []
    for path in policy.deny:
        try:
            found.append(os.path.realpath(path))
            os.lstat(found[-1])
        except FileNotFoundError:
            continue
        except OSError as error:  # not seen is not the same as not there
            raise PolicyError(
                f"{path} in deny can't be looked up: {error.strerror}",
                field="deny",
                value=path,
                cause=error,
            ) from error
    return tuple(dict.fromkeys(found))


def _resolve(path: str, field: str) -> Grant:
    try:
        source = os.path.realpath(path, strict=True)
        found = os.stat(source, follow_symlinks=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PolicyError(
            f"{path} in {field} can't be granted: {reason}", field=field, value=path, cause=error
        ) from error
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        # connect(2) asks no mount whether it is read-only, and a device is the host's hardware.
        raise PolicyError(
            f"{path} in {field} is {_kind(found.st_mode)}; only files and directories are granted",
            field=field,
            value=path,
        )
    return Grant(path, source, field == "writes", (found.st_dev, found.st_ino))


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a Unix socket"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a device"
