"""``python -m sandyard.supervisor``: the supervisor's process; commands start it by themselves."""

from __future__ import annotations

import argparse
import os
import sys

from sandyard.errors import SandboxError
from sandyard.server.limits import SUPERVISOR_IDLE_S
from sandyard.supervisor.running import run_supervisor


def main() -> int:
    """Be the supervisor; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandyard.supervisor")
    parser.add_argument("--idle", type=float, default=SUPERVISOR_IDLE_S, metavar="SECONDS")
    parser.add_argument("--detach", action="store_true", help="return at once")
    given = parser.parse_args()
    if given.detach and os.fork():  # there are no threads yet
        os._exit(0)  # what is to be done at an exit is the child's
    try:
        return run_supervisor(given.idle)
    except (SandboxError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # whoever started it reads this
        return 1


if __name__ == "__main__":
    sys.exit(main())
