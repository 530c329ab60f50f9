"""The doctor's canaries themselves: a program that tries to get out, and prints how far it came.

It is read from standard input by an interpreter inside a throw-away session, and by another one
outside for control, with a call of ``attempt_all`` put at its end; so it imports nothing of the
package, and nothing of it needs to be visible inside.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys

TIMEOUT_S = 2.0


def read_file(spec: dict[str, str]) -> bool:
    """Read the secret file."""
    with open(spec["secret"], encoding="utf-8") as file:
        return file.read() == spec["token"]


def read_shadow(_spec: dict[str, str]) -> bool:
    """Read the host's password hashes."""
    with open("/etc/shadow", "rb") as file:
        return bool(file.read(1))


def write_file(spec: dict[str, str]) -> bool:
    """Make a file outside; the doctor looks whether it is there."""
    with open(spec["write"], "x", encoding="utf-8") as file:
        file.write(spec["token"])
    return True


def see_process(spec: dict[str, str]) -> bool:
    """Find the doctor's own process, which has the token among its words."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                    if spec["token"] in file.read():
                        return True
            except OSError:
                continue
    return False


def connect_port(spec: dict[str, str]) -> bool:
    """Connect to the port that the doctor listens on."""
    with socket.create_connection(("127.0.0.1", int(spec["port"])), TIMEOUT_S):
        return True


def connect_abstract(spec: dict[str, str]) -> bool:
    """Connect to the abstract Unix socket that the doctor listens on."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect("\0" + spec["abstract"])
        return True


def connect_path(spec: dict[str, str]) -> bool:
    """Connect to the Unix socket that the doctor listens on by a path."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(spec["socket"])
        return True


def trace_process(_spec: dict[str, str]) -> bool:
    """Let the parent trace a child, which needs no right and works wherever no filter refuses it."""
    child = os.fork()
    if child == 0:
        os._exit(ctypes.CDLL(None).ptrace(0, 0, None, None) & 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def open_many(spec: dict[str, str]) -> bool:
    """Hold one descriptor more than a session's limit, which is raised for that if it can be."""
    most = int(spec["open_files"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = most + 1
    held: list[int] = []
    try:
        raised = hard if hard == resource.RLIM_INFINITY else max(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, raised))
        while len(held) < wanted - 3:
            held.append(os.dup(0))
    except ValueError as error:  # how Python tells that it may not be raised
        raise OSError(str(error)) from error
    finally:
        for each in held:
            os.close(each)
    return True


def see_variable(spec: dict[str, str]) -> bool:
    """Find the variable that the doctor has put into its own environment."""
    return os.environ.get(spec["variable"]) == spec["token"]


ATTEMPTS = (
    read_file,
    read_shadow,
    write_file,
    see_process,
    connect_port,
    connect_abstract,
    connect_path,
    trace_process,
    open_many,
    see_variable,
)


def attempt_all(said: str) -> None:
    """Make every attempt, and print of each whether it worked and what was said."""
    spec: dict[str, str] = json.loads(said)
    results: dict[str, list[object]] = {}
    for attempt in ATTEMPTS:
        try:
            reached = attempt(spec)
            results[attempt.__name__] = [reached, "it worked" if reached else "there is none"]
        except OSError as error:
            results[attempt.__name__] = [False, error.strerror or type(error).__name__]
    json.dump(results, sys.stdout)
