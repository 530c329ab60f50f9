"""Finds the Unix sockets that programs of the host listen on in given directories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from sandyard.platform.facts import is_within

__all__ = ["find_listening"]

_TABLE: Final = "/proc/net/unix"
_TABLE_BYTES: Final = 1 << 20
"""About ten thousand sockets; whoever has more is told of the first."""

_FLAGS, _TYPE, _PATH = 3, 4, 7
_FIELDS: Final = 7
"""Before the path, which may hold spaces (proc_net_unix, in proc(5))."""

_LISTENS: Final = 0x10000  # __SO_ACCEPTCON
_DATAGRAM: Final = 2  # SOCK_DGRAM, which takes what it is sent without listening


def find_listening(trees: Sequence[str]) -> tuple[str, ...]:
    """The paths of sockets in these directories to which something can be said, in order; it blocks.

    The kernel tells of those in the calling program's network namespace, by the path that each was given
    when it was made: one that was moved since, or named relatively, is not found.

    Args:
        trees: absolute paths without symlinks.
    """
    try:
        with open(_TABLE, "rb") as table:
            said = table.read(_TABLE_BYTES)
    except OSError:
        return ()
    return tuple(sorted({path for path in _paths(said) if any(is_within(path, t) for t in trees)}))


def _paths(said: bytes) -> Iterator[str]:
    for line in said.splitlines()[1:]:
        fields = line.split(None, _FIELDS)
        if len(fields) <= _PATH or not fields[_PATH].startswith(b"/"):
            continue
        if int(fields[_FLAGS], 16) & _LISTENS or int(fields[_TYPE], 16) == _DATAGRAM:
            yield os.fsdecode(fields[_PATH])
