"""Owns one connection: frames in both directions, and who the other side is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import cache
from types import TracebackType
from typing import Final, Self

from sandyard.errors import ServerError
from sandyard.finishing import in_thread
from sandyard.server.framing import (
    HEADER_BYTES,
    Channel,
    Frame,
    FrameError,
    pack_header,
    parse_header,
)
from sandyard.server.limits import FRAME_DATA_BYTES, HANDSHAKE_TIMEOUT_S
from sandyard.server.messages import PROTOCOL, Hello, parse_hello
from sandyard.server.wording import Message

__all__ = ["Connection", "check_versions", "own_hello", "package_version"]

_NO_VERSION: Final = "unknown"


class Connection:
    """One connection. It is a context manager; leaving it hangs up.

    Whoever sends waits until the other side has taken what came before, so that nothing piles up.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over both directions of a connection."""
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()  # one frame at a time, in order

    async def receive(self) -> Frame | None:
        """Wait for the next frame; None if the other side has hung up.

        Raises:
            FrameError: what came is no frame.
        """
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            channel, size = parse_header(header)
            return Frame(channel, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None  # a frame that was cut is as good as none: who sent it has gone

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send bytes, in as many frames as they need.

        Raises:
            ConnectionError: the other side has hung up.
            FrameError: it is a message, and too large.
        """
        if channel is Channel.CONTROL:
            await self._send_frame(channel, data)
            return
        for start in range(0, len(data), FRAME_DATA_BYTES):
            await self._send_frame(channel, data[start : start + FRAME_DATA_BYTES])

    async def say(self, message: Message) -> None:
        """Send a message.

        Raises:
            ConnectionError: the other side has hung up.
            FrameError: it is too large.
        """
        await self.send(Channel.CONTROL, message.model_dump_json().encode())

    async def meet(self, own: Hello) -> Hello:
        """Say who we are, and hear who the other side is.

        Raises:
            ConnectionError: it has hung up.
            FrameError: it does not speak this protocol.
            TimeoutError: it says nothing.
        """
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await self.say(own)
            frame = await self.receive()
        if frame is None:
            raise ConnectionResetError("the other side has hung up")
        if frame.channel is not Channel.CONTROL:
            raise FrameError("bytes before the first message")
        return parse_hello(frame.payload)

    async def finish(self, seconds: float) -> None:
        """Say that nothing more comes, and let the other side take what was sent and hang up."""
        with contextlib.suppress(OSError, TimeoutError, FrameError):
            async with asyncio.timeout(seconds):
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self.receive() is not None:
                    pass

    async def close(self) -> None:
        """Hang up; what was not sent yet is dropped. Doing it again does nothing."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        """Hold the connection for the length of a block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        await self.close()

    async def _send_frame(self, channel: Channel, payload: bytes) -> None:
        header = pack_header(channel, len(payload))
        async with self._turn:
            if self._writer.is_closing():
                raise ConnectionResetError("the other side has hung up")
            self._writer.writelines((header, payload))
            await self._writer.drain()


async def own_hello() -> Hello:
    """What we say first."""
    version = await in_thread(package_version)  # which looks for the package's files, once
    return Hello(protocol=PROTOCOL, version=version, pid=os.getpid())


@cache
def package_version() -> str:
    """The version of this package; ``unknown`` where it runs without being installed."""
    from importlib import metadata  # noqa: PLC0415  # slow, and needed for this alone

    try:
        return metadata.version("sandyard")
    except metadata.PackageNotFoundError:
        return _NO_VERSION


def check_versions(own: Hello, server: Hello) -> None:
    """Refuse a server that may mean something else by the same words.

    Raises:
        ServerError: it is of another version.
    """
    if (own.protocol, own.version) == (server.protocol, server.version):
        return
    raise ServerError(
        f"the supervisor that runs (process {server.pid}) is of sandyard {server.version}, protocol "
        f"{server.protocol}, and this is sandyard {own.version}, protocol {own.protocol}; end it, "
        "which ends its sessions: sandyard supervisor stop",
        reason="version",
        context={"pid": server.pid, "theirs": server.version, "ours": own.version},
        retryable=False,
    )
