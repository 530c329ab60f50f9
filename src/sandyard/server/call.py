"""Owns the server's end of one call: what the caller says meanwhile, and the input that it sends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from sandyard.errors import SandboxError
from sandyard.process.stream import StreamName
from sandyard.server.connection import Connection
from sandyard.server.framing import Channel, FrameError
from sandyard.server.limits import INPUT_WINDOW_BYTES
from sandyard.server.messages import Credit, InputEnd, Leave, Resize, Signal, parse_from_caller
from sandyard.server.outcomes import failure_of
from sandyard.server.wording import Message

__all__ = ["CallInput", "ServerCall"]

_CHANNELS: dict[StreamName, Channel] = {"stdout": Channel.OUTPUT, "stderr": Channel.ERRORS}


class CallInput:
    """What a caller sends on the input channel, to be iterated once.

    A caller may send so much as it has credit for: what was taken here is given back to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._credit = 0  # bytes that the caller may still send
        self._ended = False
        self._lost = False
        self._news = asyncio.Event()

    async def open(self) -> None:
        """Let the caller begin.

        Raises:
            ConnectionError: it has hung up.
        """
        await self._grant(INPUT_WINDOW_BYTES)

    def take(self, data: bytes) -> None:
        """Take what came.

        Raises:
            FrameError: that was not allowed.
        """
        if self._ended or len(data) > self._credit:
            raise FrameError("more input than there is credit for")
        self._credit -= len(data)
        self._chunks.append(data)
        self._news.set()

    def end(self) -> None:
        """Hear that nothing more comes."""
        self._ended = True
        self._news.set()

    def lose(self) -> None:
        """Hear that the caller has gone: what did not end by then was cut."""
        self._lost = True
        self._news.set()

    def __aiter__(self) -> Self:
        """Iterate over what comes."""
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next bytes.

        Raises:
            ConnectionError: the caller has gone before the end.
        """
        while not self._chunks:
            if self._ended:
                raise StopAsyncIteration
            if self._lost:
                raise ConnectionResetError("the caller has hung up")
            self._news.clear()
            await self._news.wait()
        data = self._chunks.popleft()
        if not self._ended:
            await self._grant(len(data))
        return data

    async def _grant(self, size: int) -> None:
        self._credit += size
        await self._connection.say(Credit(bytes=size))


class ServerCall:
    """One call, as the answer to its request sees it.

    Attributes:
        input: what the caller sends.
        on_signal: who sends a signal on; set by the answer once there is somebody to get it.
        on_resize: who is told of the window's size; likewise.
        left: whether the caller wants no more, and to hear of the end.
    """

    def __init__(self, connection: Connection) -> None:
        """Begin a call on a connection whose request was read."""
        self.input = CallInput(connection)
        self.on_signal: Callable[[int, bool], Awaitable[None]] | None = None
        self.on_resize: Callable[[int, int], None] | None = None
        self.left = False
        self._connection = connection

    async def say(self, message: Message) -> None:
        """Send a message.

        Raises:
            ConnectionError: the caller has hung up.
        """
        await self._connection.say(message)

    async def put(self, stream: StreamName, data: bytes) -> None:
        """Send output; waits while the caller does not read.

        Raises:
            ConnectionError: the caller has hung up.
        """
        if data:
            await self._connection.send(_CHANNELS[stream], data)

    async def listen(self) -> None:
        """Hear the caller, until it hangs up or leaves the call.

        Raises:
            FrameError: it says what makes no sense.
        """
        try:
            while (frame := await self._connection.receive()) is not None:
                if frame.channel is Channel.INPUT:
                    self.input.take(frame.payload)
                elif frame.channel is Channel.CONTROL:
                    await self._hear(frame.payload)
                    if self.left:
                        return
                else:
                    raise FrameError("a caller has no output")
        finally:
            self.input.lose()  # a thread may wait for it

    async def _hear(self, payload: bytes) -> None:
        said = parse_from_caller(payload)
        if isinstance(said, InputEnd):
            self.input.end()
        elif isinstance(said, Leave):
            self.left = True
        elif isinstance(said, Signal) and self.on_signal is not None:
            try:
                await self.on_signal(said.number, said.tree)
            except SandboxError as error:
                raise FrameError(failure_of(error).message) from error
        elif isinstance(said, Resize) and self.on_resize is not None:
            try:
                self.on_resize(said.rows, said.columns)
            except SandboxError as error:
                raise FrameError(failure_of(error).message) from error
