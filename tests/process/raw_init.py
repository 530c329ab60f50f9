"""A real sandyard-init at the other end of a socket, to which anything at all can be said."""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from sandyard.process.launching import program_path
from sandyard.process.wire import DATAGRAM_LIMIT, Event, decode_event
from tests.process.protocol import (
    INLINE_LIMIT,
    MAGIC,
    SPAWN,
    START,
    Record,
    encode_datagram,
    join_records,
    packed,
)

ANSWER_S: Final = 10.0
"""Seconds in which everything that is said is answered, on a machine that does much else."""

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def tested_program() -> str:
    """The program under test; a variable names another build of it."""
    return os.environ.get("SANDYARD_TEST_INIT") or program_path()


def make_memfd(content: bytes, seals: int = SEALS) -> int:
    """A memfd with a content, sealed."""
    memfd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(memfd, rest) :]
    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, seals)
    return memfd


def memfd_head(kind: int, job: int, size: int) -> bytes:
    """The datagram of a message whose body is in a memfd."""
    return packed("message", MAGIC, kind, 1, job, size)


def spawn_body(
    argv: Sequence[bytes],
    *,
    cwd: bytes = b"/",
    environment: Sequence[bytes] = (),
    fd_mask: int = 0,
    flags: int = 0,
    window: tuple[int, int] = (0, 0),
) -> bytes:
    """The body of a SPAWN."""
    strings = (cwd, *argv, *environment, b"")
    head = packed("spawn_head", len(argv), len(environment), fd_mask, flags, *window)
    return head + b"\0".join(strings)


def remaining(end: float) -> float:
    """Seconds until ``end``."""
    return max(0.0, end - time.monotonic())


def wait_until(condition: Callable[[], object]) -> None:
    """Waits until something is so, or fails."""
    end = time.monotonic() + ANSWER_S
    while not condition():
        assert time.monotonic() < end, f"not so within {ANSWER_S} s"
        time.sleep(0.005)


class RawInit:
    """The outer process as our child, and our end of its channel.

    Args:
        send_buffer: bytes of events that init can send before somebody reads, at least about.
        wrapper: a program, with its first words, that is to execute init.
        passed: descriptors that it is given besides.
    """

    def __init__(
        self,
        send_buffer: int | None = None,
        wrapper: Sequence[str] = (),
        passed: Sequence[int] = (),
    ) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if send_buffer is not None:
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            number = theirs.fileno()
            words = [*wrapper, tested_program()] if wrapper else ["sandyard-init"]
            self.pid = os.posix_spawnp(
                wrapper[0] if wrapper else tested_program(),
                [*words, str(number)],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                    (os.POSIX_SPAWN_DUP2, number, number),
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in passed),
                ],
            )
        self._pidfd = os.pidfd_open(self.pid)
        self._code: int | None = None

    def __enter__(self) -> Self:
        """Holds the process for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the channel, which ends it, and waits for that."""
        self.channel.close()
        try:
            self.wait()
        finally:
            if self._code is None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            os.close(self._pidfd)

    # --- what we say ----------------------------------------------------------------------------

    def send(self, datagram: bytes, fds: Iterable[int] = ()) -> None:
        """Sends one datagram, whatever it is; it may have ended before."""
        rights = array.array("i", fds)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        self.channel.settimeout(ANSWER_S)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.channel.sendmsg([datagram], control)

    def send_body(self, kind: int, job: int, body: bytes, fds: Sequence[int] = ()) -> None:
        """Sends an honest message, a large body in a sealed memfd."""
        if len(body) <= INLINE_LIMIT:
            self.send(encode_datagram(kind, job, body), fds)
        else:
            self.send_memfd(kind, job, body, fds)

    def send_memfd(self, kind: int, job: int, body: bytes, fds: Sequence[int] = ()) -> None:
        """Sends an honest message with its body in a sealed memfd."""
        memfd = make_memfd(body)
        try:
            self.send(memfd_head(kind, job, len(body)), [memfd, *fds])
        finally:
            os.close(memfd)

    def start(self, plan: Iterable[Record] | bytes) -> None:
        """Sends a plan, with a pidfd of ours."""
        body = plan if isinstance(plan, bytes) else join_records(plan)
        host = os.pidfd_open(os.getpid())
        try:
            self.send_body(START, 0, body, [host])
        finally:
            os.close(host)

    def spawn(self, job: int, *argv: bytes, flags: int = 0) -> None:
        """Sends a well-formed command off, with nothing to read or to write."""
        self.send_body(SPAWN, job, spawn_body(argv, flags=flags))

    # --- what it says -----------------------------------------------------------------------------

    def receive(self, within: float = ANSWER_S) -> bytes:
        """The next datagram; empty when the channel is closed."""
        self.channel.settimeout(within)
        try:
            return self.channel.recv(DATAGRAM_LIMIT)
        except ConnectionResetError:
            return b""

    def receive_passed(self, within: float = ANSWER_S) -> tuple[bytes, list[int]]:
        """The next datagram, with the descriptors that came along, which are the caller's."""
        self.channel.settimeout(within)
        try:
            data, fds, _, _ = socket.recv_fds(self.channel, DATAGRAM_LIMIT, 8)
        except ConnectionResetError:
            return b"", []
        return data, fds

    def event(self) -> Event:
        """The next event."""
        datagram = self.receive()
        assert datagram, "the channel is closed"
        return decode_event(datagram)

    def wait(self, within: float = ANSWER_S) -> int:
        """Waits for the end of it all; returns the exit code of the outer process.

        Whether a signal ended init is told by the outer process, in its own exit code.
        """
        if self._code is None:
            assert select.select([self._pidfd], [], [], within)[0], "it goes on living"
            facts = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            assert facts is not None
            self._code = facts.si_status if facts.si_code == os.CLD_EXITED else -facts.si_status
        return self._code

    def rest(self) -> list[Event]:
        """What comes until the channel is closed, which must be soon."""
        events, end = [], time.monotonic() + ANSWER_S
        while datagram := self.receive(remaining(end)):
            events.append(decode_event(datagram))
        return events
