#!/usr/bin/env python3
"""Runs a program and adopts what it orphans, so that several runs of tests can tell theirs apart.

    scripts/adopting.py [--aside] PROGRAM [ARGUMENT]...

What loses its parent goes to the nearest subreaper above it (prctl(2)), and to process 1 where there
is none. Like that one, this waits for whatever it got. It ends as the program does, which finds this
process's number in SANDYARD_ADOPTER.

Where it may (as root, with version 1 of control groups) it also runs the program in groups of its own,
since what one run makes and sweeps there is otherwise in the other's way.

With ``--aside`` the program gets a small share of the processors while others want them.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

SET_CHILD_SUBREAPER = 36
DIVIDED = ("cpu", "cpuacct", "memory", "pids", "freezer")
ASIDE = 10  # nice: a tenth of what others get, so that it comes on while both processors are taken
ASIDE_SHARES = "110"  # the same of a group's 1024


def main() -> int:
    """Run the program; the exit code is its own, or 128 and the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    groups = enter_groups()
    words = sys.argv[1:]
    if words[0] == "--aside":
        step_aside(groups)
        del words[0]
    environment = {**os.environ, "SANDYARD_ADOPTER": str(os.getpid())}
    program = os.posix_spawnp(words[0], words, environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the program too
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(program, number))
    while True:
        pid, status = os.wait()
        if pid == program:
            leave_groups(groups)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def enter_groups() -> list[str]:
    """Move into groups of our own, where that can be; what they are beneath."""
    entered: list[str] = []
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        found = [line.rstrip("\n").split(":", 2) for line in lines]
    for _, names, path in found:
        # A hierarchy of several controllers is mounted once, and has a link for each.
        above = f"/sys/fs/cgroup/{names.partition(',')[0]}{path}"
        if not set(names.split(",")) & set(DIVIDED) or not os.access(above, os.W_OK):
            continue
        own = os.path.join(above, f"tests-{os.getpid()}")
        with suppress(OSError):
            os.mkdir(own)
            try:
                move_to(own, "0")
                entered.append(above)
            except OSError:
                os.rmdir(own)
    return entered


def step_aside(groups: list[str]) -> None:
    """Let everybody else's processes go first.

    Niceness alone counts only among those that share a group of processor shares, and each session
    is such a group by itself where the kernel makes them (sched(7), "The autogroup feature").
    """
    os.nice(ASIDE)
    with suppress(PermissionError):  # we lead the process group of a shell's job already
        os.setsid()
    with suppress(FileNotFoundError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write(str(ASIDE))
    for above in groups:
        shares = f"{above}/tests-{os.getpid()}/cpu.shares"
        if os.path.exists(shares):
            with open(shares, "w", encoding="ascii") as file:
                file.write(ASIDE_SHARES)


def leave_groups(entered: list[str]) -> None:
    """Go back, with whoever is left there, and remove what was ours."""
    for above in entered:
        own = os.path.join(above, f"tests-{os.getpid()}")
        with suppress(OSError):
            with open(f"{own}/cgroup.procs", encoding="utf-8") as file:
                left = file.read().split()
            for pid in left:
                with suppress(ProcessLookupError):
                    move_to(above, pid)
            os.rmdir(own)


def move_to(group: str, pid: str) -> None:
    """Move a process; 0 is this one."""
    with open(f"{group}/cgroup.procs", "w", encoding="utf-8") as file:
        file.write(pid)


if __name__ == "__main__":
    sys.exit(main())
