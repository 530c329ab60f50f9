"""Frames, as pure functions: a channel, the size of a payload, and the payload."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from sandyard.server.limits import FRAME_CONTROL_BYTES, FRAME_DATA_BYTES

__all__ = ["HEADER_BYTES", "Channel", "Frame", "FrameError", "pack_header", "parse_header"]

_HEADER: Final = struct.Struct("!BI")

HEADER_BYTES: Final = _HEADER.size
"""Bytes before each payload: the channel, then the payload's size, most significant byte first."""


class FrameError(ValueError):
    """What the other side sent is no part of this protocol."""


class Channel(IntEnum):
    """What a frame carries."""

    CONTROL = 0
    """One message: a JSON object, as UTF-8."""

    INPUT = 1
    """Bytes for a command, a terminal or a file."""

    OUTPUT = 2
    """Bytes of a command's stdout, a terminal, a log or a file."""

    ERRORS = 3
    """Bytes of a command's stderr."""


class Frame(NamedTuple):
    """One frame.

    Attributes:
        channel: what it carries.
        payload: the bytes.
    """

    channel: Channel
    payload: bytes


def pack_header(channel: Channel, size: int) -> bytes:
    """The bytes that go before a payload.

    Raises:
        FrameError: a payload of this size can't be sent.
    """
    _check_size(channel, size)
    return _HEADER.pack(channel, size)


def parse_header(header: bytes) -> tuple[Channel, int]:
    """Read a header of ``HEADER_BYTES`` bytes: the channel, and the size of what follows.

    Raises:
        FrameError: there is no such channel, or the payload is too large to be read.
    """
    number, size = _HEADER.unpack(header)
    try:
        channel = Channel(number)
    except ValueError:
        raise FrameError(f"there is no channel {number}") from None
    _check_size(channel, size)
    return channel, size


def _check_size(channel: Channel, size: int) -> None:
    most = FRAME_CONTROL_BYTES if channel is Channel.CONTROL else FRAME_DATA_BYTES
    if size > most:
        raise FrameError(f"a frame of {size} bytes; the most is {most}")
    if size == 0:
        raise FrameError("a frame without bytes")
