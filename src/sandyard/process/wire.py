"""The words that the host and init exchange: pure encoding of requests, strict decoding of events.

The layout is that of ``native/protocol.h``. What comes back is hostile input (a command that broke
init would write it), so every length and count is checked and nothing is trusted to be there.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Final

from sandyard.plan import (
    Bind,
    Deny,
    Device,
    DevPts,
    Directory,
    HostIdentity,
    LandlockRuleset,
    LaunchPlan,
    Mask,
    MountStep,
    Narrowed,
    Private,
    Proc,
    ReadOnly,
    ResourceLimit,
    Spawn,
    SpawnUser,
    Symlink,
    TextFile,
)
from sandyard.process.events import (
    Done,
    Event,
    Exited,
    Failure,
    Gone,
    LeftRunning,
    Mounted,
    Passed,
    Pipes,
    ProtocolError,
    SocketMade,
    Spawned,
    SpawnFailed,
    Started,
    StartFailed,
    Step,
    Stilled,
    Unmapped,
    Usage,
    Written,
    decode_exited,
    decode_gone,
)

__all__ = [
    "BODY_IN_MEMFD",
    "BODY_LIMIT",
    "DATAGRAM_LIMIT",
    "INLINE_LIMIT",
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
    "Record",
    "Request",
    "SignalTarget",
    "SpawnFailed",
    "Spawned",
    "StartFailed",
    "Started",
    "Step",
    "Stilled",
    "Unmapped",
    "Usage",
    "Written",
    "decode_event",
    "encode_kill",
    "encode_message",
    "encode_plan",
    "encode_records",
    "encode_signal",
    "encode_spawn",
    "encode_still",
    "encode_variables",
    "split_record",
]

MAGIC = 0x01445953
INLINE_LIMIT = 32 * 1024
BODY_LIMIT = 8 * 1024 * 1024
BODY_IN_MEMFD = 1
NO_RECORD = 0xFFFFFFFF

_HEAD = struct.Struct("=IHHII")
_RECORD = struct.Struct("=HHI")
_IDENTITY = struct.Struct("=IIIIIII")
_NODE = struct.Struct("=II")
_OWNED = struct.Struct("=II")
_USER = struct.Struct("=II")
_BIND = struct.Struct("=QQII")
_SCRATCH = struct.Struct("=QQ")
_LIMIT = struct.Struct("=QII")
_LANDLOCK = struct.Struct("=QQII")
_DEVICE = struct.Struct("=II")
_RULE = struct.Struct("=QQQ")
_DONE = struct.Struct("=HHI")
_FAILURE = struct.Struct("=HHiII")
_SPAWN = struct.Struct("=IIIIHH")
_SPAWNED = struct.Struct("=II")
_MOUNTED = struct.Struct("=Q")
_UNMAPPED = struct.Struct("=I")
_SOCKET = _STILLED = struct.Struct("=iI")
_WRITTEN = _PAIR = struct.Struct("=II")

HEAD_SIZE = _HEAD.size
DATAGRAM_LIMIT = HEAD_SIZE + INLINE_LIMIT
"""Most bytes of one datagram, either way."""


class Request(IntEnum):
    """Kinds of messages to init."""

    START = 1
    SPAWN = 2
    SIGNAL = 3
    KILL = 4
    MAPPED = 5
    SOCKET = 6
    OUTPUT = 7
    STILL = 8
    MOUNT = 16
    LAYERS = 17


class _Event(IntEnum):
    STARTED = 64
    START_FAILED = 65
    SPAWN_FAILED = 66
    SPAWNED = 67
    EXITED = 68
    GONE = 69
    UNMAPPED = 70
    SOCKET_MADE = 71
    WRITTEN = 72
    PIPES = 73
    STILLED = 74
    MOUNTED = 80
    PASSED = 81


class Record(IntEnum):
    """Kinds of records of a plan."""

    IDENTITY = 1
    NAMESPACES = 2
    HOSTNAME = 3
    LOOPBACK = 4
    SCRATCH = 5
    OUTSIDE = 6
    DIRECTORY = 10
    FILE = 11
    SYMLINK = 12
    BIND = 13
    PRIVATE = 14
    PROC = 15
    DEVPTS = 16
    READ_ONLY = 17
    MASK = 18
    DENY = 19
    LIMIT = 20
    LANDLOCK = 21
    LANDLOCK_RULE = 22
    SECCOMP = 23
    DEVICE = 24
    USER = 25
    UNCONFINED = 26


class _BindFlag(IntFlag):
    WRITABLE = 1
    DEVICES = 2
    AS_OWNER = 4
    OPTIONAL = 8
    INODE = 16
    PASSED = 32
    INSIDE = 64


class _SpawnFlag(IntEnum):  # each spawn adds some up, which takes an IntFlag microseconds
    REPORT = 1
    END_LEFTOVERS = 2
    TERMINAL = 4
    NARROWED = 8
    CAPTURED = 16


_CAPTURED: Final = int(_SpawnFlag.CAPTURED)
_EXIT_KIND: Final = int(_Event.EXITED)
"""What each command needs: before Python 3.12 a member of an enumeration is looked up by a function."""

_MODES: Final = {HostIdentity.CALLER: 0, HostIdentity.LEASED: 1, HostIdentity.SUBORDINATE: 2}
_ORIGINS: Final = {"host": 0, "passed": _BindFlag.PASSED, "inside": _BindFlag.INSIDE}

_STEPS: Final = {int(step): step for step in Step}
"""Every start looks a hundred of them up; a call of the class takes twenty times as long."""


class SignalTarget(IntEnum):
    """Whom a signal reaches."""

    COMMAND = 0
    TREE = 1
    FOREGROUND = 2


# --- requests ------------------------------------------------------------------------------------


def encode_message(kind: Request, job: int, size: int, *, in_memfd: bool = False) -> bytes:
    """The head of a message whose body has ``size`` bytes."""
    return _HEAD.pack(MAGIC, kind, BODY_IN_MEMFD if in_memfd else 0, job, size)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape") + b"\0"


def _record(op: Record, payload: bytes) -> bytes:
    return _RECORD.pack(op, 0, len(payload)) + payload + bytes(-len(payload) % 8)


def _bind(step: Bind) -> bytes:
    flags = (
        (_BindFlag.WRITABLE if step.writable else 0)
        | (_BindFlag.DEVICES if step.devices else 0)
        | (_BindFlag.AS_OWNER if step.as_owner else 0)
        | (_BindFlag.OPTIONAL if step.optional else 0)
        | (_BindFlag.INODE if step.inode is not None else 0)
        | _ORIGINS[step.origin]
    )
    device, inode = step.inode or (0, 0)
    return _BIND.pack(device, inode, flags, 0) + _text(step.source) + _text(step.target)


@lru_cache(maxsize=1024)  # nearly all steps of a host's plans are the same
def _mount_step(step: MountStep) -> bytes:
    match step:
        case Directory():
            return _record(Record.DIRECTORY, _NODE.pack(step.mode, 0) + _text(step.path))
        case TextFile():
            head = _NODE.pack(step.mode, len(step.content))
            return _record(Record.FILE, head + _text(step.path) + step.content)
        case Symlink():
            return _record(Record.SYMLINK, _text(step.path) + _text(step.target))
        case Bind():
            return _record(Record.BIND, _bind(step))
        case Private():
            return _record(Record.PRIVATE, _OWNED.pack(step.mode, step.owner) + _text(step.path))
        case Device():
            numbers = _DEVICE.pack(step.major, step.minor)
            return _record(Record.DEVICE, numbers + _text(step.target))
        case Proc() | DevPts() | ReadOnly() | Mask() | Deny():
            return _record(_PATH_RECORDS[type(step)], _text(step.target))


_PATH_RECORDS: Final[dict[type[MountStep], Record]] = {
    Proc: Record.PROC,
    DevPts: Record.DEVPTS,
    ReadOnly: Record.READ_ONLY,
    Mask: Record.MASK,
    Deny: Record.DENY,
}


def _limit(limit: ResourceLimit) -> bytes:
    return _record(Record.LIMIT, _LIMIT.pack(limit.value, limit.resource, 0))


def _landlock(ruleset: LandlockRuleset) -> list[bytes]:
    head = _record(
        Record.LANDLOCK, _LANDLOCK.pack(ruleset.handled, ruleset.scoped, ruleset.logged, 0)
    )
    rules = [
        _record(
            Record.LANDLOCK_RULE,
            _RULE.pack(rule.access, *(rule.inode or (0, 0))) + _text(rule.path),
        )
        for rule in ruleset.rules
    ]
    return [head, *rules]


def encode_plan(plan: LaunchPlan, host_uid: int, host_gid: int) -> bytes:
    """The body of a START: ``plan``, for a sandbox that is ``host_uid`` and ``host_gid`` outside."""
    return b"".join(encode_records(plan, host_uid, host_gid))


def encode_records(plan: LaunchPlan, host_uid: int, host_gid: int) -> list[bytes]:
    """The records of which ``encode_plan`` makes the body."""
    who = plan.identity
    identity = (_MODES[who.host], who.uid, who.gid, host_uid, host_gid, who.further, who.disk)
    records = [
        _record(Record.IDENTITY, _IDENTITY.pack(*identity)),
        _record(Record.NAMESPACES, struct.pack("=I", plan.namespaces)),
        *([_record(Record.HOSTNAME, _text(plan.hostname))] if plan.hostname else ()),
        *map(_mount_step, plan.steps),
        *map(_limit, plan.limits),
    ]
    if plan.scratch is not None:
        sizes = _SCRATCH.pack(plan.scratch.size, plan.scratch.inodes)
        records.append(_record(Record.SCRATCH, sizes))
    if plan.outer_proc:
        records.append(_record(Record.OUTSIDE, b""))
    if plan.loopback:
        records.append(_record(Record.LOOPBACK, b""))
    if plan.landlock is not None:
        records += _landlock(plan.landlock)
    if plan.unconfined:
        records.append(_record(Record.UNCONFINED, b""))
    if plan.seccomp or not plan.unconfined:
        records.append(_record(Record.SECCOMP, plan.seccomp))
    return records


def split_record(record: bytes) -> tuple[Record, bytes]:
    """What ``encode_records`` made of one record: its kind, and what it holds."""
    kind, _, size = _RECORD.unpack_from(record)
    return Record(kind), record[_RECORD.size : _RECORD.size + size]


def encode_spawn(
    spawn: Spawn,
    fd_mask: int,
    *,
    report: bool = False,
    captured: bool = False,
    variables: bytes | None = None,
) -> bytes:
    """The body of a SPAWN.

    Args:
        spawn: the command.
        fd_mask: bit n set where a descriptor for fd n is passed with the message.
        report: True asks for a ``Spawned`` event.
        captured: True asks for its output with its exit; then ``fd_mask`` has stdin at most.
        variables: what ``encode_variables`` made of its environment, where that is at hand.
    """
    flags = _CAPTURED if captured else 0
    if report:
        flags |= _SpawnFlag.REPORT
    if spawn.end_leftovers:
        flags |= _SpawnFlag.END_LEFTOVERS
    if spawn.window is not None:
        flags |= _SpawnFlag.TERMINAL
    records = b"" if spawn.user is None else _user(spawn.user)
    if spawn.narrowed is not None:
        records += _narrowing(spawn.narrowed)
    if records:
        flags |= _SpawnFlag.NARROWED
    counts = len(spawn.argv), len(spawn.environment)
    head = _SPAWN.pack(*counts, fd_mask, flags, *(spawn.window or (0, 0)))
    words = b"\0".join((spawn.cwd, *spawn.argv, b""))
    if variables is None:
        variables = encode_variables(spawn.environment)
    body = head + words + variables
    return body + bytes(-len(body) % 8) + records if records else body


def _user(user: SpawnUser) -> bytes:
    groups = struct.pack(f"={len(user.groups)}I", *user.groups)
    return _record(Record.USER, _USER.pack(user.number, len(user.groups)) + groups)


def _narrowing(narrowed: Narrowed) -> bytes:
    records = [] if narrowed.landlock is None else _landlock(narrowed.landlock)
    records += map(_limit, narrowed.limits)
    if narrowed.seccomp:
        records.append(_record(Record.SECCOMP, narrowed.seccomp))
    return b"".join(records)


def encode_variables(environment: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """An environment within the body of a SPAWN: not cached here, for secrets must not outlive their session."""
    return b"\0".join((*map(b"=".join, environment), b""))


def encode_signal(number: int, target: SignalTarget) -> bytes:
    """The body of a SIGNAL to a job's command, its tree, or who has its terminal."""
    return _PAIR.pack(number, target)


def encode_kill(*, force: bool) -> bytes:
    """The body of a KILL; ``force`` ends a keeper that does not answer, and the tree with it."""
    return _PAIR.pack(1 if force else 0, 0)


def encode_still(*, on: bool) -> bytes:
    """The body of a STILL: all stop, or go on."""
    return _PAIR.pack(1 if on else 0, 0)


# --- events --------------------------------------------------------------------------------------


def _step(number: int) -> Step:
    step = _STEPS.get(number)
    if step is None:
        raise ProtocolError(f"unknown step {number}")
    return step


def _failure(body: bytes) -> Failure:
    if len(body) < _FAILURE.size:
        raise ProtocolError("a failure is cut off")
    step, _, error, record, size = _FAILURE.unpack_from(body)
    if size != len(body) - _FAILURE.size:
        raise ProtocolError("a failure's text has another length than it says")
    text = body[_FAILURE.size :].decode("utf-8", "replace")
    return Failure(_step(step), None if record == NO_RECORD else record, error, text)


@lru_cache(maxsize=8)  # nearly all starts of a host are told alike
def _started(body: bytes) -> Started:
    if len(body) % _DONE.size:
        raise ProtocolError("a report is cut off")
    try:
        steps = [
            Done(_STEPS[step], record, skipped) for step, skipped, record in _DONE.iter_unpack(body)
        ]
    except KeyError as error:
        raise ProtocolError(f"unknown step {error.args[0]}") from None
    return Started(tuple(steps))


def _written(job: int, body: bytes) -> Written:
    stream, _ = _WRITTEN.unpack_from(body)
    if stream > 1:
        raise ProtocolError(f"there is no stream {stream}")
    return Written(job, stream, body[_WRITTEN.size :])


def decode_event(datagram: bytes) -> Event:
    """One datagram from init as a value.

    Raises:
        ProtocolError: if it is anything but a well-formed event.
    """
    if len(datagram) < HEAD_SIZE:
        raise ProtocolError("a message without a head")
    magic, kind, flags, job, size = _HEAD.unpack_from(datagram)
    body = datagram[HEAD_SIZE:]
    if magic != MAGIC or flags != 0 or size != len(body) or size > INLINE_LIMIT:
        raise ProtocolError("a malformed head")
    if kind == _EXIT_KIND:  # most of them
        return decode_exited(job, body)
    match kind:
        case _Event.SPAWN_FAILED:
            return SpawnFailed(job, _failure(body))
        case _Event.SPAWNED if len(body) == _SPAWNED.size:
            return Spawned(job, _SPAWNED.unpack(body)[0])
        case _Event.GONE:
            return decode_gone(job, body)
        case _:
            return _rare_event(kind, job, body)


def _rare_event(kind: int, job: int, body: bytes) -> Event:
    """What is told once in a sandbox's life, of mounts and descriptors, or of much output."""
    match kind:
        case _Event.WRITTEN if len(body) > _WRITTEN.size:
            return _written(job, body)
        case _Event.PIPES if not body:
            return Pipes(job)
        case _Event.STARTED:
            return _started(body)
        case _Event.START_FAILED:
            return StartFailed(_failure(body))
        case _Event.UNMAPPED if len(body) == _UNMAPPED.size:
            return Unmapped(_UNMAPPED.unpack(body)[0])
        case _Event.SOCKET_MADE if len(body) == _SOCKET.size:
            return SocketMade(job, _SOCKET.unpack(body)[0])
        case _Event.STILLED if len(body) == _STILLED.size:
            return Stilled(job, _STILLED.unpack(body)[0])
        case _Event.PASSED if not body:
            return Passed(job)
        case _Event.MOUNTED if len(body) == _MOUNTED.size:
            return Mounted(_MOUNTED.unpack(body)[0])
        case _:
            raise ProtocolError(f"unknown event {kind}")
