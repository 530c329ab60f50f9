"""Owns marks: what a sweep has to know of a stage, noted where no command can reach it.

A stage stands in a workspace, where commands can rename directories: their own to a stage's name, or
what the policy keeps from them, with all around it, into a stage. So a name says nothing. The mark
says what the stage is, and which things are not the stage's own, wherever they are by now.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.limits import STAGE_MARK_BYTES
from sandyard.workspace.root import Inode
from sandyard.workspace.ward import Rule, Ward

if TYPE_CHECKING:
    from sandyard.workspace.ward import RuleKind

__all__ = ["Mark", "read_mark", "remove_mark", "write_mark"]

_VERSION: Final = 1
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Mark(NamedTuple):
    """What a mark says.

    Attributes:
        inode: what the stage is.
        ward: what stays, also if somebody moved it into the stage.
    """

    inode: Inode
    ward: Ward


def write_mark(directory: str, name: str, stage: int, ward: Ward) -> None:
    """Note a stage; before anything is in it.

    Args:
        directory: the session's, in the state directory.
        name: the stage's.
        stage: its descriptor.
        ward: the rules of the session.

    Raises:
        OSError: that can't be written.
    """
    facts = os.fstat(stage)
    rules = [(rule.kind, rule.path, *rule.inode) for rule in ward.rules]
    said = {"version": _VERSION, "device": facts.st_dev, "inode": facts.st_ino, "rules": rules}
    with open(os.open(os.path.join(directory, name), _NEW, 0o600), "w", encoding="ascii") as file:
        json.dump(said, file)


def read_mark(directory: int, name: str) -> Mark | None:
    """Read what was noted of a stage; None if its owner died before it was written.

    Args:
        directory: descriptor of the session's, in the state directory.
        name: the stage's.

    Raises:
        OSError: it can't be read.
    """
    with open(os.open(name, _READ, dir_fd=directory), "rb") as file:
        raw = file.read(STAGE_MARK_BYTES)
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    match said:
        case {"version": 1, "device": int(device), "inode": int(number), "rules": [*listed]}:
            rules = [_rule(rule) for rule in listed]
        case _:
            return None
    known = [rule for rule in rules if rule is not None]
    return Mark(Inode(device, number), Ward(known)) if len(known) == len(rules) else None


def remove_mark(directory: str, name: str) -> None:
    """Forget a stage; one that was never noted does no harm."""
    with suppress(OSError):  # what can't be removed names a stage that has gone
        os.unlink(os.path.join(directory, name))


def _rule(said: object) -> Rule | None:
    """Read a rule, if it is one."""
    kind: RuleKind
    match said:
        case [
            "deny" | "protect" | "read" | "write" | "hold" as kind,
            str(path),
            int(device),
            int(number),
        ]:
            return Rule(kind, path, (device, number))
        case _:
            return None
