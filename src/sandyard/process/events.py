"""What init tells of starts and commands, as values, the steps that it names, and the bytes of an end."""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import NamedTuple

from sandyard.types import RefusedCall

__all__ = [
    "Done",
    "Event",
    "Exited",
    "Failure",
    "Gone",
    "LeftRunning",
    "Mounted",
    "Passed",
    "Pipes",
    "ProtocolError",
    "SocketMade",
    "SpawnFailed",
    "Spawned",
    "StartFailed",
    "Started",
    "Step",
    "Stilled",
    "Unmapped",
    "Usage",
    "Written",
]


class ProtocolError(Exception):
    """What came from init is no message of this protocol."""


class Step(IntEnum):
    """Steps of a start in the order in which the kernel sees them, of a spawn, of a late mount."""

    PROTOCOL = 1
    IDMAP = 2
    NAMESPACES = 3
    USER = 4
    PRIVATE_MOUNTS = 5
    SOURCE = 6
    ROOT = 7
    MOUNT = 8
    PIVOT = 9
    HOSTNAME = 10
    LOOPBACK = 11
    LIMITS = 12
    CAPABILITIES = 13
    IDENTITY = 14
    PRIVILEGES = 15
    LANDLOCK = 16
    SECCOMP = 17
    SERVE = 18
    COUNTS = 19
    REFUSALS = 20
    SPAWN_FORK = 32
    SPAWN_STDIO = 33
    SPAWN_CWD = 34
    SPAWN_EXEC = 35
    SPAWN_TERMINAL = 36
    SPAWN_NARROW = 40
    SPAWN_USER = 41
    LATE_ENTER = 48
    LATE_SOURCE = 49
    LATE_MAKE = 50
    LATE_PART = 51
    LATE_TARGET = 52
    LATE_ATTACH = 53


class Done(NamedTuple):
    """One step of a start that was carried out; ``skipped`` is the errno of a piece left out."""

    step: Step
    record: int
    skipped: int


class Failure(NamedTuple):
    """A step that failed: which, of which record of the plan, with which errno, on what."""

    step: Step
    record: int | None
    error: int
    text: str


class Started(NamedTuple):
    """The walls are up; ``steps`` says which and in which order."""

    steps: tuple[Done, ...]


class StartFailed(NamedTuple):
    """The start ended at a step that the kernel refused."""

    failure: Failure


class SpawnFailed(NamedTuple):
    """A command was never born."""

    job: int
    failure: Failure


class Spawned(NamedTuple):
    """A command runs; ``pid`` is its number inside."""

    job: int
    pid: int


class Usage(NamedTuple):
    """What wait4 told of the command and the children that it waited for."""

    user_us: int
    system_us: int
    max_rss_kib: int
    minor_faults: int
    major_faults: int
    blocks_in: int
    blocks_out: int
    voluntary_switches: int
    involuntary_switches: int


class LeftRunning(NamedTuple):
    """A process that outlived its command."""

    pid: int
    name: str


class Exited(NamedTuple):
    """A command ended.

    Attributes:
        status: the wait status.
        killed: True if its tree was ended on request.
        keeper_lost: True if a command killed the job's keeper; then the status is the keeper's.
        left: how many processes it left running; ``listed`` names the first of them.
        refused: how many calls the filter refused it; ``kinds`` are the first kinds of them.
        stdout: what a captured command wrote that was not told before; ``stderr`` likewise.
    """

    job: int
    status: int
    killed: bool
    keeper_lost: bool
    usage: Usage
    left: int
    listed: tuple[LeftRunning, ...]
    refused: int = 0
    kinds: tuple[RefusedCall, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""


class Written(NamedTuple):
    """What a captured command wrote to a stream (0: stdout, 1: stderr), of more than its exit has room for."""

    job: int
    stream: int
    data: bytes


class Pipes(NamedTuple):
    """The pipes of a captured command, which were asked for, come with this."""

    job: int


class Gone(NamedTuple):
    """The last process that a command left running has ended.

    Attributes:
        refused: how many calls the filter refused the command and all of them, its exit's included.
        kinds: the first kinds of them.
    """

    job: int
    refused: int = 0
    kinds: tuple[RefusedCall, ...] = ()


class Unmapped(NamedTuple):
    """Init waits for its id maps; ``pid`` is its number outside."""

    pid: int


class Mounted(NamedTuple):
    """A late mount stands, or is gone; ``mount`` is what the kernel knows it by."""

    mount: int


class SocketMade(NamedTuple):
    """A socket that was asked for comes with this, or ``error`` says why it does not."""

    job: int
    error: int


class Stilled(NamedTuple):
    """All were told to stop, or to go on, or ``error`` says why not."""

    job: int
    error: int


class Passed(NamedTuple):
    """One of the descriptors that were asked for comes with this; ``number`` says which."""

    number: int


Event = (
    Started
    | StartFailed
    | SpawnFailed
    | Spawned
    | Exited
    | Gone
    | Mounted
    | Written
    | Passed
    | Pipes
    | SocketMade
    | Stilled
    | Unmapped
)


# --- ends ---------------------------------------------------------------------------------------

LEFTOVERS_LISTED = 64
REFUSED_LISTED = 8
OUTPUT_ROOM = 16 * 1024

_STATUS_LIMIT = 0xFFFF
_KILLED, _KEEPER_LOST = 1, 2  # enum exited_flag

_EXITED = struct.Struct("=iI9QIIQIIII")
_REFUSED = struct.Struct("=QIi16s")
_LEFTOVER = struct.Struct("=I16s")
_GONE = struct.Struct("=QII")


def decode_exited(job: int, body: bytes) -> Exited:
    """The body of an EXITED.

    Raises:
        ProtocolError: it is none.
    """
    if len(body) < _EXITED.size:
        raise ProtocolError("an exit is cut off")
    status, flags, *usage, left, listed, refused, kinds, _, out, err = _EXITED.unpack_from(body)
    if listed > LEFTOVERS_LISTED or kinds > REFUSED_LISTED or out + err > OUTPUT_ROOM:
        raise ProtocolError("an exit lists more than it may")
    processes = _EXITED.size + kinds * _REFUSED.size
    output = processes + listed * _LEFTOVER.size
    if len(body) != output + out + err:
        raise ProtocolError("an exit has more or fewer bytes than what it lists")
    if not 0 <= status <= _STATUS_LIMIT or not (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
        raise ProtocolError("an exit's status is that of no ended process")
    return Exited(
        job,
        status,
        bool(flags & _KILLED),
        bool(flags & _KEEPER_LOST),
        Usage._make(usage),
        left,
        _leftovers(body[processes:output]) if listed else (),
        refused,
        _calls(body[_EXITED.size : processes]) if kinds else (),
        body[output : output + out],
        body[output + out :],
    )


def decode_gone(job: int, body: bytes) -> Gone:
    """The body of a GONE.

    Raises:
        ProtocolError: it is none.
    """
    if len(body) < _GONE.size:
        raise ProtocolError("what is gone is cut off")
    refused, kinds, _ = _GONE.unpack_from(body)
    if kinds > REFUSED_LISTED or len(body) != _GONE.size + kinds * _REFUSED.size:
        raise ProtocolError("what is gone lists more calls than it may, or another number")
    return Gone(job, refused, _calls(body[_GONE.size :]))


def _leftovers(body: bytes) -> tuple[LeftRunning, ...]:
    return tuple(LeftRunning(pid, _name(name)) for pid, name in _LEFTOVER.iter_unpack(body))


def _calls(body: bytes) -> tuple[RefusedCall, ...]:
    return tuple(
        RefusedCall(times, number, error, _name(name))
        for times, number, error, name in _REFUSED.iter_unpack(body)
    )


def _name(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
