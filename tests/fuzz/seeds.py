"""Owns the first inputs of init's fuzzer: what the real encoder writes, of every kind of record.

``python -m tests.fuzz.seeds`` writes them to ``fuzz/corpus/decode``; do it when the wire changes.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Final

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
    LateMount,
    LaunchPlan,
    Layer,
    Mask,
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
from sandyard.process.late_wire import encode_late, encode_layers, encode_removal
from sandyard.process.sockets import encode_socket
from sandyard.process.wire import (
    INLINE_LIMIT,
    Request,
    SignalTarget,
    encode_kill,
    encode_message,
    encode_plan,
    encode_signal,
    encode_spawn,
    encode_still,
)

CORPUS: Final = Path(__file__).parents[2] / "fuzz" / "corpus" / "decode"

BUSY_JOB: Final = 7
"""The job that runs when a conversation begins: native/fuzz/doors.h."""

IN_MEMFD, SHRINKABLE, NO_MEMFD, LATER, ONE_FD = 1, 2, 4, 8, 16
"""How a message is sent: ``enum how`` of native/fuzz/decode_target.c."""

FILTER: Final = struct.pack("=HBBI", 0x20, 0, 0, 4) + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
"""Look at the architecture, allow: the least that init takes for a filter."""

WHOLE: Final = LaunchPlan(
    identity=Identity(1000, 1000, HostIdentity.LEASED),
    namespaces=Namespaces.USER | Namespaces.MOUNT | Namespaces.PID,
    hostname="sandyard",
    loopback=True,
    scratch=Scratch(64 * 1024 * 1024, 65536),
    steps=(
        Directory("/dev", 0o755),
        Private("/tmp", 0o1777),
        TextFile("/etc/hostname", b"sandyard\n", 0o644),
        TextFile("/etc/resolv.conf", b"", 0o644),
        Symlink("/bin", "usr/bin"),
        Bind("/usr", "/usr"),
        Bind("/dev/null", "/dev/null", devices=True),
        Bind("/srv/work", "/srv/place", writable=True, as_owner=True, optional=True, inode=(1, 2)),
        Proc("/proc"),
        DevPts("/dev/pts"),
        Device("/dev/kvm", 10, 232),
        ReadOnly("/proc/sys"),
        Mask("/proc/kcore"),
        Bind("/srv/base", "/srv/base", writable=True, as_owner=True, inode=(1, 3), origin="passed"),
        Bind("/srv/base/.git", "/srv/base/.git", inode=(1, 4), origin="inside"),
        Deny("/srv/place/key"),
    ),
    limits=(ResourceLimit(7, 1024), ResourceLimit(4, 0)),
    landlock=LandlockRuleset(
        0x7FFF, 3, (LandlockRule("/usr", 13), LandlockRule("/tmp", 0x7FFF)), True
    ),
    seccomp=FILTER,
)

LEAST: Final = LaunchPlan(
    identity=Identity(1000, 1000, HostIdentity.CALLER),
    namespaces=Namespaces.USER | Namespaces.MOUNT | Namespaces.PID,
    hostname="s",
    loopback=False,
    scratch=Scratch(4096, 16),
    steps=(),
    limits=(),
    landlock=None,
    seccomp=FILTER,
)

SEVERAL: Final = replace(
    WHOLE,
    identity=Identity(1000, 1000, HostIdentity.LEASED, further=2, disk=2000),
    steps=(Private("/home/agent", 0o700), Private("/home/reviewer", 0o700, 1)),
)
"""With users and groups."""

BARE: Final = replace(
    LEAST,
    namespaces=Namespaces(0),
    hostname="",
    scratch=None,
    landlock=LandlockRuleset(0x7FFF, 3, (LandlockRule("/usr", 13, (1, 2)),)),
    outer_proc=True,
)
"""Without namespaces."""

OPEN: Final = replace(BARE, landlock=None, seccomp=b"", unconfined=True)
"""Without a wall."""

LONG_PATH: Final = ("/" + "p" * 255) * 15 + "/" + "q" * 254
"""The longest path, of the longest names: 4,095 bytes."""

LONG_NAMES: Final = replace(LEAST, hostname="h" * 64, steps=(Symlink("/" + "s" * 255, "t"),))
LONG_PATHS: Final = replace(LEAST, steps=(Proc(LONG_PATH), Symlink("/s", "t" * 4095)))
LONG_FILTER: Final = replace(LEAST, seccomp=FILTER[:8] + FILTER[8:] * 4095)
"""As many instructions as the kernel takes."""

ODD_PATHS: Final = {
    "parent": "/usr/../etc",
    "dot": "/usr/./bin",
    "doubled": "/usr//bin",
    "ending": "/usr/",
    "relative": "usr",
    "empty": "",
    "name": "/" + "n" * 256,
    "long": LONG_PATH + "q",
}
"""Paths that init must refuse, each a little beyond what it takes."""

BEYOND: Final = {
    **{name: replace(LEAST, steps=(Proc(path),)) for name, path in ODD_PATHS.items()},
    "target": replace(LEAST, steps=(Symlink("/s", "t" * 4096),)),
    "hostname": replace(LEAST, hostname="h" * 65),
    "filter": replace(LEAST, seccomp=LONG_FILTER.seccomp + FILTER[:8]),
    "records": replace(LEAST, limits=(ResourceLimit(7, 1),) * 1024),
    "root": replace(LEAST, identity=Identity(0, 0, HostIdentity.CALLER)),
    "owner": replace(SEVERAL, steps=(Private("/home/nobody", 0o700, 3),)),
    "caller-several": replace(LEAST, identity=Identity(1, 1, HostIdentity.CALLER, 1, 9)),
    "bare-several": replace(BARE, identity=SEVERAL.identity),
    "bare-open": replace(BARE, landlock=None),
    "bare-blind": replace(BARE, outer_proc=False),
    "open-unsaid": replace(OPEN, unconfined=False),
    "open-unfiltered": replace(BARE, seccomp=b"", unconfined=True),
    "open-filtered": replace(OPEN, seccomp=FILTER),
    "open-ruled": replace(BARE, unconfined=True),
    "open-apart": replace(LEAST, seccomp=b"", unconfined=True),
    "open-blind": replace(OPEN, outer_proc=False),
    "bare-mount": replace(BARE, steps=(Proc("/proc"),)),
    "namespaces": replace(LEAST, namespaces=Namespaces.USER | Namespaces.PID),
}

TRUE: Final = Spawn((b"true",), (), b"/")
SHELL: Final = Spawn(
    (b"/bin/sh", b"-c", b"echo $NAME"),
    ((b"PATH", b"/usr/bin:/bin"), (b"NAME", b"value"), (b"EMPTY", b"")),
    b"/srv/place",
    end_leftovers=True,
)
NARROWED: Final = SHELL._replace(
    narrowed=Narrowed(
        LandlockRuleset(0x7FFF, 2, (LandlockRule("/tmp", 0x7FFF), LandlockRule("/usr", 13))),
        (ResourceLimit(7, 64),),
        FILTER,
    ),
)
ANOTHER: Final = NARROWED._replace(user=SpawnUser(1, (2, 1)))
"""As another user than the session's own."""

TERMINAL: Final = SHELL._replace(window=(24, 80))
MANY: Final = Spawn((b"x",) * 1100, (), b"/")
"""More words than a keeper has room for without asking for memory."""


PARTS: Final = (KeptPart("/.git/hooks", (1, 3), read_only=True), KeptPart("/.git", (1, 4), False))
LATE: Final = {
    "bind": LateMount("bind", "/w/b", (1, 2), writable=True, as_owner=True, parts=PARTS),
    "bind-read-only": LateMount("bind", "/w/b", (1, 2), writable=False),
    "tmpfs": LateMount("tmpfs", "/w/t", (1, 2), writable=True, size=4096, inodes=16),
    "overlay": LateMount("overlay", "/w/o", (1, 2), writable=True, size=4096, inodes=16),
    "long": LateMount("bind", LONG_PATH, (1, 2), writable=False),
    "beyond-up": LateMount("bind", "/w/../b", (1, 2), writable=False),
    "beyond-root": LateMount("bind", "/", (1, 2), writable=False),
    "beyond-size": LateMount("tmpfs", "/w/t", (1, 2), writable=True),
    "beyond-part": LateMount(
        "bind", "/w/b", (1, 2), writable=True, parts=(KeptPart("/../x", (1, 3), read_only=True),)
    ),
}
"""Late mounts; those beyond init refuses."""


LAYERS: Final = {
    "two": (Layer("/c", (1, 2)), Layer("/b", (1, 3))),
    "many": tuple(Layer(f"/l/{number}", (1, number)) for number in range(65)),
    "again": (),
    "beyond-one": (Layer("/c", (1, 2)),),
    "beyond-up": (Layer("/c", (1, 2)), Layer("/../b", (1, 3))),
}
"""Layered trees; those beyond init refuses."""


def message(
    kind: Request, job: int, body: bytes, how: int = 0, *, in_memfd: bool | None = None
) -> bytes:
    """One message of a conversation, as decode_target.c takes it apart."""
    large = len(body) > INLINE_LIMIT if in_memfd is None else in_memfd
    sent = encode_message(kind, job, len(body), in_memfd=large) + body
    return struct.pack("=BBH", how | (IN_MEMFD if large else 0), 0, len(sent)) + sent


def conversations() -> dict[str, bytes]:
    """Messages to a running sandbox."""
    spawn, signal, kill = Request.SPAWN, Request.SIGNAL, Request.KILL
    true, shell = encode_spawn(TRUE, 0), encode_spawn(SHELL, 7, report=True)
    captured = encode_spawn(TRUE, 0, captured=True)
    return {
        "spawn": message(spawn, 1, true),
        "spawn-with-descriptors": message(spawn, 1, shell, 3 * ONE_FD),
        "spawn-in-memfd": message(spawn, 2, shell, 4 * ONE_FD, in_memfd=True),
        "spawn-many-words": message(spawn, 3, encode_spawn(MANY, 0)),
        "spawn-shrinkable": message(spawn, 4, true, SHRINKABLE, in_memfd=True),
        "spawn-no-memfd": message(spawn, 4, true, NO_MEMFD, in_memfd=True),
        "spawn-terminal": message(spawn, 6, encode_spawn(TERMINAL, 0)),
        "spawn-another": message(spawn, 7, encode_spawn(ANOTHER, 0)),
        "spawn-captured": message(spawn, 8, captured),
        "spawn-captured-fed": message(spawn, 9, encode_spawn(SHELL, 1, captured=True), ONE_FD),
        "output": message(Request.OUTPUT, BUSY_JOB, b""),
        "output-unknown": message(Request.OUTPUT, 99, b""),
        "output-odd": message(Request.OUTPUT, BUSY_JOB, bytes(4), ONE_FD),
        "spawn-twice": message(spawn, 5, true, LATER) + message(spawn, 6, true),
        "signal": message(signal, BUSY_JOB, encode_signal(15, SignalTarget.COMMAND)),
        "signal-tree": message(signal, BUSY_JOB, encode_signal(9, SignalTarget.TREE)),
        "signal-front": message(signal, BUSY_JOB, encode_signal(2, SignalTarget.FOREGROUND)),
        "kill": message(kill, BUSY_JOB, encode_kill(force=False)),
        "kill-force": message(kill, BUSY_JOB, encode_kill(force=True)),
        "socket": message(Request.SOCKET, 9, encode_socket(socket.AF_INET)),
        "socket-ipv6": message(Request.SOCKET, 9, encode_socket(socket.AF_INET6)),
        "socket-unix": message(Request.SOCKET, 9, encode_socket(socket.AF_UNIX)),
        "still": message(Request.STILL, 9, encode_still(on=True)),
        "still-over": message(Request.STILL, 9, encode_still(on=True))
        + message(Request.STILL, 10, encode_still(on=False)),
        "still-odd": message(Request.STILL, 9, bytes(7)),
        "kill-unknown": message(kill, 99, encode_kill(force=False)),
        "mount": message(Request.MOUNT, 0, encode_late(LATE["tmpfs"], (1000, 1000), leased=False)),
        "start-again": message(Request.START, 0, encode_plan(LEAST, 1000, 1000)),
    }


def make_seeds() -> dict[str, bytes]:
    """Each seed by its file's name."""
    plans = {
        "whole": WHOLE,
        "several": SEVERAL,
        "least": LEAST,
        "bare": BARE,
        "open": OPEN,
        "long-names": LONG_NAMES,
        "long-paths": LONG_PATHS,
        "long-filter": LONG_FILTER,
    }
    spawns = {"true": TRUE, "shell": SHELL, "many": MANY, "narrowed": NARROWED, "another": ANOTHER}
    return {
        "spawn-terminal": b"S" + encode_spawn(TERMINAL, 0),
        "spawn-captured": b"S" + encode_spawn(SHELL, 1, captured=True),
        "beyond-captured": b"S" + encode_spawn(TERMINAL, 0, captured=True),
        "beyond-captured-fds": b"S" + encode_spawn(SHELL, 7, captured=True),
        **{f"plan-{name}": b"P" + encode_plan(plan, 1000, 1000) for name, plan in plans.items()},
        **{f"beyond-{n}": b"P" + encode_plan(plan, 1000, 1000) for n, plan in BEYOND.items()},
        **{f"spawn-{name}": b"S" + encode_spawn(spawn, 5) for name, spawn in spawns.items()},
        **{
            f"late-{name}": b"L" + encode_late(late, (1000, 1000), leased=late.as_owner)
            for name, late in LATE.items()
        },
        **{
            f"layers-{name}": b"Y" + encode_layers(layers, 1000, leased=len(layers) > 0)
            for name, layers in LAYERS.items()
        },
        "late-removal": b"L" + encode_removal("/w/b", 7, (1000, 1000), leased=True),
        **{f"wire-{name}": b"W" + sent for name, sent in conversations().items()},
    }


def write_seeds(directory: Path) -> None:
    """Writes each seed; what else is in the directory stays."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in make_seeds().items():
        (directory / name).write_bytes(content)


if __name__ == "__main__":
    write_seeds(CORPUS)
