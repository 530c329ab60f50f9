"""Owns one call of the command line that a prepared Python carries out, and ends as that does.

python -IS relay.py SOCKET [WORD]...
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def main() -> int:
    """Hand on everything that we were given; the exit code is the call's."""
    path, *words = sys.argv[1:]
    data = json.dumps({"words": words, "variables": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
        socket.send_fds(connection, [len(data).to_bytes(8)], [directory, 0, 1, 2])
        connection.sendall(data)
        code = int(connection.recv(16))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
