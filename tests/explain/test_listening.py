"""Listening to the audit: whose a record is, what is lost, what is still on its way; the kernel is played."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import pytest

import sandyard.session
from sandyard import Policy
from sandyard.explaining import listening
from sandyard.explaining.listening import AuditEar, listen, record_filter
from sandyard.finishing import in_thread
from sandyard.platform import auditing
from sandyard.platform.auditing import audit_standing, read_status
from sandyard.platform.host import AUDITED_ABI, host_facts
from tests.explain.probing import opened as opened_session
from tests.house.leaks import read_proc
from tests.session.host import find_init, until

ACCESS, DOMAIN, GET, ERROR = 1423, 1424, 1000, 2


class Kernel:
    """What stands in the place of the socket: a queue of datagrams, and a descriptor that tells of them."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
        self.queue: deque[tuple[bytes, int] | OSError] = deque()
        self.backlog: list[int] = []
        self.late: list[tuple[int, str]] = []
        self.asked = 0
        self.answers = True

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def put(self, kind: int, body: bytes, *, port: int = 0, number: int = 0) -> None:
        head = struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0)
        self.raise_or_give((head + body, port))

    def raise_or_give(self, what: tuple[bytes, int] | OSError) -> None:
        self.queue.append(what)
        os.eventfd_write(self.fd, 1)

    def say(self, kind: int, text: str, *, port: int = 0, at: float = 100.0) -> None:
        self.put(kind, f"audit({at:.3f}:7): {text}".encode(), port=port)

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queue:
            raise BlockingIOError
        os.eventfd_read(self.fd)
        what = self.queue.popleft()
        if isinstance(what, OSError):
            raise what
        return what[0], (what[1], 1)

    def sendto(self, question: bytes, _to: tuple[int, int]) -> None:
        _, kind, _, number, _ = struct.unpack("=IHHII", question)
        assert kind == GET
        self.asked += 1
        backlog = self.backlog.pop(0) if self.backlog else 0
        if self.answers:
            self.put(GET, struct.pack("=10I", 0, 1, 1, 0, 0, 64, 0, backlog, 0, 0), number=number)
        for late in self.late:
            self.say(*late)
        self.late.clear()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(listening, "_open", lambda: kernel)
    yield kernel
    assert kernel.fd < 0  # whoever opened it has closed it
    kernel.close()


def refused(domain: int, path: str, blockers: str = "fs.read_file") -> tuple[int, str]:
    return ACCESS, f'domain={domain:x} blockers={blockers} path="{path}" dev="vda" ino=1'


def made(domain: int, owner: int) -> tuple[int, str]:
    words = f"domain={domain:x} status=allocated mode=enforcing pid=5 uid={owner}"
    return DOMAIN, f'{words} exe="/init" comm="init"'


def opened(owners: range = range(30001, 30002)) -> AuditEar:
    ear = listen(owners)
    assert ear is not None
    return ear


async def paths(ear: AuditEar, began: float = 100.0, duration: float = 1.0) -> list[str | None]:
    return [each.path for each in await ear.heard(began, duration)]


async def test_records_find_their_session(kernel: Kernel) -> None:
    one, several = opened(), opened(range(40000, 40003))
    kernel.say(*refused(1, "/one"))  # what was refused comes before whose domain it was
    kernel.say(*refused(2, "/two"))
    kernel.say(*made(2, 40002))
    kernel.say(*made(1, 30001))
    kernel.say(*refused(1, "/more"))
    kernel.say(*refused(3, "/others"))
    kernel.say(*made(3, 1000))
    kernel.say(*refused(3, "/others"))
    assert await paths(one) == ["/one", "/more"]
    assert await paths(several) == ["/two"]
    one.close()
    assert kernel.fd >= 0  # another still listens
    several.close()
    several.close()


async def test_only_kernel_is_believed(kernel: Kernel) -> None:
    ear = opened()
    kernel.say(*made(1, 30001), port=4711)
    kernel.say(*refused(1, "/x"), port=4711)
    kernel.put(ACCESS, b"")
    kernel.raise_or_give((b"short", 0))
    assert await paths(ear) == []
    ear.close()


async def test_time_of_command_counts(kernel: Kernel) -> None:
    ear = opened()
    kernel.say(*made(1, 30001))
    for at in (99.9, 100.5, 101.2):
        kernel.say(*refused(1, f"/{at}"), at=at)
    assert await paths(ear) == ["/100.5"]
    assert await paths(ear, 99.0, 2.0) == ["/99.9", "/100.5"]
    ear.close()


async def test_what_is_on_its_way_is_waited_for(kernel: Kernel) -> None:
    ear = opened()
    kernel.backlog = [2, 1]
    kernel.late = [made(1, 30001), refused(1, "/late")]
    assert await paths(ear) == ["/late"]
    assert kernel.asked == 3
    ear.close()


async def test_waiting_ends(kernel: Kernel) -> None:
    ear = opened()
    kernel.answers = False
    kernel.say(*refused(1, "/x"))
    kernel.say(*made(1, 30001))
    assert await asyncio.wait_for(paths(ear), 5) == ["/x"]
    kernel.answers, kernel.backlog = True, [9] * 99
    assert await asyncio.wait_for(paths(ear), 5) == ["/x"]
    ear.close()


async def test_closing_ends_waiting(kernel: Kernel) -> None:
    ear = opened()
    kernel.answers = False
    waiting = asyncio.ensure_future(ear.heard(100.0, 1.0))
    await asyncio.sleep(0)
    ear.close()
    assert await waiting == ()
    assert await ear.heard(100.0, 1.0) == ()


async def test_refused_question_is_not_waited_for(kernel: Kernel) -> None:
    ear = opened()
    kernel.answers = False
    waiting = asyncio.ensure_future(ear.heard(100.0, 1.0))
    await asyncio.sleep(0)
    kernel.put(ERROR, struct.pack("=i", -errno.EPERM), number=1)
    assert await asyncio.wait_for(waiting, 0.09) == ()
    ear.close()


async def test_memory_is_bounded(kernel: Kernel) -> None:
    ear = opened()
    kernel.say(*made(1, 30001))
    for number in range(500):
        kernel.say(*refused(1, f"/{number}"))
        kernel.say(*refused(1, "/again"))
    await until(lambda: not kernel.queue)
    found = await paths(ear)
    assert len(found) == 64
    assert set(found) == {"/again", *(f"/{number}" for number in range(437, 500))}
    ear.close()


async def test_unknown_domains_are_bounded(kernel: Kernel) -> None:
    ear = opened()
    for domain in range(1, 200):
        for number in range(30):
            kernel.say(*refused(domain, f"/{number}"))
    for domain in (1, 199):
        kernel.say(*made(domain, 30001))
    await until(lambda: not kernel.queue)
    assert await paths(ear) == [f"/{number}" for number in range(16)]  # the last one's first
    ear.close()


async def test_flood_leaves_loop_its_turns(kernel: Kernel) -> None:
    ear = opened()
    kernel.say(*made(1, 30001))
    for _ in range(150):
        kernel.say(*refused(1, "/x"))
    before = len(kernel.queue)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert before - len(kernel.queue) <= 64
    ear.close()


async def test_ended_domain_is_forgotten(kernel: Kernel) -> None:
    ear = opened()
    kernel.say(*made(1, 30001))
    kernel.say(DOMAIN, "domain=1 status=deallocated denials=2")
    kernel.say(*refused(1, "/x"))
    assert await paths(ear) == []
    ear.close()


async def test_loss_is_told_once(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    ear = opened()
    for _ in range(3):
        kernel.raise_or_give(OSError(errno.ENOBUFS, "No buffer space available"))
    kernel.say(*made(1, 30001))
    kernel.say(*refused(1, "/x"))
    with caplog.at_level(logging.WARNING):
        assert await paths(ear) == ["/x"]
    (record,) = caplog.records
    assert "some denials of Landlock's will be missing" in record.message
    ear.close()


async def test_broken_socket_is_told(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    ear = opened()
    kernel.raise_or_give(OSError(errno.EIO, "Input/output error"))
    with caplog.at_level(logging.WARNING):
        assert await paths(ear) == []
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "denials are no longer read from the machine's audit"
    ]
    ear.close()


async def test_refused_socket_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(listening, "_open", refuse)
    with caplog.at_level(logging.WARNING):
        assert listen(range(1, 2)) is None
    assert "Operation not permitted" in caplog.text


@pytest.mark.root
async def test_session_listens_until_it_ends(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quiet programs that fail are told of what its uid was refused meanwhile; those that succeed wait for nothing."""
    if (await in_thread(host_facts, os.environ)).landlock_abi < AUDITED_ABI:
        pytest.skip("needs Landlock of ABI 7 (Linux 6.15)")
    monkeypatch.setattr(
        sandyard.session, "host_facts", lambda environ: replace(host_facts(environ), audited=True)
    )
    async with opened_session(None, Policy()) as session:
        assert (await session.exec("true")).denials == ()
        assert kernel.asked == 0  # it was not waited for
        status = read_proc(
            f"/proc/{find_init()}/status"
        )  # its files are root's, as it can't be traced
        outside = int(status.partition("Uid:")[2].split()[0])
        now = time.time()
        for domain, uid, path in ((1, outside, "/srv/data"), (2, outside + 1, "/srv/other")):
            kernel.say(*refused(domain, path), at=now + 0.001)
            kernel.say(*made(domain, uid))
        result = await session.exec("exit 3")
        assert [each.subject for each in result.denials] == ["/srv/data"]
        assert result.denials[0].grant == "Policy(reads=('/srv/data',))"
        await asyncio.sleep(0.1)  # further apart than stamps are exact
        assert (await session.exec("sleep 0.1; exit 3")).denials == ()


def test_filter_lets_its_kinds_pass() -> None:
    """Classic BPF, run by hand: a half word, most significant byte first, then jumps and returns."""
    program = list(struct.iter_unpack("=HBBI", record_filter((ACCESS, DOMAIN))))
    for kind in (ACCESS, DOMAIN, 1300, 1425, 0):
        at, value = 0, 0
        while True:
            code, yes, no, operand = program[at]
            at += 1
            if code == 0x28:
                value = int.from_bytes(struct.pack("=IHHII", 16, kind, 0, 0, 0)[4:6], "big")
            elif code == 0x15:
                at += yes if value == operand else no
            else:
                assert code == 0x06
                assert bool(operand) == (kind in (ACCESS, DOMAIN))
                break


@pytest.mark.parametrize(
    ("answer", "first", "standing"),
    [
        ((1, 1), True, "read"),
        ((2, 0), True, "read"),
        ((0, 1), True, "off"),
        ((1, 2), True, "halting"),
        ((1, 1), False, "distant"),
        (OSError(errno.ECONNREFUSED, ""), True, "closed"),
        (OSError(errno.EPERM, ""), True, "closed"),
        (TimeoutError(), True, "closed"),
        (OSError(errno.EPROTONOSUPPORT, ""), True, "none"),
    ],
)
def test_standing(
    monkeypatch: pytest.MonkeyPatch, answer: object, first: bool, standing: str
) -> None:
    def ask() -> object:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(auditing, "_ask", ask)
    monkeypatch.setattr(auditing, "_is_first_network", lambda: first)
    assert audit_standing() == standing


def test_standing_is_no_guess_where_descriptors_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> object:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(auditing, "_ask", ask)
    with pytest.raises(OSError, match="Too many open files"):
        audit_standing()


def test_answers_of_any_length_are_read() -> None:
    whole = struct.pack("=IHHII", 56, GET, 0, 1, 0) + struct.pack(
        "=10I", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
    )
    assert read_status(whole) == (1, 2, 7)
    for size in range(16 + 32):
        assert read_status(whole[:size]) is None
    refusal = struct.pack("=IHHIIi", 36, ERROR, 0, 1, 0, -errno.EPERM)
    with pytest.raises(PermissionError):
        read_status(refusal)
    assert read_status(refusal[:18]) is None


def test_this_machine_says_something() -> None:
    assert audit_standing() in ("read", "off", "closed", "distant", "halting", "none")
