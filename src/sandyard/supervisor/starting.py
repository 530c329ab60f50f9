"""Owns the way to the supervisor: it is reached, or started by whoever needs it first."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from typing import Final

from sandyard.errors import ServerError
from sandyard.server.limits import (
    SUPERVISOR_COMPLAINT_BYTES,
    SUPERVISOR_PAUSE_S,
    SUPERVISOR_START_S,
)
from sandyard.supervisor.place import SupervisorPlace

__all__ = ["BUSY", "READY", "await_end", "reach_running", "reach_supervisor"]

READY: Final = b"ready\n"
"""What a supervisor says on its standard output once it answers."""

BUSY: Final = b"busy\n"
"""What one says that finds another."""

_COMMAND: Final = ("-P", "-m", "sandyard.supervisor", "--detach")


def reach_running() -> socket.socket | None:
    """Connect to the supervisor; None if none runs. It blocks.

    Where one was killed, another is started, to clear up after it.

    Raises:
        ServerError: it is another user's, or does not take calls.
    """
    with SupervisorPlace.open(os.environ) as place:
        sock = place.connect()
        if sock is not None or not place.has_left():
            return sock
    return reach_supervisor()


def reach_supervisor() -> socket.socket:
    """Connect to the supervisor, and start it if none runs. It blocks.

    Whoever comes while one ends waits for that, and whoever comes while one starts finds that one.

    Raises:
        ServerError: it can't be started, or does not answer.
    """
    deadline = time.monotonic() + SUPERVISOR_START_S
    with SupervisorPlace.open(os.environ) as place:
        while True:
            sock = place.connect()
            if sock is not None:
                return sock
            lock = place.lock()
            if lock is not None:
                # Only a look: the one that is started takes it itself, and it may lose the race.
                os.close(lock)
                _start(deadline)
                continue
            if time.monotonic() > deadline:
                raise ServerError(
                    f"a supervisor holds {place.path} and does not answer; its log may tell why",
                    reason="unreachable",
                    retryable=True,
                )
            time.sleep(SUPERVISOR_PAUSE_S)


def await_end(seconds: float = SUPERVISOR_START_S) -> bool:
    """Wait until no supervisor runs; False if one still does after that time. It blocks."""
    deadline = time.monotonic() + seconds
    with SupervisorPlace.open(os.environ) as place:
        while (lock := place.lock()) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(SUPERVISOR_PAUSE_S)
        os.close(lock)
    return True


def _start(deadline: float) -> None:
    """Start a supervisor, detached from our terminal, and wait until it or another one answers.

    Raises:
        ServerError: it can't be started.
    """
    try:
        with subprocess.Popen(
            [sys.executable, *_COMMAND],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_own_environment(),
            start_new_session=True,
        ) as process:
            # What we start ends at once; what it has started is nobody's child, and says this.
            said = _heard(process, deadline)
    except OSError as error:
        raise _not_started(str(error)) from error
    if said not in (READY, BUSY):
        raise _not_started(said.decode(errors="replace").strip().rpartition("\n")[2])


def _heard(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What it says until it is ready, has failed, or takes too long."""
    if process.stdout is None:
        raise RuntimeError("a pipe was asked for")
    fd, said = process.stdout.fileno(), b""
    while said not in (READY, BUSY) and len(said) < SUPERVISOR_COMPLAINT_BYTES:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return said + b"it does not answer"
        data = os.read(fd, SUPERVISOR_COMPLAINT_BYTES)
        if not data:
            break
        said += data
    return said


def _own_environment() -> dict[str, str]:
    """What a supervisor needs to know; secrets of whoever starts it are not its business."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PASSED_BEGINNINGS)
    }


_PASSED: Final = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"})
_PASSED_BEGINNINGS: Final = ("LC_", "PYTHON", "XDG_")


def _not_started(why: str) -> ServerError:
    return ServerError(
        f"the supervisor could not be started: {why or 'it ended without a word'}",
        reason="unreachable",
        retryable=True,
    )
