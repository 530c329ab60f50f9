#!/usr/bin/env python3
"""Runs a program and adopts what it orphans, so that several runs of tests can tell theirs apart.

    scripts/adopting.py PROGRAM [ARGUMENT]...

What loses its parent goes to the nearest subreaper above it (prctl(2)), and to process 1 where there
is none. Like that one, this waits for whatever it got. It ends as the program does, which finds this
process's number in SANDYARD_ADOPTER.
"""

import ctypes
import os
import signal
import sys

SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the program; the exit code is its own, or 128 and the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    environment = {**os.environ, "SANDYARD_ADOPTER": str(os.getpid())}
    program = os.posix_spawnp(sys.argv[1], sys.argv[1:], environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the program too
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(program, number))
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
