"""Supervisors as processes: reached, waited for, ended."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from sandyard.server.connection import Connection
from sandyard.server.remote import RemoteClient
from sandyard.supervisor.place import SupervisorPlace
from sandyard.supervisor.starting import await_end, reach_supervisor
from tests.cli.calling import call

PATIENCE_S = 30


async def connect() -> Connection:
    """A connection to the supervisor, which is started if need be."""
    sock = await asyncio.get_running_loop().run_in_executor(None, reach_supervisor)
    return Connection(*await asyncio.open_unix_connection(sock=sock))


def remote() -> RemoteClient:
    """The supervisor's sessions."""
    return RemoteClient(connect)


def end_supervisor() -> None:
    """End the supervisor of the present environment, if one runs or was killed."""
    with SupervisorPlace.open(os.environ) as place:
        sock = place.connect()
    if sock is not None:
        sock.close()
        done = call("supervisor", "stop")
        assert done.returncode == 0, done.stderr
    assert await_end(PATIENCE_S)


def supervisor_pid() -> int:
    """The process of the supervisor that runs."""
    done = call("supervisor", "status", "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["pid"])


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and is waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


__all__ = ["connect", "end_supervisor", "is_running", "remote", "supervisor_pid", "wait_until"]
