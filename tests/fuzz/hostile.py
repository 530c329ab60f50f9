"""A program in the place of init that lies, floods, holds its tongue, or keeps what it is given.

It is started by a script that ``conftest.py`` writes, by an interpreter without site-packages, so it
imports nothing of ours: the words of the protocol stand here as an attacker would have them.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

MAGIC: Final = 0x01445953
START, SPAWN, SIGNAL, KILL, OUTPUT = 1, 2, 3, 4, 7
STARTED, START_FAILED, SPAWN_FAILED, SPAWNED, EXITED, GONE = range(64, 70)
WRITTEN, PIPES = 72, 73
HEAD: Final = struct.Struct("=IHHII")
NO_RECORD: Final = 0xFFFFFFFF
LARGEST: Final = 16 + 32 * 1024
USAGE: Final = (0,) * 9
FDS: Final = 8

# Steps of a start that belong to no record, and those of a record by its kind.
WHOLE_STEPS: Final = (5, 7, 9, 19, 20, 13, 14, 15, 18)
RECORD_STEPS: Final = {
    3: 10, 4: 11, **dict.fromkeys(range(10, 20), 8), 20: 12, 21: 16, 22: 16, 23: 17,
}  # fmt: skip
USER: Final = 4


class Request(NamedTuple):
    """What the host says, with the descriptors that came along."""

    kind: int
    job: int
    body: bytes
    fds: list[int]


def message(kind: int, job: int = 0, body: bytes = b"") -> bytes:
    """An event with an honest head."""
    return HEAD.pack(MAGIC, kind, 0, job, len(body)) + body


def exited(
    job: int,
    status: int = 0,
    flags: int = 0,
    left: int = 0,
    *,
    usage: tuple[int, ...] = USAGE,
    output: tuple[bytes, bytes] = (b"", b""),
) -> bytes:
    """The exit of a command."""
    numbers = status, flags, *usage, left, 0, 0, 0, 0, *map(len, output)
    return message(EXITED, job, struct.pack("=iI9QIIQIIII", *numbers) + b"".join(output))


def written(job: int, stream: int, data: bytes) -> bytes:
    """Some of what a command wrote."""
    return message(WRITTEN, job, struct.pack("=II", stream, 0) + data)


def gone(job: int, refused: int = 0) -> bytes:
    """The end of what a command had left."""
    return message(GONE, job, struct.pack("=QII", refused, 0, 0))


def failure(kind: int, job: int, step: int, error: int, text: bytes = b"") -> bytes:
    """A start or a spawn that failed."""
    body = struct.pack("=HHiII", step, 0, error, NO_RECORD, len(text)) + text
    return message(kind, job, body)


def steps_of(plan: bytes) -> list[tuple[int, int, int]]:
    """All that an honest init reports of a plan: step, errno of what was left out, record."""
    done, at, index = [(step, 0, NO_RECORD) for step in (*WHOLE_STEPS[:-1], USER)], 0, 0
    while at < len(plan):
        kind, _, size = struct.unpack_from("=HHI", plan, at)
        if kind in RECORD_STEPS:
            done.append((RECORD_STEPS[kind], 0, index))
        at += 8 + size + -size % 8
        index += 1
    return [*done, (WHOLE_STEPS[-1], 0, NO_RECORD)]


def report(done: list[tuple[int, int, int]]) -> bytes:
    """A start's answer."""
    return message(STARTED, 0, b"".join(struct.pack("=HHI", *step) for step in done))


class Liar:
    """Init's end of the channel."""

    def __init__(self, channel: socket.socket, dice: random.Random) -> None:
        self.channel = channel
        self.dice = dice
        self.kept: list[int] = []  # the commands' descriptors, which hold the pipes open

    def hear(self) -> Request:
        """The next request; the program ends when the host has closed the channel."""
        data, control, _, _ = self.channel.recvmsg(LARGEST, socket.CMSG_SPACE(4 * FDS))
        if not data:
            raise SystemExit
        fds = array.array("i")
        for _, _, rights in control:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
        _, kind, in_memfd, job, size = HEAD.unpack_from(data)
        if in_memfd:
            return Request(kind, job, os.pread(fds[0], size, 0), list(fds[1:]))
        return Request(kind, job, data[HEAD.size :], list(fds))

    def say(self, data: bytes, fds: list[int] | None = None) -> None:
        """Sends anything."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.channel.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def start(self) -> Request:
        """Answers the plan as an honest init would."""
        request = self.hear()
        self.kept += request.fds
        self.say(report(steps_of(request.body)))
        return request

    def next_spawn(self) -> Request:
        """The next command."""
        while (request := self.hear()).kind != SPAWN:
            pass
        return request

    def serve(self, answer: Callable[[Request], None]) -> None:
        """Lets ``answer`` reply to each command; what else is said is not answered."""
        while True:
            request = self.hear()
            if request.kind == SPAWN:
                answer(request)
            for fd in request.fds:
                os.close(fd)


def hold() -> None:
    """Lives on, whatever happens to the channel."""
    while True:
        signal.pause()


# --- before the walls are up ------------------------------------------------------------------------


def silent(liar: Liar) -> None:
    """Never answers."""
    liar.hear()
    liar.hear()


def stubborn(liar: Liar) -> None:
    """Never answers, and does not go when it is left."""
    liar.hear()
    hold()


def leaving(_: Liar) -> None:
    """Ends at once."""


def mute(liar: Liar) -> None:
    """Closes its half of the channel, and listens."""
    liar.channel.shutdown(socket.SHUT_WR)
    liar.hear()
    liar.hear()


def deaf(liar: Liar) -> None:
    """Closes the other half."""
    liar.channel.shutdown(socket.SHUT_RD)
    hold()


def answering(liar: Liar, answers: list[bytes]) -> None:
    """Answers the plan with something else."""
    liar.hear()
    for answer in answers:
        liar.say(answer)
    liar.hear()


def leaving_out(liar: Liar, step: int) -> None:
    """Reports all steps but one kind."""
    plan = liar.hear().body
    liar.say(report([done for done in steps_of(plan) if done[0] != step]))
    liar.serve(lambda request: liar.say(exited(request.job)))


def leaving_last(liar: Liar, step: int) -> None:
    """Reports all steps but the last one of a kind: a mount, say, that was forgotten."""
    done = steps_of(liar.hear().body)
    done.remove([found for found in done if found[0] == step][-1])
    liar.say(report(done))
    liar.serve(lambda request: liar.say(exited(request.job)))


def skipping(liar: Liar, step: int) -> None:
    """Reports that what must be was left out."""
    plan = liar.hear().body
    liar.say(report([(s, 2 if s == step else 0, r) for s, _, r in steps_of(plan)]))
    liar.serve(lambda request: liar.say(exited(request.job)))


def flooding_start(liar: Liar) -> None:
    """Talks without an end, and never of the start."""
    liar.hear()
    with suppress(OSError):
        while True:
            liar.say(gone(5))
    hold()


def parting(liar: Liar) -> None:
    """Is the outer process of an init that nothing ends: neither its parent's end nor the channel's."""
    if os.fork() == 0:
        hold()
    liar.hear()
    hold()


# --- while commands run -----------------------------------------------------------------------------


def serving(liar: Liar, answers: list[bytes]) -> None:
    """Answers each command with all of these events, in which job 0 stands for the command's."""
    liar.start()

    def answer(request: Request) -> None:
        for event in answers:
            liar.say(filled(event, request.job))

    liar.serve(answer)


def filled(event: bytes, job: int) -> bytes:
    """An event with a command's number in the place of 0."""
    return event[:8] + struct.pack("=I", HEAD.unpack_from(event)[3] or job) + event[12:]


def serving_each(liar: Liar, answers: list[bytes]) -> None:
    """Answers each command with the next of these events."""
    liar.start()
    rest = iter(answers)
    liar.serve(lambda request: liar.say(filled(next(rest), request.job)))


def never_exiting(liar: Liar) -> None:
    """Takes commands, and answers neither them nor a kill."""
    liar.start()
    liar.serve(lambda _: None)


def never_reading(liar: Liar) -> None:
    """Reads no request at all."""
    liar.start()
    hold()


def vanishing_job(liar: Liar) -> None:
    """Says that nothing is left of a command that never exited, and then ends."""
    liar.start()
    liar.say(gone(liar.next_spawn().job))
    time.sleep(0.1)


def flooding(liar: Liar) -> None:
    """Talks about a job that nobody knows as fast as it can, from two processes."""
    liar.start()
    liar.next_spawn()
    os.fork()
    with suppress(OSError):
        while True:
            liar.say(message(SPAWNED, 77, bytes(8)))


def giving(liar: Liar) -> None:
    """Sends descriptors along with whatever it says."""
    liar.start()
    mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(FDS)]
    liar.serve(lambda request: liar.say(exited(request.job), mine))


def giving_beside(liar: Liar) -> None:
    """Sends them with the exit of a command whose pipes are asked for."""
    liar.start()
    mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(FDS)]
    job = liar.next_spawn().job
    while liar.hear().kind != OUTPUT:
        pass
    liar.say(exited(job), mine)
    liar.serve(lambda _: None)


def passed_things(what: str) -> list[int]:
    """Descriptors of one kind, none of which is the one master that is waited for."""
    master, slave = os.openpty()
    kinds: dict[str, Callable[[], list[int]]] = {
        "nothing": list,
        "null": lambda: [os.open("/dev/null", os.O_RDWR)],
        "directory": lambda: [os.open("/", os.O_RDONLY)],
        "pipe": lambda: [os.pipe()[0]],
        "writing": lambda: [os.pipe()[1], os.pipe()[1]],
        "memfd": lambda: [os.memfd_create("liar")],
        "slave": lambda: [slave],
        "two": lambda: [master, master],
        "eight": lambda: [master] * 8,
        "channel": lambda: [socket.socketpair()[0].detach()],
        "file": lambda: [os.open(__file__, os.O_RDONLY)],
        "master": lambda: [master],
    }
    return kinds[what]()


def passing(liar: Liar, what: str) -> None:
    """Answers each command with a birth and such descriptors; ``void`` comes with no word at all."""
    liar.start()
    void = what == "void"
    mine = passed_things("pipe" if void else what)
    liar.serve(
        lambda request: liar.say(b"" if void else message(SPAWNED, request.job, bytes(8)), mine)
    )


def passing_late(liar: Liar) -> None:
    """Answers the end of a command with its birth."""
    liar.start()
    job = liar.next_spawn().job
    while liar.hear().kind != KILL:
        pass
    liar.say(message(SPAWNED, job, bytes(8)), passed_things("master"))
    liar.say(exited(job, 9))
    liar.serve(lambda _: None)


def telling(liar: Liar, size: int, count: int) -> None:
    """Tells much of what a command has not written, and then of its end."""
    liar.start()

    def answer(request: Request) -> None:
        for _ in range(count):
            liar.say(written(request.job, 0, b"o" * size))
        liar.say(exited(request.job, output=(b"end", b"err")))

    liar.serve(answer)


def handing(liar: Liar, what: str) -> None:
    """Answers whoever asks for a command's pipes with such descriptors."""
    liar.start()
    job = liar.next_spawn().job
    while liar.hear().kind != OUTPUT:
        pass
    liar.say(message(PIPES, job), passed_things(what))
    liar.serve(lambda _: None)


def handing_late(liar: Liar) -> None:
    """Hands a command's pipes over when it is to end, and then tells that it has."""
    liar.start()
    job = liar.next_spawn().job
    while liar.hear().kind != KILL:
        pass
    out, into = os.pipe()
    os.write(into, b"late")
    liar.say(message(PIPES, job), [out, os.pipe()[0]])
    liar.say(exited(job, 9))
    liar.serve(lambda _: None)


def handing_stuck(liar: Liar) -> None:
    """Hands pipes over, keeps them as well, and says again and again that reading them waits."""
    liar.start()
    job = liar.next_spawn().job
    while liar.hear().kind != OUTPUT:
        pass
    out, into = os.pipe()
    os.write(into, b"one")
    liar.say(message(PIPES, job), [out, os.pipe()[0]])
    liar.channel.setblocking(False)
    heard = 0
    while heard != KILL:
        os.set_blocking(out, True)
        with contextlib.suppress(BlockingIOError):
            heard = liar.hear().kind
    liar.channel.setblocking(True)
    liar.say(exited(job, 9))
    liar.serve(lambda _: None)


def exiting_unborn(liar: Liar) -> None:
    """Says that a command has exited that was never born."""
    liar.start()
    liar.serve(lambda request: liar.say(exited(request.job)))


def writing_on(liar: Liar) -> None:
    """Says that a command has ended, while it goes on writing what the command would have."""
    liar.start()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def answer(request: Request) -> None:
        if os.fork() == 0:
            with suppress(OSError):
                while True:
                    os.write(request.fds[-1], bytes(65536))
            os._exit(0)
        liar.say(exited(request.job))

    liar.serve(answer)


def turning_mute(liar: Liar) -> None:
    """Closes its half of the channel when the first command comes."""
    liar.start()
    liar.next_spawn()
    liar.channel.shutdown(socket.SHUT_WR)
    liar.hear()


def staying(liar: Liar) -> None:
    """Serves honestly, and does not go when the channel is closed."""
    liar.start()
    with suppress(SystemExit):
        liar.serve(lambda request: liar.say(exited(request.job)))
    hold()


# --- anything at all --------------------------------------------------------------------------------


def random_failure(job: int, dice: random.Random) -> bytes:
    """Any failure of a command's birth."""
    return failure(SPAWN_FAILED, job, dice.randint(1, 40), dice.randint(-(2**31), 2**31 - 1))


def random_exit(job: int, dice: random.Random) -> bytes:
    """Any exit, most of them possible."""
    usage = tuple(dice.choice((0, 2**63, 2**64 - 1)) for _ in USAGE)
    status = dice.choice((0, 256, 9, 0x7F, 0xFFFF, -1) if dice.random() < 0.1 else (0, 256, 9))
    left = dice.choice((0, 0, 1, 2**32 - 1))
    output = (dice.randbytes(dice.choice((0, 0, 9, 9_000))), dice.randbytes(dice.choice((0, 5))))
    return exited(job, status, dice.randint(0, 3), left, usage=usage, output=output)


def random_event(job: int, dice: random.Random) -> bytes:
    """One event, mostly about a job, mostly well-formed."""
    match dice.choice("xxxfgsstnwp"):
        case "w":
            event = written(job, dice.randint(0, 2), dice.randbytes(dice.choice((0, 1, 30_000))))
        case "p":
            event = message(PIPES, job)
        case "x":
            event = random_exit(job, dice)
        case "f":
            event = random_failure(job, dice)
        case "g":
            event = gone(job, dice.getrandbits(64))
        case "s":
            event = message(SPAWNED, job, bytes(8))
        case "t":
            event = report([(dice.randint(1, 19), dice.randint(0, 40), dice.randint(0, 9))])
        case _:
            event = failure(START_FAILED, 0, dice.randint(1, 40), 2, dice.randbytes(30))
    changed = bytearray(event)
    if dice.random() < 0.02:
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    if dice.random() < 0.01:
        changed += dice.randbytes(dice.choice((1, 40000)))
    return bytes(changed)


def random_events(job: int, dice: random.Random) -> list[bytes]:
    """What a liar may answer a request with: much of it well-formed, little of it true."""
    jobs = (job, job, job, job + 1, max(0, job - 1), 2**32 - 1)
    count = dice.choice((0, 1, 1, 2, 5, 200))
    return [random_event(dice.choice(jobs), dice) for _ in range(count)]


def anything(liar: Liar) -> None:
    """Answers everything with anything, and honestly one time in three."""
    dice = liar.dice
    mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(FDS)]
    if dice.random() < 0.1:
        request = liar.hear()
        for event in random_events(0, dice):
            liar.say(event)
    else:
        liar.start()
    while True:
        request = liar.hear()
        honest = request.kind == SPAWN and dice.random() < 0.35
        events = [exited(request.job)] if honest else random_events(request.job, dice)
        for event in events:
            liar.say(event, mine if dice.random() < 0.1 else None)
        for fd in request.fds:
            if dice.random() < 0.5:
                os.close(fd)
            elif dice.random() < 0.5:
                with suppress(OSError):  # it may be the end that commands read from
                    os.write(fd, dice.randbytes(dice.choice((1, 4096))))
        if dice.random() < 0.03:
            liar.channel.shutdown(dice.choice((socket.SHUT_WR, socket.SHUT_RDWR)))


def main(channel: int, name: str, seed: int, **arguments: Any) -> None:  # noqa: ANN401  # a scene's own
    """Plays one scene: a function of this file, by its name."""
    liar = Liar(socket.socket(fileno=channel), random.Random(seed))  # noqa: S311  # not a secret
    with suppress(BrokenPipeError, ConnectionResetError):
        globals()[name](liar, **arguments)
