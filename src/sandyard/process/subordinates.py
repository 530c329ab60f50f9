"""Owns the moment in which a first process waits for its id maps: it is told when they are written."""

from __future__ import annotations

import socket

from sandyard.limits import START_TIMEOUT_S
from sandyard.plan import LaunchPlan
from sandyard.process.channel import send_message
from sandyard.process.ending import wait_readable
from sandyard.process.refusal import start_refusal
from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Event,
    ProtocolError,
    Request,
    StartFailed,
    Unmapped,
    decode_event,
)
from sandyard.subordinate import IdRange, write_id_maps

__all__ = ["map_subordinates"]


def map_subordinates(channel: socket.socket, plan: LaunchPlan, uid: int, gid: int) -> None:
    """Waits until a first process asks for its maps, has them written, and says so (blocking).

    Args:
        channel: our end of the channel, over which the plan has gone.
        plan: what is started.
        uid: who ``agent`` is outside.
        gid: its group there.

    Raises:
        ConfinementUnavailableError: a step before has failed, or the maps can't be written.
        OSError: this program or the machine is short of something.
    """
    asked = _heard(channel)
    if not isinstance(asked, Unmapped):
        raise start_refusal(asked.failure if isinstance(asked, StartFailed) else None, plan)
    who = plan.identity
    others = who.disk, who.further
    users = IdRange(who.uid, uid, 1), IdRange(who.uid + 1, *others)
    groups = IdRange(who.gid, gid, 1), IdRange(who.gid + 1, *others)
    write_id_maps(asked.pid, users, groups)
    send_message(channel, Request.MAPPED, 0, b"", [])


def _heard(channel: socket.socket) -> Event | None:
    if not wait_readable(channel.fileno(), START_TIMEOUT_S):
        return None
    try:
        return decode_event(channel.recv(DATAGRAM_LIMIT + 1))
    except (ProtocolError, ConnectionError):
        return None
