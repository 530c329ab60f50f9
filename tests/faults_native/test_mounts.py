"""Each system call of a late mount fails once: then it stands and is told, or nothing is mounted."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.plan import KeptPart, LateMount
from sandyard.process.channel import send_message
from sandyard.process.late_wire import encode_late, encode_removal
from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Event,
    Mounted,
    Request,
    StartFailed,
    decode_event,
)
from tests.faults_native.inject import NOTHING, Call, Fault, parse_call
from tests.faults_native.test_start import ERRORS, choose, is_needless
from tests.house.leaks import list_children
from tests.mounts.conftest import inner_mounts
from tests.process import raw_init
from tests.session.host import root_of

LEASED: Final = os.geteuid() == 0
USER: Final = (12345, 12345) if LEASED else (1000, 1000)
RECORD: Final = Fault(NOTHING, 0, 0)
UNREACHED: Final = Fault(0, 10**6, errno.EPERM)


@dataclass(frozen=True)
class Answer:
    """What the program said, and what was done to it."""

    event: Event | None
    calls: list[Call]


@dataclass(frozen=True)
class Place:
    """A running sandbox that something is mounted in."""

    session: UnixLocalSandboxSession
    injector: str
    namespace: int
    source: int

    def ask(self, body: bytes, fault: Fault) -> Answer:
        """Has the program carry an order out, under the injector."""
        log, theirs = os.pipe()
        ours, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = (theirs, channel.fileno())
        words = [str(theirs), *map(str, fault), raw_init.tested_program(), str(channel.fileno())]
        with closing(ours), open(log, encoding="ascii") as said:
            with channel:
                process = subprocess.Popen([self.injector, *words], pass_fds=passed)
                os.close(theirs)
            ours.settimeout(raw_init.ANSWER_S)
            with process:
                fds = [self.namespace, self.source] if is_sourced(body) else [self.namespace]
                datagram = b""
                try:
                    send_message(ours, Request.MOUNT, 0, body, fds)
                    datagram = ours.recv(DATAGRAM_LIMIT + 1)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it ended before it read what it was told
            lines = [parse_call(line) for line in said if line[:2] in {"S ", "H "}]
        return Answer(decode_event(datagram) if datagram else None, lines)


def is_sourced(body: bytes) -> bool:
    """Whether an order shows a directory of the host's."""
    return int.from_bytes(body[:4], "little") in {1, 3}


@asynccontextmanager
async def standing(injector: str, source: Path) -> AsyncIterator[Place]:
    """A sandbox whose workspace has an empty directory."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            await session.mkdir("point")
            (outer,) = [pid for pid in list_children(os.getpid()) if list(list_children(pid))]
            namespace = os.open(f"/proc/{outer}/fd/15", os.O_RDONLY)
            shown = os.open(source, os.O_PATH)
            try:
                yield Place(session, injector, namespace, shown)
            finally:
                os.close(shown)
                os.close(namespace)
    finally:
        await client.delete(session)


def orders(place: Place, source: Path) -> dict[str, bytes]:
    """One mount of each kind."""
    point = f"{root_of(place.session)}/point"
    facts, part = os.stat(point), os.stat(source / "deep")
    kept = (KeptPart("/deep", (part.st_dev, part.st_ino), read_only=True),)
    where = point, (facts.st_dev, facts.st_ino)
    kinds = {
        "tmpfs": LateMount("tmpfs", *where, writable=False, size=2**20, inodes=16),
        "bind": LateMount("bind", *where, writable=True, as_owner=LEASED, parts=kept),
        "overlay": LateMount("overlay", *where, writable=True, size=2**20, inodes=64),
    }
    return {kind: encode_late(late, USER, leased=LEASED) for kind, late in kinds.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the host's, with a part that is kept."""
    (tmp_path / "source/deep").mkdir(parents=True)
    return tmp_path / "source"


def faults(calls: list[Call]) -> list[Fault]:
    """A failure of each kind of call of the program itself, in each neighbourhood."""
    own = [call for call in calls if call.process == 0]
    found = [Fault(0, call.number, ERRORS[at % len(ERRORS)]) for at, call in enumerate(choose(own))]
    told = next(call for call in reversed(own) if call.name == "sendmsg")
    return [*found, Fault(0, told.number, errno.EPERM)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "kind",
    ["bind", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("tmpfs", "overlay"))],
)
async def test_failing_mount_leaves_nothing(injector: str, source: Path, kind: str) -> None:
    async with standing(injector, source) as place:
        order = orders(place, source)[kind]

        async def take_out(mount: int) -> None:
            body = encode_removal(f"{root_of(place.session)}/point", mount, USER, leased=LEASED)
            told = await asyncio.to_thread(place.ask, body, UNREACHED)
            assert isinstance(told.event, Mounted), told

        whole = await asyncio.to_thread(place.ask, order, RECORD)
        if isinstance(whole.event, StartFailed) and whole.event.failure.error == errno.EOPNOTSUPP:
            pytest.skip("an overlay in memory needs Linux 6.6")
        assert isinstance(whole.event, Mounted), whole
        await take_out(whole.event.mount)
        assert await inner_mounts(place.session) == []
        for fault in faults(whole.calls):
            told = await asyncio.to_thread(place.ask, order, fault)
            there = await inner_mounts(place.session)
            if not isinstance(told.event, Mounted):
                assert told.calls, f"{fault}: failed untouched: {told}"
                assert told.event is None or isinstance(told.event, StartFailed), told
                assert there == [], f"{told} {fault}: told as failed, and stands"
                continue
            (hit,) = told.calls
            assert is_needless(hit, fault.error), f"{hit} {fault}: mounted all the same"
            assert "point" in there
            await take_out(told.event.mount)


@pytest.mark.timeout(120)
async def test_failing_unmount_is_told(injector: str, source: Path) -> None:
    async with standing(injector, source) as place:
        order = orders(place, source)["tmpfs"]
        point = f"{root_of(place.session)}/point"

        async def mounted() -> bytes:
            told = await asyncio.to_thread(place.ask, order, UNREACHED)
            assert isinstance(told.event, Mounted), told
            return encode_removal(point, told.event.mount, USER, leased=LEASED)

        removal = await mounted()
        whole = await asyncio.to_thread(place.ask, removal, RECORD)
        removal = await mounted()
        for fault in faults(whole.calls):
            told = await asyncio.to_thread(place.ask, removal, fault)
            there = await inner_mounts(place.session)
            if isinstance(told.event, Mounted):
                assert there == [], f"{told} {fault}: told as taken out, and stands"
            elif isinstance(told.event, StartFailed):
                assert told.event.failure.error > 0
                assert there == ["point"], f"{told} {fault}: told as failed, and gone"
            if not there:
                removal = await mounted()
