"""Owns commands that do not want to end: a name, and a script in which @ is the token to find them by."""

from __future__ import annotations

from typing import Final

_DOUBLE: Final = (
    "import os, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0: time.sleep(float(sys.argv[1]))\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "time.sleep(float(sys.argv[1]))\n"
)

TREES: Final = {
    "setsid": "setsid sleep @ & setsid sh -c 'sleep @; :' & exec sleep @",
    "double fork": f'exec python3 -S -c "{_DOUBLE}" @',
    "stopped": "sleep @ & kill -STOP $!; (kill -STOP $$) & exec sleep @",
    "deaf": "trap '' HUP INT QUIT TERM; (trap '' HUP INT QUIT TERM; sleep @; :) & sleep @; :",
    "breeding": "while :; do setsid sleep @ & sleep 0.02; done",
    "deep": "f() { [ $1 = 0 ] && exec sleep @; f $(($1 - 1)) & wait; }; f 12",
    "stopped keeper": "for p in $(pgrep -f keeper); do kill -STOP $p; done; exec sleep @",
    "writing": "setsid sh -c 'while :; do echo @; done' & exec sleep @",
}
