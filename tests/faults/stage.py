"""A program that tries one verb again and again, each time with another fault, and tells of it.

It forks a host for each fault, traces it, and adopts whatever that host leaves behind. Its argument
is an ``Order`` as JSON, its answer a ``Found``.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from errno import errorcode
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

from sandyard import (
    ExecTransportError,
    SandboxError,
    SessionClosedError,
    UnixLocalSandboxClient,
)
from sandyard.platform import host_facts
from tests.faults.ending import look_around, soon
from tests.faults.keeping import KEEPING
from tests.faults.kernel import PLAUSIBLE
from tests.faults.tracing import Call, Fault, Traced, Window, can_trace, trace
from tests.faults.verbs import VERBS, Place, Verb
from tests.house.leaks import describe_process, find_descendants
from tests.session.host import make_token

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_HOST_MAY_TAKE_S = 60
_BOUND_S = 5.0


class Order(TypedDict):
    """What is to be tried.

    Attributes:
        mode: whether calls fail, or hosts are killed.
        verb: the verb's name.
        directory: where its source is made.
        points: how many moments, of each call's name or of the verb as a whole; 0 is all.
        names: the calls that fail; None is all that may.
        spared: calls that do not.
    """

    mode: Literal["fail", "kill"]
    verb: str
    directory: str
    points: int
    names: list[str] | None
    spared: list[str]


class Found(TypedDict):
    """What came of it.

    Attributes:
        wrong: what is not as it should be, by fault.
        tried: how many faults were to happen.
        happened: how many did.
        files: what is left of killed hosts, after the next one.
    """

    wrong: dict[str, list[str]]
    tried: int
    happened: int
    files: list[str]


class Stage:
    """One verb, its place, and what went wrong so far.

    Attributes:
        wrong: by fault, in words.
        tried: how many faults were to happen.
        happened: how many did.
    """

    def __init__(self, name: str, place: Path) -> None:
        self.verb: Verb = (VERBS | KEEPING)[name]
        self.place = place
        self.wrong: dict[str, list[str]] = {}
        self.tried = self.happened = 0

    def try_fault(self, fault: Fault, title: str) -> Traced:
        """Run the verb once in a host of its own."""
        report, noise = os.memfd_create("report"), os.memfd_create("noise")
        try:
            run = partial(be_host, self.verb, Place(self.place, make_token()), (report, noise))
            seen = trace(run, fault)
            said = read_all(report)
            wrong: list[str] = json.loads(said) if said else []
            if seen.status != 0 and not fault.kill_at:
                wrong.append(f"the host ended with {seen.status}")
            if text := read_all(noise):
                wrong.append(f"it complained: {text[-1000:]!r}")
        finally:
            os.close(report)
            os.close(noise)
        if fault != Fault():
            self.tried += 1
            self.happened += seen.happened
        wrong += list_remains()
        if wrong:
            self.wrong[title] = wrong
        return seen


def read_all(fd: int) -> str:
    return os.pread(fd, 1_000_000, 0).decode()


# --- the host -------------------------------------------------------------------------------------


def be_host(verb: Verb, place: Place, outputs: tuple[int, int], window: Window) -> None:
    """Do the verb once, then look whether all is in order."""
    report, noise = outputs
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    signal.alarm(_HOST_MAY_TAKE_S)  # ends us where something waits for ever
    wrong: list[str] = []
    before = look_around()
    asyncio.run(use(verb, place, window, wrong))
    if not soon(lambda: look_around() <= before):
        wrong.append(f"left: {sorted(look_around() - before)}")
    os.write(report, json.dumps(wrong).encode())


async def use(verb: Verb, place: Place, window: Window, wrong: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: wrong.append(f"to the loop: {context.get('exception', context)!r}")
    )
    await place.prepare(verb)
    window.watched = True
    try:
        await verb.act(place)
    except SandboxError:
        pass
    except Exception as error:  # noqa: BLE001  # what else comes is the finding
        at = traceback.extract_tb(error.__traceback__)[-1]
        wrong.append(f"not typed: {error!r}, of {at.filename}:{at.lineno}")
    window.watched = False
    if verb.after is not None:
        await verb.after(place)
    if place.made is not None:
        await probe(place, wrong)
    await place.clear()


async def probe(place: Place, wrong: list[str]) -> None:
    """The session either runs commands or says that it does not."""
    try:
        result = await place.session.exec("echo on")
    except (SessionClosedError, ExecTransportError):
        if await place.session.running():
            wrong.append("it claims to run, and does not")
    except Exception as error:  # noqa: BLE001  # what else comes is the finding
        wrong.append(f"afterwards: {error!r}")
    else:
        if result.stdout != b"on\n":
            wrong.append(f"afterwards: {result!r}")


# --- what is left ---------------------------------------------------------------------------------


def list_remains() -> list[str]:
    """What a host leaves that has ended, once there was time for it to go; it is ended here."""

    def all_gone() -> bool:
        reap_ended()
        return not find_descendants()

    end = time.monotonic() + _BOUND_S
    while not all_gone() and time.monotonic() < end:
        time.sleep(0.005)
    remains = [describe_process(pid) for pid in find_descendants()]
    for pid in find_descendants():
        os.kill(pid, signal.SIGKILL)
    return remains


def reap_ended() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def sweep() -> list[str]:
    """Let a new host start and end; returns the files that are left after it."""

    def be_next(_: Window) -> None:
        async def use_once() -> None:
            client = UnixLocalSandboxClient()
            session = await client.create()
            await session.start()
            await client.delete(session)

        asyncio.run(use_once())

    trace(be_next, Fault())
    list_remains()
    return sorted(os.listdir(tempfile.gettempdir()))


# --- the faults -----------------------------------------------------------------------------------


def choose(calls: list[Call], order: Order) -> Iterator[Call]:
    """The calls that are to fail: of each name the first ones and the last."""
    by_name: dict[str, list[Call]] = {}
    for call in calls:
        if call.name in PLAUSIBLE and call.name not in order["spared"]:
            by_name.setdefault(call.name, []).append(call)
    for name, alike in by_name.items():
        if order["names"] is None or name in order["names"]:
            few = order["points"]
            yield from alike if few == 0 or len(alike) <= few else [*alike[: few - 1], alike[-1]]


def fail_calls(stage: Stage, order: Order) -> None:
    """Let calls of the verb fail, one in each host."""
    calls = stage.try_fault(Fault(), "no fault").calls
    for call in choose(calls, order):
        errors = PLAUSIBLE[call.name]
        for error in errors if order["points"] == 0 else errors[:1]:
            title = f"{call.name} {call.count} {errorcode[error]}"
            stage.try_fault(Fault(call=call, error=error), title)


def kill_hosts(stage: Stage, order: Order) -> None:
    """Kill a host before calls that are spread evenly over the verb."""
    count = stage.try_fault(Fault(), "no fault").entered
    points = min(order["points"] or count, count)
    for number in range(points):
        if stage.wrong:
            return  # each further one would be waited for as long
        at = 1 + number * count // points
        stage.try_fault(Fault(kill_at=at), f"killed before call {at} of {count}")


def main() -> None:
    """Carry out the order; the answer is null where nothing can be traced."""
    order: Order = json.loads(sys.argv[1])
    if not can_trace():
        sys.stdout.write("null")
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    host_facts(os.environ)  # kept, so that each host does not begin by the same look
    stage = Stage(order["verb"], Path(order["directory"]))
    Place(stage.place, "").fill_source()
    if order["mode"] == "fail":
        fail_calls(stage, order)
    else:
        kill_hosts(stage, order)
    found: Found = {
        "wrong": stage.wrong,
        "tried": stage.tried,
        "happened": stage.happened,
        "files": sweep() if order["mode"] == "kill" else [],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
