"""Owns the socket on which the machine's audit tells what Landlock refuses: one for the sessions of a loop.

It is opened only where the audit is on already and this program may read it, and never switches it.
The kernel hands over Landlock's own records and drops all others before they reach us.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from sandyard.explaining.audit_records import (
    LANDLOCK_ACCESS,
    LANDLOCK_DOMAIN,
    Domain,
    Refusal,
    read_record,
)
from sandyard.platform.auditing import (
    AUDIT_GET,
    NETLINK_AUDIT,
    NETLINK_HEAD,
    audit_question,
    read_status,
)

__all__ = ["AuditEar", "listen", "record_filter"]

_logger = logging.getLogger("sandyard.explaining")

_READ_LOG: Final = 1  # AUDIT_NLGRP_READLOG, as a bit
_ERROR: Final = 2  # NLMSG_ERROR
_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER
_RECEIVE_FORCED: Final = 33  # SO_RCVBUFFORCE

_RECORD_BYTES: Final = 16 * 1024
"""Above the kernel's longest record, with a path of hexadecimal digits in it."""

_BUFFER_BYTES: Final = 1024 * 1024
_TURN_RECORDS: Final = 64
_PAUSE_S: Final = 0.01
"""A command can have itself refused something as fast as it likes. A turn of the loop reads so many
records; if there were more, the rest waits, and what the buffer does not hold is lost."""

_DOMAINS_KEPT: Final = 4096
_EARLY_DOMAINS: Final = 64
_EARLY_RECORDS: Final = 16
"""A domain is told of after what it refused first. Of domains that were told of before we listened, or
whose record was lost, nothing more is ever said."""

_KEPT: Final = 64
"""Refusals of one session that are kept, each kind once: the last ones."""

_SETTLING_S: Final = 0.1
_PAUSES_S: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
"""How long a result waits at most for records that are still on their way, and looks again."""

_SLACK_S: Final = 0.002 + time.clock_getres(time.CLOCK_REALTIME)
"""Stamps are cut to milliseconds."""

_COARSE: Final = (
    5  # CLOCK_REALTIME_COARSE, of which the kernel takes its stamps: late by a tick at most
)


class AuditEar:
    """What the audit has told of one session."""

    def __init__(self, listener: _Listener, owners: range) -> None:
        """Made by ``listen``."""
        self._listener = listener
        self.owners = owners
        self._heard: dict[tuple[tuple[str, ...], str | None], Refusal] = {}
        self._slack = _SLACK_S + time.clock_getres(_COARSE)

    def take(self, refusal: Refusal) -> None:
        """Keep one more."""
        key = refusal.blockers, refusal.path
        self._heard.pop(key, None)
        self._heard[key] = refusal
        if len(self._heard) > _KEPT:
            del self._heard[next(iter(self._heard))]

    async def heard(self, began: float, duration: float) -> tuple[Refusal, ...]:
        """What the session was refused in a time, when all that is on its way has come.

        Args:
            began: seconds since the epoch.
            duration: in seconds.
        """
        await self._listener.settle()
        first, last = began - self._slack, began + duration + self._slack
        return tuple(each for each in self._heard.values() if first <= each.stamp <= last)

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._listener.leave(self)


class _Listener:
    """The socket, and whose each record is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._socket = _open()
        self._ears: set[AuditEar] = set()
        self._owners: OrderedDict[int, AuditEar | None] = OrderedDict()
        self._early: OrderedDict[int, list[Refusal]] = OrderedDict()
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._last = 0
        self._pause: asyncio.TimerHandle | None = None
        self._lost = False
        loop.add_reader(self._socket, self._read)

    def join(self, owners: range) -> AuditEar:
        """A new ear, for a sandbox that has these uids outside."""
        ear = AuditEar(self, owners)
        self._ears.add(ear)
        return ear

    def leave(self, ear: AuditEar) -> None:
        """Forget an ear; without any the socket is closed."""
        self._ears.discard(ear)
        for domain in [number for number, owner in self._owners.items() if owner is ear]:
            del self._owners[domain]
        if not self._ears:
            self.close()

    def close(self) -> None:
        """Close the socket; idempotent."""
        if _LISTENERS.get(self._loop) is self:
            del _LISTENERS[self._loop]
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(0)

    # --- records ------------------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(_TURN_RECORDS):
            try:
                data, (port, _) = self._socket.recvfrom(_RECORD_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self._fail(error)
                    return
                self._tell_loss()
                continue
            if port == 0:  # the kernel's
                self._take(data)
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._read)

    def _fail(self, error: OSError) -> None:
        _logger.warning("denials are no longer read from the machine's audit: %s", error)
        self.close()

    def _tell_loss(self) -> None:
        if not self._lost:
            self._lost = True
            _logger.warning(
                "the machine's audit told of more refusals than could be read: some denials of "
                "Landlock's will be missing from results"
            )

    def _take(self, data: bytes) -> None:
        if len(data) < NETLINK_HEAD.size:
            return
        _, kind, _, number, _ = NETLINK_HEAD.unpack_from(data)
        if kind in (AUDIT_GET, _ERROR):
            self._answer(number, data)
            return
        match read_record(kind, data[NETLINK_HEAD.size :]):
            case Refusal() as refusal:
                self._take_refusal(refusal)
            case Domain(domain, None):
                self._owners.pop(domain, None)
                self._early.pop(domain, None)
            case Domain(domain, int() as owner):
                self._take_domain(domain, owner)
            case _:
                pass

    def _take_refusal(self, refusal: Refusal) -> None:
        if refusal.domain in self._owners:
            ear = self._owners[refusal.domain]
            if ear is not None:
                ear.take(refusal)
            return
        early = self._early.setdefault(refusal.domain, [])
        if len(early) < _EARLY_RECORDS:
            early.append(refusal)
        if len(self._early) > _EARLY_DOMAINS:
            self._early.popitem(last=False)

    def _take_domain(self, domain: int, owner: int) -> None:
        ear = next((ear for ear in self._ears if owner in ear.owners), None)
        self._owners[domain] = ear
        if len(self._owners) > _DOMAINS_KEPT:
            self._owners.popitem(last=False)
        early = self._early.pop(domain, ())
        if ear is not None:
            for refusal in early:
                ear.take(refusal)

    # --- what is on its way ----------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the kernel has handed over what it had when this began, or for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING_S):
                for pause in _PAUSES_S:
                    if not await self._waiting():
                        return
                    await asyncio.sleep(pause)

    async def _waiting(self) -> int:
        """How many records the kernel has not handed over yet. The answer comes after those it has."""
        if self._socket.fileno() < 0:
            return 0
        self._last += 1
        number, answer = self._last, asyncio.Future[int](loop=self._loop)
        self._answers[number] = answer
        try:
            self._socket.sendto(audit_question(number), (0, 0))
            return await answer
        except OSError:  # it may not ask any more: there is nothing to wait for
            return 0
        finally:
            del self._answers[number]

    def _answer(self, number: int, data: bytes) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        try:
            status = read_status(data)
        except OSError as error:
            answer.set_exception(error)
            return
        if status is not None:
            answer.set_result(status[2])


_LISTENERS: Final[dict[asyncio.AbstractEventLoop, _Listener]] = {}


def listen(owners: range) -> AuditEar | None:
    """Listen to what is refused to a sandbox; None where that is not possible any more, which is logged.

    Args:
        owners: the uids that it has outside.
    """
    loop = asyncio.get_running_loop()
    for ended in [each for each in _LISTENERS if each.is_closed()]:
        _LISTENERS[ended].close()  # with sessions that nobody closed
    listener = _LISTENERS.get(loop)
    if listener is None:
        try:
            listener = _LISTENERS[loop] = _Listener(loop)
        except OSError as error:
            _logger.warning("denials are not read from the machine's audit: %s", error)
            return None
    return listener.join(owners)


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)
    try:
        opened.setblocking(False)
        _attach(opened, record_filter((LANDLOCK_ACCESS, LANDLOCK_DOMAIN, AUDIT_GET, _ERROR)))
        with suppress(OSError):  # then it holds as much as others do
            opened.setsockopt(socket.SOL_SOCKET, _RECEIVE_FORCED, _BUFFER_BYTES)
        opened.bind((0, _READ_LOG))
    except BaseException:
        opened.close()
        raise
    return opened


def record_filter(kinds: Iterable[int]) -> bytes:
    """Classic BPF that lets these types of records pass: of a busy audit we read nothing else."""
    wanted = [int.from_bytes(struct.pack("=H", kind), "big") for kind in kinds]
    load_type = struct.pack(
        "=HBBI", 0x28, 0, 0, 4
    )  # BPF_LD | BPF_H | BPF_ABS: most significant first
    tests = [
        struct.pack("=HBBI", 0x15, len(wanted) - at, 0, value)  # BPF_JMP | BPF_JEQ | BPF_K
        for at, value in enumerate(wanted)
    ]
    drop, keep = (struct.pack("=HBBI", 0x06, 0, 0, size) for size in (0, 2**32 - 1))
    return b"".join((load_type, *tests, drop, keep))


def _attach(target: socket.socket, program: bytes) -> None:
    kept = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(kept))
    target.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
