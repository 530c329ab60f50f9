"""Owns a Python that has the command line's modules and becomes one call of it with each fork.

    python -P prepared.py SOCKET

Starting an interpreter and reading these modules takes most of a short call's time. What a call is
given (words, variables, directory, streams) comes through ``relay.py``, whose end is its end too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress

MODULES = (
    "app",
    "blueprint",
    "completing",
    "create",
    "exec",
    "execution",
    "places",
    "reaching",
    "run",
)
GIVEN = 4
"""Descriptors of a call: its directory and its three streams."""


class Prepared:
    """Calls that run, by descriptors of their processes, and the connections that wait for them."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.calls: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> list[str] | None:
        """Serves until nobody holds our stdin any more; returns a call's words in its process."""
        while True:
            asked = {connection.fileno(): pidfd for pidfd, (_, connection) in self.calls.items()}
            watched = select.poll()
            for number in (0, self.listener.fileno(), *self.calls, *asked):
                watched.register(number, select.POLLIN)
            for number, _ in watched.poll():
                if number == 0:
                    return None
                if number == self.listener.fileno():
                    if (words := self.begin()) is not None:
                        return words
                elif number in self.calls:
                    self.end(number)
                elif asked[number] in self.calls:  # who waited for it has ended
                    signal.pidfd_send_signal(asked[number], signal.SIGKILL)
                    self.end(asked[number])

    def begin(self) -> list[str] | None:
        """Starts a call; returns its words in its own process."""
        connection, _ = self.listener.accept()
        head, given, _, _ = socket.recv_fds(connection, 8, GIVEN)
        with connection.makefile("rb") as file:
            asked = json.loads(file.read(int.from_bytes(head)))
        if pid := os.fork():
            for number in given:
                os.close(number)
            self.calls[os.pidfd_open(pid)] = (pid, connection)
            return None
        connection.close()
        self.leave()
        os.fchdir(given[0])
        for number, stream in enumerate(given[1:]):
            os.dup2(stream, number)
        for number in given:
            os.close(number)
        os.environ.clear()
        os.environ.update(asked["variables"])
        words: list[str] = asked["words"]
        return words

    def end(self, pidfd: int) -> None:
        """Waits for a call's process and tells its exit code."""
        pid, connection = self.calls.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        with connection, suppress(BrokenPipeError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())

    def leave(self) -> None:
        """Closes what is not for a call."""
        self.listener.close()
        for pidfd, (_, connection) in self.calls.items():
            os.close(pidfd)
            connection.close()


def main() -> None:
    """Serve; each fork goes on as the program itself."""
    for name in MODULES:
        importlib.import_module(f"sandyard.cli.{name}")
    gc.collect()
    gc.freeze()  # no call looks through what all of them share
    prepared = Prepared(sys.argv[1])
    os.write(1, b"ready\n")
    words = prepared.serve()
    if words is not None:
        sys.argv[1:] = words
        runpy.run_module("sandyard.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
