"""What a lease says, as a value and as the bytes of its file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from sandyard.workspace.root import Inode

__all__ = ["LeaseRecord", "LeaseState", "Unreadable"]

LeaseState = Literal["live", "kept"]

_VERSION: Final = 1
_WIDTH: Final = 20
"""Digits of 2**64. Numbers, and names of snapshots, that come later have their room from the beginning, so that every
version of a lease is as long as the first: a write that is cut short can't break what stands."""


class Unreadable(Enum):
    """Why a file is no record: it was never finished, or somebody else's program wrote it."""

    BROKEN = "broken"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a lease says.

    Attributes:
        session_id: the session.
        root: absolute path of its workspace on the host, without symlinks where it is owned.
        owned: True if the library makes the root, so that it may be deleted.
        inode: what the root is; None until it exists.
        logs: what the directory of its logs is; None while there is none.
        restoring: what is being restored into the root: the id of a snapshot, or of none that has one
            an empty text; None while nothing is. What is in the root then is of that, and not all of it.
        state: ``live`` while the session's owner uses it, ``kept`` once its caller keeps it.
        pid: the owner's process.
        started: when that process started, in clock ticks since the boot (proc_pid_stat(5)).
    """

    session_id: str
    root: str
    owned: bool
    inode: Inode | None = None
    logs: Inode | None = None
    restoring: str | None = None
    state: LeaseState = "live"
    pid: int
    started: int

    def encode(self) -> bytes:
        """Return a JSON document; its length depends on none of what changes."""
        import json  # noqa: PLC0415  # five modules that only a session needs

        device, number = _written(self.inode)
        logs_device, logs_number = _written(self.logs)
        return (
            f'{{"version": {_VERSION}, "state": "{self.state}", "owned": {json.dumps(self.owned)}, '
            f'"device": {device:>{_WIDTH}}, "inode": {number:>{_WIDTH}}, '
            f'"restoring": {json.dumps(self.restoring):>{_WIDTH}}, '
            f'"logs_device": {logs_device:>{_WIDTH}}, "logs_inode": {logs_number:>{_WIDTH}}, '
            f'"pid": {self.pid}, "started": {self.started}, '
            f'"session": {json.dumps(self.session_id)}, "root": {json.dumps(self.root)}}}\n'
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> LeaseRecord | Unreadable:
        """Read a document back; whatever the bytes are, nothing is raised."""
        import json  # noqa: PLC0415  # likewise

        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            return Unreadable.BROKEN
        match said:
            case {
                "version": 1,
                "state": "live" | "kept" as state,
                "owned": bool(owned),
                "device": device,
                "inode": number,
                "pid": int(pid),
                "started": int(started),
                "session": str(session_id),
                "root": str(root),
            }:
                pass
            case _:
                return Unreadable.FOREIGN
        try:
            inode = _read(device, number)
            # A version that knew no logs wrote none of these, and there are none then.
            logs = _read(said.get("logs_device"), said.get("logs_inode"))
            restoring = _name(said.get("restoring"))
        except ValueError:
            return Unreadable.FOREIGN
        return cls(
            session_id=session_id,
            root=root,
            owned=owned,
            inode=inode,
            logs=logs,
            restoring=restoring,
            state=state,
            pid=pid,
            started=started,
        )


def _written(inode: Inode | None) -> tuple[int | str, int | str]:
    return ("null", "null") if inode is None else inode


def _read(device: object, number: object) -> Inode | None:
    match device, number:
        case None, None:
            return None
        case int(), int():
            return Inode(device, number)
        case _:
            raise ValueError("an inode is two numbers, or none")


def _name(said: object) -> str | None:
    if said is None or isinstance(said, str):
        return said
    raise ValueError("what is restored is a name, or nothing")
