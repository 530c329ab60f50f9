"""The words of native/protocol.h a second time: requests are taken apart, events put together.

Both are strict and share no line with wire.py, so that a slip in its words shows. Numbers
and layouts are written down by hand; test_wire_header.py holds them against the header itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from sandyard.plan import (
    Bind,
    Deny,
    Device,
    DevPts,
    Directory,
    HostIdentity,
    Identity,
    KeptPart,
    LandlockRule,
    LandlockRuleset,
    LaunchPlan,
    Mask,
    MountStep,
    Namespaces,
    Narrowed,
    Private,
    Proc,
    ReadOnly,
    ResourceLimit,
    Scratch,
    Spawn,
    SpawnUser,
    Symlink,
    TextFile,
)
from sandyard.process.events import Pipes, SocketMade, Stilled, Written
from sandyard.process.wire import (
    Event,
    Exited,
    Failure,
    Gone,
    Mounted,
    Passed,
    Spawned,
    SpawnFailed,
    Started,
    StartFailed,
    Unmapped,
)
from sandyard.types import RefusedCall

MAGIC: Final = 0x01445953
INLINE_LIMIT: Final = 32 * 1024
BODY_LIMIT: Final = 8 * 1024 * 1024
NO_RECORD: Final = 0xFFFFFFFF

# enum request, enum event
START, SPAWN, SIGNAL, KILL, MAPPED, SOCKET, OUTPUT, STILL, MOUNT, LAYERS = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    16,
    17,
)
STARTED, START_FAILED, SPAWN_FAILED, SPAWNED, EXITED, GONE, UNMAPPED, SOCKET_MADE = range(64, 72)
WRITTEN, PIPES, STILLED = 72, 73, 74
MOUNTED = 80
PASSED = 81

# enum record_op
IDENTITY, NAMESPACES, HOSTNAME, LOOPBACK, SCRATCH, OUTSIDE = 1, 2, 3, 4, 5, 6
DIRECTORY, FILE, SYMLINK, BIND, PRIVATE, PROC, DEVPTS, READ_ONLY, MASK, DENY = range(10, 20)
LIMIT, LANDLOCK, LANDLOCK_RULE, SECCOMP, DEVICE, USER, UNCONFINED = 20, 21, 22, 23, 24, 25, 26

FORMATS: Final = {
    "message": "IHHII",
    "record_head": "HHI",
    "identity": "IIIIIII",
    "node": "II",
    "owned": "II",
    "user": "II",
    "bind": "QQII",
    "device": "II",
    "layers_head": "IIII",
    "layer": "QQ",
    "scratch": "QQ",
    "limit": "QII",
    "landlock": "QQII",
    "rule": "QQQ",
    "done": "HHI",
    "failure": "HHiII",
    "spawn_head": "IIIIHH",
    "spawned": "II",
    "signal_body": "II",
    "kill_body": "II",
    "exited": "iIQQQQQQQQQIIQIIII",
    "written": "II",
    "refused": "QIi16s",
    "leftover": "I16s",
    "gone": "QII",
    "late_head": "IIIIQQQQQII",
    "late_part": "QQII",
    "unmapped": "I",
    "mounted": "Q",
    "socket_body": "II",
    "socket_made": "iI",
    "still_body": "II",
    "stilled": "iI",
}
"""The structures of protocol.h, without padding, in the machine's byte order."""


def packed(name: str, *values: int | bytes) -> bytes:
    """A structure as bytes."""
    return struct.pack("=" + FORMATS[name], *values)


class MalformedError(Exception):
    """A request is not exactly as the protocol says."""


def check(condition: object, problem: str) -> None:
    """Refuses a request of which something is not so."""
    if not condition:
        raise MalformedError(problem)


class Bytes:
    """Bytes that are taken off from the front."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        check(len(self.rest) >= size, "cut off")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def unpack(self, name: str) -> tuple[int, ...]:
        """The next structure."""
        layout = struct.Struct("=" + FORMATS[name])
        return layout.unpack(self.take(layout.size))

    def number(self, layout: str) -> int:
        """The next plain number."""
        (number,) = struct.unpack("=" + layout, self.take(struct.calcsize("=" + layout)))
        return int(number)

    def word(self) -> bytes:
        """The next string, without its NUL."""
        end = self.rest.find(b"\0")
        check(end >= 0, "no NUL")
        return self.take(end + 1)[:-1]

    def text(self) -> str:
        """The next string, its odd bytes as surrogates."""
        return self.word().decode("utf-8", "surrogateescape")

    def end(self) -> None:
        """Refuses anything that is left."""
        check(not self.rest, f"trailing bytes: {self.rest[:20]!r}")


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """The head of a message."""

    kind: int
    in_memfd: bool
    job: int
    size: int


def decode_head(data: bytes) -> Head:
    """The head of a request, and nothing after it."""
    source = Bytes(data)
    magic, kind, flags, job, size = source.unpack("message")
    source.end()
    check(magic == MAGIC, "another language")
    known = (START, SPAWN, SIGNAL, KILL, MAPPED, SOCKET, OUTPUT, STILL, MOUNT, LAYERS)
    check(kind in known, "no request")
    check(flags in (0, 1), "unknown flags")
    check(bool(flags) == (size > INLINE_LIMIT) and size <= BODY_LIMIT, "a body in the wrong place")
    return Head(kind, bool(flags), job, size)


@dataclass(frozen=True)
class Record:
    """One record of a plan."""

    op: int
    payload: bytes


def split_records(body: bytes) -> list[Record]:
    """The records of a plan, each padded with zeros to 8 bytes."""
    source, records = Bytes(body), []
    while source.rest:
        op, zero, size = source.unpack("record_head")
        check(zero == 0, "a record's zero is not")
        records.append(Record(op, source.take(size)))
        check(not any(source.take(-size % 8)), "padding is not zero")
    return records


def join_records(records: Iterable[Record]) -> bytes:
    """Records as the body of a START; the opposite of ``split_records``."""
    return b"".join(
        packed("record_head", record.op, 0, len(record.payload))
        + record.payload
        + bytes(-len(record.payload) % 8)
        for record in records
    )


@dataclass(frozen=True)
class Start:
    """A plan, and who the sandbox is outside."""

    plan: LaunchPlan
    host_uid: int
    host_gid: int


STEPS: Final = (*range(DIRECTORY, LIMIT), DEVICE)
PATHS: Final = {PROC: Proc, DEVPTS: DevPts, READ_ONLY: ReadOnly, MASK: Mask, DENY: Deny}


def decode_node(source: Bytes) -> tuple[str, int]:
    """A path with its mode."""
    mode, size = source.unpack("node")
    check(size == 0, "a directory with content")
    return source.text(), mode


def decode_private(source: Bytes) -> Private:
    """A directory with its owner."""
    mode, owner = source.unpack("owned")
    return Private(source.text(), mode, owner)


def decode_file(source: Bytes) -> TextFile:
    """A file with its content."""
    mode, size = source.unpack("node")
    path = source.text()
    return TextFile(path, source.take(size), mode)


ORIGINS: Final[dict[int, Literal["host", "passed", "inside"]]] = {
    0: "host",
    32: "passed",
    64: "inside",
}


def decode_bind(source: Bytes) -> Bind:
    """A bind mount; without a check of the inode its numbers are zero."""
    device, inode, flags, zero = source.unpack("bind")
    check(flags & ~127 == 0 and flags & 96 != 96 and zero == 0, "unknown flags")
    check(not flags & 96 or not flags & 10, "what stands elsewhere is no device and exists")
    check(flags & 16 or (device, inode) == (0, 0), "an inode that nobody checks")
    return Bind(
        source.text(),
        source.text(),
        writable=bool(flags & 1),
        devices=bool(flags & 2),
        as_owner=bool(flags & 4),
        optional=bool(flags & 8),
        inode=(device, inode) if flags & 16 else None,
        origin=ORIGINS[flags & 96],
    )


def decode_step(record: Record) -> MountStep:
    """A record of the root file system."""
    source = Bytes(record.payload)
    step: MountStep
    match record.op:
        case 10:
            step = Directory(*decode_node(source))
        case 14:
            step = decode_private(source)
        case 11:
            step = decode_file(source)
        case 12:
            step = Symlink(source.text(), source.text())
        case 13:
            step = decode_bind(source)
        case 24:
            major, minor = source.unpack("device")
            step = Device(source.text(), major, minor)
        case op:
            step = PATHS[op](source.text())
    source.end()
    return step


def only(records: list[Record], op: int) -> Bytes:
    """What the one record of its kind holds."""
    found = [record.payload for record in records if record.op == op]
    check(len(found) == 1, f"{len(found)} records {op}")
    return Bytes(found[0])


def at_most_one(records: list[Record], op: int) -> Bytes | None:
    """What the one record of its kind holds, if there is one."""
    return only(records, op) if any(record.op == op for record in records) else None


def decode_identity(source: Bytes) -> tuple[Identity, int, int]:
    """Who runs inside, and the two ids outside."""
    mode, uid, gid, host_uid, host_gid, further, disk = source.unpack("identity")
    source.end()
    check(mode in (0, 1, 2), "an unknown kind of identity")
    host = (HostIdentity.CALLER, HostIdentity.LEASED, HostIdentity.SUBORDINATE)[mode]
    return Identity(uid, gid, host, further, disk), host_uid, host_gid


def decode_limit(record: Record) -> ResourceLimit:
    """One limit."""
    source = Bytes(record.payload)
    value, resource, zero = source.unpack("limit")
    source.end()
    check(zero == 0, "a limit's zero is not")
    return ResourceLimit(resource, value)


def decode_landlock(records: list[Record]) -> LandlockRuleset | None:
    """The ruleset with its rules, which follow it; None without one."""
    ours = [record for record in records if record.op in (LANDLOCK, LANDLOCK_RULE)]
    if not ours:
        return None
    source = Bytes(ours[0].payload)
    check(ours[0].op == LANDLOCK, "a rule before its ruleset")
    handled, scoped, logged, zero = source.unpack("landlock")
    source.end()
    check(logged in (0, 1) and zero == 0, "no word of the audit's")
    rules = []
    for record in ours[1:]:
        check(record.op == LANDLOCK_RULE, "two rulesets")
        source = Bytes(record.payload)
        access, device, inode = source.unpack("rule")
        path = source.text()
        source.end()
        rules.append(LandlockRule(path, access, (device, inode) if device or inode else None))
    return LandlockRuleset(handled, scoped, tuple(rules), bool(logged))


def decode_start(body: bytes) -> Start:
    """The body of a START as the values that it was made of."""
    records = split_records(body)
    identity, host_uid, host_gid = decode_identity(only(records, IDENTITY))
    namespaces, hostname = only(records, NAMESPACES), at_most_one(records, HOSTNAME)
    scratch = at_most_one(records, SCRATCH)
    bare = (LOOPBACK, OUTSIDE, UNCONFINED)
    loopback, outside, unconfined = (at_most_one(records, op) for op in bare)
    seccomp = at_most_one(records, SECCOMP)
    check(seccomp is not None or unconfined is not None, "no filter")
    plan = LaunchPlan(
        identity=identity,
        namespaces=Namespaces(namespaces.number("I")),
        hostname="" if hostname is None else hostname.text(),
        loopback=loopback is not None,
        scratch=None if scratch is None else Scratch(*scratch.unpack("scratch")),
        steps=tuple(decode_step(r) for r in records if r.op in STEPS),
        limits=tuple(decode_limit(r) for r in records if r.op == LIMIT),
        landlock=decode_landlock(records),
        seccomp=b"" if seccomp is None else seccomp.rest,
        outer_proc=outside is not None,
        unconfined=unconfined is not None,
    )
    for source in (namespaces, hostname, scratch, loopback, outside, unconfined):
        if source is not None:
            source.end()
    return Start(plan, host_uid, host_gid)


@dataclass(frozen=True)
class SpawnRequest:
    """A command, and how it is to be run."""

    spawn: Spawn
    fd_mask: int
    report: bool
    captured: bool = False


def decode_narrowed(records: list[Record]) -> Narrowed:
    """What a command has less than its session."""
    known = (LANDLOCK, LANDLOCK_RULE, LIMIT, SECCOMP)
    check(all(record.op in known for record in records), "no narrowing")
    filters = [record.payload for record in records if record.op == SECCOMP]
    check(len(filters) <= 1, "two filters")
    limits = tuple(decode_limit(record) for record in records if record.op == LIMIT)
    return Narrowed(decode_landlock(records), limits, b"".join(filters))


def decode_user(record: Record) -> SpawnUser:
    """Whom a command runs as."""
    source = Bytes(record.payload)
    number, count = source.unpack("user")
    groups = tuple(source.number("I") for _ in range(count))
    source.end()
    return SpawnUser(number, groups)


def decode_spawn(body: bytes) -> SpawnRequest:
    """The body of a SPAWN as the values that it was made of."""
    source = Bytes(body)
    argc, envc, fd_mask, flags, *window = source.unpack("spawn_head")
    check(flags & ~31 == 0, "unknown flags")
    check(bool(flags & 4) == any(window), "a window without a terminal, or the other way round")
    check(not flags & 16 or not (flags & 4 or fd_mask & 6), "what is captured has pipes already")
    cwd = source.word()
    argv = tuple(source.word() for _ in range(argc))
    environment = []
    for _ in range(envc):
        name, equals, value = source.word().partition(b"=")
        check(equals, "a variable without '='")
        environment.append((name, value))
    narrowed = user = None
    if flags & 8:
        check(not any(source.take((len(source.rest) - len(body)) % 8)), "padding is not zero")
        records = split_records(source.take(len(source.rest)))
        check(records, "no narrowing")
        if records[0].op == USER:
            user = decode_user(records.pop(0))
        narrowed = decode_narrowed(records) if records else None
    source.end()
    spawn = Spawn(argv, tuple(environment), cwd, bool(flags & 2), narrowed, user=user)
    if flags & 4:
        spawn = spawn._replace(window=(window[0], window[1]))
    return SpawnRequest(spawn, fd_mask, bool(flags & 1), bool(flags & 16))


def decode_pair(name: str, body: bytes) -> tuple[int, ...]:
    """The body of a SIGNAL or a KILL: its two numbers."""
    source = Bytes(body)
    numbers = source.unpack(name)
    source.end()
    return numbers


@dataclass(frozen=True)
class LateRequest:
    """A late mount, or the removal of one."""

    kind: int
    flags: int
    user: tuple[int, int]
    sizes: tuple[int, int]
    inode: tuple[int, int]
    mount: int
    target: str
    parts: tuple[KeptPart, ...]


def decode_late(body: bytes) -> LateRequest:
    """The body of a MOUNT as the values that it was made of."""
    source = Bytes(body)
    kind, flags, *numbers, count, zero = source.unpack("late_head")
    check(1 <= kind <= 4 and flags & ~7 == 0 and zero == 0, "unknown kind, flags or zero")
    uid, gid, size, inodes, device, inode, mount = numbers
    target, parts = source.text(), []
    for _ in range(count):
        own_device, own_inode, read_only, zero = source.unpack("late_part")
        check(read_only in (0, 1) and zero == 0, "a part's flags are not")
        parts.append(KeptPart(source.text(), (own_device, own_inode), bool(read_only)))
    source.end()
    pairs = (uid, gid), (size, inodes), (device, inode)
    return LateRequest(kind, flags, *pairs, mount, target, tuple(parts))


# --- events ---------------------------------------------------------------------------------------


def encode_datagram(kind: int, job: int, body: bytes = b"", *, flags: int = 0) -> bytes:
    """A message with an honest head."""
    return packed("message", MAGIC, kind, flags, job, len(body)) + body


def encode_failure(failure: Failure) -> bytes:
    """The body that tells of a failure."""
    text = failure.text.encode()
    record = NO_RECORD if failure.record is None else failure.record
    return packed("failure", failure.step, 0, failure.error, record, len(text)) + text


def encode_calls(calls: tuple[RefusedCall, ...]) -> bytes:
    """The list of refused calls in the bodies of an exit and of what is gone."""
    return b"".join(packed("refused", *call[:3], call.program.encode()) for call in calls)


def encode_exited(exited: Exited) -> bytes:
    """The body that tells of an exit."""
    flags = (1 if exited.killed else 0) | (2 if exited.keeper_lost else 0)
    counts = exited.left, len(exited.listed), exited.refused, len(exited.kinds), 0
    sizes = len(exited.stdout), len(exited.stderr)
    head = packed("exited", exited.status, flags, *exited.usage, *counts, *sizes)
    head += encode_calls(exited.kinds)
    head += b"".join(packed("leftover", p.pid, p.name.encode()) for p in exited.listed)
    return head + exited.stdout + exited.stderr


def encode_event(event: Event) -> bytes:
    """An event as init would send it."""
    match event:
        case Started(steps):
            body = b"".join(packed("done", s.step, s.skipped, s.record) for s in steps)
            return encode_datagram(STARTED, 0, body)
        case StartFailed(failure):
            return encode_datagram(START_FAILED, 0, encode_failure(failure))
        case SpawnFailed(job, failure):
            return encode_datagram(SPAWN_FAILED, job, encode_failure(failure))
        case Spawned(job, pid):
            return encode_datagram(SPAWNED, job, packed("spawned", pid, 0))
        case Exited():
            return encode_datagram(EXITED, event.job, encode_exited(event))
        case Gone(job, refused, kinds):
            return encode_datagram(
                GONE, job, packed("gone", refused, len(kinds), 0) + encode_calls(kinds)
            )
        case _:
            return encode_rare_event(event)


def encode_rare_event(
    event: Unmapped | Mounted | Written | SocketMade | Stilled | Passed | Pipes,
) -> bytes:
    """One that few sandboxes have."""
    match event:
        case Written(job, stream, data):
            return encode_datagram(WRITTEN, job, packed("written", stream, 0) + data)
        case Pipes(job):
            return encode_datagram(PIPES, job)
        case Unmapped(pid):
            return encode_datagram(UNMAPPED, 0, packed("unmapped", pid))
        case Mounted(mount):
            return encode_datagram(MOUNTED, 0, packed("mounted", mount))
        case SocketMade(job, error):
            return encode_datagram(SOCKET_MADE, job, packed("socket_made", error, 0))
        case Stilled(job, error):
            return encode_datagram(STILLED, job, packed("stilled", error, 0))
        case Passed(number):
            return encode_datagram(PASSED, number)
